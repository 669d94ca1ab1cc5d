"""What a page of the index shows: how many sectors are allocated, and how many bytes of frames they lie in. No I/O.

Exact: a patch that newer ones cover wholly counts for nothing, whether it was pruned from its chain or not.
"""

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from storage.format.blocks import ALLOCATED, HOLE
from storage.format.frame import FULL_MASK
from storage.lsm.index.block_map import BlockMap
from storage.lsm.index.page import ALLOCATED_PAGE, PAGE_BLOCKS
from storage.lsm.index.patch_table import CHAIN_MAX

SECTORS_PER_BLOCK = FULL_MASK.bit_count()


class Shown(NamedTuple):
    """What a part of a layer shows."""

    sectors: int
    """Allocated: written and not discarded since."""
    live: int
    """Bytes of the frames that any sector is read from."""


def shown_on(index: BlockMap, number: int) -> Shown:
    """What page `number` shows: about 50 us, and a little for each patch. RuntimeError: the index is damaged."""
    page = index.pages.get(number)
    if page is None:
        return Shown(0, 0)
    if page is ALLOCATED_PAGE:
        return Shown(PAGE_BLOCKS * SECTORS_PER_BLOCK, 0)
    location = np.frombuffer(page.location, np.uint64)
    length, head = page.lengths(), page.heads()
    left = np.full(PAGE_BLOCKS, FULL_MASK, np.uint64)
    at = np.flatnonzero(head)
    above = _above(index, head[at], at, left) if len(at) else Shown(0, 0)
    below = _shown(location, length, left)
    return Shown(above.sectors + below.sectors, above.live + below.live)


def _above(index: BlockMap, row: NDArray[np.uint32], at: NDArray[np.int64], left: NDArray[np.uint64]) -> Shown:
    """What the chains that begin at `row`, of the blocks `at` of a page, show; takes that from `left`."""
    sectors, live = 0, 0
    for _ in range(CHAIN_MAX):
        patch = index.patches.at(row)
        own = patch["mask"] & left[at]
        found = _shown(patch["location"], patch["length"], own)
        sectors, live = sectors + found.sectors, live + found.live
        left[at] &= ~own
        more = patch["next"] != 0
        row, at = patch["next"][more].astype(np.uint32), at[more]
        if not len(row):
            return Shown(sectors, live)
    raise RuntimeError("the index in memory is damaged: a chain of patches leads nowhere")


def _shown(
    location: NDArray[np.unsignedinteger], length: NDArray[np.unsignedinteger], mask: NDArray[np.unsignedinteger]
) -> Shown:
    """What entries show of which the sectors of `mask` are not covered."""
    sectors = int(np.bitwise_count(mask[location != HOLE]).sum(dtype=np.int64))
    return Shown(sectors, int(length[(location > ALLOCATED) & (mask != 0)].sum(dtype=np.int64)))
