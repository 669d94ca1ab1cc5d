"""Bulk load: many rows at once into the index of a layer, as columns. No I/O."""

from collections.abc import Iterator
from itertools import pairwise

import numpy as np
from numpy.typing import NDArray

from storage.format.blocks import HOLE
from storage.format.columns import Columns
from storage.lsm.index.block_map import BlockMap
from storage.lsm.index.page import PAGE_MASK, PAGE_SHIFT


def load_bases(index: BlockMap, rows: Columns) -> None:
    """Many whole blocks: columns block (ascending, each at most once), location, length and tag."""
    blocks = rows["block"]
    pages = blocks >> PAGE_SHIFT
    edges = np.flatnonzero(np.diff(pages)) + 1
    for low, high in pairwise([0, *edges.tolist(), len(pages)]):
        if low == high:
            continue
        number = int(pages[low])
        if number not in index.pages and not rows["location"][low:high].any():
            continue  # holes, where all are
        if index.below is not None:
            for block in blocks[low:high].tolist():
                index.below.record(block, index)
        page = index.writable(number)
        at = blocks[low:high] & PAGE_MASK
        for block in blocks[low:high][page.heads()[at] != 0].tolist():
            index.forget_patches(block)
        location, length, tag = (rows[name][low:high] for name in ("location", "length", "tag"))
        page.set_bases(at, location=location, length=length, tag=tag)


def load_patches(index: BlockMap, rows: Columns) -> None:
    """Many chains, of blocks that have none: columns block, mask, location, length and tag, by block, and of each block
    from the oldest patch to the newest.
    """
    if not len(rows["block"]):
        return
    _point_heads(index, *index.patches.load(rows))


def add_patches(index: BlockMap, rows: Columns) -> None:
    """The same of blocks that may have chains, which these go on top of: what `add_patch` of each row in order does.

    At once, but for the blocks whose chains have to be pruned on the way, or where holes are among the rows: those are
    few. Nothing has been put together yet of what an index says that is loaded.
    """
    if not len(rows["block"]):
        return
    starts = np.flatnonzero(np.concatenate(([True], rows["block"][1:] != rows["block"][:-1])))
    counts = np.diff(np.append(starts, len(rows["block"])))
    blocks = rows["block"][starts]
    heads = _heads(index, blocks)
    at_once = index.patches.takes(heads, counts) & (np.minimum.reduceat(rows["location"], starts) != HOLE)
    chosen = np.repeat(at_once, counts)
    if at_once.any():
        if index.below is not None:
            for block in blocks[at_once].tolist():
                index.below.record(block, index)
        part = {name: column[chosen] for name, column in rows.items()}
        _point_heads(index, *index.patches.load(part, heads[at_once]))
    columns = (rows[name][~chosen].tolist() for name in ("block", "mask", "location", "length", "tag"))
    for block, mask, location, length, tag in zip(*columns, strict=True):
        index.add_patch(block, mask=mask, location=location, length=length, tag=tag)


def _heads(index: BlockMap, blocks: NDArray[np.unsignedinteger]) -> NDArray[np.uint32]:
    """The newest patch of each block, 0 for none; the blocks ascend."""
    heads = np.zeros(len(blocks), np.uint32)
    for low, high in _pages(blocks):
        page = index.pages.get(int(blocks[low]) >> PAGE_SHIFT)
        if page is not None:
            heads[low:high] = page.heads()[blocks[low:high] & PAGE_MASK]
    return heads


def _point_heads(index: BlockMap, heads: NDArray[np.uint32], blocks: NDArray[np.uint32]) -> None:
    for low, high in _pages(blocks):
        page = index.writable(int(blocks[low]) >> PAGE_SHIFT)
        page.set_heads(blocks[low:high] & PAGE_MASK, heads[low:high])


def _pages(blocks: NDArray[np.unsignedinteger]) -> Iterator[tuple[int, int]]:
    """Where the blocks of one page begin and end; the blocks ascend, and there is one at least."""
    edges = np.flatnonzero(np.diff(blocks >> PAGE_SHIFT)) + 1
    return pairwise([0, *edges.tolist(), len(blocks)])
