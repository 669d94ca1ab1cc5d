"""Extents that are found in columns of pages, beside what is found block by block: heads, snapshots of any age, clones,
and memtables over them; and how much work one answer is.
"""

import random
import sys
from collections.abc import Iterator

import numpy as np
import pytest

from storage.format.blocks import ALLOCATED, HOLE
from storage.format.frame import BLOCK_BYTES, FULL_MASK, SECTOR_BYTES
from storage.format.trunks import CloneSnapshot, FreezeHead, MakeLayer
from storage.lsm.index.block_map import BlockMap
from storage.lsm.index.forest import Forest, done
from storage.lsm.index.page import PAGE_BLOCKS, PageRows
from storage.lsm.index.trunk import LayerIndex
from storage.lsm.memtable.memtable import LayerTable, Span
from storage.lsm.read.extents import (
    MIXED_AT_ONCE,
    PAGE_STEPS,
    RUNS_AT_ONCE,
    STEPS_MAX,
    WRITTEN_AT_ONCE,
    ExtentState,
    extents,
)
from tests.storage.lsm.read.blocks_one_by_one import one_by_one

AREAS = [(0, 24), (PAGE_BLOCKS - 12, PAGE_BLOCKS + 12), (2 * PAGE_BLOCKS + 100, 2 * PAGE_BLOCKS + 110)]
"""Blocks that are written; the pages around them are looked at too."""
END = 4 * PAGE_BLOCKS


def places(chance: random.Random) -> Iterator[int]:
    """Where frames lie, or zeros."""
    number = 1 << 32
    while True:
        number += 2
        yield chance.choice([HOLE, ALLOCATED, number, number])


def some_block(chance: random.Random) -> int:
    return chance.randrange(*chance.choice(AREAS))


def some_mask(chance: random.Random) -> int:
    return chance.choice([1, 1 << 63, FULL_MASK, FULL_MASK >> 1, chance.getrandbits(64) or 1])


def write(index: BlockMap, chance: random.Random) -> None:
    place = places(chance)
    for _ in range(chance.choice([1, 10, 60])):
        block, kind = some_block(chance), chance.randrange(8)
        if kind == 0:
            end = chance.choice([block + chance.randrange(1, 9), PAGE_BLOCKS, 2 * PAGE_BLOCKS, END])
            index.zero_range(min(block, end - 1), end, chance.choice([HOLE, ALLOCATED]))
        elif kind < 4:
            index.set_base(block, location=next(place), length=1, tag=1)
        else:
            index.add_patch(block, mask=some_mask(chance), location=next(place), length=1, tag=1)


def memtables(chance: random.Random) -> list[LayerTable]:
    tables = [LayerTable(1) for _ in range(chance.randrange(4))]
    for table in tables:
        for sequence in range(chance.choice([0, 3, 30])):
            block, zeros = some_block(chance), chance.choice([HOLE, ALLOCATED])
            if chance.randrange(4) == 0:
                end = block + chance.choice([1, 4, PAGE_BLOCKS, 2 * PAGE_BLOCKS])
                table.drop(block, end)
                table.zeros.add(Span(block, end, sequence, zeros), newest_write=sequence - 1)
                continue
            entry, sector = table.entry(block), chance.choice([0, 1, 63])
            content: int | bytes = zeros if chance.randrange(2) else b"x" * SECTOR_BYTES
            if chance.randrange(3) == 0:
                entry.link_block(content if isinstance(content, int) else bytes(BLOCK_BYTES))
            elif chance.randrange(2):
                entry.link_sector(sector, content)
            else:
                entry.link_extent(sector, 7, b"piece")
    return tables


def layers(chance: random.Random) -> list[LayerIndex]:
    """A device with snapshots, and a clone of one of them."""
    forest = Forest()
    done(forest.steps(MakeLayer(1)))
    newest = chance.randrange(1, 6)
    for head in range(1, newest + 1):
        write(forest.heads()[head], chance)
        if head < newest:
            done(forest.steps(FreezeHead(head, head + 1)))
    if newest > 1:
        done(forest.steps(CloneSnapshot(chance.randrange(1, newest), newest + 1)))
        write(forest.heads()[newest + 1], chance)
        write(forest.heads()[newest], chance)
    return [forest.index(layer) for layer in range(1, newest + 1 + (newest > 1))]


def said(tables: list[LayerTable], index: LayerIndex, offset: int, end: int, few: int) -> list[tuple[int, ExtentState]]:
    """As a client asks: again from where the last answer ended."""
    found: list[tuple[int, ExtentState]] = []
    while offset < end:
        answer = extents(tables, index, offset, end - offset, blocks_few=few)
        assert answer
        assert all(size > 0 for size, _ in answer)
        found += answer
        offset += sum(size for size, _ in answer)
    assert offset == end
    return found


@pytest.mark.parametrize("seed", range(6))
def test_columns_say_what_each_block_says(seed: int) -> None:
    chance = random.Random(seed)
    for index in layers(chance):
        tables, few = memtables(chance), chance.choice([0, 256])
        skipped = chance.randrange(3 * SECTOR_BYTES)
        runs = said(tables, index, skipped, END * BLOCK_BYTES, few)
        for first, end in AREAS:
            position, states = skipped, list[ExtentState]()
            low, high = first * BLOCK_BYTES, end * BLOCK_BYTES
            for size, state in runs:
                begin, stop = max(position, low), min(position + size, high)
                states += [state] * (-(-stop // SECTOR_BYTES) - -(-begin // SECTOR_BYTES)) if begin < stop else []
                position += size
            want = one_by_one(tables, index, first, end)
            assert states == want[len(want) - len(states) :]
            assert len(states) == len(want) - (-(-skipped // SECTOR_BYTES) if not first else 0)
            part = said(tables, index, low + 5, high - 7, few)
            assert sum(size for size, _ in part) == high - low - 12


def test_blocks_with_parts_of_many_kinds_are_told_in_parts() -> None:
    index = BlockMap()
    for block in range(2 * MIXED_AT_ONCE):
        index.add_patch(block, mask=1 << 5, location=1 << 32, length=1, tag=1)
    first = extents([], index, 0, PAGE_BLOCKS * BLOCK_BYTES)
    assert sum(size for size, _ in first) == MIXED_AT_ONCE * BLOCK_BYTES
    runs = said([], index, 0, PAGE_BLOCKS * BLOCK_BYTES, 256)
    assert len([state for _, state in runs if state is ExtentState.DATA]) == 2 * MIXED_AT_ONCE


def test_many_blocks_in_memory_are_told_in_parts() -> None:
    table = LayerTable(1)
    for block in range(2 * WRITTEN_AT_ONCE):
        table.entry(3 * block).link_block(bytes(BLOCK_BYTES))
    first = extents([table], BlockMap(), 0, END * BLOCK_BYTES)
    assert sum(size for size, _ in first) == 3 * WRITTEN_AT_ONCE * BLOCK_BYTES
    runs = said([table], BlockMap(), 0, END * BLOCK_BYTES, 256)
    assert sum(size for size, state in runs if state is ExtentState.DATA) == 2 * WRITTEN_AT_ONCE * BLOCK_BYTES


def test_no_more_runs_are_given_at_once_and_none_is_lost_behind_them() -> None:
    """Two pages that change with each block: the answer ends within one, and the next goes on there."""
    index = BlockMap()
    for block in range(1, 2 * PAGE_BLOCKS, 2):
        index.set_base(block, location=1 << 32, length=1, tag=1)
    size = 2 * PAGE_BLOCKS * BLOCK_BYTES
    assert len(extents([], index, 0, size)) == RUNS_AT_ONCE
    assert len(said([], index, 0, size, 256)) == 2 * PAGE_BLOCKS


def calls(tables: list[LayerTable], index: LayerIndex, size: int) -> tuple[int, int]:
    """Calls of functions in one answer, and how many bytes it says something of."""
    counted = 0

    def count(frame: object, event: str, _: object) -> None:
        nonlocal counted
        counted += event in ("call", "c_call")

    sys.setprofile(count)
    try:
        found = extents(tables, index, 0, size)
    finally:
        sys.setprofile(None)
    return counted, sum(length for length, _ in found)


def full(pages: int, *, patched: bool) -> BlockMap:
    """An index of data everywhere."""
    index = BlockMap()
    at = np.arange(PAGE_BLOCKS)
    ones = np.ones(PAGE_BLOCKS, np.uint64)
    for number in range(pages):
        rows = PageRows(at.astype(np.uint16), ones << np.uint64(32), ones.astype(np.uint32), ones, at.astype(np.uint32))
        index.set_bases(number, rows)
        for block in range(number * PAGE_BLOCKS, (number + 1) * PAGE_BLOCKS) if patched else ():
            index.add_patch(block, mask=1, location=1 << 33, length=1, tag=1)
    return index


@pytest.mark.parametrize("patched", [False, True], ids=["bases", "patches"])
def test_a_page_of_data_costs_no_more_than_a_part_of_it(patched: bool) -> None:
    index = full(1, patched=patched)
    few, _ = calls([], index, 300 * BLOCK_BYTES)
    many, said_of = calls([], index, PAGE_BLOCKS * BLOCK_BYTES)
    assert said_of == PAGE_BLOCKS * BLOCK_BYTES
    assert many < few + 20


def test_one_answer_is_bounded_work_however_large_the_disk() -> None:
    small, large = full(40, patched=False), full(80, patched=False)
    page = PAGE_BLOCKS * BLOCK_BYTES
    some, said_of = calls([], small, 40 * page)
    more, as_much = calls([], large, 80 * page)
    assert said_of == as_much == STEPS_MAX // PAGE_STEPS * page
    assert more < some + 20
    holes, as_many = calls([], BlockMap(), 10 * STEPS_MAX * page)
    assert as_many == STEPS_MAX * page
    assert holes < 10 * STEPS_MAX
