"""What many blocks of a page show at once, sector by sector: of each the newest entry that has it. No I/O."""

from collections.abc import Iterator
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from storage.format.blocks import ALLOCATED, HOLE
from storage.format.frame import FULL_MASK
from storage.lsm.index.page import PAGE_SHIFT, PageRows
from storage.lsm.index.patch_table import CHAIN_MAX, PatchTable, damaged


class PartOfPage(NamedTuple):
    """Some blocks of one page, and the table that has the patches of each."""

    rows: PageRows
    patches: PatchTable


class ShownEntries(NamedTuple):
    """Entries of different blocks, and what is seen of them."""

    row: NDArray[np.integer]
    """The block of each, as a row of its part; each row at most once."""
    mask: NDArray[np.uint64]
    """The sectors that no newer entry covers; of some entries none."""
    location: NDArray[np.uint64]


class ZeroMasks(NamedTuple):
    """The sectors that are zeros, of some neighbouring blocks; all others are data."""

    allocated: NDArray[np.uint64]
    hole: NDArray[np.uint64]


def shown_entries(number: int, part: PartOfPage) -> Iterator[ShownEntries]:
    """Of blocks of page `number` the newest patches, then those below them, and last all bases. RuntimeError: a chain
    leads nowhere.
    """
    rows = part.rows
    left = np.full(len(rows.at), FULL_MASK, np.uint64)
    at = np.flatnonzero(rows.head)
    head = rows.head[at]
    for _ in range(CHAIN_MAX + 1):
        if not len(at):
            break
        patch = part.patches.at(head)
        wrong = patch["block"] != rows.at[at] + np.uint32(number << PAGE_SHIFT)
        if wrong.any():
            raise damaged(number << PAGE_SHIFT | int(rows.at[at[np.argmax(wrong)]]))
        own = patch["mask"] & left[at]
        left[at] &= ~own
        yield ShownEntries(at, own, patch["location"])
        more = patch["next"] != 0
        head, at = patch["next"][more], at[more]
    else:
        raise damaged(number << PAGE_SHIFT | int(rows.at[at[0]]))
    yield ShownEntries(np.arange(len(rows.at)), left, rows.location)


def zero_masks(number: int, parts: list[PartOfPage], low: int, high: int) -> ZeroMasks:
    """What blocks [low, high) of page `number` show, each of which is in one of the parts."""
    found = ZeroMasks(np.zeros(high - low, np.uint64), np.zeros(high - low, np.uint64))
    for part in parts:
        place = part.rows.at.astype(np.int64) - low
        for entries in shown_entries(number, part):
            for masks, content in ((found.allocated, ALLOCATED), (found.hole, HOLE)):
                of = entries.location == content
                masks[place[entries.row[of]]] |= entries.mask[of]
    return found
