"""What can be seen of the index of a layer: of each sector the newest place, whatever lies below. No I/O.

Two indexes that were made in different ways (by flushes and jobs one after the other, or at one go by a start) differ
in the rows that nothing shows any more. What can be seen is the same in both, and can be compared.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from storage.format.blocks import ALLOCATED
from storage.format.columns import Columns
from storage.format.frame import FULL_MASK
from storage.lsm.index.image import allocated_of, bases_of, kept_blocks, patches_of
from storage.lsm.index.rows import Frozen

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


def visible(parts: Sequence[Frozen]) -> Visible:
    """What can be seen of a layer, for a thread. `parts` are the indexes of its trunk from that layer on, oldest first:
    the last one is that of the head, the others hold of some blocks what stands there, and of the rest nothing.
    RuntimeError: an index is damaged.
    """
    names = ("block", "location", "length", "tag")
    bases, patches, allocated = [], [], []
    above = np.zeros(0, np.uint32)
    for frozen in parts:
        bases += [_outside(part, above) for part in bases_of(frozen)]
        patches.append(_outside(patches_of(frozen), above))
        allocated.append(_cut_out(allocated_of(frozen), above))
        above = np.union1d(above, kept_blocks(frozen))
    rows = _joined(patches, (*names[:1], "mask", *names[1:]))
    order = np.argsort(rows["block"], kind="stable")
    rows = {name: column[order] for name, column in rows.items()}
    blocks, covered = cover(rows)
    whole = _joined(bases, names)
    order = np.argsort(whole["block"], kind="stable")
    whole = {name: column[order] for name, column in whole.items()}
    whole["mask"] = ~masks_at(blocks, covered, whole["block"])
    zero = rows["location"] <= ALLOCATED
    seen = rows["mask"] != 0
    frames = {name: column[seen & ~zero] for name, column in rows.items()}
    zeros = _by_block(rows["block"][seen & zero], rows["mask"][seen & zero])
    return Visible(whole, frames, zeros, _runs(allocated))


def _outside(rows: Columns, blocks: NDArray[np.uint32]) -> Columns:
    """The rows of other blocks."""
    if not len(blocks):
        return rows
    keep = ~np.isin(rows["block"], blocks)
    return {name: column[keep] for name, column in rows.items()}


def _joined(parts: Sequence[Columns], names: Sequence[str]) -> Columns:
    return {name: np.concatenate([part[name] for part in parts]) if parts else _NOTHING for name in names}


def _cut_out(ranges: Columns, blocks: NDArray[np.uint32]) -> list[tuple[int, int]]:
    """The ranges without some blocks."""
    found: list[tuple[int, int]] = []
    for first, end in zip(ranges["first"].tolist(), ranges["end"].tolist(), strict=True):
        low, high = np.searchsorted(blocks, np.array([first, end], np.uint32)).tolist()
        for block in blocks[low:high].tolist():
            if first < block:
                found.append((first, block))
            first = block + 1
        if first < end:
            found.append((first, end))
    return found


def _runs(parts: Sequence[list[tuple[int, int]]]) -> Columns:
    """Ranges of several indexes, ascending, neighbours as one."""
    runs: list[tuple[int, int]] = []
    for first, end in sorted(span for part in parts for span in part):
        if runs and runs[-1][1] == first:
            runs[-1] = (runs[-1][0], end)
        else:
            runs.append((first, end))
    return {
        "first": np.array([first for first, _ in runs], np.uint32),
        "end": np.array([end for _, end in runs], np.uint32),
    }


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
