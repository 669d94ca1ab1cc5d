"""Locators: uploaded frames take the place of the bytes of their blocks in the memtable.

What the memtable was charged for those bytes is given back, so nothing there may keep them in memory any longer: a
write of 32 MiB that does not begin with a block leaves two parts of blocks behind, which are views of all of it.
"""

from storage.buffers import retained_bytes
from storage.cache.frame_cache import FrameCache
from storage.format.blocks import HOLE, FrameRef
from storage.format.frame import BLOCK_SHIFT
from storage.format.wal import LayerLogRecords
from storage.lsm.memtable.memtable import LayerTable
from storage.lsm.memtable.write_state import WriteState
from storage.lsm.sst.bulk import Upload, WholeBlock
from storage.lsm.wal.queue import Cut


def locate(cut: Cut, upload: Upload, writes: WriteState, cache: FrameCache) -> None:
    """Point the memtable of an acknowledged cut at what was uploaded of it, where that was not written again since."""
    memtable = cut.memtable
    memtable.ssts += upload.ssts
    table = memtable.layers.get(cut.records.layer)
    if table is None:
        return
    found: list[tuple[WholeBlock, FrameRef | int]] = [(block, HOLE) for block in upload.zeros]
    for block, ref, data in upload.frames:
        found.append((block, ref))
        if table.blocks.get(block.block) is block.entry and block.entry.sequence == block.sequence:
            cache.put(ref.location, data)
    for block, content in found:
        entry = block.entry
        if table.blocks.get(block.block) is not entry:
            continue
        # Another sequence: it was written again since (M5).
        if entry.sequence != block.sequence:
            entry.own()
            continue
        entry.link_block(content)
        memtable.located += isinstance(content, FrameRef)
        writes.release(entry.charged, sealed=memtable is writes.sealed)
        entry.charged = 0
    _own_rest(cut.records, table)


def _own_rest(records: LayerLogRecords, table: LayerTable) -> None:
    """Copy what is left of writes whose whole blocks were uploaded."""
    touched = {
        block
        for op in records.ops
        if len(op) == 3 and retained_bytes(op[2]) > len(op[2])
        for block in range(op[1] >> BLOCK_SHIFT, ((op[1] + len(op[2]) - 1) >> BLOCK_SHIFT) + 1)
    }
    for block in touched & table.blocks.keys():
        table.blocks[block].own()
