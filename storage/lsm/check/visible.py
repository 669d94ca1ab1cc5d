"""What can be seen of the index of a layer: of each sector the newest place, whatever lies below. No I/O.

Two indexes that were made in different ways (by flushes and jobs one after the other, or at one go by a start) differ
in the rows that nothing shows any more. What can be seen is the same in both, and can be compared.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from storage.format.blocks import ALLOCATED
from storage.format.columns import Columns
from storage.format.frame import FULL_MASK
from storage.lsm.index.block_map import Frozen
from storage.lsm.index.image import allocated_of, bases_of, patches_of

_NOTHING = np.zeros(0, np.uint64)


@dataclass(frozen=True, slots=True)
class Visible:
    """Columns block, mask, location, length and tag: `bases` has one row a block, `patches` some. The mask is that of
    the sectors which nothing newer covers.
    """

    bases: Columns
    """Frames of whole blocks, by block; also those of which nothing is seen."""
    patches: Columns
    """Frames above them of which something is seen, by block."""
    zeros: Columns
    """Blocks whose patches say that sectors are zeros, by block, and the mask of those sectors."""
    allocated: Columns
    """Ranges of blocks, first and end, whose base is zeros that stay allocated."""


def visible(frozen: Frozen) -> Visible:
    """What can be seen of an index that was frozen; for a thread. RuntimeError: the index is damaged."""
    patches = patches_of(frozen)
    blocks, covered = cover(patches)
    parts = list(bases_of(frozen))
    names = ("block", "location", "length", "tag")
    bases: Columns = {name: np.concatenate([part[name] for part in parts]) if parts else _NOTHING for name in names}
    bases["mask"] = ~masks_at(blocks, covered, bases["block"])
    zero = patches["location"] <= ALLOCATED
    seen = patches["mask"] != 0
    frames = {name: column[seen & ~zero] for name, column in patches.items()}
    return Visible(
        bases, frames, _by_block(patches["block"][seen & zero], patches["mask"][seen & zero]), allocated_of(frozen)
    )


def masks_at(
    blocks: NDArray[np.unsignedinteger], masks: NDArray[np.unsignedinteger], wanted: NDArray[np.unsignedinteger]
) -> NDArray[np.unsignedinteger]:
    """The mask of each wanted block, 0 for those that are not among `blocks`, which ascend."""
    if not len(blocks):
        return np.zeros(len(wanted), np.uint64)
    at = np.minimum(np.searchsorted(blocks, wanted), len(blocks) - 1)
    return np.where(blocks[at] == wanted, masks[at], np.uint64(0))


def _by_block(blocks: NDArray[np.unsignedinteger], masks: NDArray[np.unsignedinteger]) -> Columns:
    """One row a block, with all sectors of its masks; `blocks` ascend."""
    if not len(blocks):
        return {"block": blocks, "mask": masks}
    starts = np.flatnonzero(np.concatenate(([True], blocks[1:] != blocks[:-1])))
    return {"block": blocks[starts], "mask": np.bitwise_or.reduceat(masks, starts)}


def cover(rows: Columns) -> tuple[NDArray[np.unsignedinteger], NDArray[np.unsignedinteger]]:
    """Take from the mask of each row what newer rows of its block cover; rows stand by block, the newest last. Gives
    the blocks, and the sectors of each that rows cover.
    """
    blocks = rows["block"]
    rows["mask"] = rows["mask"].astype(np.uint64)
    if not len(blocks):
        return blocks, rows["mask"]
    starts = np.flatnonzero(np.concatenate(([True], blocks[1:] != blocks[:-1])))
    ends = np.append(starts[1:], len(blocks))
    covered = np.zeros(len(starts), np.uint64)
    left = np.arange(len(starts))
    depth = 1
    while len(left):
        at = ends[left] - depth
        mask = rows["mask"][at]
        rows["mask"][at] = mask & ~covered[left]
        covered[left] |= mask
        depth += 1
        # What is covered wholly has nothing below it that is seen.
        left = left[ends[left] - depth >= starts[left]]
    return blocks[starts], covered


assert np.uint64(FULL_MASK) == ~np.uint64(0)
