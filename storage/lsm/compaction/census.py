"""The census: what of each SST is still referred to, and which blocks lie in pieces; counted from the index in memory.

Counting goes on in steps between turns of the event loop, while flushes point the index elsewhere. An SST whose rows
are in the checkpoint only ever loses references: new ones are made to what a flush or a job writes. So one that was
seen without any has none, however long the counting took.
"""

import asyncio
from collections.abc import Awaitable, Callable, Collection, Mapping, Sequence
from functools import partial

import numpy as np
from numpy.typing import NDArray

from storage.format.blocks import SstRef
from storage.format.manifest import Manifest
from storage.lsm.compaction.plan import PatchedBlock
from storage.lsm.compaction.sst_table import SstTable
from storage.lsm.index.block_map import BlockMap
from storage.lsm.index.map_scan import live_bytes, patched
from storage.lsm.index.sst_numbers import SstNumbers


async def count_live(indexes: Mapping[int, BlockMap], numbers: int) -> NDArray[np.float64]:
    """Bytes of frames that any map refers to, by number of their SST, which are all below `numbers`."""
    total = np.zeros(numbers)
    for index in list(indexes.values()):
        for some in live_bytes(index, numbers):
            # What was written since may have a higher number, and is not asked about.
            total += some[:numbers]
            await asyncio.sleep(0)
    return total


class ListedSsts:
    """The SSTs of a manifest as a table. Those of a checkpoint are kept: only its successor changes them."""

    def __init__(self, sst_numbers: SstNumbers) -> None:
        self._sst_numbers = sst_numbers
        self._of: Sequence[SstRef] = ()
        self._kept = SstTable.listed((), sst_numbers, merged=True)

    def table(self, manifest: Manifest, table: Sequence[SstRef], live: NDArray[np.float64]) -> SstTable:
        """All that `manifest` and `table`, that of its checkpoint, list, with the bytes live by number; for one thread
        at a time.
        """
        if table is not self._of:
            self._kept, self._of = SstTable.listed(table, self._sst_numbers, merged=True), table
        listed = np.ones(len(self._kept), np.bool_)
        listed[np.array(manifest.gone, np.int64) - 1] = False
        beside = SstTable.listed(manifest.ssts, self._sst_numbers, merged=False)
        return self._kept.where(listed).beside(beside).counted(live)


async def count_patches(
    indexes: Mapping[int, BlockMap],
    *,
    patches: int,
    sectors: int,
    often: Mapping[int, Collection[int]],
    run: Callable[[Callable[[], list[PatchedBlock]]], Awaitable[list[PatchedBlock]]],
) -> list[PatchedBlock]:
    """The blocks with at least so many patches, or so many sectors that patches hold. `often` are those of each layer
    that readers had to put together often. The columns are copied in steps;
    `run` counts them in a thread, since sorting a million takes 100 ms.
    """
    found: list[PatchedBlock] = []
    for layer, index in list(indexes.items()):
        parts = []
        for part in patched(index):
            if len(part[0]):
                parts.append(part)
            await asyncio.sleep(0)
        if parts:
            found += await run(partial(_patched, layer, parts, patches, sectors, frozenset(often.get(layer, ()))))
    return found


def _patched(
    layer: int,
    parts: list[tuple[NDArray[np.unsignedinteger], NDArray[np.unsignedinteger]]],
    patches_min: int,
    sectors_min: int,
    often: Collection[int],
) -> list[PatchedBlock]:
    blocks, masks = (np.concatenate(columns) for columns in zip(*parts, strict=True))
    order = np.argsort(blocks, kind="stable")
    blocks, masks = blocks[order], masks[order]
    starts = np.flatnonzero(np.concatenate(([True], blocks[1:] != blocks[:-1])))
    patches = np.diff(np.append(starts, len(blocks)))
    covered = np.bitwise_or.reduceat(masks, starts)
    sectors = np.unpackbits(covered.view(np.uint8).reshape(-1, 8), axis=1).sum(axis=1)
    worth = (patches >= patches_min) | (sectors >= sectors_min)
    return [
        PatchedBlock(layer, block, count, held, often_gathered=block in often)
        for block, count, held in zip(
            blocks[starts][worth].tolist(), patches[worth].tolist(), sectors[worth].tolist(), strict=True
        )
    ]
