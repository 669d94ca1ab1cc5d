"""The index as rows of a checkpoint and back: it says the same, and what was frozen does not change."""

from collections.abc import Iterable

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from storage.format.blocks import ALLOCATED, HOLE, FrameRef
from storage.format.checkpoint import ROWS_PER_PART, PartKind
from storage.format.columns import Columns
from storage.format.frame import FULL_MASK
from storage.lsm.index.block_map import BlockMap
from storage.lsm.index.image import PlaceReader, load_part, parts_of
from storage.lsm.index.page import PAGE_BLOCKS
from storage.lsm.index.rows import Found, Frozen
from tests.support.examples import examples

BLOCKS = [0, 1, 2, 7, PAGE_BLOCKS - 1, PAGE_BLOCKS, PAGE_BLOCKS + 1, 3 * PAGE_BLOCKS, 2**32 - 2]
NUMBERS = [5, 2, 9]
"""Number in the process that writes, and position in the table."""
LENGTH = 100
steps = st.lists(
    st.tuples(
        st.sampled_from(["base", "patch", "patch", "patch", "zeros", "zero patch", "pages"]),
        st.sampled_from(BLOCKS),
        st.sampled_from(BLOCKS),
        st.one_of(st.integers(1, FULL_MASK), st.sampled_from([1, 2, 3])),
        st.sampled_from(sorted(NUMBERS)),
    ),
    max_size=60,
)
Step = tuple[str, int, int, int, int]


def apply(found: BlockMap, some: Iterable[Step], *, start: int = 0) -> None:
    for number, (what, block, other, mask, sst) in enumerate(some, start):
        where = {"location": sst << 32 | 96 + LENGTH * number, "length": LENGTH, "tag": number}
        zeros = {"location": ALLOCATED if mask & 1 else HOLE, "length": 0, "tag": 0}
        if what == "base":
            found.set_base(block, **where)
        elif what == "patch":
            found.add_patch(block, mask=mask, **where)
        elif what == "zeros":
            found.set_base(block, **zeros)
        elif what == "zero patch":
            found.add_patch(block, mask=mask, **zeros)
        else:
            first, end = sorted((block, other))
            # A page each for allocated zeros: not for a petabyte of them.
            far = end - first > 8 * PAGE_BLOCKS
            found.zero_range(first, end + 1, HOLE if far else zeros["location"])


def says(found: BlockMap, block: int) -> list[int | FrameRef]:
    """What counts for each sector: without what is covered, which a pruning may take away or not."""
    sectors: list[int | FrameRef | None] = [None] * 64
    for item in found.find(block):
        for s in range(64):
            if item.mask >> s & 1 and sectors[s] is None:
                sectors[s] = item.content
    return [content for content in sectors if content is not None]


def chains(found: BlockMap) -> dict[int, list[Found]]:
    return {block: list(found.find(block)) for block in BLOCKS}


def parts(frozen: Frozen, rows: int = ROWS_PER_PART) -> list[tuple[PartKind, Columns]]:
    return list(parts_of(frozen, NUMBERS, rows))


def load(
    some: Iterable[tuple[PartKind, Columns]], moved: dict[tuple[int, int], tuple[int, int]] | None = None
) -> BlockMap:
    """Into a process that gives the SSTs the same numbers, so that the maps compare."""
    found = BlockMap()
    places = PlaceReader(NUMBERS, moved or {})
    for kind, rows in some:
        load_part(found, kind, dict(rows), places)
    return found


@given(steps, st.integers(1, 8))
@settings(max_examples=examples(200), deadline=None)
def test_it_says_the_same_of_every_block(some: list[Step], rows: int) -> None:
    found = BlockMap()
    apply(found, some)
    given_parts = parts(found.freeze(), rows)
    loaded = load(given_parts)
    assert chains(loaded) == chains(found)
    for number in {block // PAGE_BLOCKS for block in BLOCKS}:
        for block in (number * PAGE_BLOCKS + 9, number * PAGE_BLOCKS + PAGE_BLOCKS // 2):
            assert list(loaded.find(block)) == list(found.find(block))
    assert len(loaded.patches) == len(found.patches)


@example([("base", block, 0, 1, 2) for block in (0, 2 * PAGE_BLOCKS, 2 * PAGE_BLOCKS + 1)], 1)
@given(steps, st.integers(1, 4))
@settings(max_examples=examples(100), deadline=None)
def test_parts_are_small_and_in_order(some: list[Step], rows: int) -> None:
    """A block is in one part of a kind; a part is larger than asked for only by the rows of one block."""
    found = BlockMap()
    apply(found, some)
    last: dict[PartKind, int] = {}
    kinds = []
    for kind, columns in parts(found.freeze(), rows):
        kinds.append(kind)
        if kind is PartKind.ZEROS:
            continue
        blocks = columns["block"].tolist()
        assert blocks == sorted(blocks)
        assert blocks[0] > last.get(kind, -1)
        assert len(blocks) <= rows or len(set(blocks)) == 1
        last[kind] = blocks[-1]
    assert kinds == sorted(kinds)


@given(steps, steps)
@settings(max_examples=examples(200), deadline=None)
def test_what_is_frozen_does_not_change(before: list[Step], after: list[Step]) -> None:
    found = BlockMap()
    apply(found, before)
    was = chains(found)
    frozen = found.freeze()
    apply(found, after, start=1000)
    for block in BLOCKS:
        for item in found.find(block):
            if isinstance(item.content, FrameRef):
                found.move(block, item.content.location, item.content.location + 2**31, 9)
    assert chains(load(parts(frozen))) == was


@given(steps, steps)
@settings(max_examples=examples(100), deadline=None)
def test_a_map_that_was_loaded_goes_on_as_the_other_one(before: list[Step], after: list[Step]) -> None:
    found = BlockMap()
    apply(found, before)
    frozen = found.freeze()
    loaded = load(parts(frozen, 4))
    frozen.thaw()
    for index in (found, loaded):
        apply(index, after, start=1000)
    assert {block: says(loaded, block) for block in BLOCKS} == {block: says(found, block) for block in BLOCKS}


def test_pages_of_allocated_zeros_are_one_row() -> None:
    found = BlockMap()
    found.zero_range(5, 700 * PAGE_BLOCKS + 3, ALLOCATED)
    found.add_patch(9 * PAGE_BLOCKS, mask=1, location=5 << 32 | 96, length=LENGTH, tag=1)
    (zeros, rows), (patches, _) = parts(found.freeze())
    assert (zeros, patches) == (PartKind.ZEROS, PartKind.PATCHES)
    assert (rows["first"].tolist(), rows["end"].tolist()) == ([5], [700 * PAGE_BLOCKS + 3])


def test_a_frame_in_an_sst_beside_the_table_is_not_written() -> None:
    for number in (3, 10_000):
        for kind in ("base", "patch"):
            found = BlockMap()
            apply(found, [(kind, 1, 1, 1, number)])
            with pytest.raises(RuntimeError, match="refers to an SST that no manifest lists"):
                parts(found.freeze())


def test_a_place_beyond_the_table_is_an_error() -> None:
    found = BlockMap()
    apply(found, [("base", 1, 1, 1, 9)])
    with pytest.raises(ValueError, match="beyond its table"):
        load_part(BlockMap(), *parts(found.freeze())[0], PlaceReader([5, 2], {}))


def test_what_was_moved_is_found_where_it_lies_now() -> None:
    found = BlockMap()
    apply(found, [("base", 1, 1, 1, 5), ("patch", 1, 1, 6, 2), ("base", 2, 2, 1, 5)])
    loaded = load(parts(found.freeze()), {(5, 96): (77 << 32 | 500, 4), (2, 196): (77 << 32 | 900, 5), (2, 96): (1, 0)})
    assert [item.content.location for item in loaded.find(1) if isinstance(item.content, FrameRef)] == [
        77 << 32 | 900,
        77 << 32 | 500,
    ]
    assert [item.content.tag for item in loaded.find(1) if isinstance(item.content, FrameRef)] == [5, 4]
    assert list(loaded.find(2)) == list(found.find(2))
