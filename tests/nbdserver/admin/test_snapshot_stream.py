"""Snapshot streams: what goes in comes out, and one that was cut or altered is refused, wherever that was."""

import hashlib
import struct

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from nbdserver.admin.snapshot_stream import (
    ALIKE_BYTES_MIN,
    HEADER_BYTES_MAX,
    RANGE_BYTES_MAX,
    STREAM_MAGIC,
    Range,
    SourceFailed,
    StreamDecoder,
    StreamEncoder,
    StreamHeader,
    is_stream,
)
from storage.errors import Corrupt, StorageError, Unsupported

SIZE = 1 << 40
HEADER = StreamHeader(1, b"s" * 16, "disk", "two", b"2" * 16, 17, SIZE, b"1" * 16, "one")


def encoded(ranges: list[Range], header: StreamHeader = HEADER, *, end: int | None = None) -> bytes:
    encoder = StreamEncoder()
    parts = [encoder.header(header)]
    for offset, content in ranges:
        parts += [encoder.zeros(offset, content)] if isinstance(content, int) else encoder.data(offset, content)
    return b"".join([*parts, encoder.end(header.size if end is None else end)])


def decoded(stream: bytes, step: int = 1 << 30) -> tuple[StreamHeader | None, list[Range]]:
    decoder = StreamDecoder()
    ranges = [one for at in range(0, len(stream), step) for one in decoder.feed(stream[at : at + step])]
    decoder.finish()
    return decoder.header, ranges


@st.composite
def ascending(draw: st.DrawFn) -> list[Range]:
    ranges: list[Range] = []
    at = 0
    for _ in range(draw(st.integers(0, 8))):
        at += draw(st.integers(0, 1 << 20))
        content = draw(st.integers(1, 1 << 36) | st.binary(min_size=1, max_size=100))
        ranges.append((at, content))
        at += content if isinstance(content, int) else len(content)
    return ranges


@given(ascending(), st.integers(1, 50))
def test_what_goes_in_comes_out(ranges: list[Range], step: int) -> None:
    assert decoded(encoded(ranges), step) == (HEADER, ranges)


def test_a_long_piece_is_several_records() -> None:
    data = bytes(range(256)) * (3 * RANGE_BYTES_MAX // 256) + b"end"
    _, ranges = decoded(encoded([(5, data)]))
    assert len(ranges) == 4
    assert b"".join(content for _, content in ranges if isinstance(content, bytes)) == data
    assert [offset for offset, _ in ranges] == [5 + at for at in range(0, len(data), RANGE_BYTES_MAX)]


SMALL = encoded([(0, b"some data"), (4096, 8192), (SIZE - 3, b"end")])


@pytest.mark.parametrize("length", range(len(SMALL)))
def test_one_that_was_cut(length: int) -> None:
    with pytest.raises(Corrupt, match="cut off"):
        decoded(SMALL[:length])


@settings(max_examples=300)
@given(st.integers(0, len(SMALL) - 1), st.integers(1, 255))
def test_one_with_another_byte(at: int, flip: int) -> None:
    with pytest.raises((Corrupt, SourceFailed)):
        decoded(SMALL[:at] + bytes([SMALL[at] ^ flip]) + SMALL[at + 1 :])


@pytest.mark.parametrize("at", range(len(SMALL)))
def test_one_with_a_bit_flipped(at: int) -> None:
    """At every place; no range behind it comes out."""
    decoder, damaged = StreamDecoder(), SMALL[:at] + bytes([SMALL[at] ^ 0x10]) + SMALL[at + 1 :]
    before: list[Range] = []
    with pytest.raises(Corrupt):  # noqa: PT012
        for byte in damaged:
            before += decoder.feed(bytes([byte]))
        decoder.finish()
    whole = decoded(SMALL)[1]
    assert before == whole[: len(before)]


@pytest.mark.parametrize("parts", [SMALL + b"x", SMALL + SMALL, SMALL[: len(STREAM_MAGIC)] + SMALL])
def test_one_with_something_more(parts: bytes) -> None:
    with pytest.raises(Corrupt):
        decoded(parts)


def test_records_of_another_stream_do_not_fit() -> None:
    """Each checksum rests on all records before it."""
    parts = []
    for data in (b"some data", b"other data"):
        encoder = StreamEncoder()
        parts.append([encoder.header(HEADER), *encoder.data(0, data), *encoder.data(4096, b"more"), encoder.end(SIZE)])
    one, other = parts
    assert len(decoded(b"".join(one))[1]) == len(decoded(b"".join(other))[1]) == 2
    with pytest.raises(Corrupt, match="checksum"):
        decoded(b"".join([*one[:2], *other[2:]]))


@pytest.mark.parametrize(
    "ranges",
    [
        [(4096, b"x"), (0, b"y")],
        [(0, 4096), (4095, b"y")],
        [(SIZE - 1, b"xy")],
        [(SIZE, 1)],
        [(0, 0)],
    ],
)
def test_a_range_where_none_can_be(ranges: list[Range]) -> None:
    with pytest.raises(Corrupt, match="where it cannot"):
        decoded(encoded(ranges))


def test_an_end_of_another_size() -> None:
    with pytest.raises(Corrupt, match="another size"):
        decoded(encoded([], end=SIZE - 1))


def test_a_version_that_is_not_known() -> None:
    with pytest.raises(Unsupported, match="version 2"):
        decoded(encoded([], StreamHeader(2, b"", "", "", b"", 0, SIZE)))


@pytest.mark.parametrize(
    ("before", "depth"),
    [(b"", 60_000), (b"", 900), (b"\x92\x01", 60_000), (b"\x90", 0), (b"\x01", 0)],
)
def test_a_header_that_is_none(before: bytes, depth: int) -> None:
    """Lists in lists, too, which end a parser before they end."""
    header = before + (b"\x91" * depth + b"\x90" if depth else b"")
    head = struct.pack("<BQQ", 1, 0, len(header))
    check = hashlib.sha256(bytes(16) + head + header).digest()[:16]
    with pytest.raises(Corrupt, match="its header"):
        StreamDecoder().feed(STREAM_MAGIC + head + header + check)


def test_lengths_are_bounded_before_anything_is_kept() -> None:
    for kind, most in ((1, HEADER_BYTES_MAX), (2, RANGE_BYTES_MAX)):
        decoder = StreamDecoder()
        record = bytes([kind]) + (0).to_bytes(8, "little") + (most + 1).to_bytes(8, "little")
        with pytest.raises(Corrupt, match="impossible length"):
            decoder.feed(STREAM_MAGIC + record)


def test_a_sender_says_why_it_cannot_go_on() -> None:
    encoder = StreamEncoder()
    decoder = StreamDecoder()
    decoder.feed(encoder.header(HEADER))
    with pytest.raises(SourceFailed) as failed:
        decoder.feed(encoder.failure(b"a reason"))
    assert failed.value.args == (b"a reason",)


def test_what_begins_like_one() -> None:
    assert is_stream(SMALL[:512])
    assert is_stream(
        b"\0" * (len(STREAM_MAGIC) - ALIKE_BYTES_MIN) + STREAM_MAGIC[len(STREAM_MAGIC) - ALIKE_BYTES_MIN :]
    )
    assert not is_stream(bytes(512))
    assert not is_stream(b"")
    with pytest.raises(StorageError):
        decoded(b"\0" + SMALL[1:])
