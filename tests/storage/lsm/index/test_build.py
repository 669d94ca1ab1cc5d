"""Many SSTs become one index: whatever their order, the newest sequence of each sector counts."""

import random
from collections.abc import Iterable
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from storage.format.blocks import ALLOCATED, HOLE, EntryKind, FrameRef, RangeZero, SstEntry
from storage.format.frame import FULL_MASK
from storage.format.sst import SstIndex, decode_index, encode_index
from storage.format.trunks import MakeLayer
from storage.lsm.index import build as load
from storage.lsm.index.block_map import BlockMap
from storage.lsm.index.build import ROWS_AT_ONCE, put_newer, rebuild
from storage.lsm.index.forest import Forest
from storage.lsm.index.page import PAGE_BLOCKS
from tests.support.examples import examples


def build_maps(
    indexes: Iterable[tuple[int, SstIndex]], layers: Iterable[int], *, rows_at_once: int = ROWS_AT_ONCE
) -> dict[int, BlockMap]:
    forest = Forest()
    rebuild(forest, indexes, [MakeLayer(layer) for layer in layers], rows_at_once=rows_at_once)
    return forest.heads()


BLOCKS = [0, 1, 2, 3, PAGE_BLOCKS - 1, PAGE_BLOCKS, PAGE_BLOCKS + 5, 2**32 - 2]
LAYERS = [1, 2, 2**32 - 1]
FRAME_BYTES = 100

kinds = st.sampled_from(
    [EntryKind.FULL, EntryKind.PATCH, EntryKind.PATCH, EntryKind.PATCH, EntryKind.ZERO, EntryKind.ZERO_ALLOCATED, None]
)
masks = st.one_of(st.integers(1, FULL_MASK), st.sampled_from([1, 3, FULL_MASK]))
steps = st.lists(
    st.tuples(
        kinds, st.sampled_from(LAYERS), st.sampled_from(BLOCKS), st.sampled_from(BLOCKS), masks, st.integers(0, 4)
    ),
    max_size=50,
)
Step = tuple[EntryKind | None, int, int, int, int, int]


def history(some: list[Step]) -> tuple[list[SstEntry | RangeZero], list[tuple[list[SstEntry], list[RangeZero]]]]:
    """Each step a sequence later than the one before, spread over five SSTs: all in order, and by SST."""
    order: list[SstEntry | RangeZero] = []
    tables: list[tuple[list[SstEntry], list[RangeZero]]] = [([], []) for _ in range(5)]
    for number, (kind, layer, block, other, mask, slot) in enumerate(some, start=1):
        entries, ranges = tables[slot]
        if kind is None:
            first, end = min(block, other), max(block, other) + 1
            span = RangeZero(layer, first, end, number, allocated=bool(mask & 1) and end < 2**31)
            ranges.append(span)
            order.append(span)
            continue
        offset = 96 + FRAME_BYTES * number
        if kind is EntryKind.FULL:
            entry = SstEntry(layer, block, kind, FULL_MASK, number, offset, FRAME_BYTES, number)
        elif kind is EntryKind.PATCH:
            entry = SstEntry(layer, block, kind, mask, number, offset, FRAME_BYTES, number)
        else:
            entry = SstEntry(layer, block, kind, mask, number)
        entries.append(entry)
        order.append(entry)
    return order, tables


def live(order: list[SstEntry | RangeZero], slots: dict[int, int]) -> dict[int, BlockMap]:
    """The same, one after the other, as a running engine does it."""
    maps = {layer: BlockMap() for layer in LAYERS}
    for item in order:
        index = maps[item.layer]
        if isinstance(item, RangeZero):
            index.zero_range(item.first, item.end, ALLOCATED if item.allocated else HOLE)
            continue
        where = slots[item.sequence] << 32 | item.offset
        if item.kind in (EntryKind.ZERO, EntryKind.ZERO_ALLOCATED):
            where = ALLOCATED if item.kind is EntryKind.ZERO_ALLOCATED else HOLE
        if item.mask == FULL_MASK and item.kind is not EntryKind.PATCH:
            index.set_base(item.block, location=where, length=item.length, tag=item.tag)
        else:
            index.add_patch(item.block, mask=item.mask, location=where, length=item.length, tag=item.tag)
    return maps


def seen(index: BlockMap, block: int) -> list[int | FrameRef]:
    """The content of each sector."""
    sectors: list[int | FrameRef] = [HOLE] * 64
    for found in reversed(list(index.find(block))):
        for sector in range(64):
            if found.mask >> sector & 1:
                sectors[sector] = found.content
    return sectors


def decoded(tables: list[tuple[list[SstEntry], list[RangeZero]]], order: list[int]) -> list[tuple[int, SstIndex]]:
    return [(slot + 1, decode_index(encode_index(*tables[slot]))) for slot in order]


@settings(max_examples=examples(200), deadline=None)
@given(steps, st.permutations(range(5)), st.sampled_from([1, 3, ROWS_AT_ONCE]))
def test_any_order_of_the_tables_gives_what_the_running_engine_had(
    some: list[Step], order: list[int], rows: int
) -> None:
    happened, tables = history(some)
    slots = {number: step[5] + 1 for number, step in enumerate(some, start=1)}
    expected = live(happened, slots)
    found = build_maps(decoded(tables, order), LAYERS, rows_at_once=rows)
    assert list(found) == LAYERS
    for layer in LAYERS:
        for block in BLOCKS:
            assert seen(found[layer], block) == seen(expected[layer], block)
        assert found[layer].take_dead() == [], "nothing was cached yet"


@settings(max_examples=examples(100), deadline=None)
@given(steps, st.permutations(range(5)), st.integers(0, 50))
def test_what_is_put_over_it_later_gives_the_same_if_all_of_it_is_newer(
    some: list[Step], order: list[int], cut: int
) -> None:
    _, tables = history(some)
    halves = [
        [
            (
                [entry for entry in entries if (entry.sequence > cut) == newer],
                [span for span in spans if (span.sequence > cut) == newer],
            )
            for entries, spans in tables
        ]
        for newer in (False, True)
    ]
    forest = Forest()
    rebuild(forest, decoded(halves[0], order), [MakeLayer(layer) for layer in LAYERS])
    put_newer(forest, decoded(halves[1], order))
    whole = build_maps(decoded(tables, order), LAYERS)
    for layer in LAYERS:
        for block in BLOCKS:
            assert seen(forest.heads()[layer], block) == seen(whole[layer], block)


def test_entries_of_layers_that_are_gone_are_passed_over() -> None:
    _, tables = history([(EntryKind.FULL, 1, 0, 0, 1, 0), (EntryKind.FULL, 2, 0, 0, 1, 0), (None, 2, 0, 3, 1, 0)])
    found = build_maps(decoded(tables, [0]), [1])
    assert list(found) == [1]
    assert isinstance(seen(found[1], 0)[0], FrameRef)


def test_no_tables_are_no_entries() -> None:
    assert build_maps([], []) == {}
    assert seen(build_maps([], [3])[3], 0) == [HOLE] * 64
    assert seen(build_maps(decoded([([], [])], [0]), [3])[3], 0) == [HOLE] * 64


def test_zeros_and_the_patch_above_them_share_a_sequence() -> None:
    zero = SstEntry(1, 5, EntryKind.ZERO, FULL_MASK, 10)
    patch = SstEntry(1, 5, EntryKind.PATCH, 0b10, 10, 96, 100)
    older = SstEntry(1, 5, EntryKind.FULL, FULL_MASK, 9, 196, 100)
    found = build_maps(decoded([([zero, patch], []), ([older], [])], [0, 1]), [1])[1]
    sectors = seen(found, 5)
    assert sectors[0] == HOLE
    assert isinstance(sectors[1], FrameRef)


def test_on_a_tie_the_later_table_wins() -> None:
    """Only a rewrite gives a sequence twice, and it lists its result later."""
    first = SstEntry(1, 5, EntryKind.FULL, FULL_MASK, 10, 96, 100)
    again = SstEntry(1, 5, EntryKind.FULL, FULL_MASK, 10, 96, 100)
    found = build_maps(decoded([([first], []), ([again], [])], [0, 1]), [1])[1]
    content = seen(found, 5)[0]
    assert isinstance(content, FrameRef)
    assert content.location >> 32 == 2


def test_a_late_listed_bulk_table_does_not_bring_old_data_back() -> None:
    """The flush that holds newer sectors of a block is listed before the table of its bulk."""
    newer = SstEntry(1, 5, EntryKind.PATCH, 1, 80, 96, 100)
    zeroed = RangeZero(1, 7, 9, 81, allocated=False)
    bulk = [SstEntry(1, block, EntryKind.FULL, FULL_MASK, 75, 96 + block, 100) for block in (5, 7, 8)]
    found = build_maps(decoded([([newer], [zeroed]), (bulk, [])], [0, 1]), [1])[1]
    sectors = seen(found, 5)
    assert isinstance(sectors[0], FrameRef)
    assert isinstance(sectors[1], FrameRef)
    assert (sectors[0].location >> 32, sectors[1].location >> 32) == (1, 2)
    assert seen(found, 7) == seen(found, 8) == [HOLE] * 64


def test_a_chain_as_it_is_loaded_is_short() -> None:
    chance = random.Random(3)
    entries = [
        SstEntry(1, 5, EntryKind.PATCH, 1 << chance.randrange(64), number, 96 + number, 100)
        for number in range(1, 5000)
    ]
    found = build_maps(decoded([(entries, [])], [0]), [1])[1]
    assert len(list(found.find(5))) < 90


def test_of_many_layers_each_looks_at_its_own_rows(monkeypatch: pytest.MonkeyPatch) -> None:
    """And copies none: all of them looked at all rows, 13.5 s for a thousand devices."""
    looked_at: list[tuple[int, bool]] = []

    def noted(found: object, entries: dict[str, Any], spans: dict[str, Any], rows_at_once: int) -> None:
        looked_at.append((len(entries["block"]), entries["block"].base is not None))

    monkeypatch.setattr(load, "_build", noted)
    layers = range(1, 51)
    rows = [
        SstEntry(layer, block, EntryKind.FULL, FULL_MASK, 1, 0, FRAME_BYTES) for layer in layers for block in (0, 1)
    ]
    build_maps(decoded([(rows, [])], [0]), layers)
    assert looked_at == [(2, True)] * len(layers)
