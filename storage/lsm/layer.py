"""One layer as a range of bytes: take writes, answer reads from memory, say what is allocated.

A device keeps its `Layer` when a snapshot is taken or it is rolled back: that goes on under another number (`move_on`),
so who holds it, or waits for it, need not know. A write that is still arriving then is of the new layer.

Everything here runs on the event loop without awaiting, except `read` for what is not in memory. A write is linked in
one step: sequence, memtable and log see it together or not at all, so a crash or a snapshot always falls between two
writes.

What it costs, a 4 KiB operation: a cached read of a flushed block one look-up in two dictionaries (memtable, cache)
and two array elements, about 1 us; a write two dictionary stores and one list append, about 1.5 us.
"""

from __future__ import annotations

from collections.abc import Callable

from storage.buffers import Buffer
from storage.cache.frame_cache import FRESH_KEYS, Decoded, FrameCache
from storage.errors import Unreadable
from storage.fetch_times import FetchTimes
from storage.format.blocks import ALLOCATED, FrameRef
from storage.format.frame import (
    BLOCK_BYTES,
    BLOCK_OFFSET,
    BLOCK_SHIFT,
    FULL_MASK,
    SECTOR_BYTES,
    SECTOR_OFFSET,
    SECTOR_SHIFT,
)
from storage.format.wal import Located, Op
from storage.lsm.index.trunk import LayerIndex
from storage.lsm.memtable.link import Links
from storage.lsm.memtable.memtable import Base, LayerTable, write_charge, zero_charge
from storage.lsm.memtable.write_state import WriteState
from storage.lsm.options import EngineOptions
from storage.lsm.read.assemble import Assembly, Piece
from storage.lsm.read.extents import ExtentState, extents
from storage.lsm.read.gathered import GatheredBlocks
from storage.lsm.read.read_ahead import ReadAhead
from storage.lsm.sst.fetch import FrameSource
from storage.lsm.wal.queue import LayerQueue

LOADING_MAX = 512
"""Frames on their way beyond which nothing is fetched ahead: 128 MiB, eight windows of read-ahead."""


class Layer:
    """One layer of a device. `memtables` are parts of those, newest first; `index` is everything older."""

    def __init__(
        self,
        number: int,
        *,
        writes: WriteState,
        links: Links,
        queue: LayerQueue,
        index: LayerIndex,
        source: FrameSource,
        cache: FrameCache,
        options: EngineOptions,
    ) -> None:
        self.number = number
        self.index = index
        self.queue = queue
        self._writes = writes
        self._source = source
        self._cache = cache
        self._frames = cache.entries
        self.links = links
        self.active = links.table
        """The layer's part of the active memtable."""
        self.own_memtables: list[LayerTable] = [self.active]
        """Its own parts of the memtables, newest first."""
        self.inherited: list[LayerTable] = []
        """Parts of the memtables of the layer that it was made of, newest first, until they are in its index. What that
        layer keeps later (parts of sectors over what cannot be read) is not among them: it has its own of those."""
        self.memtables: list[LayerTable] = [self.active]
        self._read_ahead = ReadAhead(options.reads.window_blocks_max)
        self.gathered = GatheredBlocks()
        self._kept_bytes_max = options.kept_bytes_max
        self._atomic_bytes_max = options.atomic_bytes_max
        self._fragments_max = options.reads.fragments_max
        self._assemble_bytes_min = options.reads.assemble_bytes_min
        self._blocks_few = options.reads.blocks_few
        self.written_bytes = 0
        """By clients since the store was opened, also what was overwritten."""
        self.kept_bytes = 0
        """Bytes charged for parts of sectors that the last memtable flush could not complete."""

    # --- reading

    def read_cached(self, offset: int, length: int) -> list[Piece] | None:
        """The pieces of a range if memory has all of it, else None. Never awaits.

        One sector, and a part of a block that lies in one place, are answered here; the rest is gathered.
        """
        block = offset >> BLOCK_SHIFT
        low = offset & BLOCK_OFFSET
        entry = self.active.blocks.get(block)
        base: Base
        if length == SECTOR_BYTES and not low & SECTOR_OFFSET:
            sector = low >> SECTOR_SHIFT
            base = None
            if entry is not None:
                content = entry.sectors.get(sector)
                if content is not None:
                    return [length] if type(content) is int else [content]
                if entry.extents:
                    return self._gather_cached(offset, length)
                base = entry.base
            if base is None and (len(self.memtables) > 1 or self.active.zeros):
                return self._gather_cached(offset, length)
            location = self.index.locate(block, sector) if base is None else _location(base)
        elif low + length > BLOCK_BYTES:
            return self._gather_cached(offset, length)
        elif entry is not None:
            base = entry.base
            if base is None or entry.sectors or entry.extents:
                return self._gather_cached(offset, length)
            location = _location(base)
        else:
            if len(self.memtables) > 1 or self.active.zeros or self.index.is_patched(block):
                return self._gather_cached(offset, length)
            base = None
            location = self.index.locate(block, 0)
        if location < 0:
            return [memoryview(base)[low : low + length]]  # type: ignore[arg-type]
        if location <= ALLOCATED:
            return [length]
        frame = self._frames.get(location)
        if frame is None:
            if location < FRESH_KEYS:
                return None
            self.index.forget_assembled(block)
            return self._gather_cached(offset, length)
        frame.hits += 1
        data = frame.data
        if type(data) is dict:
            return [data[low >> SECTOR_SHIFT]]
        return [memoryview(data)[low : low + length]]  # type: ignore[arg-type]

    def _gather_cached(self, offset: int, length: int) -> list[Piece] | None:
        assembly = Assembly(self._frames, {})
        pieces = self._gather(assembly, offset, length)
        if assembly.missing:
            return None
        if assembly.fragments > self._fragments_max and length >= self._assemble_bytes_min:
            self._assemble(offset >> BLOCK_SHIFT)
        return pieces

    def _assemble(self, block: int) -> None:
        """Put the flushed content of a much patched block into one buffer, so that the next read of it is one piece.

        A block without patches is left alone: a new base forgets what was put together only with the patches below it.
        Later patches take their sectors out of it (I3).
        """
        if not self.index.is_patched(block):
            return
        assembly = Assembly(self._frames, {})
        pieces = assembly.block([], self.index, block, 0, BLOCK_BYTES)
        if not assembly.missing:
            whole = b"".join(bytes(piece) if isinstance(piece, int) else piece for piece in pieces)
            self.index.forget_assembled(block)
            key = self._cache.fresh_key()
            self._cache.put(key, whole)
            self.index.assembled[block] = (key, FULL_MASK)
            # What it was made of would only be read again if this is evicted.
            for found in self.index.find(block):
                if isinstance(found.content, FrameRef):
                    self._cache.discard(found.content.location)

    async def read(self, offset: int, length: int, times: FetchTimes | None = None) -> list[Piece]:
        """The pieces of a range, fetched if need be. Corrupt if any of it cannot be authenticated; Unreadable if the
        store withholds an object that it needs. In `times` it is noted where the time went.
        """
        fetched: dict[int, Decoded] = {}
        while True:
            assembly = Assembly(self._frames, fetched)
            pieces = self._gather(assembly, offset, length)
            if not assembly.missing:
                return pieces
            if self._source.loading < LOADING_MAX:
                self._prefetch_blocks(
                    self._read_ahead.miss(offset >> BLOCK_SHIFT, ((offset + length - 1) >> BLOCK_SHIFT) + 1)
                )
            self.gathered.fetched(assembly.missing)
            fetched.update(await self._source.fetch(self.number, assembly.missing, times))

    def _gather(self, assembly: Assembly, offset: int, length: int) -> list[Piece]:
        pieces: list[Piece] = []
        end = offset + length
        while offset < end:
            block = offset >> BLOCK_SHIFT
            low = offset & BLOCK_OFFSET
            high = min(BLOCK_BYTES, low + end - offset)
            for piece in assembly.block(self.memtables, self.index, block, low, high):
                if isinstance(piece, int) and pieces and isinstance(pieces[-1], int):
                    pieces[-1] += piece
                else:
                    pieces.append(piece)
            offset += high - low
        return pieces

    def prefetch(self, offset: int, length: int) -> None:
        """Bring a range into the cache in the background, at most as much of it as the read-ahead window holds."""
        first = offset >> BLOCK_SHIFT
        end = min(((offset + length - 1) >> BLOCK_SHIFT) + 1, first + self._read_ahead.window_blocks_max)
        if self._source.loading < LOADING_MAX:
            self._prefetch_blocks(range(first, end))

    def _prefetch_blocks(self, blocks: range) -> None:
        for block in blocks:
            for found in self.index.find(block):
                content = found.content
                if isinstance(content, FrameRef) and content.location not in self._frames:
                    self._source.prefetch(content)

    def extents(self, offset: int, length: int) -> list[tuple[int, ExtentState]]:
        """Runs (bytes, state) of a range: data, allocated zeros, holes. May stop early, never awaits."""
        return extents(self.memtables, self.index, offset, length, blocks_few=self._blocks_few)

    # --- writing

    def write(self, offset: int, data: Buffer) -> int:
        """Link a write; `data` must never change afterwards (M1). Gives its sequence number. Unreadable: parts of
        sectors are not taken while too many are kept over what cannot be read.
        """
        length = len(data)
        if self.kept_bytes >= self._kept_bytes_max:
            self._refuse_parts(offset, length)
        if length > self._atomic_bytes_max:
            view = memoryview(data)
            step = self._atomic_bytes_max - (offset & BLOCK_OFFSET)
            self.write(offset, view[:step])
            return self.write(offset + step, view[step:])
        writes = self._writes
        sequence = writes.sequence = writes.sequence + 1
        if length == SECTOR_BYTES and not offset & SECTOR_OFFSET:
            self.links.sector(offset >> BLOCK_SHIFT, offset >> SECTOR_SHIFT & 63, data, sequence)
        else:
            self.links.write(offset, data, sequence)
        self.queue.append((sequence, offset, data), write_charge(offset, length))
        self.written_bytes += length
        return sequence

    def _refuse_parts(self, offset: int, length: int) -> None:
        if (offset | length) & SECTOR_OFFSET:
            what = f"{self.kept_bytes} bytes of parts of sectors are kept already over what cannot be read"
            raise Unreadable(f"{what}: write whole sectors")

    def zero(self, offset: int, length: int, *, allocated: bool) -> int:
        """Link a discard or a write of zeroes; any length is one operation. Gives its sequence number."""
        if self.kept_bytes >= self._kept_bytes_max:
            self._refuse_parts(offset, length)
        writes = self._writes
        sequence = writes.sequence = writes.sequence + 1
        self.links.zero(offset, length, allocated=allocated, sequence=sequence)
        self.queue.append((sequence, offset, length, allocated), zero_charge(offset, length))
        return sequence

    def rotate(self) -> None:
        """The active memtable was sealed and a new one stands in its place."""
        self.links.rotate(self._writes.memtable)
        self.active = self.links.table
        self.own_memtables.insert(0, self.active)
        self.show_memtables()

    def drop_sealed(self) -> None:
        """The sealed memtable is in the index now, and so is what was inherited of it."""
        active, self.own_memtables = self._writes.memtable.layers, [self.active]
        self.inherited = [table for table in self.inherited if active.get(table.layer) is table]
        self.show_memtables()

    def inherit(self, layer: Layer) -> None:
        """Begin with what that layer shows."""
        self.index = layer.index
        self.inherited = [*layer.own_memtables, *layer.inherited]
        self.show_memtables()

    def freeze(self, device: Layer) -> None:
        """Show what that device does now, and keep what it keeps, as its snapshot."""
        self.own_memtables = device.own_memtables
        self.inherited, self.memtables = device.inherited, device.memtables
        self.kept_bytes = device.kept_bytes

    def show_memtables(self) -> None:
        """Show its own parts of the memtables, and those that it inherited if there is anything in them."""
        inherited = self.inherited if any(self.inherited) else []
        self.memtables = [*self.own_memtables, *inherited]

    # --- snapshots

    def move_on(self, number: int, sequence: int) -> None:
        """Go on under another number, which the change of the tree with this sequence made; nothing is written yet."""
        self.number = number
        self.links = Links(number, self._writes.memtable, sequence=self._writes.sequence)
        self.queue.move_on(number, self.links, sequence)
        self.active = self.links.table
        self.own_memtables = [self.active]
        self.kept_bytes = 0

    # --- replay

    def zero_for_tree(self, offset: int, length: int, sequence: int) -> None:
        """Zero what a tree change cut off; the record of that change is what the log says of it."""
        self.links.zero(offset, length, allocated=False, sequence=sequence)

    def replay(self, record: Op | Located, location: Callable[[Located], FrameRef]) -> None:
        """Link what the log says happened, without logging it again."""
        if isinstance(record, Located):
            self.links.locate(record.entry.block, location(record), record.entry.sequence)
        elif len(record) == 3:
            # Copied out of the body of its object, which holds much else: only what is linked is charged for.
            self.links.write(record[1], bytes(record[2]), record[0])
            self._writes.replay(write_charge(record[1], len(record[2])))
        else:
            self.links.zero(record[1], record[2], allocated=record[3], sequence=record[0])
            self._writes.replay(zero_charge(record[1], record[2]))

    def restore(self, op: Op) -> None:
        """Link what a journal says was done, under the number that it had, and queue it for the log."""
        if len(op) == 3:
            # Copied out of a segment of the journal, which holds much else.
            sequence, offset, data = op[0], op[1], bytes(op[2])
            self.links.write(offset, data, sequence)
            self.queue.append((sequence, offset, data), write_charge(offset, len(data)))
            self.written_bytes += len(data)
        else:
            self.links.zero(op[1], op[2], allocated=op[3], sequence=op[0])
            self.queue.append(op, zero_charge(op[1], op[2]))

    # --- durability

    @property
    def last_sequence(self) -> int:
        """Sequence of the newest operation linked to this layer."""
        return self.queue.last_sequence


def _location(base: Base) -> int:
    """Where the base of a memtable entry lies: a frame's location, HOLE or ALLOCATED, or -1 for a buffer."""
    if isinstance(base, FrameRef):
        return base.location
    return base if isinstance(base, int) else -1
