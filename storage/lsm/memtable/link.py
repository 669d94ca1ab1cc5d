"""Linking: how an operation of one layer gets into its part of the active memtable. No I/O.

Only here is that part changed while it takes writes, but for frames that take the place of what they hold (`locate`).
Beside it stands what was written since the last cut of the layer's queue, so that whole blocks are known without
looking at all operations: `complete`, and in each entry `cut` and `fresh`.

A sector is linked in one call, without an allocation but that of a new entry: it is what most writes are.
"""

from storage.buffers import Buffer
from storage.format.blocks import ALLOCATED, HOLE, FrameRef
from storage.format.frame import (
    BLOCK_BYTES,
    BLOCK_OFFSET,
    BLOCK_SHIFT,
    FULL_MASK,
    SECTOR_BYTES,
    SECTOR_OFFSET,
    SECTOR_SHIFT,
)
from storage.lsm.memtable.memtable import OPERATION_OVERHEAD, BlockEntry, Memtable, Span, write_charge


class Links:
    """The links of one layer. Others read `table` and `newest_write`.

    Sequences are given in the order of the calls, so whatever is linked marks its entry with the newest (M5).
    """

    __slots__ = ("complete", "cut_number", "layer", "memtable", "newest_write", "table")

    def __init__(self, layer: int, memtable: Memtable, *, sequence: int) -> None:
        self.layer = layer
        self.memtable = memtable
        """The active one."""
        self.table = memtable.layer(layer)
        self.complete: dict[int, None] = {}
        """Blocks whose every sector was written since the last cut."""
        self.cut_number = 0
        """Cuts so far: an entry with another number was not written since the last one."""
        self.newest_write = sequence
        """Sequence of the newest operation that made a block entry."""

    def rotate(self, memtable: Memtable) -> None:
        """From now on link into another memtable."""
        self.memtable = memtable
        self.table = memtable.layer(self.layer)

    def cut(self) -> None:
        """All that was linked so far is cut off the queue, or is in the log already."""
        self.complete.clear()
        self.cut_number += 1

    def whole_blocks(self) -> list[tuple[int, BlockEntry]]:
        """The blocks that were wholly written since the last cut, and not zeroed after that."""
        found = []
        for block in self.complete:
            entry = self.table.blocks.get(block)
            if entry is not None and entry.cut == self.cut_number and entry.fresh == FULL_MASK == entry.mask:
                found.append((block, entry))
        return found

    def sector(self, block: int, sector: int, data: Buffer, sequence: int) -> None:
        """A write of one whole sector, the `sector`th of 64 in its block: what most writes are, without a further call.
        `data` are its 4096 bytes, which never change afterwards.
        """
        entry = self.table.blocks.get(block)
        if entry is None:
            entry = self.table.entry(block)
        if entry.cut != self.cut_number:
            entry.cut = self.cut_number
            entry.fresh = 0
        bit = 1 << sector
        entry.sectors[sector] = data
        entry.sequence = sequence
        entry.mask |= bit
        entry.charged += SECTOR_BYTES
        fresh = entry.fresh = entry.fresh | bit
        if entry.extents is not None:
            entry.extents.pop(sector, None)
        self.newest_write = sequence
        if fresh == FULL_MASK:
            self.complete[block] = None

    def write(self, offset: int, data: Buffer, sequence: int) -> None:
        """A write of any length."""
        self.newest_write = sequence
        view = memoryview(data)
        position = 0
        while position < len(view):
            block = (offset + position) >> BLOCK_SHIFT
            low = (offset + position) & BLOCK_OFFSET
            count = min(BLOCK_BYTES - low, len(view) - position)
            self._block_part(block, low, view[position : position + count], sequence)
            position += count

    def _block_part(self, block: int, low: int, piece: memoryview, sequence: int) -> None:
        entry = self.table.entry(block)
        if entry.cut != self.cut_number:
            entry.cut = self.cut_number
            entry.fresh = 0
        entry.sequence = sequence
        entry.charged += write_charge(low, len(piece)) - OPERATION_OVERHEAD
        if len(piece) == BLOCK_BYTES:
            entry.link_block(piece)
            entry.fresh = FULL_MASK
        else:
            position = 0
            while position < len(piece):
                sector = (low + position) >> SECTOR_SHIFT
                start = (low + position) & SECTOR_OFFSET
                count = min(SECTOR_BYTES - start, len(piece) - position)
                part = piece[position : position + count]
                if count == SECTOR_BYTES:
                    entry.link_sector(sector, part)
                    entry.fresh |= 1 << sector
                else:
                    entry.link_extent(sector, start, part)
                position += count
        if entry.fresh == FULL_MASK:
            self.complete[block] = None

    def zero(self, offset: int, length: int, *, allocated: bool, sequence: int) -> None:
        """A discard or a write of zeroes: the blocks that it covers become one span."""
        content = ALLOCATED if allocated else HOLE
        end = offset + length
        first_whole, end_whole = -(-offset >> BLOCK_SHIFT), end >> BLOCK_SHIFT
        self.memtable.zeroed += 1
        if end_whole - first_whole > 1:
            self.table.drop(first_whole, end_whole)
            span = Span(first_whole, end_whole, sequence, content)
            self.table.zeros.add(span, newest_write=self.newest_write)
            parts = [(offset, first_whole << BLOCK_SHIFT), (end_whole << BLOCK_SHIFT, end)]
        else:
            parts = [(offset, end)]
        for start, stop in parts:
            while start < stop:
                block = start >> BLOCK_SHIFT
                low = start & BLOCK_OFFSET
                count = min(BLOCK_BYTES - low, stop - start)
                self._zero_block_part(block, low, count, content, sequence)
                start += count

    def _zero_block_part(self, block: int, low: int, count: int, content: int, sequence: int) -> None:
        entry = self.table.entry(block)
        entry.sequence = sequence
        entry.fresh = 0
        self.newest_write = sequence
        if count == BLOCK_BYTES:
            entry.link_block(content)
            return
        position = low
        while position < low + count:
            sector, start = position >> SECTOR_SHIFT, position & SECTOR_OFFSET
            size = min(SECTOR_BYTES - start, low + count - position)
            if size == SECTOR_BYTES:
                entry.link_sector(sector, content)
            else:
                entry.link_extent(sector, start, bytes(size))
            position += size

    def locate(self, block: int, frame: FrameRef, sequence: int) -> None:
        """A block whose data is an uploaded frame, as the log says."""
        entry = self.table.entry(block)
        entry.sequence = sequence
        entry.link_block(frame)
        self.memtable.located += 1
        self.newest_write = sequence
