"""This file knows how a sealed memtable becomes SSTs, and how the log before it is truncated.

The order of steps is the promise, and a crash between any two of them loses nothing:

    1. every operation of the memtable is acknowledged in the log       (else the replay point would pass over it)
    2. its SSTs are uploaded                                            (crash: orphans, the log still has everything)
    3. a manifest lists them, and the SSTs of its locators, and moves the replay point   (the commit)
    4. the index points to them, then the memtable goes                 (memory only)
    5. WAL objects below the replay point are deleted, fences never     (crash: leftovers, swept by the next writer)

Frames of whole blocks and patches go to separate SSTs, since they live differently long. Sectors written in part are
completed from below here; a GET that fails fails the flush, it never becomes zeros.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field

import msgspec

from storage.cache.frames import Decoded, FrameCache
from storage.codec import BLOCK_BYTES, FULL_MASK, SECTOR_BYTES, is_zero, sectors_of
from storage.lsm.entries import ALLOCATED, HOLE, Entry, EntryKind, FrameRef, RangeZero, TableRef
from storage.lsm.fetch import FrameSource, decoded_size
from storage.lsm.gather import Gathering, Piece
from storage.lsm.index import BlockMap
from storage.lsm.memtable import BlockEntry, Content, LayerTable, Memtable, own
from storage.lsm.sst import TableBuilder
from storage.lsm.tables import TableWriter
from storage.objects.base import Buffer

_ZERO_SECTOR = bytes(SECTOR_BYTES)
"""Stands in a frame for zeros among data."""

FULL_SECTORS_MIN = 32
"""A block that is wholly known and has this many sectors of data is written as one full frame."""


COMPLETE_SECTORS = 64
"""Sectors completed together: 64 frames of 256 KiB at most, and about a millisecond of the event loop."""


class Planned(msgspec.Struct, frozen=True, gc=False):
    """What one block of the memtable becomes: a frame of `mask` sectors, zeros elsewhere, or both."""

    layer: int
    block: int
    sequence: int
    data_mask: int
    contents: dict[int, Content]
    base: Buffer | None
    full: bool
    zero_mask: int
    zero_kind: EntryKind


@dataclass(slots=True)
class Written:
    """One uploaded SST: what its index says, and the decoded frames for the cache, by entry position."""

    table: TableRef
    entries: list[Entry]
    frames: list[Decoded | None]


@dataclass(slots=True)
class FlushResult:
    """What a flush put into the store."""

    written: list[Written] = field(default_factory=list)
    ranges: list[RangeZero] = field(default_factory=list)

    @property
    def tables(self) -> list[TableRef]:
        return [written.table for written in self.written]


async def complete_sectors(memtable: Memtable, indexes: dict[int, BlockMap], source: FrameSource) -> None:
    """Turn pieces of sectors into whole sectors, reading what lies below the sealed memtable. Corrupt if that fails.

    The frames of many blocks are asked for at once, so neighbours come in one request and none waits for another.
    """
    pending = [
        (table, block, sector)
        for table in memtable.layers.values()
        for block, entry in table.blocks.items()
        if entry.extents
        for sector in entry.extents
    ]
    for start in range(0, len(pending), COMPLETE_SECTORS):
        group = pending[start : start + COMPLETE_SECTORS]
        missing: dict[int, FrameRef] = {}
        for table, block, sector in group:
            gathering = Gathering({}, {})
            _gather_sector(gathering, table, indexes[table.layer], block, sector)
            missing.update((ref.location, ref) for ref in gathering.missing)
        fetched = await source.fetch(missing.values())
        for table, block, sector in group:
            _complete(table, indexes[table.layer], block, sector, fetched)
        await asyncio.sleep(0)


def _gather_sector(gathering: Gathering, table: LayerTable, index: BlockMap, block: int, sector: int) -> list[Piece]:
    return gathering.block([table], index, block, sector * SECTOR_BYTES, (sector + 1) * SECTOR_BYTES)


def _complete(table: LayerTable, index: BlockMap, block: int, sector: int, fetched: Mapping[int, Decoded]) -> None:
    """A sealed memtable is read by others meanwhile, but only changed here: each sector in one step."""
    gathering = Gathering({}, fetched)
    (piece,) = _gather_sector(gathering, table, index, block, sector)
    assert not gathering.missing
    entry = table.blocks[block]
    entry.link_sector(sector, HOLE if isinstance(piece, int) else piece)
    if not entry.extents:
        entry.extents = None


def plan(memtable: Memtable) -> tuple[list[Planned], list[RangeZero]]:
    """What a sealed memtable whose sectors are complete becomes, sorted by layer and block. Pure."""
    blocks: list[Planned] = []
    ranges: list[RangeZero] = []
    for layer in sorted(memtable.layers):
        table = memtable.layers[layer]
        for span in table.zeros.spans:
            ranges.append(RangeZero(layer, span.first, span.end, span.sequence, span.content == ALLOCATED))
        for block in sorted(table.blocks):
            blocks += _plan_block(layer, block, table.blocks[block])
    return blocks, ranges


def _plan_block(layer: int, block: int, entry: BlockEntry) -> Iterator[Planned]:
    assert not entry.extents, "sectors are completed before they are flushed"
    base = entry.base
    data_mask = zero_mask = 0
    zero_kind = EntryKind.ZERO
    for sector, content in entry.sectors.items():
        if not isinstance(content, int) and is_zero(content):
            content = entry.sectors[sector] = HOLE
        if isinstance(content, int):
            zero_mask |= 1 << sector
            zero_kind = EntryKind.ZERO_ALLOCATED if content == ALLOCATED else zero_kind
        else:
            data_mask |= 1 << sector
    buffer: Buffer | None = None
    if isinstance(base, int):
        zero_mask = FULL_MASK
        zero_kind = EntryKind.ZERO_ALLOCATED if base == ALLOCATED else zero_kind
    elif base is not None and not isinstance(base, FrameRef):
        if entry.sectors or not is_zero(base):
            buffer = base
            data_mask = FULL_MASK
        else:
            zero_mask = FULL_MASK
    whole = buffer is not None or (entry.mask == FULL_MASK and not isinstance(base, FrameRef))
    full = buffer is not None or (whole and data_mask.bit_count() >= FULL_SECTORS_MIN)
    if full:
        data_mask, zero_mask = FULL_MASK, 0
    elif whole:
        zero_mask = FULL_MASK
    if data_mask or zero_mask:
        yield Planned(layer, block, entry.sequence, data_mask, entry.sectors, buffer, full, zero_mask, zero_kind)


def frame_data(planned: Planned) -> Buffer:
    """The sectors of the frame, contiguous."""
    if planned.base is None:
        contents = planned.contents
        sectors = [contents.get(sector, HOLE) for sector in sectors_of(planned.data_mask)]
        return b"".join([_ZERO_SECTOR if type(content) is int else content for content in sectors])  # type: ignore[misc]
    if not planned.contents:
        return planned.base
    whole = bytearray(planned.base)
    for sector, content in planned.contents.items():
        whole[sector * SECTOR_BYTES : (sector + 1) * SECTOR_BYTES] = _sector(content)
    return whole


def _sector(content: Content) -> Buffer:
    return _ZERO_SECTOR if isinstance(content, int) else content


def chunks(blocks: list[Planned], object_bytes: int) -> Iterator[list[Planned]]:
    """Groups of blocks for one SST each: full frames and the rest apart, `object_bytes` of data at most."""
    for full in (True, False):
        group: list[Planned] = []
        size = 0
        for planned in blocks:
            if planned.full is not full:
                continue
            count = planned.data_mask.bit_count() * SECTOR_BYTES
            if group and size + count > object_bytes:
                yield group
                group, size = [], 0
            group.append(planned)
            size += count
        if group:
            yield group


class Flusher:
    """Writes sealed memtables as SSTs, and points the index at them."""

    def __init__(self, tables: TableWriter, cache: FrameCache, location: Callable[[str, int], int]) -> None:
        self._tables = tables
        self._cache = cache
        self._location = location

    async def write(self, memtable: Memtable) -> FlushResult:
        """Upload everything of a sealed, acknowledged and completed memtable."""
        blocks, ranges = await self._tables.encode(lambda: plan(memtable))
        result = FlushResult(ranges=ranges)
        groups = list(chunks(blocks, self._tables.object_bytes))
        if ranges and not groups:
            groups = [[]]
        for position, group in enumerate(groups):
            spans = ranges if position == 0 else []
            builder = self._tables.builder()
            frames: list[Decoded | None] = []

            def build(
                builder: TableBuilder = builder,
                group: list[Planned] = group,
                spans: list[RangeZero] = spans,
                frames: list[Decoded | None] = frames,
            ) -> tuple[TableRef, bytearray]:
                builder.ranges += spans
                for planned in group:
                    add(builder, planned, frames)
                return builder.finish()

            table, content = await self._tables.encode(build)
            await self._tables.upload(table, content)
            result.written.append(Written(table, builder.entries, frames))
        return result

    def repoint(self, result: FlushResult, memtable: Memtable, indexes: dict[int, BlockMap]) -> Iterator[None]:
        """Point the index at what a committed flush wrote, in slices short enough for the event loop.

        The sealed memtable still answers every read of these blocks, so a half-done pass is never seen. Ranges come
        first, then frames that were uploaded by the bulk bypass, then what the flush wrote: the order of their
        sequences in a block.
        """
        for count, index in enumerate(_zeroed(result.ranges, indexes)):
            if count % REPOINT_PAGES == REPOINT_PAGES - 1:
                self._discard_dead(index)
                yield
        for count, (layer, block, ref) in enumerate(_located(memtable)):
            if layer in indexes:
                tag = int.from_bytes(ref.tag, "little")
                indexes[layer].set_base(block, location=ref.location, length=ref.length, tag=tag)
            if count % REPOINT_SLICE == REPOINT_SLICE - 1:
                yield
        for written in result.written:
            for count, (entry, frame) in enumerate(zip(written.entries, written.frames, strict=True)):
                if entry.layer in indexes:
                    self._point(indexes[entry.layer], written.table.id, entry, frame)
                if count % REPOINT_SLICE == REPOINT_SLICE - 1:
                    yield
        for index in indexes.values():
            self._discard_dead(index)

    def _discard_dead(self, index: BlockMap) -> None:
        for key in index.take_dead():
            self._cache.discard(key)

    def _point(self, index: BlockMap, table_id: str, entry: Entry, frame: Decoded | None) -> None:
        if entry.kind in (EntryKind.ZERO, EntryKind.ZERO_ALLOCATED):
            location = ALLOCATED if entry.kind is EntryKind.ZERO_ALLOCATED else HOLE
        else:
            location = self._location(table_id, entry.offset)
        tag = int.from_bytes(entry.tag, "little")
        if entry.mask == FULL_MASK and entry.kind is not EntryKind.PATCH:
            index.set_base(entry.block, location=location, length=entry.length, tag=tag)
        else:
            index.add_patch(entry.block, mask=entry.mask, location=location, length=entry.length, tag=tag)
        if frame is not None:
            self._cache.put(location, frame, decoded_size(frame))


REPOINT_SLICE = 256
"""Entries repointed between two turns of the event loop: about half a millisecond."""


REPOINT_PAGES = 4
"""Pages of zeroed blocks between two turns: as long."""


def add(builder: TableBuilder, planned: Planned, frames: list[Decoded | None]) -> None:
    """Put one planned block into an SST: its zeros first, so that a patch of the same sequence lies above them."""
    if planned.zero_mask:
        builder.entries.append(
            Entry(planned.layer, planned.block, planned.zero_kind, planned.zero_mask, planned.sequence)
        )
        frames.append(None)
    if planned.data_mask:
        data = frame_data(planned)
        builder.add_frame(
            layer=planned.layer,
            block=planned.block,
            full=planned.full,
            mask=planned.data_mask,
            sequence=planned.sequence,
            data=data,
        )
        frames.append(own(data) if planned.full else _patch_sectors(planned))


def _patch_sectors(planned: Planned) -> dict[int, Buffer]:
    """The memtable's buffers of a patch: they move to the cache, mostly without a copy."""
    return {
        sector: content if type(content) is bytes else own(content)
        for sector, content in planned.contents.items()
        if not isinstance(content, int)
    }


def _zeroed(ranges: list[RangeZero], indexes: dict[int, BlockMap]) -> Iterator[BlockMap]:
    """Zero the ranges in the indexes, in steps of a page; gives the index of each step."""
    for span in ranges:
        index = indexes.get(span.layer)
        if index is not None:
            for _ in index.zero_steps(span.first, span.end, ALLOCATED if span.allocated else HOLE):
                yield index


def _located(memtable: Memtable) -> Iterator[tuple[int, int, FrameRef]]:
    for layer, table in memtable.layers.items():
        for block, entry in table.blocks.items():
            if isinstance(entry.base, FrameRef):
                yield layer, block, entry.base


assert FULL_SECTORS_MIN * SECTOR_BYTES < BLOCK_BYTES
