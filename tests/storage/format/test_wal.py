"""What one object of the log says, there and back."""

import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from storage.errors import Corrupt
from storage.format.blocks import EntryKind, SstEntry, SstRef
from storage.format.frame import FULL_MASK
from storage.format.wal import LayerLogRecords, Located, Meta, Replayed, Uploaded, decode, encode, sequence_of

NAME = "wal/00000000000000000042.sst"
TABLE = "01K1JW549K0H0MV3FH28CKBWTY"
OTHER = "01K1JW549K0H0MV3FH28CKBWTZ"

u64 = st.one_of(st.integers(0, 2**64 - 1), st.sampled_from([0, 1, 2**63, 2**64 - 1]))
writes = st.tuples(u64, u64, st.binary(max_size=40))
zeros = st.tuples(u64, u64, u64, st.booleans())
tables = st.builds(
    SstRef,
    st.sampled_from([TABLE, OTHER]),
    u64,
    st.integers(0, 2**32 - 1),
    st.binary(min_size=16, max_size=16),
    st.integers(0, 2**32 - 1),
)


def plain(records: list[Replayed]) -> list[Replayed]:
    """With payloads as bytes, to compare."""
    return [(layer, (r[0], r[1], bytes(r[2])) if isinstance(r, tuple) and len(r) == 3 else r) for layer, r in records]


def located(block: int, sequence: int, layer: int = 7, table: str = TABLE) -> tuple[str, SstEntry]:
    return table, SstEntry(layer, block, EntryKind.FULL, FULL_MASK, sequence, 96 + block, 262185, 0x6174676174676174)


@given(st.lists(st.one_of(writes, zeros)), st.lists(tables, max_size=3), st.lists(st.tuples(u64, st.binary())))
def test_records_come_back(ops: list, refs: list[SstRef], metas: list[tuple[int, bytes]]) -> None:  # type: ignore[type-arg]
    ops.sort(key=lambda op: op[0])
    changes = [Meta(*meta) for meta in metas]
    body = encode([LayerLogRecords(7, ops, refs), LayerLogRecords(2**32 - 1, ops)], changes)
    expected: list[Replayed] = [(0, change) for change in changes]
    expected += (
        [(7, Uploaded(max((op[0] for op in ops), default=0), ref)) for ref in refs]
        + [(7, op) for op in ops]
        + [(2**32 - 1, op) for op in ops]
    )
    assert plain(list(decode(NAME, body))) == expected


@given(st.lists(st.integers(1, 30), unique=True), st.lists(st.integers(1, 30), unique=True), st.randoms())
def test_locators_stand_where_their_sequence_says(ops: list[int], frames: list[int], chance: random.Random) -> None:
    """A frame holds all of its block up to its sequence: replayed before one of those writes, it would lose it."""
    pairs = [located(sequence, sequence) for sequence in frames]
    chance.shuffle(pairs)
    body = encode([LayerLogRecords(7, [(s, 0, b"x") for s in sorted(ops)], [], pairs)], [])
    order = [
        (record.entry.sequence, 1) if isinstance(record, Located) else (record[0], 0)  # type: ignore[index]
        for _, record in decode(NAME, body)
    ]
    assert order == sorted(order)
    found = {r.entry.block: r for _, r in decode(NAME, body) if isinstance(r, Located)}
    assert found == {block: Located(*located(block, block)) for block in frames}


def test_an_sst_bears_the_highest_sequence_of_what_was_cut_with_it() -> None:
    """A manifest with a lower one does not list it yet: passed over, its frames would be missing."""
    ref = SstRef(TABLE, 1000, 900, bytes(16), 3)
    for ops, frames, expected in (([(3, 0, b"x")], [5, 9], 9), ([(11, 0, b"x")], [5, 9], 11), ([], [5], 5)):
        pairs = [located(sequence, sequence) for sequence in frames]
        body = encode([LayerLogRecords(7, list(ops), [ref], pairs)], [])
        assert [record for _, record in decode(NAME, body) if isinstance(record, Uploaded)] == [Uploaded(expected, ref)]


def test_the_body_is_what_the_format_says() -> None:
    body = encode([LayerLogRecords(7, [(5, 6, b"data"), (8, 9, 10, True)])], [Meta(3, b"tree")])
    assert body.hex() == (
        "0300" "00000000" "0300000000000000" "0000000000000000" "0400000000000000" + b"tree".hex()
        + "0100" "07000000" "0500000000000000" "0600000000000000" "0400000000000000" + b"data".hex()
        + "0201" "07000000" "0800000000000000" "0900000000000000" "0a00000000000000"
    )  # fmt: skip


@pytest.mark.parametrize("cut", range(1, 34))
def test_a_body_cut_short_is_damage(cut: int) -> None:
    body = encode([LayerLogRecords(7, [(5, 6, b"data")])], [])
    with pytest.raises(Corrupt) as caught:
        list(decode(NAME, body[:-cut]))
    assert caught.value.object_name == NAME


@pytest.mark.parametrize(
    ("position", "value"),
    [(0, 0), (0, 6), (0, 255)],
)
def test_an_unknown_record_is_damage(position: int, value: int) -> None:
    body = bytearray(encode([LayerLogRecords(7, [(5, 6, b"data")])], []))
    body[position] = value
    with pytest.raises(Corrupt):
        list(decode(NAME, bytes(body)))


def test_an_unknown_kind_of_entry_is_damage() -> None:
    body = bytearray(encode([LayerLogRecords(7, [], [], [located(1, 1)])], []))
    body[30 + 16] = 9
    with pytest.raises(Corrupt):
        list(decode(NAME, bytes(body)))


def test_nothing_says_nothing() -> None:
    assert list(decode(NAME, encode([], []))) == []
    assert list(decode(NAME, encode([LayerLogRecords(1)], []))) == []


def test_sequences_of_records() -> None:
    assert sequence_of((5, 0, b"x")) == 5
    assert sequence_of((6, 0, 4096, False)) == 6
    assert sequence_of(Meta(7, b"")) == 7
