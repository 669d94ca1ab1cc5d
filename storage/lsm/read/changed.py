"""Which sectors of one layer of a trunk are not what another one shows. Pure.

What snapshots keep is looked at, and what lies in memory of either layer: so it costs what was written, not what the
device holds. Never less than what differs. More may be said: of a block that was consolidated since, all sectors; of
what was zeroed, also what was zeros before, and allocated or not; of what is in memory, what it is the same as.
"""

from collections.abc import Iterable, Sequence

import numpy as np
from numpy.typing import NDArray

from storage.format.blocks import FrameRef, runs
from storage.format.frame import BLOCK_BYTES, SECTOR_BYTES
from storage.lsm.index.page import PAGE_BLOCKS, PAGE_SHIFT
from storage.lsm.index.rows import Found
from storage.lsm.index.trunk import Trunk
from storage.lsm.memtable.memtable import LayerTable

COMPARED_AT_ONCE = 128
"""Blocks with patches, or in memory, that are compared in one call: 2 ms, with a hundred snapshots in between 5. The
answer may be shorter than the question.
"""

PAGES_COMPARED_AT_ONCE = 4
"""Pages of which all other blocks are: 2 ms each with a hundred snapshots."""

LOOKUPS_AT_ONCE = 8192
"""Pages that are looked for in one call, in each snapshot in between and in memory: half a millisecond."""

Runs = list[tuple[int, bool]]
"""(bytes, whether they may differ), one after the other."""


def changed(trunk: Trunk, low: int, high: int, tables: Sequence[LayerTable], offset: int, length: int) -> Runs:
    """What differs between the layers at positions `low` and `high` (higher, or the same) of a trunk, from `offset` on,
    if what is in `tables` counts as different. It covers `length` bytes, or less if there is too much; never nothing.
    """
    end = offset + length
    first, last = offset // BLOCK_BYTES, (end - 1) // BLOCK_BYTES
    found = [
        (span.first * BLOCK_BYTES, span.end * BLOCK_BYTES)
        for table in tables
        for span in table.zeros.spans
        if span.first <= last and span.end > first
    ]
    deltas = trunk.deltas[low:high]
    written = _written_pages(tables, first, last)
    left, pages, lookups = COMPARED_AT_ONCE, PAGES_COMPARED_AT_ONCE, LOOKUPS_AT_ONCE
    for number in range(first >> PAGE_SHIFT, (last >> PAGE_SHIFT) + 1):
        single = written.get(number, set())
        differs = bool(single) or any(number in delta.pages for delta in deltas)
        if lookups <= 0 or (differs and pages == 0):
            end = min(end, (number << PAGE_SHIFT) * BLOCK_BYTES)
            break
        lookups -= len(deltas) + 1
        if not differs:
            continue
        pages -= 1
        whole, patched = _bases(trunk, low, high, number)
        one_by_one = sorted(block for block in single.union(patched.tolist()) if first <= block <= last)
        for block in one_by_one[:left]:
            mask = _written(tables, block)
            if any(delta.holds(block) for delta in deltas):
                mask |= _differing(trunk.holder(low, block).find(block), trunk.holder(high, block).find(block))
            start = block * BLOCK_BYTES
            found += [(start + begin * SECTOR_BYTES, start + stop * SECTOR_BYTES) for begin, stop in runs(mask)]
        found += [(block * BLOCK_BYTES, (block + 1) * BLOCK_BYTES) for block in whole.tolist()]
        if len(one_by_one) > left:
            end = min(end, one_by_one[left] * BLOCK_BYTES)
            break
        left -= len(one_by_one)
    return _runs(found, offset, end)


def _written_pages(tables: Sequence[LayerTable], first: int, last: int) -> dict[int, set[int]]:
    """The blocks in [first, last] that memory has, by page."""
    written: dict[int, set[int]] = {}
    for table in tables:
        for block in table.blocks:
            if first <= block <= last:
                written.setdefault(block >> PAGE_SHIFT, set()).add(block)
    return written


def _bases(trunk: Trunk, low: int, high: int, number: int) -> tuple[NDArray[np.uint32], NDArray[np.uint32]]:
    """The blocks of a page that both layers show without patches, and each another base; and those with patches, which
    may differ. All that was replaced between both is looked at.
    """
    replaced = np.zeros(PAGE_BLOCKS, bool)
    for delta in trunk.deltas[low:high]:
        if number in delta.pages:
            replaced[delta.pages[number].rows().at] = True
    at = np.flatnonzero(replaced)
    one, other = trunk.rows_shown(low, number, at), trunk.rows_shown(high, number, at)
    patched = (one.head | other.head) != 0
    blocks = at.astype(np.uint32) + np.uint32(number << PAGE_SHIFT)
    return blocks[~patched & (one.location != other.location)], blocks[patched]


def _written(tables: Sequence[LayerTable], block: int) -> int:
    mask = 0
    for table in tables:
        entry = table.blocks.get(block)
        if entry is not None:
            mask |= entry.mask
            for sector in entry.extents or ():
                mask |= 1 << sector
    return mask


def _differing(one: Iterable[Found], other: Iterable[Found]) -> int:
    """The sectors that two chains show from different places."""
    mask = 0
    others = _shown(other)
    for sectors, place in _shown(one):
        for other_sectors, other_place in others:
            if place != other_place:
                mask |= sectors & other_sectors
    return mask


def _shown(chain: Iterable[Found]) -> list[tuple[int, int]]:
    """(sectors, place) of each element of a chain, without what newer ones cover."""
    parts, seen = [], 0
    for found in chain:
        content = found.content
        own = found.mask & ~seen
        seen |= own
        if own:
            parts.append((own, content.location if isinstance(content, FrameRef) else content))
    return parts


def _runs(found: list[tuple[int, int]], offset: int, end: int) -> Runs:
    """Ranges, in any order, as runs from `offset` to `end`."""
    out: Runs = []
    at = offset
    for start, stop in sorted(found):
        start, stop = max(start, at), min(stop, end)
        if start >= stop:
            continue
        if start > at:
            out.append((start - at, False))
        if out and out[-1][1]:
            out[-1] = (out[-1][0] + stop - start, True)
        else:
            out.append((stop - start, True))
        at = stop
    if at < end:
        out.append((end - at, False))
    return out
