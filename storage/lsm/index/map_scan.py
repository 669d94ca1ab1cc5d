"""Scans of the whole index of a layer: how much of each SST is referred to, which blocks have patches, which frames
lie in some SSTs. No I/O.
"""

from collections.abc import Collection, Iterator
from itertools import islice

import numpy as np
from numpy.typing import NDArray

from storage.format.blocks import ALLOCATED, FrameRef
from storage.format.columns import Columns
from storage.lsm.index.block_map import BlockMap
from storage.lsm.index.page import ALLOCATED_PAGE, PAGE_BLOCKS
from storage.lsm.index.trunk import AnyMap

PAGES_AT_ONCE = 8
PATCHES_AT_ONCE = PAGES_AT_ONCE * PAGE_BLOCKS
"""Looked at between two turns of the event loop: about half a millisecond."""

FRAMES_AT_ONCE = 512
"""Given in one step: as long."""


def referenced(index: AnyMap) -> Iterator[Columns]:
    """Location and length of all that is referred to, in steps of a millisecond."""
    pages = [page for page in index.pages.values() if page is not ALLOCATED_PAGE]
    for start in range(0, len(pages), PAGES_AT_ONCE):
        some = pages[start : start + PAGES_AT_ONCE]
        yield {
            "location": np.concatenate([np.array(page.location, np.uint64) for page in some]),
            "length": np.concatenate([page.lengths() for page in some]),
        }
    for start in range(0, index.patches.rows, PATCHES_AT_ONCE):
        part = index.patches.columns(slice(start, start + PATCHES_AT_ONCE))
        yield {"location": part["location"], "length": part["length"]}


def patch_rows(index: BlockMap) -> Iterator[Columns]:
    """The columns block, mask, location and length of every patch, in no order, in steps."""
    for start in range(0, index.patches.rows, PATCHES_AT_ONCE):
        yield index.patches.columns(slice(start, start + PATCHES_AT_ONCE))


def bases_below(index: BlockMap) -> Iterator[Columns]:
    """Of every patched block with a frame below its patches the columns block and length, in steps; in no order."""
    numbers = list(index.pages)
    for start in range(0, len(numbers), PAGES_AT_ONCE):
        for number in numbers[start : start + PAGES_AT_ONCE]:
            page = index.pages.get(number)
            if page is None or page is ALLOCATED_PAGE:
                continue
            below = page.heads() != 0
            below &= np.frombuffer(page.location, np.uint64) > ALLOCATED
            at = np.flatnonzero(below)
            if len(at):
                block = page.blocks(number)[at]
                yield {"block": block, "length": page.lengths()[at]}


def numbers_mask(numbers: Collection[int]) -> NDArray[np.bool_]:
    """Some numbers of SSTs as `frames_in` takes them; at least one."""
    mask = np.zeros(max(numbers) + 1, dtype=bool)
    mask[list(numbers)] = True
    return mask


def frames_in(index: AnyMap, wanted: NDArray[np.bool_]) -> Iterator[list[FrameRef]]:
    """All frames that lie in SSTs with these numbers, in steps of half a millisecond. What is written anew between two
    steps may be given or not: it lies elsewhere then.
    """
    numbers = list(index.pages)
    for start in range(0, len(numbers), PAGES_AT_ONCE):
        found: list[FrameRef] = []
        for number in numbers[start : start + PAGES_AT_ONCE]:
            page = index.pages.get(number)
            if page is None or page is ALLOCATED_PAGE:
                continue
            # A copy: a page of a snapshot does not grow while numpy looks at it.
            hits = np.flatnonzero(_is_in(np.array(page.location, np.uint64), wanted))
            lengths = page.lengths()[hits].tolist()
            for at, length, block in zip(hits.tolist(), lengths, page.blocks(number)[hits].tolist(), strict=True):
                found.append(FrameRef(page.location[at], length, page.tag[at], block, full=True))
        yield found
    for start in range(0, index.patches.rows, PATCHES_AT_ONCE):
        columns = index.patches.columns(slice(start, start + PATCHES_AT_ONCE))
        hit = _is_in(columns["location"], wanted)
        rows = zip(*(columns[name][hit].tolist() for name in ("location", "length", "tag", "block")), strict=True)
        while True:
            some = islice(rows, FRAMES_AT_ONCE)
            found = [FrameRef(at, size, tag, block, full=False) for at, size, tag, block in some]
            yield found
            if len(found) < FRAMES_AT_ONCE:
                break


def add_by_number(total: NDArray[np.float64], frames: Columns) -> None:
    """Add the bytes of frames to those of their SSTs, by number; what has a higher number is not asked about. It takes
    as long as there are frames, however many SSTs this process has seen in its life: millions, in months.
    """
    number = (frames["location"] >> np.uint64(32)).astype(np.int64)
    known = number < len(total)
    np.add.at(total, number[known], frames["length"][known].astype(np.float64))


def _is_in(location: NDArray[np.unsignedinteger], wanted: NDArray[np.bool_]) -> NDArray[np.bool_]:
    """Which locations lie in SSTs with a number that is wanted."""
    number = (location >> np.uint64(32)).astype(np.int64)
    return (number < len(wanted)) & wanted[np.minimum(number, len(wanted) - 1)]
