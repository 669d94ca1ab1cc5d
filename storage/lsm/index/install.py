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


class Installer:
    """Points the indexes of layers at SSTs that a manifest lists. Owned by the event loop."""

    def __init__(self, cache: FrameCache, location: Callable[[str, int], int], entries_in_step: int) -> None:
        self._cache = cache
        self._entries_in_step = entries_in_step
        self._location = location

    def steps(
        self,
        ranges: list[RangeZero],
        sealed: Memtable,
        written: list[Written],
        indexes: Mapping[int, BlockMap | Writing],
    ) -> Iterator[None]:
        """Do it in slices short enough for the event loop, for the layers of `indexes`.

        Ranges of zeros come first, then frames that were uploaded by the bulk bypass, then what the flush wrote: the
        order of their sequences in a block.
        """
        step = self._entries_in_step
        for count, index in enumerate(_zeroed(ranges, indexes)):
            if count % REPOINT_PAGES == REPOINT_PAGES - 1:
                yield from self._discard_dead(index)
                yield
        for count, (layer, block, ref) in enumerate(_located(sealed)):
            if layer in indexes:
                indexes[layer].set_base(block, location=ref.location, length=ref.length, tag=ref.tag)
            if count % step == step - 1:
                yield
        for count, (sst, entry, frame) in enumerate(_entries(written)):
            if entry.layer in indexes:
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


def _zeroed(ranges: list[RangeZero], indexes: Mapping[int, BlockMap | Writing]) -> Iterator[BlockMap]:
    """Zero the ranges in the indexes, in steps of a page; gives the index of each step."""
    for span in ranges:
        index = indexes.get(span.layer)
        if isinstance(index, Writing):
            raise BrokenInvariant("a range of a snapshot is zeroed")
        if index is not None:
            for _ in index.zero_steps(span.first, span.end, ALLOCATED if span.allocated else HOLE):
                yield index


def _entries(written: list[Written]) -> Iterator[tuple[str, SstEntry, Decoded | None]]:
    """All of them, with the SST of each: where one ends and the next begins is no reason to go on longer."""
    for sst in written:
        for entry, frame in zip(sst.entries, sst.frames, strict=True):
            yield sst.sst.id, entry, frame


def _located(memtable: Memtable) -> Iterator[tuple[int, int, FrameRef]]:
    for layer, table in memtable.layers.items():
        for block, entry in table.blocks.items():
            if isinstance(entry.base, FrameRef):
                yield layer, block, entry.base
