"""Which sectors of one layer of a trunk are not what another one shows. Pure.

What snapshots keep is looked at, and what lies in memory of either layer: so it costs what was written, not what the
device holds. Never less than what differs. More may be said: of a block that was consolidated since, all sectors; of
what was zeroed, also what was zeros before, and allocated or not; of what is in memory, what it is the same as.
"""

from collections.abc import Iterable, Iterator, Sequence

from storage.format.blocks import FrameRef, runs
from storage.format.frame import BLOCK_BYTES, SECTOR_BYTES
from storage.lsm.index.page import PAGE_SHIFT
from storage.lsm.index.reverse_delta import ReverseDelta
from storage.lsm.index.rows import Found
from storage.lsm.index.trunk import Trunk
from storage.lsm.memtable.memtable import LayerTable

COMPARED_AT_ONCE = 128
"""Blocks compared in one call: 3 ms, 12 with a hundred snapshots in between. The answer may be shorter than the
question.
"""

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
    for count, block in enumerate(_blocks(deltas, tables, first, last)):
        if count == COMPARED_AT_ONCE:
            end = block * BLOCK_BYTES
            break
        mask = _written(tables, block)
        if any(delta.holds(block) for delta in deltas):
            mask |= _differing(trunk.holder(low, block).find(block), trunk.holder(high, block).find(block))
        start = block * BLOCK_BYTES
        found += [(start + begin * SECTOR_BYTES, start + stop * SECTOR_BYTES) for begin, stop in runs(mask)]
    return _runs(found, offset, end)


def _blocks(deltas: Sequence[ReverseDelta], tables: Sequence[LayerTable], first: int, last: int) -> Iterator[int]:
    """The blocks in [first, last] of which anything may differ, ascending."""
    low, high = first >> PAGE_SHIFT, last >> PAGE_SHIFT
    pages: dict[int, set[int]] = {}
    for table in tables:
        for block in table.blocks:
            if first <= block <= last:
                pages.setdefault(block >> PAGE_SHIFT, set()).add(block)
    for number in sorted({*pages, *(page for delta in deltas for page in delta.pages if low <= page <= high)}):
        own = pages.get(number, set())
        for delta in deltas:
            if (page := delta.pages.get(number)) is not None:
                own.update(number << PAGE_SHIFT | at for at in page.at)
        yield from sorted(block for block in own if first <= block <= last)


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
