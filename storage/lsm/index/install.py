"""Install: the index is pointed at what a committed memtable flush wrote, and at nothing before that (I1).

The sealed memtable still answers every read of these blocks, so a half-done pass is never seen.
"""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass

from storage.cache.frame_cache import Decoded, FrameCache
from storage.errors import BrokenInvariant
from storage.format.blocks import ALLOCATED, HOLE, EntryKind, FrameRef, RangeZero, SstEntry, SstRef
from storage.format.frame import FULL_MASK
from storage.lsm.index.block_map import BlockMap
from storage.lsm.index.forest import Writing
from storage.lsm.memtable.memtable import Memtable

REPOINT_PAGES = 4
"""Pages of zeroed blocks between two turns of the event loop: as long as the entries of one step."""

DISCARD_SLICE = 64
"""Frames that the cache gives back between two turns: 16 MiB at most, as long."""


@dataclass(frozen=True, slots=True)
class Written:
    """One uploaded SST: what its index says, and the decoded frames for the cache, by entry position."""

    sst: SstRef
    entries: list[SstEntry]
    frames: list[Decoded | None]


Entry = tuple[str, SstEntry, Decoded | None]
"""With the SST it is in, and what it says, if that is at hand."""


class FlushedEntries:
    """What one memtable flush wrote, by layer: a record may do something to each trunk of the store, and what was
    written to one of them is not looked for among all the others. Made in a thread: it looks at each entry.
    """

    def __init__(self, sealed: Memtable, ranges: list[RangeZero], written: list[Written]) -> None:
        self.sealed = sealed
        self.ssts = [sst.sst for sst in written]
        self.ranges: dict[int, list[RangeZero]] = {}
        self.entries: dict[int, list[Entry]] = {}
        for span in ranges:
            self.ranges.setdefault(span.layer, []).append(span)
        for sst in written:
            for entry, frame in zip(sst.entries, sst.frames, strict=True):
                self.entries.setdefault(entry.layer, []).append((sst.sst.id, entry, frame))


class Installer:
    """Points the indexes of layers at SSTs that a manifest lists. Owned by the event loop."""

    def __init__(self, cache: FrameCache, location: Callable[[str, int], int], entries_in_step: int) -> None:
        self._cache = cache
        self._entries_in_step = entries_in_step
        self._location = location

    def steps(self, flushed: FlushedEntries, indexes: Mapping[int, BlockMap | Writing]) -> Iterator[None]:
        """Do it in slices short enough for the event loop, for the layers of `indexes`.

        Ranges of zeros come first, then frames that were uploaded by the bulk bypass, then what the flush wrote: the
        order of their sequences in a block.
        """
        step = self._entries_in_step
        for count, index in enumerate(_zeroed(flushed, indexes)):
            if count % REPOINT_PAGES == REPOINT_PAGES - 1:
                yield from self._discard_dead(index)
                yield
        for count, (layer, block, ref) in enumerate(_located(flushed, indexes)):
            indexes[layer].set_base(block, location=ref.location, length=ref.length, tag=ref.tag)
            if count % step == step - 1:
                yield
        for count, (sst, entry, frame) in enumerate(_entries(flushed, indexes)):
            self._point(indexes[entry.layer], sst, entry, frame)
            if count % step == step - 1:
                yield
        for each in indexes.values():
            yield from self._discard_dead(each)

    def _discard_dead(self, index: BlockMap | Writing) -> Iterator[None]:
        """A frame in the cache that dies gives back up to 256 KiB: 768 of them at once took 5 ms. Those that wait for
        their turn are of no use to anybody, and no harm.
        """
        for count, key in enumerate(index.take_dead() if isinstance(index, BlockMap) else ()):
            self._cache.discard(key)
            if count % DISCARD_SLICE == DISCARD_SLICE - 1:
                yield

    def _point(self, index: BlockMap | Writing, table_id: str, entry: SstEntry, frame: Decoded | None) -> None:
        if entry.kind in (EntryKind.ZERO, EntryKind.ZERO_ALLOCATED):
            location = ALLOCATED if entry.kind is EntryKind.ZERO_ALLOCATED else HOLE
        else:
            location = self._location(table_id, entry.offset)
        if entry.mask == FULL_MASK and entry.kind is not EntryKind.PATCH:
            index.set_base(entry.block, location=location, length=entry.length, tag=entry.tag)
        else:
            index.add_patch(entry.block, mask=entry.mask, location=location, length=entry.length, tag=entry.tag)
        if frame is not None:
            self._cache.put(location, frame)


def _zeroed(flushed: FlushedEntries, indexes: Mapping[int, BlockMap | Writing]) -> Iterator[BlockMap]:
    """Zero the ranges in the indexes, in steps of a page; gives the index of each step."""
    for layer, index in indexes.items():
        for span in flushed.ranges.get(layer, ()):
            if isinstance(index, Writing):
                raise BrokenInvariant("a range of a snapshot is zeroed")
            for _ in index.zero_steps(span.first, span.end, ALLOCATED if span.allocated else HOLE):
                yield index


def _entries(flushed: FlushedEntries, indexes: Mapping[int, BlockMap | Writing]) -> Iterator[Entry]:
    """All of them: where one layer or SST ends and the next begins is no reason for a step to go on longer."""
    for layer in indexes:
        yield from flushed.entries.get(layer, ())


def _located(flushed: FlushedEntries, indexes: Mapping[int, BlockMap | Writing]) -> Iterator[tuple[int, int, FrameRef]]:
    for layer in indexes:
        table = flushed.sealed.layers.get(layer)
        for block, entry in table.blocks.items() if table is not None else ():
            if isinstance(entry.base, FrameRef):
                yield layer, block, entry.base
