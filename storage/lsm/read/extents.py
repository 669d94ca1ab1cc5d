"""Extents of a layer: which parts hold data, which are zeros, and which of those are allocated. Pure.

One pass without awaits and without fetching anything: zeros that were written as data count as data. Pages are looked
at as columns, and what is alike all over a page takes no more than a glance. However much is asked for, one answer is
bounded work; what it leaves out is for the next question.
"""

from collections.abc import Container, Iterator, Sequence
from enum import IntEnum

import numpy as np
from numpy.typing import NDArray

from storage.errors import BrokenInvariant
from storage.format.blocks import ALLOCATED, HOLE
from storage.format.frame import BLOCK_BYTES, FULL_MASK, SECTOR_BYTES
from storage.lsm.index.page import PAGE_MASK, PAGE_SHIFT
from storage.lsm.index.shown_sectors import ZeroMasks, zero_masks
from storage.lsm.index.trunk import LayerIndex
from storage.lsm.memtable.memtable import BlockEntry, LayerTable
from storage.lsm.options import BLOCKS_FEW

STEPS_MAX = 2048
"""Units of work in one answer, each about a microsecond; the page that passes it is looked at to its end."""

PAGE_STEPS, DELTA_STEPS = 128, 16
"""A page that is looked at as columns; for a snapshot also each delta that it may be in."""

WRITTEN_AT_ONCE = 128
"""Blocks in memory that are looked at in one answer: 10 us each, 30 if it was written in many parts."""

MIXED_AT_ONCE = 256
"""Blocks of one page that are told sector by sector: half a millisecond."""

RUNS_AT_ONCE = 2048
"""Given in one answer: about a millisecond."""


class ExtentState(IntEnum):
    """What a run of bytes is."""

    DATA = 0
    ZERO = 2
    HOLE = 3


def extents(
    tables: Sequence[LayerTable], index: LayerIndex, offset: int, length: int, *, blocks_few: int = BLOCKS_FEW
) -> list[tuple[int, ExtentState]]:
    """Runs (bytes, state) from `offset` on. They cover `length` bytes, or less if there is too much to look at; never
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
        elif len(out) == RUNS_AT_ONCE:
            break
        else:
            out.append((size, state))
    return out


_STATES = {int(state): state for state in ExtentState}


def allocated_bytes(runs_: list[tuple[int, ExtentState]]) -> int:
    """How many bytes of some extents are no hole."""
    return sum(size for size, state in runs_ if state is not ExtentState.HOLE)


def _walk(
    tables: Sequence[LayerTable], index: LayerIndex, offset: int, end: int, blocks_few: int
) -> Iterator[tuple[int, int, ExtentState]]:
    block = offset // BLOCK_BYTES
    last = (end - 1) // BLOCK_BYTES
    written = _written_pages(tables, block, last, blocks_few)
    deltas, steps, singles = index.depth, STEPS_MAX, WRITTEN_AT_ONCE
    while block <= last and steps > 0:
        page = block >> PAGE_SHIFT
        page_end = stop = min((page + 1) << PAGE_SHIFT, last + 1)
        state = None
        if page not in written:
            stop = min(stop, *(table.zeros.next_after(block) for table in tables)) if tables else stop
            span = next((span for table in tables if (span := table.zeros.find(block)) is not None), None)
            if span is not None:
                stop, state = min(stop, span.end), _zero_state(span.content)
            elif (content := index.uniform(page)) is not None:
                state = _zero_state(content)
        if state is not None:
            steps -= 1 + deltas // DELTA_STEPS
            yield block * BLOCK_BYTES, stop * BLOCK_BYTES, state
            block = stop
            continue
        steps -= PAGE_STEPS + deltas * DELTA_STEPS
        single = _written_blocks(tables, block, page_end) if page in written else []
        cut = page_end if len(single) <= singles else single[singles]
        masks = _masks(tables, index, single[:singles], block, cut)
        block, looked_from = _mixed_end(masks, block, cut), block
        yield from _runs(masks, looked_from, block)
        singles -= len(single)
        if block < page_end or singles <= 0:
            return


def _written_pages(tables: Sequence[LayerTable], first: int, last: int, blocks_few: int) -> Container[int]:
    """Pages in which memtables may have entries of single blocks: all of a short range, that is cheaper than to ask."""
    if last - first < blocks_few:
        return range(first >> PAGE_SHIFT, (last >> PAGE_SHIFT) + 1)
    return {block >> PAGE_SHIFT for table in tables for block in table.blocks}


def _written_blocks(tables: Sequence[LayerTable], first: int, end: int) -> list[int]:
    """The blocks in [first, end) that memtables have entries of, ascending."""
    found: set[int] = set()
    for table in tables:
        if len(table.blocks) < end - first:
            found.update(block for block in table.blocks if first <= block < end)
        else:
            found.update(table.blocks.keys() & range(first, end))
    return sorted(found)


def _masks(tables: Sequence[LayerTable], index: LayerIndex, single: list[int], first: int, end: int) -> ZeroMasks:
    """What blocks [first, end) of one page show, of which memtables have entries of those in `single`."""
    number, low = first >> PAGE_SHIFT, first & PAGE_MASK
    high = low + end - first
    masks = zero_masks(number, index.parts(number, np.arange(low, high)), low, high)
    # What lies below their entries is that of the index, or of the span of an older memtable.
    shown = [
        _block(tables, block, int(masks.allocated[block - first]), int(masks.hole[block - first])) for block in single
    ]
    for table in reversed(tables):
        for span in table.zeros.within(first, end):
            part = slice(max(span.first - first, 0), span.end - first)
            zero = _zero_state(span.content) is ExtentState.ZERO
            masks.allocated[part], masks.hole[part] = (FULL_MASK, 0) if zero else (0, FULL_MASK)
    for block, (allocated, hole) in zip(single, shown, strict=True):
        masks.allocated[block - first], masks.hole[block - first] = allocated, hole
    return masks


def _mixed(masks: ZeroMasks) -> NDArray[np.bool_]:
    """Which blocks are not one thing all over."""
    found = np.zeros(len(masks.hole), bool)
    for mask in masks:
        found |= (mask != 0) & (mask != np.uint64(FULL_MASK))
    return found


def _mixed_end(masks: ZeroMasks, first: int, end: int) -> int:
    """Where blocks [first, end) have to be cut, so that not too many are told sector by sector."""
    mixed = np.flatnonzero(_mixed(masks))
    return end if len(mixed) <= MIXED_AT_ONCE else first + int(mixed[MIXED_AT_ONCE])


def _runs(masks: ZeroMasks, first: int, end: int) -> Iterator[tuple[int, int, ExtentState]]:
    """Runs of blocks [first, end), which are the first of those in `masks`."""
    allocated, hole = masks.allocated[: end - first], masks.hole[: end - first]
    # Of a block that is one thing all over the first sector stands for all.
    sectors = np.where(_mixed(ZeroMasks(allocated, hole)), FULL_MASK.bit_count(), 1)
    block = np.repeat(np.arange(end - first), sectors)
    sector = np.arange(len(block)) - np.repeat(np.cumsum(sectors) - sectors, sectors)
    bit = np.uint64(1) << sector.astype(np.uint64)
    state = np.where(hole[block] & bit, ExtentState.HOLE, np.where(allocated[block] & bit, ExtentState.ZERO, 0))
    begins = np.concatenate(([0], np.flatnonzero(state[1:] != state[:-1]) + 1))
    starts = ((first + block[begins]) * BLOCK_BYTES + sector[begins] * SECTOR_BYTES).tolist()
    stops = [*starts[1:], end * BLOCK_BYTES]
    for start, stop, value in zip(starts, stops, state[begins].tolist(), strict=True):
        yield start, stop, _STATES[value]


def _block(tables: Sequence[LayerTable], block: int, allocated: int, hole: int) -> tuple[int, int]:
    """The sectors of a block that are allocated zeros, and those that are holes, if these are so in the index."""
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
    return masks[ExtentState.ZERO] | need & allocated, masks[ExtentState.HOLE] | need & hole


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
