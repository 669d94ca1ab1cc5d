"""Data SSTs: frames and the index that pins them."""

import random
import struct

import pytest
from hypothesis import given
from hypothesis import strategies as st

from storage.crypto.cipher import Cipher
from storage.errors import Corrupt, Unsupported
from storage.format.blocks import EntryKind, FrameRef, RangeZero, SstEntry, SstRef
from storage.format.envelope import HEADER_BYTES, Header, ObjectKind
from storage.format.frame import BLOCK_BYTES, FULL_MASK, SECTOR_BYTES, FrameCodec
from storage.format.sst import Moved, SstBuilder, SstIndex, decode_index, encode_index, open_index
from storage.lsm.sst.ranges import decode_frame

STORE_ID = bytes(range(16))
FRAMES = Cipher(bytes(range(32)))
INDEXES = Cipher(bytes(range(1, 33)))
CODEC = FrameCodec(FRAMES, STORE_ID)
TABLE = "01K1JW549K0H0MV3FH28CKBWTY"
OTHER = "01K1JW549K0H0MV3FH28CKBWTZ"

u32 = st.one_of(st.integers(0, 2**32 - 1), st.sampled_from([0, 1, 2**31, 2**32 - 1]))
u64 = st.one_of(st.integers(0, 2**64 - 1), st.sampled_from([0, 1, 2**63, 2**64 - 1]))
entries = st.builds(
    SstEntry,
    u32,
    u32,
    st.sampled_from(EntryKind),
    st.one_of(st.just(FULL_MASK), u64),
    u64,
    u32,
    u32,
    u64,
)
ranges = st.builds(RangeZero, u32, u32, u32, u64, st.booleans())


def rows(index: SstIndex) -> tuple[list[SstEntry], list[RangeZero]]:
    e, r = index.entries, index.ranges
    columns = [e[name].tolist() for name in ("layer", "block", "kind", "mask", "sequence", "offset", "length", "tag")]
    spans = [r[name].tolist() for name in ("layer", "first", "end", "sequence", "allocated")]
    return (
        [
            SstEntry(layer, block, EntryKind(kind), mask, sequence, offset, length, tag)
            for layer, block, kind, mask, sequence, offset, length, tag in zip(*columns, strict=True)
        ],
        [RangeZero(layer, first, end, seq, bool(alloc)) for layer, first, end, seq, alloc in zip(*spans, strict=True)],
    )


@given(st.lists(entries, max_size=30), st.lists(ranges, max_size=10))
def test_an_index_comes_back_sorted(given_entries: list[SstEntry], given_ranges: list[RangeZero]) -> None:
    found, spans = rows(decode_index(encode_index(given_entries, given_ranges)))
    assert found == sorted(given_entries, key=lambda e: (e.layer, e.block, e.sequence))
    assert spans == sorted(given_ranges, key=lambda r: (r.layer, r.first))


def test_an_empty_index_comes_back() -> None:
    index = decode_index(encode_index([], []))
    assert rows(index) == ([], [])


@given(st.lists(entries, max_size=3), st.integers(1, 9))
def test_an_index_of_another_length_is_refused(some: list[SstEntry], more: int) -> None:
    packed = encode_index(some, [])
    with pytest.raises(ValueError, match="wrong length"):
        decode_index(packed + bytes(more))
    with pytest.raises((ValueError, struct.error)):
        decode_index(packed[:-more])


def test_what_was_moved_comes_back_in_the_order_of_its_places() -> None:
    index = decode_index(encode_index([], [], [Moved(OTHER, 96, 500), Moved(TABLE, 700, 96), Moved(OTHER, 300, 200)]))
    places = zip(*(index.moved[name].tolist() for name in ("victim", "old", "offset")), strict=True)
    assert [(index.victims[victim], old, at) for victim, old, at in places] == [
        (TABLE, 700, 96),
        (OTHER, 300, 200),
        (OTHER, 96, 500),
    ]


def test_what_was_moved_from_nowhere_is_refused() -> None:
    packed = encode_index([], [], [Moved(TABLE, 700, 96)])
    with pytest.raises(ValueError, match="without a name"):
        decode_index(struct.pack("<4I", 0, 0, 1, 0) + packed[32:])


def build(blocks: int = 2, patches: int = 2) -> tuple[SstBuilder, SstRef, bytes, dict[int, bytes]]:
    header = Header(
        kind=ObjectKind.DATA, epoch=3, store_id=STORE_ID, nonce=b"nonce of the sst", link=b"ulid of the sst."
    )
    builder = SstBuilder(CODEC, FRAMES, INDEXES, header, TABLE)
    chance = random.Random(7)
    data: dict[int, bytes] = {}
    for block in range(blocks + patches):
        full = block < blocks
        mask = FULL_MASK if full else 0x8000000000000101
        data[block] = chance.randbytes(BLOCK_BYTES) if full else b"patch" * 1000 + bytes(3 * SECTOR_BYTES - 5000)
        builder.add_frame(layer=1, block=block, full=full, mask=mask, sequence=10 + block, data=data[block])
    builder.entries.append(SstEntry(1, 99, EntryKind.ZERO, FULL_MASK, 77))
    builder.ranges.append(RangeZero(1, 5, 2**32 - 1, 2**64 - 1, True))
    table, content = builder.finish()
    return builder, table, bytes(content), data


def open_it(table: SstRef, raw: bytes) -> SstIndex:
    """What recovery does with it: everything from the second header on."""
    return open_index(INDEXES, table, raw[table.index_offset : table.size], store_id=STORE_ID)


def test_what_was_put_in_is_found() -> None:
    builder, table, raw, data = build()
    assert (table.id, table.size, table.entries) == (TABLE, len(raw), 6)
    found, spans = rows(open_it(table, raw))
    assert found == builder.entries
    assert spans == builder.ranges
    for entry in found:
        if entry.kind in (EntryKind.FULL, EntryKind.PATCH):
            full = entry.kind is EntryKind.FULL
            ref = FrameRef(1 << 32 | entry.offset, entry.length, entry.tag, entry.block, full)
            decoded = decode_frame(CODEC, "name", ref, memoryview(raw)[entry.offset :][: entry.length])
            if full:
                assert decoded == data[entry.block]
            else:
                assert isinstance(decoded, dict)
                assert list(decoded) == [0, 8, 63]
                assert b"".join(bytes(decoded[s]) for s in (0, 8, 63)) == data[entry.block]


def test_frames_lie_one_behind_the_other() -> None:
    builder, table, _, _ = build()
    position = HEADER_BYTES
    for entry in builder.entries[:-1]:
        assert entry.offset == position
        position += entry.length
    assert position == table.index_offset


def test_no_bit_of_header_or_index_can_be_changed() -> None:
    _, table, raw, _ = build(blocks=0, patches=2)
    assert raw[:HEADER_BYTES] == raw[table.index_offset :][:HEADER_BYTES]
    for position in range(table.index_offset, table.size):
        for bit in range(8):
            damaged = bytearray(raw)
            damaged[position] ^= 1 << bit
            with pytest.raises((Corrupt, Unsupported)) as caught:
                open_it(table, bytes(damaged))
            assert TABLE in str(caught.value)


def test_no_bit_of_a_frame_can_be_changed() -> None:
    builder, _, raw, _ = build(blocks=0, patches=1)
    entry = builder.entries[0]
    ref = FrameRef(1 << 32 | entry.offset, entry.length, entry.tag, entry.block, full=False)
    for position in range(entry.length):
        damaged = bytearray(raw[entry.offset :][: entry.length])
        damaged[position] ^= 1 << (position % 8)
        assert isinstance(decode_frame(CODEC, "name", ref, memoryview(damaged)), Corrupt)
    assert isinstance(decode_frame(CODEC, "name", ref, memoryview(damaged)[:-1]), Corrupt)


@pytest.mark.parametrize("field", ["size", "index_offset", "tag"])
def test_another_object_of_the_same_store_is_refused(field: str) -> None:
    """Two SSTs of one writer, exchanged under their names: the reference pins which one is meant."""
    _, table, raw, _ = build()
    other = {
        "size": SstRef(table.id, table.size + 1, table.index_offset, table.tag, table.entries),
        "index_offset": SstRef(table.id, table.size, table.index_offset - 1, table.tag, table.entries),
        "tag": SstRef(table.id, table.size, table.index_offset, bytes(16), table.entries),
    }[field]
    with pytest.raises(Corrupt, match=r"not the object|authentication|does not begin"):
        open_it(other, raw)
    with pytest.raises(Corrupt):
        open_index(FRAMES, table, raw[table.index_offset :], store_id=STORE_ID)


def test_the_rows_of_one_block_stay_in_order_on_equal_sequences() -> None:
    """Zeros and the patch above them share a sequence; the patch must stay above."""
    zero = SstEntry(1, 5, EntryKind.ZERO, FULL_MASK, 10)
    patch = SstEntry(1, 5, EntryKind.PATCH, 1, 10, 96, 100)
    assert rows(decode_index(encode_index([zero, patch], [])))[0] == [zero, patch]
