"""Extents of a layer: which parts hold data, which are zeros, and which of those are allocated. Pure.

One pass without awaits and without fetching anything: zeros that were written as data count as data. Whole pages
without entries are skipped in one step, so a hole of a terabyte costs a microsecond per gigabyte.
"""

from collections.abc import Container, Iterator
from enum import IntEnum

from storage.errors import BrokenInvariant
from storage.format.blocks import ALLOCATED, HOLE, FrameRef, runs
from storage.format.frame import BLOCK_BYTES, FULL_MASK, SECTOR_BYTES
from storage.lsm.index.page import PAGE_SHIFT
from storage.lsm.index.trunk import LayerIndex
from storage.lsm.memtable.memtable import BlockEntry, LayerTable
from storage.lsm.options import BLOCKS_FEW

STEPS_MAX = 4096
"""Blocks, or whole pages of them, looked at in one call: about 10 ms, 30 if every one is written in part.

The answer may be shorter than the question.
"""


class ExtentState(IntEnum):
    """What a run of bytes is."""

    DATA = 0
    ZERO = 2
    HOLE = 3


def extents(
    tables: list[LayerTable], index: LayerIndex, offset: int, length: int, *, blocks_few: int = BLOCKS_FEW
) -> list[tuple[int, ExtentState]]:
    """Runs (bytes, state) from `offset` on. They cover `length` bytes, or less if there is too much to walk; never
    nothing.
    """
    out: list[tuple[int, ExtentState]] = []
    end = offset + length
    for start, stop, state in _walk(tables, index, offset, end, blocks_few):
        size = min(stop, end) - max(start, offset)
        if size <= 0:
            continue
        if out and out[-1][1] is state:
            out[-1] = (out[-1][0] + size, state)
        else:
            out.append((size, state))
    return out


def allocated_bytes(runs_: list[tuple[int, ExtentState]]) -> int:
    """How many bytes of some extents are no hole."""
    return sum(size for size, state in runs_ if state is not ExtentState.HOLE)


def _walk(
    tables: list[LayerTable], index: LayerIndex, offset: int, end: int, blocks_few: int
) -> Iterator[tuple[int, int, ExtentState]]:
    block = offset // BLOCK_BYTES
    last = (end - 1) // BLOCK_BYTES
    written = _written_pages(tables, block, last, blocks_few)
    for _ in range(STEPS_MAX):
        if block > last:
            return
        page = block >> PAGE_SHIFT
        stop = block + 1
        state = None
        if page not in written:
            stop = min((page + 1) << PAGE_SHIFT, last + 1, *(table.zeros.next_after(block) for table in tables))
            span = next((span for table in tables if (span := table.zeros.find(block)) is not None), None)
            if span is not None:
                stop, state = min(stop, span.end), _zero_state(span.content)
            elif (content := index.uniform(page)) is not None:
                state = _zero_state(content)
            else:
                stop = block + 1
        if state is None:
            yield from _block(tables, index, block)
        else:
            yield block * BLOCK_BYTES, stop * BLOCK_BYTES, state
        block = stop


def _written_pages(tables: list[LayerTable], first: int, last: int, blocks_few: int) -> Container[int]:
    """Pages in which memtables may have entries of single blocks: all of a short range, that is cheaper than to ask."""
    if last - first < blocks_few:
        return range(first >> PAGE_SHIFT, (last >> PAGE_SHIFT) + 1)
    return {block >> PAGE_SHIFT for table in tables for block in table.blocks}


def _block(tables: list[LayerTable], index: LayerIndex, block: int) -> Iterator[tuple[int, int, ExtentState]]:
    masks = {ExtentState.DATA: 0, ExtentState.ZERO: 0, ExtentState.HOLE: 0}
    need = FULL_MASK
    for table in tables:
        entry = table.blocks.get(block)
        if entry is not None:
            need = _take(entry, need, masks)
        elif (span := table.zeros.find(block)) is not None:
            masks[_zero_state(span.content)] |= need
            need = 0
        if not need:
            break
    if need:
        for found in index.find(block):
            got = found.mask & need
            state = ExtentState.DATA if isinstance(found.content, FrameRef) else _zero_state(found.content)
            masks[state] |= got
            need &= ~got
            if not need:
                break
    start = block * BLOCK_BYTES
    parts = [(first, stop, state) for state, mask in masks.items() for first, stop in runs(mask)]
    for first, stop, state in sorted(parts):
        yield start + first * SECTOR_BYTES, start + stop * SECTOR_BYTES, state


def _take(entry: BlockEntry, need: int, masks: dict[ExtentState, int]) -> int:
    """Note what a memtable entry says of the sectors in `need`; gives those it does not know."""
    own = entry.mask & need
    for sector, content in entry.sectors.items():
        bit = 1 << sector
        if own & bit:
            own &= ~bit
            masks[_zero_state(content) if isinstance(content, int) else ExtentState.DATA] |= bit
    if own:
        masks[_zero_state(entry.base) if isinstance(entry.base, int) else ExtentState.DATA] |= own
    need &= ~entry.mask
    for sector in entry.extents or ():
        bit = need & (1 << sector)
        masks[ExtentState.DATA] |= bit
        need &= ~bit
    return need


def _zero_state(content: int) -> ExtentState:
    if content not in (HOLE, ALLOCATED):
        raise BrokenInvariant(f"{content} is no kind of zeros: who copies would leave data out")
    return ExtentState.ZERO if content == ALLOCATED else ExtentState.HOLE
