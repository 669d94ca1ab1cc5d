"""Extents block by block and sector by sector, by look-ups alone: the reference for what is found in columns."""

from storage.format.blocks import ALLOCATED, HOLE
from storage.format.frame import BLOCK_BYTES, SECTOR_BYTES
from storage.lsm.index.trunk import LayerIndex
from storage.lsm.memtable.memtable import LayerTable
from storage.lsm.read.extents import ExtentState

SECTORS = BLOCK_BYTES // SECTOR_BYTES


def one_by_one(tables: list[LayerTable], index: LayerIndex, first: int, end: int) -> list[ExtentState]:
    """The state of each sector of blocks [first, end)."""
    return [_sector(tables, index, block, sector) for block in range(first, end) for sector in range(SECTORS)]


def _sector(tables: list[LayerTable], index: LayerIndex, block: int, sector: int) -> ExtentState:
    for table in tables:
        entry = table.blocks.get(block)
        if entry is None:
            span = table.zeros.find(block)
            if span is not None:
                return _state(span.content)
        elif entry.mask >> sector & 1:
            return _state(entry.known(sector))
        elif sector in (entry.extents or ()):
            return ExtentState.DATA
    return _state(next(found.content for found in index.find(block) if found.mask >> sector & 1))


def _state(content: object) -> ExtentState:
    if content == ALLOCATED and isinstance(content, int):
        return ExtentState.ZERO
    return ExtentState.HOLE if content == HOLE and isinstance(content, int) else ExtentState.DATA
