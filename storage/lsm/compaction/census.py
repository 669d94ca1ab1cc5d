"""What of each SST is still referred to, and which blocks lie in pieces: counted from the index in memory.

Counting goes on in steps between turns of the event loop, while flushes point the index elsewhere. An SST whose rows
are in the checkpoint only ever loses references: new ones are made to what a flush or a job writes. So one that was
seen without any has none, however long the counting took.
"""

import asyncio
from collections.abc import Awaitable, Callable, Iterable, Mapping
from functools import partial

import numpy as np
from numpy.typing import NDArray

from storage.format.blocks import SstRef
from storage.format.envelope import HEADER_BYTES
from storage.lsm.compaction.plan import PatchedBlock, SstFacts
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


def facts(listed: Iterable[tuple[SstRef, bool]], live: NDArray[np.float64], sst_numbers: SstNumbers) -> list[SstFacts]:
    """What is known of each listed SST, given as (reference, whether it is merged), and the bytes live by number."""
    found = []
    for ref, merged in listed:
        number = sst_numbers.number(ref.id)
        frames = ref.index_offset - HEADER_BYTES
        bytes_live = int(live[number]) if number < len(live) else frames
        found.append(SstFacts(ref.id, number, ref.size, frames, bytes_live, ref.entries, merged))
    return found


async def count_patches(
    indexes: Mapping[int, BlockMap],
    *,
    patches: int,
    sectors: int,
    run: Callable[[Callable[[], list[PatchedBlock]]], Awaitable[list[PatchedBlock]]],
) -> list[PatchedBlock]:
    """The blocks with at least so many patches, or so many sectors that patches hold. The columns are copied at once;
    `run` counts them in a thread, since sorting a million takes 100 ms.
    """
    found: list[PatchedBlock] = []
    for layer, index in list(indexes.items()):
        rows, masks = patched(index)
        if len(rows):
            found += await run(partial(_patched, layer, rows, masks, patches, sectors))
        await asyncio.sleep(0)
    return found


def _patched(
    layer: int, blocks: NDArray[np.uint32], masks: NDArray[np.uint64], patches_min: int, sectors_min: int
) -> list[PatchedBlock]:
    order = np.argsort(blocks, kind="stable")
    blocks, masks = blocks[order], masks[order]
    starts = np.flatnonzero(np.concatenate(([True], blocks[1:] != blocks[:-1])))
    patches = np.diff(np.append(starts, len(blocks)))
    covered = np.bitwise_or.reduceat(masks, starts)
    sectors = np.unpackbits(covered.view(np.uint8).reshape(-1, 8), axis=1).sum(axis=1)
    worth = (patches >= patches_min) | (sectors >= sectors_min)
    return [
        PatchedBlock(layer, block, count, held)
        for block, count, held in zip(
            blocks[starts][worth].tolist(), patches[worth].tolist(), sectors[worth].tolist(), strict=True
        )
    ]
