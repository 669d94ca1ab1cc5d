"""The memtable's parts against naive models."""

import random
from typing import cast

import pytest
from hypothesis import given
from hypothesis import strategies as st

from storage.buffers import Buffer
from storage.format.blocks import ALLOCATED, HOLE, FrameRef
from storage.format.frame import BLOCK_BYTES, FULL_MASK, SECTOR_BYTES, SECTORS
from storage.lsm.memtable.memtable import (
    FREED_AT_ONCE,
    FREED_BLOCK,
    BlockEntry,
    LayerTable,
    Memtable,
    Span,
    ZeroSpans,
    covers_sector,
    overlay,
)

FRAME = FrameRef(1 << 32, 100, 0, 0, full=True)

contents = st.one_of(st.sampled_from([HOLE, ALLOCATED]), st.integers(0, 255).map(lambda b: bytes([b]) * SECTOR_BYTES))
pieces = st.tuples(st.integers(0, SECTOR_BYTES - 1), st.integers(1, SECTOR_BYTES), st.integers(0, 255)).map(
    lambda p: (p[0], bytes([p[2]]) * min(p[1], SECTOR_BYTES - p[0]))
)
operations = st.lists(
    st.one_of(
        st.tuples(st.just("sector"), st.integers(0, 3), contents),
        st.tuples(st.just("extent"), st.integers(0, 3), pieces),
        st.tuples(st.just("block"), st.just(0), st.one_of(st.sampled_from([HOLE, ALLOCATED, FRAME]), st.just(b"B"))),
    ),
    max_size=25,
)


@given(operations)
def test_an_entry_knows_what_was_linked_last(ops: list[tuple[str, int, object]]) -> None:
    """Model: four sectors of bytes, None where what lies below shows through; a frame below is a content too."""
    entry = BlockEntry()
    below: list[object] = [None] * 4
    over: list[dict[int, int]] = [{} for _ in range(4)]
    for verb, sector, what in ops:
        if verb == "block":
            content = b"B" * BLOCK_BYTES if what == b"B" else what
            entry.link_block(content)  # type: ignore[arg-type]
            below = [b"B" * SECTOR_BYTES if what == b"B" else what] * 4
            over = [{} for _ in range(4)]
        elif verb == "sector":
            entry.link_sector(sector, what)  # type: ignore[arg-type]
            below[sector], over[sector] = what, {}
        else:
            start, piece = cast(tuple[int, bytes], what)
            entry.link_extent(sector, start, piece)
            over[sector].update((start + at, byte) for at, byte in enumerate(piece))
    for sector in range(4):
        seen = entry.known(sector) if entry.mask >> sector & 1 else None
        extents = (entry.extents or {}).get(sector, [])
        expected = below[sector]
        if len(over[sector]) == SECTOR_BYTES:
            expected = bytes(over[sector][at] for at in range(SECTOR_BYTES))
        elif over[sector] and isinstance(expected, (bytes, int)):
            raw = bytearray(SECTOR_BYTES) if isinstance(expected, int) else bytearray(expected)
            for at, byte in over[sector].items():
                raw[at] = byte
            expected = bytes(raw)
        elif over[sector]:
            assert not entry.mask >> sector & 1, "it is not wholly known"
            painted = [-1] * SECTOR_BYTES
            for start, data in extents:
                painted[start : start + len(data)] = data
            assert {at: byte for at, byte in enumerate(painted) if byte >= 0} == over[sector]
            if expected is FRAME:
                assert entry.base is FRAME, "the frame shows through"
            continue
        assert not extents
        if isinstance(expected, (int, FrameRef)) or expected is None:
            assert seen is expected or seen == expected
        else:
            assert bytes(seen) == expected  # type: ignore[arg-type]


def test_a_linked_buffer_never_changes() -> None:
    """A batch that is being sealed holds it."""
    entry = BlockEntry()
    first = bytes(range(256)) * 16
    entry.link_sector(3, first)
    held = entry.known(3)
    entry.link_extent(3, 100, b"newer")
    assert held == first
    assert bytes(entry.known(3))[100:105] == b"newer"  # type: ignore[arg-type]
    block = bytes(BLOCK_BYTES)
    entry.link_block(block)
    entry.link_extent(3, 100, b"newer")
    assert block == bytes(BLOCK_BYTES)


@given(st.lists(pieces, max_size=12))
def test_pieces_cover_a_sector_when_no_byte_is_open(some: list[tuple[int, Buffer]]) -> None:
    covered = {at for start, data in some for at in range(start, start + len(data))}
    assert covers_sector(some) == (len(covered) == SECTOR_BYTES)
    model = bytearray(b"\xff" * SECTOR_BYTES)
    for start, data in some:
        model[start : start + len(data)] = data
    assert overlay(b"\xff" * SECTOR_BYTES, some) == model


BLOCKS = 40
zeroes = st.tuples(st.integers(0, BLOCKS - 1), st.integers(1, BLOCKS), st.sampled_from([HOLE, ALLOCATED]))
steps = st.lists(st.one_of(zeroes, st.none()), max_size=30)


@given(steps)
def test_spans_are_what_was_zeroed_last(some: list[tuple[int, int, int] | None]) -> None:
    """None is a write somewhere: from then on older spans keep their own sequence, which is older than the write."""
    spans = ZeroSpans()
    content: dict[int, int] = {}
    newest: dict[int, int] = {}
    newest_write = 0
    for sequence, step in enumerate(some, start=1):
        if step is None:
            newest_write = sequence
            continue
        first, count, kind = step
        end = min(first + count, BLOCKS)
        spans.add(Span(first, end, sequence, kind), newest_write=newest_write)
        content.update(dict.fromkeys(range(first, end), kind))
        newest.update(dict.fromkeys(range(first, end), sequence))
        for block in range(BLOCKS):
            found = spans.find(block)
            assert (found.content if found else None) == content.get(block)
            if found:
                assert found.first <= block < found.end
                assert found.sequence >= newest[block]
                if newest[block] < newest_write:
                    assert found.sequence < newest_write, "it would swallow the write"
        assert all(a.end <= b.first for a, b in zip(spans.spans, spans.spans[1:], strict=False))
        assert all(span.first < span.end for span in spans.spans)
    assert bool(spans) == bool(content)


def test_neighbouring_discards_become_one_span() -> None:
    """mkfs discards a disk in steps of gigabytes: one span, and one row in the index of an SST."""
    spans = ZeroSpans()
    for step in range(1000):
        spans.add(Span(step * 4096, (step + 1) * 4096, step + 1, HOLE), newest_write=0)
    assert spans.spans == [Span(0, 4096000, 1000, HOLE)]


def test_a_new_entry_inside_a_span_begins_as_zeros() -> None:
    table = LayerTable(1)
    table.zeros.add(Span(2, 5, 1, ALLOCATED), newest_write=0)
    assert table.entry(3).base == ALLOCATED
    assert table.entry(3).mask == FULL_MASK
    assert table.entry(5).base is None
    assert table.entry(5).mask == 0


@pytest.mark.parametrize("count", [0, 3, 200])
def test_dropping_forgets_blocks(count: int) -> None:
    table = LayerTable(1)
    chance = random.Random(count)
    for block in chance.sample(range(1000), count):
        table.entry(block)
    expected = {block for block in table.blocks if not 100 <= block < 150}
    table.drop(100, 150)
    assert set(table.blocks) == expected
    table.drop(0, 2**32 - 1)
    assert not table.blocks


def test_a_memtable_is_true_when_there_is_anything_to_flush() -> None:
    assert not Memtable()
    for field, value in (("bytes", 1), ("zeroed", 1), ("located", 1), ("tree", b"")):
        memtable = Memtable()
        setattr(memtable, field, value)
        assert memtable
    memtable = Memtable()
    memtable.layer(1)
    assert not memtable, "a layer nobody wrote to is nothing"
    assert memtable.layer(1) is memtable.layers[1]
    assert SECTORS == 64


def test_memory_is_given_back_in_steps_however_it_is_held() -> None:
    """Scattered small writes have a buffer for each sector; whole blocks have one, which is large."""
    memtable = Memtable()
    for layer in (1, 2):
        table = memtable.layer(layer)
        for block in range(300):
            entry = table.entry(block)
            if block % 2:
                entry.link_block(b"")
            else:
                for sector in range(SECTORS):
                    entry.link_sector(sector, bytes(SECTOR_BYTES))

    def held() -> list[BlockEntry]:
        return [entry for table in memtable.layers.values() for entry in table.blocks.values()]

    before = held()
    steps = 0
    for _ in memtable.free_steps():
        steps += 1
        given = len(before) - len(held())
        assert sum(len(entry.sectors) for entry in before[len(before) - given :]) <= FREED_AT_ONCE + SECTORS
        assert given <= FREED_AT_ONCE // FREED_BLOCK
        before = held()
    assert not held()
    assert steps >= 600 * (FREED_BLOCK + SECTORS // 2) // FREED_AT_ONCE - 2
