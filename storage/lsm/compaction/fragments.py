"""Windows of neighbouring blocks that lie in many places: each costs a reader that goes through the disk as many
requests as it has pieces. Counted from the index in memory, in steps between turns of the event loop. No I/O.

Where objects are small a window that is written anew lies in several of them: one that has no more pieces than it may
have then is not worth it, and would be found again, for ever.

Only devices that share nothing with a snapshot or a clone are looked at: what is written anew for one of them would be
stored twice.
"""

import asyncio
from collections.abc import Awaitable, Callable, Collection, Iterator, Mapping
from functools import partial

import numpy as np
from numpy.typing import NDArray

from storage.format.blocks import ALLOCATED
from storage.format.columns import Columns
from storage.format.frame import BLOCK_BYTES
from storage.lsm.compaction.plan import WINDOW_BLOCKS, PatchedBlock, Window
from storage.lsm.index.block_map import BlockMap
from storage.lsm.index.page import ALLOCATED_PAGE, PAGE_SHIFT
from storage.lsm.index.trunk import Trunk

WINDOW_PAGES_AT_ONCE = 32
"""Copied between two turns of the event loop: about half a millisecond."""


async def find_fragmented(
    trunks: Collection[Trunk],
    *,
    pieces: int | None,
    behind: tuple[int, int],
    bytes_max: int | None,
    object_bytes: int,
    gap_bytes_max: int,
    skipped: Collection[tuple[int, int]],
    run: Callable[[Callable[[], list[Window]]], Awaitable[list[Window]]],
) -> list[Window]:
    """The windows in at least so many `pieces` that objects of `object_bytes` make fewer, in turn round all disks from
    the one `behind` (layer and first block) on, until there are more than `bytes_max`; those with a block (layer,
    block) that is `skipped` are left out. `run` counts in a thread. `pieces` None: nobody wants to know.
    """
    if pieces is None:
        return []
    found: list[Window] = []
    total = 0
    heads = {trunk.head: trunk.flat for trunk in trunks if trunk.is_alone}
    left_out = {(layer, block // WINDOW_BLOCKS * WINDOW_BLOCKS) for layer, block in skipped}
    of_an_sst = max(object_bytes // BLOCK_BYTES, 1)
    for parts in _steps(heads, behind):
        for window in await run(partial(_fragmented, parts, pieces, of_an_sst, gap_bytes_max)):
            if (window.layer, window.first) not in left_out:
                found.append(window)
                total += window.size
            if bytes_max is not None and total > bytes_max:
                return found
        await asyncio.sleep(0)
    return found


def blocks_of(windows: Collection[Window], heads: Mapping[int, BlockMap]) -> list[PatchedBlock]:
    """The blocks of windows that have a frame now, in order; none of a layer that is a head no more. Each is what a
    block in pieces is to a consolidation: a chain, of one base.
    """
    return [
        PatchedBlock(window.layer, block, 0, 0)
        for window in sorted(windows)
        if window.layer in heads
        for block in range(window.first, window.first + WINDOW_BLOCKS)
        if heads[window.layer].standing(block).location > ALLOCATED
    ]


def _steps(heads: Mapping[int, BlockMap], behind: tuple[int, int]) -> Iterator[list[tuple[int, Columns]]]:
    """Layer, and block, location and length of its bases by block; each page once, but that of `behind` in two parts:
    what comes after it first, the rest last.
    """
    layer, first = behind
    at = layer, first >> PAGE_SHIFT
    places = sorted((number, page) for number, index in heads.items() for page in index.pages)
    later = [place for place in places if place >= at]
    order = [(place, place == at, False) for place in later]
    order += [(place, False, place == at) for place in places if place <= at]
    for start in range(0, len(order), WINDOW_PAGES_AT_ONCE):
        parts = []
        for (number, page), only_later, only_earlier in order[start : start + WINDOW_PAGES_AT_ONCE]:
            bases = _bases(heads[number], page)
            if only_later or only_earlier:
                is_later = bases["block"] // WINDOW_BLOCKS > first // WINDOW_BLOCKS
                chosen = is_later if only_later else ~is_later
                bases = {name: column[chosen] for name, column in bases.items()}
            parts.append((number, bases))
        yield parts


def _bases(index: BlockMap, number: int) -> Columns:
    page = index.pages.get(number)
    if page is None or page is ALLOCATED_PAGE:
        none = np.zeros(0, np.uint64)
        return {"block": none, "location": none, "length": none}
    location = np.array(page.location, np.uint64)
    at = np.flatnonzero(location > ALLOCATED)
    return {
        "block": page.blocks(number)[at].astype(np.uint64),
        "location": location[at],
        "length": page.lengths()[at].astype(np.uint64),
    }


def _fragmented(parts: list[tuple[int, Columns]], pieces: int, of_an_sst: int, gap_bytes_max: int) -> list[Window]:
    return [window for layer, bases in parts for window in _of_page(layer, bases, pieces, of_an_sst, gap_bytes_max)]


def _of_page(layer: int, bases: Columns, pieces: int, of_an_sst: int, gap_bytes_max: int) -> Iterator[Window]:
    block, location, length = bases["block"], bases["location"], bases["length"]
    if len(block) < pieces:
        return
    window = block // WINDOW_BLOCKS
    # In order there are at least as many pieces as when sorted: most pages end here.
    if not (
        np.bincount((window - window[0]).astype(np.int64), _begins(window, location, length, gap_bytes_max)) >= pieces
    ).any():
        return
    order = np.lexsort((location, window))
    window, location, length = window[order], location[order], length[order]
    starts = np.flatnonzero(np.concatenate(([True], window[1:] != window[:-1])))
    counts = np.add.reduceat(_begins(window, location, length, gap_bytes_max), starts)
    frames = np.diff(starts, append=len(window))
    pieces_then = 1 + -(-(frames - 1) // of_an_sst)  # at most, wherever in an object it begins
    worth = (counts >= pieces) & (counts > pieces_then)
    columns = (window[starts], frames, np.add.reduceat(length, starts), counts)
    for first, blocks, size, count in zip(*(column[worth].tolist() for column in columns), strict=True):
        yield Window(layer, first * WINDOW_BLOCKS, blocks, size, count)


def _begins(
    window: NDArray[np.unsignedinteger],
    location: NDArray[np.unsignedinteger],
    length: NDArray[np.unsignedinteger],
    gap_bytes_max: int,
) -> NDArray[np.int64]:
    """1 for each frame that is the first of its window, or does not come with the one before it (`coalesce`)."""
    gap = location[1:].astype(np.int64) - (location[:-1] + length[:-1]).astype(np.int64)
    near = (gap >= 0) & (gap <= gap_bytes_max) & (window[1:] == window[:-1])
    return np.concatenate(([1], (~near).astype(np.int64)))
