"""The journal as bytes."""

import struct
import sys

import pytest
from hypothesis import given
from hypothesis import strategies as st

from storage.crypto.memory_cipher import TAG_BYTES, MemoryCipher
from storage.errors import Corrupt
from storage.format.journal_batch import (
    JOINED_BYTES_MAX,
    SEGMENT_BYTES_MIN,
    JournalEntry,
    Memory,
    append,
    clear,
    decode,
    room_for,
)
from storage.format.wal import TREE, Meta, Op
from storage.secret import Secret

CIPHER = MemoryCipher(Secret(bytes(range(32))))
SEGMENT = 7
ROOM = 300

numbers = st.integers(0, 2**64 - 1)
data = st.one_of(st.binary(max_size=40), st.integers(0, 255).map(lambda byte: bytes([byte]) * (32 << 10)))
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


def memory_of(size: int) -> Memory:
    """That has held something else."""
    memory = Memory(-1, size)
    memory[:] = b"\xa5" * size
    return memory


def segment_of(
    written: list[list[JournalEntry]], *, segment: int = SEGMENT, cipher: MemoryCipher = CIPHER
) -> bytearray:
    """A segment with these batches, of which one that is too large to be joined is several."""
    memory = memory_of(ROOM + sum(room_for(entry.op) for batch in written for entry in batch))
    end, position = clear(memory), 0
    for batch in written:
        kept = 0
        while kept < len(batch):
            before, (kept, end) = kept, append(memory, end, cipher, (segment, position), unkept(batch), kept)
            assert kept > before
            position += 1
    return bytearray(memory)


def unkept(batch: list[JournalEntry]) -> list[tuple[None, int, int, Op | Meta]]:
    return [(None, entry.layer, entry.previous, entry.op) for entry in batch]


def end_of(memory: bytearray) -> int:
    return int.from_bytes(memory[:8], sys.byteorder)


def plain(found: list[JournalEntry]) -> list[tuple[int, int, object]]:
    """As tuples, which compare by what they hold."""
    return [
        (entry.layer, entry.previous, tuple(entry.op) if isinstance(entry.op, tuple) else entry.op) for entry in found
    ]


def joined(written: list[list[JournalEntry]]) -> list[tuple[int, int, object]]:
    return plain([entry for batch in written for entry in batch])


@given(batches)
def test_what_was_written_is_read(written: list[list[JournalEntry]]) -> None:
    assert plain(decode("segment", bytes(segment_of(written)), CIPHER, SEGMENT)) == joined(written)


@pytest.mark.parametrize("length", range(JOINED_BYTES_MAX - 150, JOINED_BYTES_MAX + 50, 8))
def test_a_batch_that_is_not_joined_is_the_same(length: int) -> None:
    """Around the length from which on an operation is sealed by itself, between small ones."""
    large = [JournalEntry(1, 3, (4, 0, b"\x5a" * length)), JournalEntry(1, 4, (5, 8192, memoryview(b"behind")))]
    written = [[JournalEntry(1, 2, (3, 0, b"before"))], large, [JournalEntry(1, 5, (6, 0, 8192, True))]]
    raw = segment_of(written)
    assert plain(decode("segment", bytes(raw), CIPHER, SEGMENT)) == joined(written)
    raw[end_of(raw) // 2] ^= 1
    with pytest.raises(Corrupt):
        decode("segment", bytes(raw), CIPHER, SEGMENT)


def test_what_goes_together_is_one_batch_and_what_is_too_large_another() -> None:
    memory = memory_of(6 * JOINED_BYTES_MAX)
    half = bytes(JOINED_BYTES_MAX // 2)
    pending = unkept([JournalEntry(1, 0, (1, 0, data)) for data in (half, half, b"x", half, 2 * half, 3 * half, b"y")])
    at, kept = clear(memory), 0
    ends: list[int] = []
    while kept < len(pending) and len(ends) < len(pending):
        kept, at = append(memory, at, CIPHER, (SEGMENT, len(ends)), pending, kept)
        ends.append(kept)
    assert ends == [2, 4, 5, 6, 7]


def test_what_clients_write_does_not_lie_there_in_clear() -> None:
    for data in (b"a secret of a client", b"a secret of a client" * JOINED_BYTES_MAX):
        raw = segment_of([[JournalEntry(1, 0, (1, 0, data))], [JournalEntry(TREE, 1, Meta(2, data))]])
        assert b"secret" not in raw


@given(batches.filter(bool), st.data())
def test_the_end_of_a_process_leaves_whole_batches(written: list[list[JournalEntry]], chance: st.DataObject) -> None:
    """A kill between any two stores of the last batch: nothing of it that counts, or all of it."""
    before, after = segment_of(written[:-1]), segment_of(written)
    start, end = end_of(before), end_of(after)
    killed = bytearray(after)
    killed[:start] = before[:start]
    stores = chance.draw(st.integers(0, 2), label="ends that were written")
    if not stores:
        written = written[:-1]
        torn = chance.draw(st.integers(start, end))
        killed[torn:end] = b"\xa5" * (end - torn)
    killed[: 8 * stores] = after[: 8 * stores]
    assert plain(decode("segment", bytes(killed), CIPHER, SEGMENT)) == joined(written)


@given(batches, st.data())
def test_a_changed_byte_is_noticed(written: list[list[JournalEntry]], chance: st.DataObject) -> None:
    """Or changes nothing, where it is the second end and says that the last batch was not answered."""
    raw = segment_of(written)
    at = chance.draw(st.integers(0, end_of(raw) - 1))
    raw[at] ^= chance.draw(st.integers(1, 255))
    try:
        found = decode("segment", bytes(raw), CIPHER, SEGMENT)
    except Corrupt:
        return
    assert 8 <= at < 16
    assert plain(found) == joined(written)


@given(batches.filter(lambda written: len(written) > 1))
def test_an_end_that_was_is_noticed(written: list[list[JournalEntry]]) -> None:
    """Batches that were answered would be missing, and nothing else says so."""
    raw = segment_of(written)
    raw[:8] = segment_of(written[:-1])[:8]
    with pytest.raises(Corrupt):
        decode("segment", bytes(raw), CIPHER, SEGMENT)


@given(batches, st.data())
def test_one_that_is_cut_off_is_noticed(written: list[list[JournalEntry]], chance: st.DataObject) -> None:
    raw = bytes(segment_of(written))
    with pytest.raises(Corrupt):
        decode("segment", raw[: chance.draw(st.integers(0, end_of(bytearray(raw)) - 1))], CIPHER, SEGMENT)


@given(batches.filter(lambda written: len(written) > 1), st.data())
def test_a_batch_passes_for_no_other(written: list[list[JournalEntry]], chance: st.DataObject) -> None:
    """Of another segment (whose memory this one has, say), of another journal, in another place."""
    raw = bytes(segment_of(written))
    for segment, cipher in ((SEGMENT + 1, CIPHER), (SEGMENT, MemoryCipher(Secret(bytes(32))))):
        with pytest.raises(Corrupt):
            decode("segment", raw, cipher, segment)
    gone = chance.draw(st.integers(0, len(written) - 2))
    start, behind, end = (end_of(segment_of(written[:count])) for count in (gone, gone + 1, len(written)))
    moved = raw[16:start] + raw[behind:end]
    with pytest.raises(Corrupt):
        decode("segment", struct.pack("@QQ", *[16 + len(moved)] * 2) + moved, CIPHER, SEGMENT)


@given(st.lists(entries, min_size=1, max_size=8), st.integers(SEGMENT_BYTES_MIN, 400))
def test_what_has_no_room_is_left_for_the_next_segment(written: list[JournalEntry], size: int) -> None:
    pending = unkept(written)
    kept, found = 0, []
    for segment in range(1, 2 * len(written) + 1):
        memory = memory_of(max(size, room_for(pending[kept][3])))
        at, position = clear(memory), 0
        while kept < len(pending):
            size_before = len(memory)
            upto, end = append(memory, at, CIPHER, (segment, position), pending, kept)
            assert len(memory) == size_before
            assert (upto == kept) == (end == at)
            if upto == kept:
                break
            kept, at, position = upto, end, position + 1
        found += decode("segment", bytes(memory), CIPHER, segment)
        if kept == len(pending):
            break
    assert plain(found) == plain(written)


@pytest.mark.parametrize("lacking", range(TAG_BYTES + 2))
def test_a_batch_has_no_more_room_than_its_segment(lacking: int) -> None:
    """To the byte: the second entry fits, or is left for the next segment."""
    written = [JournalEntry(1, 3, (4, 0, bytes(40))), JournalEntry(1, 4, (5, 8192, bytes(40)))]
    whole = end_of(segment_of([written]))
    memory = memory_of(whole - lacking)
    kept, end = append(memory, clear(memory), CIPHER, (SEGMENT, 0), unkept(written), 0)
    assert kept == (1 if lacking else 2)
    assert end <= len(memory) == whole - lacking
    assert plain(decode("segment", bytes(memory), CIPHER, SEGMENT)) == plain(written[:kept])


@given(st.binary(min_size=16, max_size=200))
def test_anything_else_is_no_journal(raw: bytes) -> None:
    with pytest.raises(Corrupt):
        decode("segment", raw, CIPHER, SEGMENT)
