"""The census: what of each SST is still referred to, and which blocks lie in pieces; counted from the index in memory.

Maps are looked at in steps between turns of the event loop, and no flush points the index elsewhere meanwhile: what
may take long, the sorting of what several maps refer to, is done after that. An SST whose rows are in the checkpoint
only ever loses references: new ones are made to what a flush or a job writes, and a snapshot or a clone refers to what
something refers to already. So one that was seen without any has none, and never will.
"""

import asyncio
from collections.abc import Awaitable, Callable, Collection, Mapping
from dataclasses import dataclass, field
from functools import partial

import numpy as np
from numpy.typing import NDArray

from storage.format.blocks import ALLOCATED
from storage.format.columns import Columns
from storage.format.frame import SECTORS
from storage.format.manifest import Manifest
from storage.format.sst_list import NO_SSTS, SstList
from storage.lsm.compaction.plan import PatchedBlock
from storage.lsm.compaction.sst_table import SstTable
from storage.lsm.index.forest import Forest
from storage.lsm.index.map_scan import add_by_number, bases_below, patch_rows, referenced
from storage.lsm.index.sharing import each_once
from storage.lsm.index.sst_numbers import SstNumbers
from storage.lsm.index.trunk import Trunk


@dataclass(frozen=True, slots=True)
class Referred:
    """What maps referred to at one moment."""

    alone: NDArray[np.float64]
    """Bytes of frames of maps that share nothing, by number of their SST."""
    shared: list[Columns]
    """Location and length of each frame of the others; several may have the same."""

    def live(self) -> NDArray[np.float64]:
        """Bytes of frames that any map referred to, by number of their SST: each frame once. For a thread: to sort
        four million takes seconds.
        """
        if not self.shared:
            return self.alone
        total = self.alone.copy()
        add_by_number(total, each_once(self.shared))
        return total


async def look_up_live(forest: Forest, numbers: int, *, only: int | None = None) -> Referred:
    """What is referred to of SSTs whose numbers are below `numbers`. With `only`, by the trunk of one layer.

    Nobody may point an index elsewhere meanwhile. What is written over goes from a head to its snapshot, which may have
    been looked at: it would be nowhere, and its SST be dropped. Once it is gathered, anybody may.
    """
    total = np.zeros(numbers)
    shared: list[Columns] = []
    for trunk in forest.trunks():
        if only is not None and only not in trunk.layers:
            continue
        for part in trunk.maps():
            for some in referenced(part):
                if trunk.is_alone:
                    add_by_number(total, some)
                else:
                    shared.append(some)
                await asyncio.sleep(0)
    return Referred(total, shared)


class ListedSsts:
    """The SSTs of a manifest as a table. Those of a checkpoint are kept: only its successor changes them."""

    def __init__(self, sst_numbers: SstNumbers, newest_key: int) -> None:
        """`newest_key` is the id of the data key that all is sealed under now."""
        self._sst_numbers = sst_numbers
        self._newest_key = newest_key
        self._of = NO_SSTS
        self._merged = self._table_of(NO_SSTS, merged=True)

    def _table_of(self, refs: SstList, *, merged: bool) -> SstTable:
        return SstTable.listed(refs, self._sst_numbers, merged=merged, newest_key=self._newest_key)

    def table(self, manifest: Manifest, table: SstList, live: NDArray[np.float64]) -> SstTable:
        """All that `manifest` and `table`, that of its checkpoint, list, with the bytes live by number; for one thread
        at a time.
        """
        if table is not self._of:
            self._merged, self._of = self._table_of(table, merged=True), table
        listed = np.ones(len(self._merged), np.bool_)
        listed[np.array(manifest.gone, np.int64) - 1] = False
        beside = self._table_of(SstList.of(manifest.ssts), merged=False)
        return self._merged.where(listed).beside(beside).counted(live)


@dataclass(frozen=True, slots=True)
class Patched:
    """What is known of blocks with something above their base."""

    worth: list[PatchedBlock] = field(default_factory=list)
    """Those with many patches, or of which patches hold many sectors."""
    covered: int = 0
    """Bytes of frames that are referred to, and of which nothing is seen, in proportion to their sectors."""


async def count_patches(
    trunks: Collection[Trunk],
    *,
    patches: int,
    sectors: int,
    often: Mapping[int, Collection[int]],
    run: Callable[[Callable[[], Patched]], Awaitable[Patched]],
) -> Patched:
    """The blocks of heads with at least so many patches, or so many sectors that patches hold. `often` are those of
    each layer that readers had to put together often. The columns are copied in steps; `run` counts them in a thread,
    since sorting a million takes 100 ms.
    """
    worth: list[PatchedBlock] = []
    covered = 0
    for layer, index, alone in [(trunk.head, trunk.flat, trunk.is_alone) for trunk in trunks]:
        parts, bases = [], []
        for part in patch_rows(index):
            parts.append(part)
            await asyncio.sleep(0)
        for part in bases_below(index) if parts else ():
            bases.append(part)
            await asyncio.sleep(0)
        if parts:
            gathered = frozenset(often.get(layer, ()))
            found = await run(partial(_patched, layer, parts, bases, patches, sectors, gathered))
            worth += found.worth
            covered += found.covered if alone else 0  # a snapshot may show what is covered here
    return Patched(worth, covered)


def _patched(
    layer: int,
    parts: list[Columns],
    bases: list[Columns],
    patches_min: int,
    sectors_min: int,
    often: Collection[int],
) -> Patched:
    rows = _joined(parts)
    order = np.argsort(rows["block"], kind="stable")
    blocks, masks = rows["block"][order], rows["mask"][order].astype(np.uint64)
    if not len(blocks):
        return Patched()
    frames = rows["location"][order] > ALLOCATED
    starts = np.flatnonzero(np.concatenate(([True], blocks[1:] != blocks[:-1])))
    # What is nothing but zeros takes no room, and no request.
    patches = np.add.reduceat(frames.astype(np.int64), starts)
    sectors = _bits(np.bitwise_or.reduceat(np.where(frames, masks, np.uint64(0)), starts))
    worth = (patches >= patches_min) | (sectors >= sectors_min)
    covered = _covered(blocks[starts], masks, np.where(frames, rows["length"][order], 0), starts, bases)
    return Patched(
        [
            PatchedBlock(layer, block, count, held, often_gathered=block in often)
            for block, count, held in zip(
                blocks[starts][worth].tolist(), patches[worth].tolist(), sectors[worth].tolist(), strict=True
            )
        ],
        covered,
    )


def _covered(
    blocks: NDArray[np.unsignedinteger],
    masks: NDArray[np.uint64],
    lengths: NDArray[np.integer],
    starts: NDArray[np.integer],
    bases: list[Columns],
) -> int:
    """Bytes that something newer covers: of bases what any patch covers, of patches what they have more than once."""
    over = _bits(np.bitwise_or.reduceat(masks, starts))
    held = np.maximum(np.add.reduceat(_bits(masks), starts), 1)
    twice = np.add.reduceat(lengths, starts) * (1 - over / held)
    total = float(twice.sum())
    if bases:
        below = _joined(bases)
        at = np.minimum(np.searchsorted(blocks, below["block"]), len(blocks) - 1)
        known = blocks[at] == below["block"]
        total += float((below["length"] * over[at] / SECTORS)[known].sum())
    return int(total)


def _joined(parts: list[Columns]) -> Columns:
    return {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}


def _bits(masks: NDArray[np.uint64]) -> NDArray[np.int64]:
    """How many bits of each are set."""
    counts: NDArray[np.int64] = np.unpackbits(masks.view(np.uint8).reshape(-1, 8), axis=1).sum(axis=1, dtype=np.int64)
    return counts
