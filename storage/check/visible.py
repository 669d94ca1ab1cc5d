"""What can be seen of the index of a layer: of each sector the newest place, whatever lies below. No I/O.

Two indexes that were made in different ways (by flushes and jobs one after the other, or at one go by a start) differ
in the rows that nothing shows any more. What can be seen is the same in both, and can be compared.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from msgspec import structs
from numpy.typing import NDArray

from storage.format.blocks import ALLOCATED
from storage.format.columns import Columns
from storage.format.frame import FULL_MASK
from storage.lsm.index.image import bases_of, kept_blocks, patches_of
from storage.lsm.index.page import PAGE_BLOCKS, PAGE_SHIFT
from storage.lsm.index.rows import Frozen

Blocks = NDArray[np.bool_]
"""Of each block of some pages: whether it is meant."""


@dataclass(frozen=True, slots=True)
class Pages:
    """Some pages, and a place for each of their blocks, so that what is known of a block is found without a search."""

    numbers: NDArray[np.int64]
    """Ascending."""

    def at(self, blocks: NDArray[np.unsignedinteger]) -> NDArray[np.int64]:
        """The places of blocks on these pages."""
        found = np.searchsorted(self.numbers, blocks >> PAGE_SHIFT)
        return found << PAGE_SHIFT | (blocks.astype(np.int64) & (PAGE_BLOCKS - 1))

    def all(self) -> Blocks:
        """Every block."""
        return np.ones(len(self.numbers) << PAGE_SHIFT, np.bool_)

    def none(self) -> Blocks:
        """No block."""
        return np.zeros(len(self.numbers) << PAGE_SHIFT, np.bool_)


@dataclass(frozen=True, slots=True)
class PartRows:
    """What the index of one layer says of some pages, by block."""

    bases: Columns
    patches: Columns
    """Of each block from the oldest to the newest."""
    allocated: NDArray[np.uint32]
    """Blocks whose base is zeros that stay allocated."""
    kept: NDArray[np.uint32]
    """The blocks that a snapshot holds; none of a head, which knows all blocks."""


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
    allocated: NDArray[np.uint32]
    """Blocks whose base is zeros that stay allocated, ascending."""


def rows_in(frozen: Frozen, pages: Pages) -> PartRows:
    """The rows of some pages. RuntimeError: the index is damaged."""
    there = {number: frozen.pages[number] for number in pages.numbers.tolist() if number in frozen.pages}
    part = structs.replace(frozen, pages=there)
    allocated = [
        page.blocks(number)[np.frombuffer(page.location, np.uint64) == ALLOCATED] for number, page in there.items()
    ]
    bases = _joined(list(bases_of(part)), ("block", "location", "length", "tag"))
    return PartRows(bases, patches_of(part), _together(allocated), kept_blocks(part))


def visible(parts: Sequence[PartRows], pages: Pages, wanted: Blocks) -> Visible:
    """What can be seen of the wanted blocks of a layer. `parts` are the indexes of its trunk from that layer on, oldest
    first: the last one is that of the head, the others hold of some blocks what stands there, and of the rest nothing.
    """
    names = ("block", "location", "length", "tag")
    bases, patches, allocated = [], [], []
    left = wanted.copy()
    for part in parts:
        bases.append(_within(part.bases, pages, left))
        patches.append(_within(part.patches, pages, left))
        allocated.append(part.allocated[left[pages.at(part.allocated)]])
        left[pages.at(part.kept)] = False
        if not left.any():
            break
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
    return Visible(whole, frames, zeros, np.sort(_together(allocated)))


def _within(rows: Columns, pages: Pages, left: Blocks) -> Columns:
    """The rows of blocks that are left."""
    keep = left[pages.at(rows["block"])]
    return rows if keep.all() else {name: column[keep] for name, column in rows.items()}


def _joined(parts: Sequence[Columns], names: Sequence[str]) -> Columns:
    types = {"block": np.uint32, "length": np.uint32}
    return {
        name: np.concatenate([part[name] for part in parts]) if parts else np.zeros(0, types.get(name, np.uint64))
        for name in names
    }


def _together(parts: Sequence[NDArray[np.uint32]]) -> NDArray[np.uint32]:
    return np.concatenate(parts) if parts else np.zeros(0, np.uint32)


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
