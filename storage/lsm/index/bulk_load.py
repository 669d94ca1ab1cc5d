"""Bulk load: many rows at once into the index of a layer, as columns. No I/O."""

from itertools import pairwise

import numpy as np

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
        page.make_bases()
        at = blocks[low:high] & PAGE_MASK
        for block in blocks[low:high][np.frombuffer(page.head, np.uint32)[at] != 0].tolist():
            index.forget_patches(block)
        np.frombuffer(page.location, np.uint64)[at] = rows["location"][low:high]
        np.frombuffer(page.length, np.uint32)[at] = rows["length"][low:high]
        np.frombuffer(page.tag, np.uint64)[at] = rows["tag"][low:high]


def load_patches(index: BlockMap, rows: Columns) -> None:
    """Many chains, of blocks that have none: columns block, mask, location, length and tag, by block, and of each block
    from the oldest patch to the newest.
    """
    if not len(rows["block"]):
        return
    heads, blocks = index.patches.load(rows)
    edges = np.flatnonzero(np.diff(blocks >> PAGE_SHIFT)) + 1
    for low, high in pairwise([0, *edges.tolist(), len(blocks)]):
        page = index.writable(int(blocks[low]) >> PAGE_SHIFT)
        np.frombuffer(page.head, np.uint32)[blocks[low:high] & PAGE_MASK] = heads[low:high]
