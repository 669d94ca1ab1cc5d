"""The journal as bytes."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from storage.crypto.mac import Authenticator
from storage.errors import Corrupt
from storage.format.journal_batch import JOINED_BYTES_MAX, TREE, JournalEntry, decode, encode
from storage.format.wal import Meta, Op
from storage.secret import Secret

SEAL = Authenticator(Secret(bytes(range(32))))
SEGMENT = 7

numbers = st.integers(0, 2**64 - 1)
data = st.one_of(st.binary(max_size=40), st.integers(0, 255).map(lambda byte: bytes([byte]) * JOINED_BYTES_MAX))
operations: st.SearchStrategy[Op | Meta] = st.one_of(
    st.tuples(numbers, numbers, data),
    st.tuples(numbers, numbers, numbers, st.booleans()),
    st.builds(Meta, numbers, data),
)
entries = st.builds(
    lambda layer, previous, op: JournalEntry(TREE if isinstance(op, Meta) else layer, previous, op),
    st.integers(1, 2**32 - 1),
    numbers,
    operations,
)
batches = st.lists(st.lists(entries, min_size=1, max_size=5), max_size=5)


def encoded(written: list[list[JournalEntry]], *, segment: int = SEGMENT, seal: Authenticator = SEAL) -> list[bytes]:
    """Each batch."""
    return [
        b"".join(encode(seal, segment, position, [(entry.layer, entry.previous, entry.op) for entry in batch]))
        for position, batch in enumerate(written)
    ]


def plain(found: list[JournalEntry]) -> list[tuple[int, int, object]]:
    """As tuples, which compare by what they hold."""
    return [
        (entry.layer, entry.previous, tuple(entry.op) if isinstance(entry.op, tuple) else entry.op) for entry in found
    ]


def joined(written: list[list[JournalEntry]]) -> list[tuple[int, int, object]]:
    return plain([entry for batch in written for entry in batch])


@given(batches)
def test_what_was_written_is_read(written: list[list[JournalEntry]]) -> None:
    raw = b"".join(encoded(written))
    found, length = decode("segment", raw, SEAL, SEGMENT, last=False)
    assert plain(found) == joined(written)
    assert length == len(raw)


@given(batches, st.data())
def test_the_end_of_a_process_leaves_whole_batches(written: list[list[JournalEntry]], chance: st.DataObject) -> None:
    parts = encoded(written)
    raw = b"".join(parts)
    end = chance.draw(st.integers(0, len(raw)))
    ends = [sum(map(len, parts[:count])) for count in range(len(parts) + 1)]
    whole = max(count for count, at in enumerate(ends) if at <= end)
    found, length = decode("segment", raw[:end], SEAL, SEGMENT, last=True)
    assert plain(found) == joined(written[:whole])
    assert length == ends[whole]
    if end not in ends:
        with pytest.raises(Corrupt):
            decode("segment", raw[:end], SEAL, SEGMENT, last=False)


@given(batches.filter(bool), st.data())
def test_a_changed_byte_is_noticed(written: list[list[JournalEntry]], chance: st.DataObject) -> None:
    raw = bytearray(b"".join(encoded(written)))
    at = chance.draw(st.integers(0, len(raw) - 1))
    raw[at] ^= chance.draw(st.integers(1, 255))
    with pytest.raises(Corrupt):
        decode("segment", bytes(raw), SEAL, SEGMENT, last=True)


@given(batches.filter(lambda written: len(written) > 1), st.data())
def test_a_batch_passes_for_no_other(written: list[list[JournalEntry]], chance: st.DataObject) -> None:
    parts = encoded(written)
    gone = chance.draw(st.integers(0, len(parts) - 2))
    swapped = [*parts[:gone], parts[gone + 1], parts[gone], *parts[gone + 2 :]]
    for raw in (b"".join(parts[:gone] + parts[gone + 1 :]), b"".join(swapped)):
        with pytest.raises(Corrupt):
            decode("segment", raw, SEAL, SEGMENT, last=True)
    for segment, seal in ((SEGMENT + 1, SEAL), (SEGMENT, Authenticator(Secret(bytes(32))))):
        with pytest.raises(Corrupt):
            decode("segment", b"".join(parts), seal, segment, last=True)


@given(st.binary(min_size=40, max_size=200))
def test_anything_else_is_no_journal(raw: bytes) -> None:
    with pytest.raises(Corrupt):
        decode("segment", raw, SEAL, SEGMENT, last=True)
