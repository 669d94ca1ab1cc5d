"""What a snapshot keeps of pages that were nothing but zeros: a pointer for each, and as true as if each block stood
there. Beside a model that knows of no pages.
"""

import tracemalloc
from collections.abc import Callable, Iterable

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from storage.format.blocks import ALLOCATED, HOLE
from storage.format.checkpoint import PartKind
from storage.lsm.index.block_map import BlockMap
from storage.lsm.index.bulk_load import HeldRows, put_rows
from storage.lsm.index.image import PlaceReader, load_part, parts_of
from storage.lsm.index.page import PAGE_BLOCKS
from storage.lsm.index.patch_table import PatchTable
from storage.lsm.index.reverse_delta import ReverseDelta
from storage.lsm.index.rows import Found
from storage.lsm.index.shared_deltas import SHARED_DELTAS
from tests.support.examples import examples

BYTES_A_PAGE_MAX = 400
"""Of an index: its place in a table that has room to grow. A row for each block would be 26 bytes 4096 times."""

PLACES = PlaceReader([1], {})

BLOCKS = [
    0,
    1,
    7,
    PAGE_BLOCKS - 1,
    PAGE_BLOCKS,
    PAGE_BLOCKS + 5,
    2 * PAGE_BLOCKS - 1,
    2 * PAGE_BLOCKS,
    3 * PAGE_BLOCKS - 1,
]
"""That are written to; ranges begin and end there too."""

steps = st.lists(
    st.tuples(
        st.sampled_from(["zeros", "pages", "pages", "base", "patch", "snapshot", "move", "drop", "reload"]),
        st.sampled_from(BLOCKS),
        st.sampled_from(BLOCKS),
        st.booleans(),
    ),
    max_size=30,
)
Step = tuple[str, int, int, bool]
Known = dict[int, list[Found]]


def loaded(delta: ReverseDelta) -> ReverseDelta:
    """By way of a checkpoint, of a process that gives the SST the same number."""
    found = ReverseDelta()
    for kind, rows in parts_of(delta.freeze(), [1]):
        load_part(found, kind, dict(rows), PLACES)
    return found


class Snapshots:
    """An index and the deltas of snapshots of it, oldest first, beside what each of those has to hold."""

    def __init__(self) -> None:
        self.index = BlockMap()
        self.deltas: list[ReverseDelta] = []
        self.held: list[Known] = []

    def _replace(self, blocks: Iterable[int]) -> None:
        for block in blocks if self.held else ():
            self.held[-1].setdefault(block, list(self.index.find(block)))

    def apply(self, number: int, what: str, block: int, other: int, flag: bool) -> None:
        where = {"location": 1 << 32 | 100 * (number + 1), "length": 80, "tag": number}
        match what:
            case "zeros" | "pages":
                first, end = sorted((block, other))
                if what == "pages":
                    first, end = first // PAGE_BLOCKS * PAGE_BLOCKS, -(-(end + 1) // PAGE_BLOCKS) * PAGE_BLOCKS
                content = ALLOCATED if flag else HOLE
                there = {at // PAGE_BLOCKS for at in range(first, end)} & self.index.pages.keys()
                self._replace(at for at in range(first, end) if content != HOLE or at // PAGE_BLOCKS in there)
                self.index.zero_range(first, end, content)
            case "base":
                self._replace([block])
                self.index.set_base(block, **where)
            case "patch":
                self._replace([block])
                self.index.add_patch(block, mask=1 << number, **where)
            case "snapshot":
                self.deltas.append(ReverseDelta())
                self.held.append({})
            case "move":
                self._move(block, where["location"] | 1)
            case "drop" if self.deltas:
                gone, held = self.deltas.pop(), self.held.pop()
                for page, rows in gone.pages.items() if self.deltas else ():
                    self.deltas[-1].record_rows(page, rows.rows(), gone.patches)
                if self.held:
                    self.held[-1] = held | self.held[-1]
            case "reload":
                self.deltas = [loaded(delta) for delta in self.deltas]
        self.index.below = self.deltas[-1] if self.deltas else None

    def _move(self, block: int, new: int) -> None:
        """As what writes late to a snapshot does, of a block that it holds: that one alone changes."""
        for delta, held in zip(self.deltas, self.held, strict=True):
            if block in held:
                delta.set_base(block, location=new, length=70, tag=5)
                held[block] = list(delta.find(block))
                return

    def check(self) -> None:
        for delta, held in zip(self.deltas, self.held, strict=True):
            assert len(delta) == len(held)
            assert {block: list(delta.find(block)) for block in delta.blocks()} == held


@example([("snapshot", 0, 0, False), ("pages", 0, BLOCKS[-1], True), ("move", 7, 0, False)])
@example(
    [
        ("pages", 0, PAGE_BLOCKS, True),
        ("snapshot", 0, 0, False),
        ("pages", 0, BLOCKS[-1], False),
        ("pages", 0, BLOCKS[-1], True),
        ("reload", 0, 0, False),
        ("move", PAGE_BLOCKS, 0, False),
    ]
)
@example([("base", 1, 0, False), ("snapshot", 0, 0, False), ("base", 7, 0, False), ("pages", 0, 0, True)])
@example([("base", 1, 0, False), ("zeros", 0, 7, False), ("snapshot", 0, 0, False), ("pages", 0, 0, True)])
@example([("patch", 7, 0, False), ("snapshot", 0, 0, False), ("pages", 0, 0, True)])
@example([("zeros", 0, 7, True), ("snapshot", 0, 0, False), ("pages", 0, 0, False)])
@given(steps)
@settings(max_examples=examples(40), deadline=None)
def test_snapshots_hold_what_was_replaced(some: list[Step]) -> None:
    snapshots = Snapshots()
    for number, step in enumerate(some):
        snapshots.apply(number, *step)
    snapshots.check()
    snapshots.deltas = [loaded(delta) for delta in snapshots.deltas]
    snapshots.check()
    for content, page in SHARED_DELTAS.items():
        assert page.rows().at.tolist() == list(range(PAGE_BLOCKS))
        assert page.rows().location.tolist() == [content] * PAGE_BLOCKS
        assert not page.rows().head.any()


@pytest.mark.parametrize("content", [HOLE, ALLOCATED])
def test_a_shared_page_is_never_written_to(content: int) -> None:
    """A copy that is forgotten would be another disk's zeros: it is an error instead."""
    page = SHARED_DELTAS[content]
    for column in (page.at, page.location, page.tag, page.length, page.head):
        with pytest.raises(TypeError):
            column[0] = 1
        with pytest.raises(ValueError, match="read-only"):
            np.frombuffer(column, np.uint8)[0] = 1


def bytes_of(work: Callable[[], object]) -> tuple[int, int]:
    """Bytes that it leaves, and that it takes at its worst."""
    tracemalloc.start()
    try:
        kept = work()
        left, peak = tracemalloc.get_traced_memory()
        del kept
        return left, peak
    finally:
        tracemalloc.stop()


@pytest.mark.parametrize("before", [HOLE, ALLOCATED])
def test_zeroing_a_thin_disk_costs_its_snapshot_a_pointer_for_each_page(before: int) -> None:
    blocks = 1 << 20
    index = BlockMap()
    index.zero_range(0, blocks, before)
    index.below = ReverseDelta()
    left, peak = bytes_of(lambda: index.zero_range(0, blocks, ALLOCATED))
    assert len(index.below) == blocks
    assert left <= blocks // PAGE_BLOCKS * BYTES_A_PAGE_MAX
    assert peak <= left + 16 * 26 * PAGE_BLOCKS, "a page at a time"


@pytest.mark.parametrize("content", [HOLE, ALLOCATED])
def test_a_rollback_to_nothing_but_zeros_costs_a_pointer_for_each_page(content: int) -> None:
    """And a clone of that, which is given the same rows."""
    pages = 256
    index, patches = BlockMap(), PatchTable([], 8)
    rows, of = SHARED_DELTAS[content].rows(), np.zeros(PAGE_BLOCKS, np.int64)

    def put(to: BlockMap) -> None:
        for number in range(pages):
            put_rows(to, number, HeldRows(rows, of, [patches]))

    put(BlockMap())  # what is made once for all is there
    left, _ = bytes_of(lambda: put(index))
    assert left <= pages * BYTES_A_PAGE_MAX
    assert {index.uniform(number) for number in range(pages)} == {content}
    index.set_base(1, location=1 << 32 | 100, length=80, tag=1)
    assert [index.locate(block, 0) for block in (0, 1, PAGE_BLOCKS + 1)] == [content, 1 << 32 | 100, content]
    index.add_patch(2, mask=1, location=1 << 32 | 300, length=80, tag=1)
    put_rows(index, 0, HeldRows(rows.where(np.arange(3, PAGE_BLOCKS)), of[3:], [patches]))
    assert [index.locate(block, 0) for block in (1, 2, 3)] == [1 << 32 | 100, 1 << 32 | 300, content]


@pytest.mark.parametrize("content", [HOLE, ALLOCATED])
def test_a_large_run_of_a_checkpoint_is_loaded_and_written_a_page_at_a_time(content: int) -> None:
    blocks = 1 << 22
    run = {"first": np.array([5], np.uint32), "end": np.array([blocks], np.uint32)}
    delta = ReverseDelta()

    def load() -> None:
        load_part(delta, PartKind.KEPT, dict(run), PLACES)
        if content:
            load_part(delta, PartKind.ZEROS, dict(run), PLACES)

    left, peak = bytes_of(load)
    pages = blocks // PAGE_BLOCKS
    assert len(delta) == blocks - 5
    assert left <= pages * BYTES_A_PAGE_MAX + 32 * PAGE_BLOCKS
    assert peak <= left + pages * BYTES_A_PAGE_MAX + 16 * 26 * PAGE_BLOCKS
    _, peak = bytes_of(lambda: list(parts_of(delta.freeze(), [1])))
    assert peak <= pages * BYTES_A_PAGE_MAX + 16 * 26 * PAGE_BLOCKS


@pytest.mark.parametrize("kind", [PartKind.KEPT, PartKind.ZEROS])
def test_a_run_that_ends_before_it_begins_fits_no_map(kind: PartKind) -> None:
    rows = {"first": np.array([7], np.uint32), "end": np.array([5], np.uint32)}
    with pytest.raises(ValueError, match="before it begins"):
        load_part(ReverseDelta(), kind, rows, PLACES)
