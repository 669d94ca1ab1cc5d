"""Many patches at once are what the same patches are one by one: their chains, and when those are pruned."""

from collections.abc import Iterable

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from storage.format.blocks import ALLOCATED, HOLE
from storage.format.columns import Columns
from storage.lsm.index.block_map import BlockMap
from storage.lsm.index.bulk_load import add_patches
from storage.lsm.index.page import PAGE_BLOCKS
from storage.lsm.index.reverse_delta import ReverseDelta
from storage.lsm.index.rows import Found
from storage.lsm.options import PRUNE_AFTER
from tests.support.examples import examples

BLOCKS = [0, 1, PAGE_BLOCKS - 1, PAGE_BLOCKS, 2**32 - 2]
NAMES = {"block": np.uint32, "mask": np.uint64, "location": np.uint64, "length": np.uint32, "tag": np.uint64}

Patch = tuple[int, int, int, int, int]

patches = st.lists(
    st.builds(
        lambda block, mask, zero, at: (block, mask, at if zero is None else zero, 0 if zero is not None else at, at),
        st.sampled_from(BLOCKS),
        st.sampled_from([1, 2, 3, 1 << 63, 2**64 - 1]),
        st.sampled_from([None, None, None, None, ALLOCATED, HOLE]),
        st.integers(2, 10**6),
    ),
    max_size=3 * PRUNE_AFTER,
)


def put_each(index: BlockMap, some: Iterable[Patch]) -> None:
    for block, mask, location, length, tag in some:
        index.add_patch(block, mask=mask, location=location, length=length, tag=tag)


def rows(some: list[Patch]) -> Columns:
    in_order = sorted(some, key=lambda patch: patch[0])
    return {name: np.array([patch[at] for patch in in_order], kind) for at, (name, kind) in enumerate(NAMES.items())}


def shown(index: BlockMap) -> list[int]:
    """Where each sector lies; what is a hole over a hole may stand there or not."""
    return [index.locate(block, sector) for block in BLOCKS for sector in (0, 1, 2, 63)]


def kept(below: ReverseDelta) -> list[tuple[int, list[Found]]]:
    return [(block, list(below.find(block))) for block in BLOCKS if below.holds(block)]


@settings(max_examples=examples(60))
@given(patches, patches, patches, st.booleans())
def test_it_is_what_one_by_one_comes_to(
    before: list[Patch], some: list[Patch], after: list[Patch], snapshot: bool
) -> None:
    single, many = BlockMap(), BlockMap()
    if snapshot:
        # A hole in a hole changes nothing, and may be kept or not.
        some = [patch for patch in some if patch[2] != HOLE]
    for index in (single, many):
        put_each(index, before)
        if snapshot:
            index.below = ReverseDelta()
    put_each(single, some)
    add_patches(many, rows(some))
    assert shown(many) == shown(single)
    if single.below is not None and many.below is not None:
        assert kept(many.below) == kept(single.below)
    for index in (single, many):
        put_each(index, after)
    assert shown(many) == shown(single)


def test_chains_of_a_page_are_put_there_at_once() -> None:
    """Of a disk that is written at random a start has a million of them."""

    class OneByOne(BlockMap):
        def add_patch(self, block: int, *, mask: int, location: int, length: int, tag: int) -> None:
            raise AssertionError(f"a patch of block {block} goes there by itself")

    index = OneByOne()
    some = [(block, 1 << at, 100 + at, 1, 1) for block in range(3 * PAGE_BLOCKS) for at in range(2)]
    add_patches(index, rows(some))
    add_patches(index, rows(some))
    assert len(index.patches) == 2 * len(some)


def test_a_hole_in_a_hole_is_nothing() -> None:
    index = BlockMap()
    add_patches(index, rows([(0, 1, HOLE, 0, 0), (PAGE_BLOCKS, 1, HOLE, 0, 0)]))
    assert not index.pages
    assert not len(index.patches)
