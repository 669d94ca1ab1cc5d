"""Scans of a whole index, longer than one step of theirs: each finds all that block after block finds."""

from collections import Counter

from storage.format.blocks import FrameRef
from storage.lsm.index.block_map import BlockMap
from storage.lsm.index.map_scan import (
    FRAMES_AT_ONCE,
    PAGES_AT_ONCE,
    PATCHES_AT_ONCE,
    bases_below,
    frames_in,
    numbers_mask,
    patch_rows,
    referenced,
)
from storage.lsm.index.page import PAGE_BLOCKS

PLACE = 3 << 32
LENGTH = 7


def by_block(index: BlockMap, blocks: range) -> Counter[tuple[int, int]]:
    """Location and length of every frame, asked for block by block."""
    chains = (index.find(block) for block in blocks)
    frames = (found.content for chain in chains for found in chain)
    return Counter((frame.location, frame.length) for frame in frames if isinstance(frame, FrameRef))


def by_scan(index: BlockMap) -> Counter[tuple[int, int]]:
    """The same of all that is referred to; a free row says nothing of any frame."""
    parts = list(referenced(index))
    rows = [row for part in parts for row in zip(part["location"].tolist(), part["length"].tolist(), strict=True)]
    return Counter((location, length) for location, length in rows if location >> 32)


def frames_of(index: BlockMap) -> Counter[tuple[int, int]]:
    """The same of all frames in the SST."""
    steps = frames_in(index, numbers_mask([PLACE >> 32]))
    return Counter((frame.location, frame.length) for step in steps for frame in step)


def patched(blocks: range, *, each: int) -> BlockMap:
    """Blocks with so many patches each."""
    index = BlockMap()
    for block in blocks:
        for number in range(each):
            index.add_patch(block, mask=1 << number, location=PLACE | (block * each + number), length=LENGTH, tag=1)
    return index


def test_bases_on_more_pages_than_a_step_looks_at() -> None:
    index, pages = BlockMap(), 2 * PAGES_AT_ONCE + 1
    for number in range(pages):
        index.set_base(number * PAGE_BLOCKS, location=PLACE | number, length=LENGTH + number, tag=1)
        index.add_patch(number * PAGE_BLOCKS, mask=1, location=PLACE | 1 << 20 | number, length=LENGTH, tag=1)
    truth = by_block(index, range(0, pages * PAGE_BLOCKS, PAGE_BLOCKS))
    assert len(truth) == 2 * pages
    assert by_scan(index) == frames_of(index) == truth
    below = [block for part in bases_below(index) for block in part["block"].tolist()]
    assert sorted(below) == list(range(0, pages * PAGE_BLOCKS, PAGE_BLOCKS))


def test_patches_of_one_sst_that_are_more_than_a_step_gives() -> None:
    blocks = range(2 * FRAMES_AT_ONCE + 276)
    index = patched(blocks, each=1)
    assert frames_of(index) == by_scan(index) == by_block(index, blocks)


def test_patches_that_are_exactly_what_a_step_gives() -> None:
    blocks = range(FRAMES_AT_ONCE)
    index = patched(blocks, each=1)
    assert frames_of(index) == by_scan(index) == by_block(index, blocks)


def test_rows_behind_free_ones_are_looked_at() -> None:
    """A table with room for more rows than are taken: the last of them count as the first do."""
    blocks = range(PATCHES_AT_ONCE // 4 + 500)
    index = patched(blocks, each=4)
    for block in range(2000):
        index.set_base(block, location=PLACE | 1 << 24 | block, length=LENGTH, tag=1)
    assert len(index.patches) <= PATCHES_AT_ONCE < index.patches.rows
    truth = by_block(index, blocks)
    assert by_scan(index) == frames_of(index) == truth
    rows = sum(int((part["location"] >> 32 == PLACE >> 32).sum()) for part in patch_rows(index))
    assert rows == len(index.patches)
