"""Patches that snapshots keep: over nothing, and in several tables at once, as drawn forests seldom have them."""

import pytest

from storage.format.blocks import ALLOCATED, HOLE, FrameRef
from storage.format.frame import BLOCK_BYTES, SECTOR_BYTES
from storage.format.trunks import CloneSnapshot, FreezeHead, MakeLayer, RollBack
from storage.lsm.index.block_map import BlockMap
from storage.lsm.index.forest import Forest, done
from storage.lsm.index.page import PAGE_BLOCKS
from storage.lsm.read.changed import changed

FIRST, SECOND, HEAD, NEW = 1, 2, 3, 4
"""Two snapshots, the head behind them, and the layer that an operation makes."""
BLOCK, PLAIN, OTHER = 5, 6, 7


def place(offset: int) -> int:
    return 1 << 32 | offset


def write(index: BlockMap, block: int, offset: int) -> None:
    index.set_base(block, location=place(offset), length=1, tag=offset)


def patch(index: BlockMap, block: int, offset: int, mask: int = 1) -> None:
    index.add_patch(block, mask=mask, location=place(offset), length=1, tag=offset)


def places(index: BlockMap, block: int) -> list[int]:
    found = (part.content for part in index.find(block))
    return [content.location if isinstance(content, FrameRef) else content for content in found]


@pytest.fixture
def forest() -> Forest:
    forest = Forest()
    done(forest.steps(MakeLayer(FIRST)))
    return forest


def freeze(forest: Forest, head: int) -> BlockMap:
    """A snapshot of that head; what goes on."""
    done(forest.steps(FreezeHead(head, head + 1)))
    return forest.heads()[head + 1]


@pytest.mark.parametrize("zeros", [HOLE, ALLOCATED])
@pytest.mark.parametrize("again", [RollBack(FIRST, SECOND, NEW), CloneSnapshot(FIRST, NEW)])
def test_a_page_of_nothing_but_patches_comes_back(forest: Forest, again: RollBack | CloneSnapshot, zeros: int) -> None:
    patch(forest.heads()[FIRST], BLOCK, 100)
    head = freeze(forest, FIRST)
    head.zero_range(0, PAGE_BLOCKS, zeros)
    done(forest.steps(again))
    assert places(forest.heads()[NEW], BLOCK) == [place(100), HOLE]


def test_each_patch_is_of_the_snapshot_that_kept_it(forest: Forest) -> None:
    """Where some blocks of a page are as they were, and are passed over, others are not taken for theirs."""
    first = forest.heads()[FIRST]
    for block in (BLOCK, OTHER):
        write(first, block, 100 + block)
        patch(first, block, 200 + block)
    second = freeze(forest, FIRST)
    write(second, PLAIN - 2, 300)
    write(second, BLOCK, 301)
    patch(second, BLOCK, 302)
    head = freeze(forest, SECOND)
    head.zero_range(PLAIN - 2, PLAIN - 1, HOLE)
    write(head, OTHER, 400)
    done(forest.steps(RollBack(FIRST, HEAD, NEW)))
    found = forest.heads()[NEW]
    assert places(found, PLAIN - 2) == [HOLE]
    assert [places(found, block) for block in (BLOCK, OTHER)] == [
        [place(200 + block), place(100 + block)] for block in (BLOCK, OTHER)
    ]


@pytest.mark.parametrize("before", ["patch", "nothing"])
def test_what_one_shows_by_a_patch_alone_differs_from_nothing(forest: Forest, before: str) -> None:
    """The bases of both are holes: whoever goes by those would leave it out of an incremental copy."""
    if before == "patch":
        patch(forest.heads()[FIRST], BLOCK, 100)
        freeze(forest, FIRST).zero_range(0, PAGE_BLOCKS, HOLE)
    else:
        patch(freeze(forest, FIRST), BLOCK, 100)
    runs = changed(forest.trunk(SECOND), 0, 1, [], BLOCK * BLOCK_BYTES, BLOCK_BYTES)
    assert runs[0] == (SECTOR_BYTES, True)
