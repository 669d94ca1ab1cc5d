"""Replies: whatever a device hands out arrives as the bytes it stands for, in chunks that obey the
specification."""

import itertools
import struct

from hypothesis import given
from hypothesis import strategies as st

from nbdserver.protocol import wire
from nbdserver.protocol.replies import EXTENTS_MAX, Parts, Piece, SimpleReplies, StructuredReplies

COOKIE = b"a cookie"
OFFSET = 1 << 40

PIECES = st.lists(
    st.one_of(
        st.integers(1, 3 << 20),
        st.binary(min_size=1, max_size=50),
        st.binary(min_size=1, max_size=50).map(lambda data: memoryview(data)),
        st.binary(min_size=1, max_size=50).map(bytearray),
    ),
    min_size=1,
    max_size=12,
)


def plain(pieces: list[Piece]) -> bytes:
    return b"".join(bytes(piece) for piece in pieces)


def chunks(stream: bytes) -> list[tuple[int, int, bytes, bytes]]:
    found = []
    while stream:
        magic, flags, kind, cookie, length = struct.unpack_from(">IHH8sI", stream)
        assert magic == wire.STRUCTURED_REPLY_MAGIC
        assert len(stream) >= 20 + length
        found.append((flags, kind, cookie, stream[20 : 20 + length]))
        stream = stream[20 + length :]
    return found


@given(PIECES)
def test_simple_replies_carry_the_bytes(pieces: list[Piece]) -> None:
    parts: Parts = []
    data = plain(pieces)
    SimpleReplies().data(parts, COOKIE, OFFSET, len(data), pieces)
    assert b"".join(parts) == struct.pack(">II8s", 0x67446698, 0, COOKIE) + data


@given(PIECES, st.booleans())
def test_structured_replies_carry_the_bytes(pieces: list[Piece], whole: bool) -> None:
    data = plain(pieces)
    parts: Parts = []
    StructuredReplies().data(parts, COOKIE, OFFSET, len(data), pieces, whole=whole)
    found = chunks(b"".join(parts))
    place = OFFSET
    rebuilt = b""
    for flags, kind, cookie, payload in found:
        assert cookie == COOKIE
        assert flags == 0 or payload is found[-1][3]
        assert struct.unpack_from(">Q", payload) == (place,)
        if kind == wire.REPLY_TYPE_OFFSET_HOLE:
            step = bytes(struct.unpack(">QI", payload)[1])
        else:
            assert kind == wire.REPLY_TYPE_OFFSET_DATA
            step = payload[8:]
        assert step
        rebuilt += step
        place += len(step)
    assert rebuilt == data
    assert found[-1][0] == wire.REPLY_FLAG_DONE
    if whole:
        assert len(found) == 1


def test_data_goes_out_as_it_lies_there() -> None:
    block = bytes(1 << 18)
    for replies in (SimpleReplies(), StructuredReplies()):
        parts: Parts = []
        replies.data(parts, COOKIE, 0, len(block), [block])
        assert parts[-1] is block


def test_zeros_in_simple_replies_cost_no_memory_of_their_length() -> None:
    parts: Parts = []
    SimpleReplies().data(parts, COOKIE, 0, 32 << 20, [32 << 20])
    views = parts[1:]
    assert sum(len(view) for view in views) == 32 << 20
    assert len({id(view.obj) for view in views if isinstance(view, memoryview)}) == 1


def test_errors() -> None:
    assert SimpleReplies().error(COOKIE, wire.EIO, "why") == struct.pack(">II8s", 0x67446698, 5, COOKIE)
    ((flags, kind, cookie, payload),) = chunks(StructuredReplies().error(COOKIE, wire.EIO, "why"))
    assert (flags, kind, cookie) == (1, (1 << 15) + 1, COOKIE)
    assert payload == struct.pack(">IH", 5, 3) + b"why"
    long = chunks(StructuredReplies().error(COOKIE, wire.EIO, "x" * 10_000))[0][3]
    assert len(long) == 6 + wire.STRING_BYTES_MAX


def test_nothing_read() -> None:
    parts: Parts = []
    StructuredReplies().data(parts, COOKIE, 0, 0, ())
    assert chunks(b"".join(parts)) == [(1, wire.REPLY_TYPE_NONE, COOKIE, b"")]


def status(extents: list[tuple[int, int]], length: int, *, one: bool = False) -> list[tuple[int, int]]:
    ((flags, kind, _, payload),) = chunks(StructuredReplies().status(COOKIE, 1, extents, length, one=one))
    assert (flags, kind) == (1, wire.REPLY_TYPE_BLOCK_STATUS)
    context, *numbers = struct.unpack(f">{len(payload) // 4}I", payload)
    assert context == 1
    return list(zip(numbers[::2], numbers[1::2], strict=True))


@given(st.lists(st.tuples(st.integers(1, 100), st.sampled_from([0, 2, 3])), min_size=1, max_size=30), st.booleans())
def test_status_tells_each_byte_once(extents: list[tuple[int, int]], one: bool) -> None:
    flat = [flags for size, flags in extents for _ in range(size)]
    for length in (1, len(flat) // 2 + 1, len(flat)):
        told = status(extents, length, one=one)
        assert [flags for size, flags in told for _ in range(size)] == flat[: sum(size for size, _ in told)]
        assert all(before[1] != after[1] for before, after in itertools.pairwise(told))
        total = sum(size for size, _ in told)
        assert 0 < total <= length
        assert len(told) == 1 if one else total == length


def test_status_has_a_limit() -> None:
    extents = [(512, 3 * (number % 2)) for number in range(3 * EXTENTS_MAX)]
    assert len(status(extents, 512 * len(extents))) == EXTENTS_MAX
    assert EXTENTS_MAX <= 1 << 20


def test_a_status_may_tell_of_less_than_was_asked() -> None:
    assert status([(512, 0)], 4096) == [(512, 0)]
