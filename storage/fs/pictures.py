"""Pictures of an open store for people: its SSTs with what is live of each, and maps of its devices.

They are made when somebody looks, in pieces between two turns of the event loop; of a device of a terabyte a map takes
about 0.2 s of it.
"""

import asyncio
from collections.abc import Iterable, Sequence

import msgspec
import numpy as np
from numpy.typing import NDArray

from storage.errors import Conflict, Invalid
from storage.format.blocks import HOLE
from storage.format.frame import BLOCK_BYTES
from storage.fs.devices.changes import Changes
from storage.fs.devices.open_devices import OpenDevices
from storage.fs.name_tree import NameTree
from storage.lsm.compaction.live_share import live_shares
from storage.lsm.compaction.sst_table import SstTable
from storage.lsm.engine import Engine
from storage.lsm.index.block_map import BlockMap
from storage.lsm.index.page import ALLOCATED_PAGE, PAGE_BLOCKS, PAGE_SHIFT, Page
from storage.lsm.layer import Layer
from storage.lsm.memtable.memtable import LayerTable

CELLS_MAX = 4096

Blocks = NDArray[np.bool_]
"""Of a page: which of its blocks are meant."""


class SstGroup(msgspec.Struct, frozen=True, array_like=True):
    """Some neighbouring SSTs, in bytes."""

    ssts: int
    stored: int
    frames: int
    live: int
    merged: int
    """How many of them the newest checkpoint has."""


class DeviceMap(msgspec.Struct, frozen=True):
    """A device in cells of equal size, in order; the last one may reach beyond its end. Of each cell, how many of its
    blocks of 256 KiB are ..."""

    size: int
    cell_blocks: int
    allocated: list[int]
    """written and not discarded since; one of which only sectors were discarded counts;"""
    cached: list[int]
    """among those, decoded in memory, wholly or where no patch lies over them;"""
    waiting: list[int]
    """written, or discarded, and that not in SSTs yet;"""
    unlogged: list[int]
    """among those, not durable yet;"""
    changed: list[int]
    """changed since the snapshot that was named; empty without one."""


class Pictures:
    """The pictures of one open store. Owned by the event loop."""

    def __init__(self, engine: Engine, tree: NameTree, open_devices: OpenDevices) -> None:
        self._engine = engine
        self._tree = tree
        self._open_devices = open_devices

    async def ssts(self, groups: int) -> list[SstGroup]:
        """All listed SSTs, oldest first, in at most so many groups of as many."""
        table = await live_shares(self._engine.compactor.context)
        return _grouped(table, groups)

    async def device_map(self, name: str, cells: int, since: str | None = None) -> DeviceMap:
        """A device in at most so many cells, with what changed since one of its snapshots. NotFound; Invalid: no such
        number; Conflict: it is being rolled back.
        """
        if not 0 < cells <= CELLS_MAX:
            raise Invalid(f"a map has 1 to {CELLS_MAX} cells, not {cells}")
        _, inode = self._tree.namespace.device(name)
        size = self._tree.namespace.size(inode)
        layer = self._engine.layers[inode.layer]
        if not isinstance(layer.index, BlockMap):
            raise Conflict(f"{name!a} is being rolled back: ask again")
        # Before anything is waited for: then the name may mean another device.
        changes = None if since is None else self._open_devices.device(name).history.since(since)
        blocks = -(-size // BLOCK_BYTES)
        counts = _Counts(cells=cells, cell_blocks=max(-(-blocks // cells), 1), blocks=blocks)
        await counts.look_at(layer, layer.index, self._engine.cache.entries)
        changed = [] if changes is None else await self._changed(changes, size, counts)
        allocated, cached, waiting, unlogged = (each.tolist() for each in counts.all())
        return DeviceMap(size, counts.cell_blocks, allocated, cached, waiting, unlogged, changed)

    async def _changed(self, changes: Changes, size: int, counts: "_Counts") -> list[int]:
        found, at = counts.none(), 0
        while at < size:
            for length, differs in changes.extents(at, size - at):
                if differs:
                    counts.add(found, range(at // BLOCK_BYTES, -(-(at + length) // BLOCK_BYTES)))
                at += length
            await asyncio.sleep(0)
        return [int(count) for count in np.minimum(found, counts.cell_blocks)]


class _Counts:
    """How many blocks of each cell are what."""

    def __init__(self, *, cells: int, cell_blocks: int, blocks: int) -> None:
        self.cell_blocks = cell_blocks
        self._blocks = blocks
        self._cells = min(cells, -(-blocks // cell_blocks))
        self.allocated, self.cached, self.waiting, self.unlogged = (self.none() for _ in range(4))

    def all(self) -> tuple[NDArray[np.int64], ...]:
        """In the order of a `DeviceMap`."""
        return self.allocated, self.cached, self.waiting, self.unlogged

    def none(self) -> NDArray[np.int64]:
        """Zeros for all cells."""
        return np.zeros(self._cells, np.int64)

    def add(self, counts: NDArray[np.int64], blocks: range) -> None:
        """Count a run of blocks; what lies beyond the end of the device is left out."""
        at, end = blocks.start, min(blocks.stop, self._blocks)
        while at < end:
            cell = at // self.cell_blocks
            stop = min((cell + 1) * self.cell_blocks, end)
            counts[cell] += stop - at
            at = stop

    async def look_at(self, layer: Layer, index: BlockMap, cached: Iterable[int]) -> None:
        """Count all there is."""
        tables = list(layer.memtables)
        by_page = _by_page(tables)
        locations = np.sort(np.fromiter((key for key in cached if key < 1 << 63), np.uint64))
        zeroed = {
            number
            for table in tables
            for span in table.zeros.spans
            for number in range(span.first >> PAGE_SHIFT, (min(span.end, self._blocks) - 1 >> PAGE_SHIFT) + 1)
        }
        for number in sorted(index.pages.keys() | by_page.keys() | zeroed):
            stored, hot = _of_page(index.pages.get(number), locations)
            waiting, unlogged = np.zeros(PAGE_BLOCKS, np.bool_), np.zeros(PAGE_BLOCKS, np.bool_)
            for table in reversed(tables):
                _zero(table, number, stored)
                for block in by_page.get(number, {}).get(id(table), ()):
                    entry = table.blocks.get(block)
                    if entry is None:
                        continue  # it was flushed meanwhile
                    at = block & (PAGE_BLOCKS - 1)
                    stored[at] = not (entry.base == HOLE and not entry.sectors)
                    waiting[at] = True
                    unlogged[at] |= entry.sequence > layer.queue.acked_sequence
            self._count(number, (stored, hot & stored, waiting, unlogged))
            await asyncio.sleep(0)

    def _count(self, number: int, found: Sequence[Blocks]) -> None:
        first = number << PAGE_SHIFT
        for counts, blocks in zip(self.all(), found, strict=True):
            at = np.flatnonzero(blocks) + first
            cells = at[at < self._blocks] // self.cell_blocks
            if len(cells):
                counts += np.bincount(cells, minlength=self._cells)


def _by_page(tables: Iterable[LayerTable]) -> dict[int, dict[int, list[int]]]:
    """The blocks in memtables, by page and by table."""
    found: dict[int, dict[int, list[int]]] = {}
    for table in tables:
        for block in table.blocks:
            found.setdefault(block >> PAGE_SHIFT, {}).setdefault(id(table), []).append(block)
    return found


def _of_page(page: Page | None, cached: NDArray[np.uint64]) -> tuple[Blocks, Blocks]:
    """Which blocks of a page the index has, and the bases of which are in the cache."""
    if page is None:
        return np.zeros(PAGE_BLOCKS, np.bool_), np.zeros(PAGE_BLOCKS, np.bool_)
    if page is ALLOCATED_PAGE:
        return np.ones(PAGE_BLOCKS, np.bool_), np.zeros(PAGE_BLOCKS, np.bool_)
    location = np.array(page.location, np.uint64)
    stored = (location != HOLE) | (page.heads() != 0)
    if not len(cached):
        return stored, np.zeros(PAGE_BLOCKS, np.bool_)
    at = np.minimum(np.searchsorted(cached, location), len(cached) - 1)
    return stored, cached[at] == location


def _zero(table: LayerTable, number: int, stored: Blocks) -> None:
    """What a memtable zeroed of a page."""
    first, end = number << PAGE_SHIFT, (number + 1) << PAGE_SHIFT
    for span in table.zeros.spans:
        if span.first < end and first < span.end:
            stored[max(span.first - first, 0) : span.end - first] = span.content != HOLE


def _grouped(table: SstTable, groups: int) -> list[SstGroup]:
    each = max(-(-len(table) // groups), 1)
    starts = np.arange(0, len(table), each)
    if not len(starts):
        return []
    columns = [np.add.reduceat(one, starts) for one in (table.size, table.frames, table.live)]
    merged = np.add.reduceat(table.merged.astype(np.int64), starts)
    counts = np.minimum(len(table) - starts, each)
    return [SstGroup(*(int(value) for value in row)) for row in zip(counts, *columns, merged, strict=True)]
