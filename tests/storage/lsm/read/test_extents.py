"""Block status against a table of sectors: exact, in one pass, and short of nothing."""

from bisect import bisect, bisect_left
from typing import NamedTuple

from hypothesis import given, settings
from hypothesis import strategies as st

from storage.format.blocks import ALLOCATED, HOLE, FrameRef
from storage.format.frame import BLOCK_BYTES, FULL_MASK, SECTOR_BYTES
from storage.lsm.index.block_map import BlockMap
from storage.lsm.index.page import PAGE_BLOCKS
from storage.lsm.memtable.memtable import LayerTable, Span
from storage.lsm.read.extents import RUNS_AT_ONCE, STEPS_MAX, ExtentState, extents
from tests.support.examples import examples

GIB = 1024 * 1024 * 1024
FRAME = FrameRef(1 << 32, 100, 0, 0, full=True)
BLOCKS = [0, 1, 2, 5, PAGE_BLOCKS - 1, PAGE_BLOCKS, PAGE_BLOCKS + 1, 2 * PAGE_BLOCKS + 7]
END = 3 * PAGE_BLOCKS


class Op(NamedTuple):
    verb: str
    block: int
    other: int
    sector: int
    content: int


DATA = 2
ops = st.lists(
    st.builds(
        Op,
        st.sampled_from(["block", "sector", "extent", "span", "span"]),
        st.sampled_from(BLOCKS),
        st.sampled_from(BLOCKS),
        st.sampled_from([0, 1, 2, 31, 63]),
        st.sampled_from([HOLE, ALLOCATED, DATA]),
    ),
    max_size=8,
)


class Model:
    """The state of each sector of the watched blocks, and of all other blocks as one."""

    def __init__(self) -> None:
        self.sectors: dict[int, list[ExtentState]] = {}
        self.ranges: list[tuple[int, int, ExtentState]] = []

    def block(self, block: int) -> list[ExtentState]:
        if block not in self.sectors:
            state = ExtentState.HOLE
            for first, end, kind in self.ranges:
                state = kind if first <= block < end else state
            self.sectors[block] = [state] * 64
        return self.sectors[block]

    def zero(self, first: int, end: int, state: ExtentState) -> None:
        self.ranges.append((first, end, state))
        for block in self.sectors:
            if first <= block < end:
                self.sectors[block] = [state] * 64

    def at(self, offset: int) -> ExtentState:
        return self.block(offset // BLOCK_BYTES)[offset % BLOCK_BYTES // SECTOR_BYTES]


def state_of(content: int) -> ExtentState:
    return {HOLE: ExtentState.HOLE, ALLOCATED: ExtentState.ZERO, DATA: ExtentState.DATA}[content]


def into_index(index: BlockMap, model: Model, op: Op) -> None:
    location = 1 << 32 if op.content == DATA else op.content
    first, end = min(op.block, op.other), max(op.block, op.other) + 1
    if op.verb == "span" and op.content != DATA:
        index.zero_range(first, end, op.content)
        model.zero(first, end, state_of(op.content))
    elif op.verb == "block":
        index.set_base(op.block, location=location, length=1, tag=1)
        model.block(op.block)[:] = [state_of(op.content)] * 64
    elif op.verb == "sector":
        index.add_patch(op.block, mask=1 << op.sector, location=location, length=1, tag=1)
        model.block(op.block)[op.sector] = state_of(op.content)


def into_table(table: LayerTable, model: Model, op: Op, sequence: int) -> None:
    first, end = min(op.block, op.other), max(op.block, op.other) + 1
    if op.verb == "span" and op.content != DATA:
        table.drop(first, end)
        table.zeros.add(Span(first, end, sequence, op.content), newest_write=sequence - 1)
        model.zero(first, end, state_of(op.content))
        return
    entry = table.entry(op.block)
    if op.verb == "block":
        frame_or_bytes = FRAME if op.sector else bytes(BLOCK_BYTES)
        entry.link_block(frame_or_bytes if op.content == DATA else op.content)
        model.block(op.block)[:] = [state_of(op.content)] * 64
    elif op.verb == "sector":
        entry.link_sector(op.sector, b"x" * SECTOR_BYTES if op.content == DATA else op.content)
        model.block(op.block)[op.sector] = state_of(op.content)
    elif op.verb == "extent":
        entry.link_extent(op.sector, 7, b"piece")
        model.block(op.block)[op.sector] = ExtentState.DATA


def whole(tables: list[LayerTable], index: BlockMap, offset: int, length: int) -> list[tuple[int, ExtentState]]:
    """As a client asks: again from where the last answer ended."""
    found: list[tuple[int, ExtentState]] = []
    while length:
        answer = extents(tables, index, offset, length)
        size = sum(size for size, _ in answer)
        assert 0 < size <= length
        for run in answer:
            if found and found[-1][1] is run[1]:
                run = (found.pop()[0] + run[0], run[1])
            found.append(run)
        offset += size
        length -= size
    return found


offsets = st.builds(
    lambda block, delta: max(block * BLOCK_BYTES + delta, 0), st.sampled_from(BLOCKS), st.integers(-9, 300_000)
)


@settings(max_examples=examples(80), deadline=None)
@given(ops, ops, ops, offsets, st.one_of(st.integers(1, 3 * BLOCK_BYTES), st.just(3 * GIB)))
def test_it_says_what_each_sector_is(
    older: list[Op], sealed: list[Op], active: list[Op], start: int, size: int
) -> None:
    index, model = BlockMap(), Model()
    for block in BLOCKS:
        model.block(block)
    tables = [LayerTable(1), LayerTable(1)]
    for op in older:
        into_index(index, model, op)
    for sequence, op in enumerate(sealed, start=1):
        into_table(tables[1], model, op, sequence)
    for sequence, op in enumerate(active, start=100):
        into_table(tables[0], model, op, sequence)
    size = min(size, END * BLOCK_BYTES - start)
    found = whole(tables, index, start, size)
    assert sum(length for length, _ in found) == size
    position = start
    sectors = [block * BLOCK_BYTES + sector * SECTOR_BYTES for block in BLOCKS for sector in range(64)]
    for length, state in found:
        # Those that end behind where the run begins, and begin before its end.
        inside = sectors[bisect(sectors, position - SECTOR_BYTES) : bisect_left(sectors, position + length)]
        for at in (*inside, position, position + length - 1):
            assert model.at(at) is state, f"at {at}"
        position += length


def test_neighbours_of_one_state_are_one_run() -> None:
    index = BlockMap()
    for block in range(10):
        index.set_base(block, location=1 << 32, length=1, tag=1)
    assert extents([LayerTable(1)], index, 100, 8 * BLOCK_BYTES) == [(8 * BLOCK_BYTES, ExtentState.DATA)]
    assert extents([LayerTable(1)], index, 9 * BLOCK_BYTES + 5, 3 * BLOCK_BYTES) == [
        (BLOCK_BYTES - 5, ExtentState.DATA),
        (2 * BLOCK_BYTES + 5, ExtentState.HOLE),
    ]


def test_terabytes_of_holes_are_walked_in_steps() -> None:
    size = 64 * 1024 * GIB - BLOCK_BYTES
    assert whole([LayerTable(1)], BlockMap(), 0, size) == [(size, ExtentState.HOLE)]
    table = LayerTable(1)
    table.zeros.add(Span(0, 2**32 - 1, 1, ALLOCATED), newest_write=0)
    assert whole([table], BlockMap(), 0, size) == [(size, ExtentState.ZERO)]
    ((answered, _),) = extents([table], BlockMap(), 0, size)
    assert answered == STEPS_MAX * PAGE_BLOCKS * BLOCK_BYTES, "in steps of 2 TiB, a few milliseconds each"


def test_a_long_walk_stops_early_and_goes_on_where_it_stopped() -> None:
    index = BlockMap()
    blocks = 3 * RUNS_AT_ONCE
    for block in range(0, blocks, 2):
        index.set_base(block, location=1 << 32, length=1, tag=1)
    first = extents([LayerTable(1)], index, 0, blocks * BLOCK_BYTES)
    assert sum(size for size, _ in first) == RUNS_AT_ONCE * BLOCK_BYTES
    found = whole([LayerTable(1)], index, 0, blocks * BLOCK_BYTES)
    assert [state for _, state in found] == [ExtentState.DATA, ExtentState.HOLE] * (blocks // 2)
    assert FULL_MASK.bit_count() == 64


def test_a_newer_span_inside_an_older_one_is_seen() -> None:
    sealed, active = LayerTable(1), LayerTable(1)
    sealed.zeros.add(Span(0, 100, 1, HOLE), newest_write=0)
    active.zeros.add(Span(50, 60, 2, ALLOCATED), newest_write=0)
    found = extents([active, sealed], BlockMap(), 0, 200 * BLOCK_BYTES)
    assert found == [
        (50 * BLOCK_BYTES, ExtentState.HOLE),
        (10 * BLOCK_BYTES, ExtentState.ZERO),
        (140 * BLOCK_BYTES, ExtentState.HOLE),
    ]


def test_pages_around_a_span_are_passed_in_one_step() -> None:
    """One discard anywhere must not make block status walk a terabyte block by block."""
    table = LayerTable(1)
    table.zeros.add(Span(5, 7, 1, ALLOCATED), newest_write=0)
    size = 4 * 1024 * GIB
    assert whole([table], BlockMap(), 0, size) == [
        (5 * BLOCK_BYTES, ExtentState.HOLE),
        (2 * BLOCK_BYTES, ExtentState.ZERO),
        (size - 7 * BLOCK_BYTES, ExtentState.HOLE),
    ]
