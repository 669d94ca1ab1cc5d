"""Replies: whatever a device hands out arrives as the bytes it stands for, in chunks that obey the
specification."""

import itertools
import struct

import pytest
from hypothesis import given
from hypothesis import strategies as st

from nbdserver.protocol import wire
from nbdserver.protocol.replies import (
    EXTENDED,
    EXTENTS_MAX,
    STRUCTURED,
    ChunkedReplies,
    Layout,
    Parts,
    Piece,
    SimpleReplies,
)

COOKIE = b"a cookie"
OFFSET = 1 << 40
TAG = COOKIE + struct.pack(">Q", OFFSET)
"""What an extended reply repeats: cookie and offset."""

Chunk = tuple[int, int, bytes, bytes]
"""Flags, type, what is repeated of the request, payload."""

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


def chunks(stream: bytes, layout: Layout) -> list[Chunk]:
    found = []
    while stream:
        if layout is STRUCTURED:
            magic, flags, kind, cookie, length = struct.unpack_from(">IHH8sI", stream)
            assert magic == 0x668E33EF
            size = 20
        else:
            magic, flags, kind, cookie, length = struct.unpack_from(">IHH16sQ", stream)
            assert magic == 0x6E8A278C
            size = 32
        assert len(stream) >= size + length
        found.append((flags, kind, cookie, stream[size : size + length]))
        stream = stream[size + length :]
    return found


LAYOUTS = [(STRUCTURED, COOKIE), (EXTENDED, TAG)]
EACH_LAYOUT = pytest.mark.parametrize(("layout", "cookie"), LAYOUTS, ids=["structured", "extended"])


@given(PIECES)
def test_simple_replies_carry_the_bytes(pieces: list[Piece]) -> None:
    parts: Parts = []
    data = plain(pieces)
    SimpleReplies().data(parts, COOKIE, OFFSET, len(data), pieces)
    assert b"".join(parts) == struct.pack(">II8s", 0x67446698, 0, COOKIE) + data


def rebuilt(found: list[Chunk], cookie: bytes) -> bytes:
    """The bytes that content chunks carry, which must follow each other from OFFSET on."""
    place = OFFSET
    data = b""
    for _, kind, repeated, payload in found:
        assert repeated == cookie
        assert struct.unpack_from(">Q", payload) == (place,)
        if kind == wire.REPLY_TYPE_OFFSET_HOLE:
            step = bytes(struct.unpack(">QI", payload)[1])
        else:
            assert kind == wire.REPLY_TYPE_OFFSET_DATA
            step = payload[8:]
        assert step
        data += step
        place += len(step)
    return data


@EACH_LAYOUT
@given(pieces=PIECES, dont_fragment=st.booleans())
def test_chunks_carry_the_bytes(layout: Layout, cookie: bytes, pieces: list[Piece], dont_fragment: bool) -> None:
    data = plain(pieces)
    parts: Parts = []
    ChunkedReplies(layout).data(parts, cookie, OFFSET, len(data), pieces, dont_fragment=dont_fragment)
    found = chunks(b"".join(parts), layout)
    assert rebuilt(found, cookie) == data
    assert [flags for flags, *_ in found] == [0] * (len(found) - 1) + [wire.REPLY_FLAG_DONE]
    if dont_fragment:
        assert len(found) == 1


@EACH_LAYOUT
@given(pieces=PIECES, cut=st.integers(0, 12))
def test_an_answer_in_parts(layout: Layout, cookie: bytes, pieces: list[Piece], cut: int) -> None:
    """No part ends the answer; an error in the middle says where, and `end` says nothing."""
    replies = ChunkedReplies(layout)
    parts: Parts = []
    middle = OFFSET + len(plain(pieces[:cut]))
    replies.part(parts, cookie, OFFSET, pieces[:cut])
    replies.part(parts, cookie, middle, pieces[cut:])
    parts += (replies.error_at(cookie, wire.EIO, "why", middle), replies.end(cookie))
    *content, error, end = chunks(b"".join(parts), layout)
    assert rebuilt(content, cookie) == plain(pieces)
    assert all(not flags for flags, *_ in content)
    assert error == (0, (1 << 15) + 2, cookie, struct.pack(">IH3sQ", 5, 3, b"why", middle))
    assert end == (1, 0, cookie, b"")


def test_data_goes_out_as_it_lies_there() -> None:
    block = bytes(1 << 18)
    for replies, cookie in (
        (SimpleReplies(), COOKIE),
        (ChunkedReplies(STRUCTURED), COOKIE),
        (ChunkedReplies(EXTENDED), TAG),
    ):
        parts: Parts = []
        replies.data(parts, cookie, 0, len(block), [block])
        assert parts[-1] is block


def test_zeros_in_simple_replies_cost_no_memory_of_their_length() -> None:
    parts: Parts = []
    SimpleReplies().data(parts, COOKIE, 0, 32 << 20, [32 << 20])
    views = parts[1:]
    assert sum(len(view) for view in views) == 32 << 20
    assert len({id(view.obj) for view in views if isinstance(view, memoryview)}) == 1


def test_an_error_in_a_simple_reply() -> None:
    assert SimpleReplies().error(COOKIE, wire.EIO, "why") == struct.pack(">II8s", 0x67446698, 5, COOKIE)


@EACH_LAYOUT
def test_an_error_in_a_chunk(layout: Layout, cookie: bytes) -> None:
    replies = ChunkedReplies(layout)
    assert chunks(replies.error(cookie, wire.EIO, "why"), layout) == [
        (1, (1 << 15) + 1, cookie, struct.pack(">IH", 5, 3) + b"why")
    ]
    ((*_, long),) = chunks(replies.error(cookie, wire.EIO, "x" * 10_000), layout)
    assert len(long) == 6 + wire.STRING_BYTES_MAX


def test_done() -> None:
    """A simple reply under structured replies, never under extended headers."""
    assert SimpleReplies().done(COOKIE) == struct.pack(">II8s", 0x67446698, 0, COOKIE)
    assert ChunkedReplies(STRUCTURED).done(COOKIE) == struct.pack(">II8s", 0x67446698, 0, COOKIE)
    assert chunks(ChunkedReplies(EXTENDED).done(TAG), EXTENDED) == [(1, wire.REPLY_TYPE_NONE, TAG, b"")]


@EACH_LAYOUT
def test_nothing_read(layout: Layout, cookie: bytes) -> None:
    parts: Parts = []
    ChunkedReplies(layout).data(parts, cookie, 0, 0, ())
    assert chunks(b"".join(parts), layout) == [(1, wire.REPLY_TYPE_NONE, cookie, b"")]


def status(extents: list[tuple[int, int]], length: int, *, one: bool = False) -> list[tuple[int, int]]:
    """What structured replies say of extents; extended ones must say the same."""
    said = []
    for layout, cookie in LAYOUTS:
        stream = ChunkedReplies(layout).status(cookie, 1, extents, length, one=one)
        ((flags, kind, repeated, payload),) = chunks(stream, layout)
        assert (flags, repeated) == (1, cookie)
        if layout is STRUCTURED:
            assert kind == wire.REPLY_TYPE_BLOCK_STATUS
            context, *numbers = struct.unpack(f">{len(payload) // 4}I", payload)
        else:
            assert kind == wire.REPLY_TYPE_BLOCK_STATUS_EXT
            context, count, *numbers = struct.unpack(f">II{(len(payload) - 8) // 8}Q", payload)
            assert 2 * count == len(numbers)
        assert context == 1
        said.append(list(zip(numbers[::2], numbers[1::2], strict=True)))
    assert said[0] == said[1]
    return said[0]


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


def test_an_extent_of_64_bits() -> None:
    stream = ChunkedReplies(EXTENDED).status(TAG, 1, [(1 << 50, 3)], 1 << 50, one=False)
    ((*_, payload),) = chunks(stream, EXTENDED)
    assert payload == struct.pack(">IIQQ", 1, 1, 1 << 50, 3)
