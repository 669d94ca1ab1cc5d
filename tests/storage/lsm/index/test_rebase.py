"""Frames that jobs put elsewhere, or in the place of others, in a map that is written to meanwhile."""

import numpy as np
import pytest

from storage.errors import Corrupt
from storage.format.blocks import ALLOCATED, HOLE
from storage.format.frame import FULL_MASK
from storage.lsm.index.block_map import BlockMap
from storage.lsm.index.bulk_load import HeldRows, put_rows
from storage.lsm.index.image import check_listed
from storage.lsm.index.page import PAGE_BLOCKS
from tests.storage.lsm.index.test_image import LENGTH, load, parts

# --- move


def frame(offset: int, *, sst: int = 5) -> dict[str, int]:
    return {"location": sst << 32 | offset, "length": LENGTH, "tag": offset}


def locations(found: BlockMap, block: int) -> list[int]:
    return [item.content if isinstance(item.content, int) else item.content.location for item in found.find(block)]


def test_move_points_a_base_or_a_patch_elsewhere_and_nothing_else() -> None:
    found = BlockMap()
    found.set_base(3, **frame(100))
    found.add_patch(3, mask=1, **frame(200))
    found.add_patch(3, mask=2, **frame(300))
    masks = [item.mask for item in found.find(3)]
    assert found.move(3, 5 << 32 | 200, 6 << 32 | 1, 1)
    assert found.move(3, 5 << 32 | 100, 6 << 32 | 2, 2)
    assert locations(found, 3) == [5 << 32 | 300, 6 << 32 | 1, 6 << 32 | 2]
    assert [item.mask for item in found.find(3)] == masks
    tags = [item.content.tag for item in found.find(3) if not isinstance(item.content, int)]
    assert tags == [300, 1, 2], "where it lies now it may have been sealed anew"
    assert not found.move(3, 5 << 32 | 200, 6 << 32 | 3, 3), "it is there no more"
    assert not found.move(4, 5 << 32 | 300, 6 << 32 | 3, 3), "another block"
    assert not found.move(PAGE_BLOCKS, 5 << 32 | 300, 6 << 32 | 3, 3), "a page that is not there"
    assert locations(found, 3) == [5 << 32 | 300, 6 << 32 | 1, 6 << 32 | 2]
    assert found.take_dead() == [], "moved is not dead: whoever moved it moves it in the cache"


# --- rebase

NEW = frame(9999, sst=9)


def patched(*patches: tuple[int, int], base: int | None = 100) -> BlockMap:
    found = BlockMap()
    found.zero_range(2, 3, ALLOCATED)  # so that there is a page
    if base is not None:
        found.set_base(3, **frame(base))
    for mask, offset in patches:
        found.add_patch(3, mask=mask, **frame(offset))
    return found


def test_rebase_takes_the_place_of_all_that_it_was_made_of() -> None:
    for base in (100, None):
        found = patched((1, 200), (2, 300), base=base)
        assert found.rebase(3, found.take(3), **NEW)
        assert locations(found, 3) == [NEW["location"]]
        dead = {5 << 32 | 200, 5 << 32 | 300} | ({5 << 32 | base} if base else set())
        assert set(found.take_dead()) == dead
        assert len(found.patches) == 0


def test_what_was_put_together_of_a_block_is_forgotten_when_a_frame_takes_its_place() -> None:
    """Nothing is above the frame then, so a later write of the whole block would not look for it."""
    found = patched((1, 200), (2, 300))
    found.assembled[3] = (77, FULL_MASK)
    assert found.rebase(3, found.take(3), **NEW)
    assert not found.assembled
    assert 77 in found.take_dead()
    found.set_base(3, **frame(500))
    found.add_patch(3, mask=1, **frame(600))
    assert locations(found, 3) == [5 << 32 | 600, 5 << 32 | 500]


def test_what_came_later_stays_above_it() -> None:
    found = patched((1, 200), (2, 300))
    chain = found.take(3)
    found.add_patch(3, mask=5, **frame(400))
    found.add_patch(3, mask=8, location=ALLOCATED, length=0, tag=0)
    assert found.rebase(3, chain, **NEW)
    assert locations(found, 3) == [ALLOCATED, 5 << 32 | 400, NEW["location"]]
    assert len(found.patches) == 2


def test_what_later_patches_covered_of_it_does_not_matter() -> None:
    """A pruning took inputs away."""
    found = patched((1, 200), (2, 300))
    chain = found.take(3)
    found.add_patch(3, mask=1, **frame(400))
    found.prune(3)
    assert found.rebase(3, chain, **NEW)
    assert locations(found, 3) == [5 << 32 | 400, NEW["location"]]


def test_with_a_base_that_stands_and_no_patch_left_it_goes_below_all() -> None:
    found = patched((1, 200))
    chain = found.take(3)
    found.add_patch(3, mask=3, **frame(400))
    found.prune(3)
    assert found.rebase(3, chain, **NEW)
    assert locations(found, 3) == [5 << 32 | 400, NEW["location"]]


@pytest.mark.parametrize("base", [100, None])
def test_a_block_that_was_written_anew_is_left_alone(base: int | None) -> None:
    written, zeroed = (patched((1, 200), (2, 300), base=base) for _ in range(2))
    chain = written.take(3)
    assert zeroed.take(3) == chain
    written.set_base(3, **frame(500))
    zeroed.zero_range(3, 4, HOLE)
    for found in (written, zeroed):
        found.add_patch(3, mask=1, **frame(600))
        before = locations(found, 3)
        found.take_dead()
        assert not found.rebase(3, chain, **NEW)
        assert locations(found, 3) == before
        assert found.take_dead() == []


def test_a_block_that_was_rolled_back_meanwhile_is_left_alone() -> None:
    """What stands elsewhere came here with many others at once: what is being put together is of before that."""
    found, elsewhere = patched((1, 200), (2, 300)), patched((4, 700), base=800)
    chain = found.take(3)
    rows = elsewhere.rows(0, np.array([3]))
    put_rows(found, 0, HeldRows(rows, np.zeros(1, np.int64), [elsewhere.patches]))
    assert not found.rebase(3, chain, **NEW)
    assert locations(found, 3) == [5 << 32 | 700, 5 << 32 | 800]


def test_zeros_in_the_place_of_zeros_are_new_too() -> None:
    found = patched((1, 200), base=None)
    chain = found.take(3)
    found.zero_range(0, 4, HOLE)
    assert not found.rebase(3, chain, **NEW)
    chain = found.take(3)
    found.set_base(3, location=HOLE, length=0, tag=0)
    assert not found.rebase(3, chain, **NEW)
    assert locations(found, 3) == [HOLE]


def test_a_page_that_is_gone_is_left_alone() -> None:
    found = patched((1, 200))
    chain = found.take(3)
    found.zero_range(0, PAGE_BLOCKS, HOLE)
    assert not found.rebase(3, chain, **NEW)
    assert not found.pages


def test_without_any_frame_left_it_still_goes_below() -> None:
    """Zeros below, the one patch covered by a later one: a start puts it there too, and the two are compared."""
    found = patched((1, 200), base=None)
    chain = found.take(3)
    found.add_patch(3, mask=3, **frame(400))
    found.prune(3)
    assert found.rebase(3, chain, **NEW)
    assert locations(found, 3) == [5 << 32 | 400, NEW["location"]]


def test_what_was_taken_is_put_in_once() -> None:
    found = patched((1, 200))
    chain = found.take(3)
    assert found.rebase(3, chain, **NEW)
    assert not found.rebase(3, chain, **NEW)


def test_a_row_of_zeros_that_was_in_the_chain_may_stay_above_it() -> None:
    found = patched((2, 200))
    found.add_patch(3, mask=4, location=HOLE, length=0, tag=0)
    chain = found.take(3)
    assert found.rebase(3, chain, **NEW)
    assert locations(found, 3) == [HOLE, NEW["location"]], "hides what is zeros below it"
    assert [item.mask for item in found.find(3)] == [4, FULL_MASK]


def test_zeros_that_came_later_hide_what_it_was_made_of() -> None:
    """They stand where a row of zeros of the chain stands: told apart by what lies between them."""
    found = patched((2, 200), (4, 250))
    found.add_patch(3, mask=8, location=HOLE, length=0, tag=0)
    chain = found.take(3)
    found.add_patch(3, mask=1, **frame(400))
    found.add_patch(3, mask=2, location=HOLE, length=0, tag=0)
    assert found.rebase(3, chain, **NEW)
    assert found.locate(3, 1) == HOLE, "zeroed after it was read"
    assert found.locate(3, 0) == 5 << 32 | 400, "written after it was read"
    assert found.locate(3, 2) == NEW["location"]


def test_rebase_does_not_change_what_is_frozen() -> None:
    found = patched((1, 200), (2, 300))
    was = found.take(3)
    frozen = found.freeze()
    assert found.rebase(3, was, **NEW)
    assert list(load(parts(frozen)).find(3)) == was


# --- places that are not listed


def test_what_can_be_seen_must_be_listed() -> None:
    for base, patches in ((100, []), (100, [(1, 200)]), (None, [(1, 200)])):
        found = patched(*patches, base=base)
        check_listed(found, [4, 6])
        with pytest.raises(Corrupt, match="block 3 refers to an SST that neither"):
            check_listed(found, [5])


def test_what_is_covered_may_be_gone() -> None:
    found = patched(base=None)
    found.add_patch(3, mask=3, **frame(200, sst=6))
    found.add_patch(3, mask=1, **frame(300))
    found.add_patch(3, mask=2, **frame(400))
    check_listed(found, [6])
    assert locations(found, 3) == [5 << 32 | 400, 5 << 32 | 300, HOLE]
    found.add_patch(3, mask=7, **frame(500, sst=6))
    found.add_patch(3, mask=3, **frame(600))
    with pytest.raises(Corrupt):
        check_listed(found, [6])
