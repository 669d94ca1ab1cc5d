"""Clones of one snapshot have their pages in common until one of them is written to, also after a start."""

import pytest

from storage.format.blocks import HOLE
from storage.format.trunks import CloneSnapshot, FreezeHead, RollBack
from storage.lsm.index.block_map import COMPACT_MIN, BlockMap
from storage.lsm.index.forest import Forest, done
from storage.lsm.index.page import PAGE_BLOCKS
from storage.lsm.index.trunk import Trunk

PAGES = 3
SNAPSHOT, HEAD, ONE, OTHER = 1, 2, 3, 4
PATCHED, REPLACED = 5, 7
"""Blocks of each page."""


def place(block: int, sst: int = 1) -> int:
    return sst << 32 | block << 8


def filled() -> BlockMap:
    flat = BlockMap()
    for number in range(PAGES):
        for block in range(number * PAGE_BLOCKS, number * PAGE_BLOCKS + 10):
            flat.set_base(block, location=place(block), length=100, tag=block)
        patched = number * PAGE_BLOCKS + PATCHED
        flat.add_patch(patched, mask=1, location=place(patched, 2), length=10, tag=patched)
    return flat


@pytest.fixture
def forest() -> Forest:
    """A snapshot of which the head has replaced a block of each page since, and two clones of it."""
    forest = Forest([Trunk([SNAPSHOT], filled())])
    forest.hold()
    done(forest.steps(FreezeHead(SNAPSHOT, HEAD)))
    for number in range(PAGES):
        block = number * PAGE_BLOCKS + REPLACED
        forest.trunk(HEAD).flat.set_base(block, location=place(block, 9), length=100, tag=block)
    done(forest.steps(CloneSnapshot(SNAPSHOT, ONE)))
    done(forest.steps(CloneSnapshot(SNAPSHOT, OTHER)))
    return forest


def own_pages(forest: Forest) -> int:
    """How many pages of the second clone are its own."""
    one, other = (forest.trunk(layer).flat.pages for layer in (ONE, OTHER))
    assert one.keys() == other.keys() == set(range(PAGES))
    return sum(other[number] is not one[number] for number in other)


def test_they_have_all_pages_in_common(forest: Forest) -> None:
    assert own_pages(forest) == 0
    assert all(
        forest.trunk(ONE).flat.pages[number] is not forest.trunk(HEAD).flat.pages[number] for number in range(PAGES)
    )


@pytest.mark.parametrize(("writer", "reader"), [(ONE, OTHER), (OTHER, ONE)])
def test_what_is_written_to_one_is_its_own(forest: Forest, writer: int, reader: int) -> None:
    writes, reads = forest.trunk(writer).flat, forest.trunk(reader).flat
    before = [list(reads.find(block)) for block in (0, PATCHED, REPLACED)]
    writes.set_base(0, location=place(0, 8), length=1, tag=1)
    writes.add_patch(PATCHED, mask=2, location=place(1, 8), length=1, tag=1)
    assert own_pages(forest) == 1
    assert [list(reads.find(block)) for block in (0, PATCHED, REPLACED)] == before
    assert writes.locate(0, 0) == place(0, 8)
    assert writes.locate(PATCHED, 1) == place(1, 8)


def test_a_frame_moves_for_both(forest: Forest) -> None:
    for layer in (ONE, OTHER):
        forest.trunk(layer).flat.move(0, place(0), place(0, 8), 1)
        forest.trunk(layer).flat.move(PATCHED, place(PATCHED, 2), place(PATCHED, 8), 1)
    for layer in (ONE, OTHER):
        assert forest.trunk(layer).flat.locate(0, 0) == place(0, 8)
        assert forest.trunk(layer).flat.locate(PATCHED, 0) == place(PATCHED, 8)
    assert own_pages(forest) == 0


def test_one_that_is_made_while_a_checkpoint_is_written_changes_nothing_of_that(forest: Forest) -> None:
    frozen = forest.trunk(ONE).flat.freeze()
    late = OTHER + 1
    done(forest.steps(CloneSnapshot(SNAPSHOT, late)))
    assert forest.trunk(late).flat.pages[0] is forest.trunk(ONE).flat.pages[0]
    forest.trunk(late).flat.move(0, place(0), place(0, 8), 1)
    assert frozen.pages[0].location[0] == place(0)


def test_pages_that_differ_in_what_is_patched_are_not_shared(forest: Forest) -> None:
    done(forest.steps(FreezeHead(ONE, OTHER + 1)))
    flat = forest.trunk(OTHER + 1).flat
    flat.add_patch(0, mask=1, location=place(0, 8), length=1, tag=1)
    done(forest.steps(CloneSnapshot(SNAPSHOT, OTHER + 2)))
    late = forest.trunk(OTHER + 2).flat
    assert late.locate(0, 0) == place(0)
    assert flat.locate(0, 0) == place(0, 8)
    assert [late.pages[number] is flat.pages[number] for number in range(PAGES)] == [False, True, True]


def test_after_a_start_too() -> None:
    """From a checkpoint each has pages of its own at first."""
    forest = Forest([Trunk([layer], filled(), shares=layer != HEAD) for layer in (HEAD, ONE, OTHER)])
    assert own_pages(forest) == PAGES
    forest.hold()
    assert own_pages(forest) == 0
    assert forest.trunk(HEAD).flat.pages[0] is not forest.trunk(ONE).flat.pages[0], "what was never cloned is let alone"
    forest.trunk(OTHER).flat.set_base(0, location=place(0, 8), length=1, tag=1)
    assert forest.trunk(ONE).flat.locate(0, 0) == place(0)


def test_patches_of_the_head_alone_cost_a_clone_nothing(forest: Forest) -> None:
    """Its table begins as a copy of the head's."""
    head = forest.trunk(HEAD).flat
    for number in range(2 * COMPACT_MIN):
        head.add_patch(number, mask=1, location=place(number, 7), length=1, tag=1)
    done(forest.steps(CloneSnapshot(SNAPSHOT, OTHER + 1)))
    late = forest.trunk(OTHER + 1).flat
    assert late.patches.rows == PAGES + 1
    assert all(late.pages[number] is forest.trunk(ONE).flat.pages[number] for number in range(1, PAGES))
    assert [list(late.find(block)) for block in range(20)] == [
        list(forest.trunk(ONE).flat.find(block)) for block in range(20)
    ]
    assert late.locate(PATCHED, 0) == place(PATCHED, 2)


def test_a_table_that_gives_back_its_rows_leaves_others_as_they_were() -> None:
    """Its patches get other numbers, and pages that others have too must go on with the ones of theirs."""
    flat, blocks = BlockMap(), [number * PAGE_BLOCKS + PATCHED for number in range(PAGES)]
    for block in blocks:
        flat.set_base(block, location=place(block), length=10, tag=block)
    for block in reversed(blocks):  # in the order of the pages they will be numbered anew
        flat.add_patch(block, mask=1, location=place(block, 2), length=10, tag=block)
    before = [list(flat.find(block)) for block in blocks]
    frozen, clone = flat.freeze(), flat.copy()
    others = range(PAGES * PAGE_BLOCKS, PAGES * PAGE_BLOCKS + 2 * COMPACT_MIN)
    for block in others:
        clone.add_patch(block, mask=1, location=place(block, 3), length=10, tag=block)
    clone.zero_range(others[0], others[-1] + 1, HOLE)
    clone.compact()
    assert clone.patches.rows == PAGES + 1
    for index in (flat, clone):
        assert [list(index.find(block)) for block in blocks] == before
    heads = [int(frozen.pages[number].heads()[PATCHED]) for number in range(PAGES)]
    assert heads == list(range(PAGES, 0, -1)), "as they were numbered"


def test_a_clone_of_what_was_empty_has_no_pages() -> None:
    forest = Forest([Trunk([SNAPSHOT], BlockMap())])
    forest.hold()
    done(forest.steps(FreezeHead(SNAPSHOT, HEAD)))
    forest.trunk(HEAD).flat.set_base(7, location=place(7), length=1, tag=1)
    forest.trunk(HEAD).flat.add_patch(8, mask=1, location=place(8), length=1, tag=1)
    done(forest.steps(CloneSnapshot(SNAPSHOT, ONE)))
    assert forest.trunk(ONE).flat.pages == {}
    done(forest.steps(RollBack(SNAPSHOT, HEAD, OTHER)))
    assert forest.trunk(OTHER).flat.pages == {}
