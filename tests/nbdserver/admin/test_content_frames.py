"""The stream of a device's content: whole, cut off anywhere, and bent."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from nbdserver.admin.content_frames import (
    DATA_BYTES_MAX,
    FAILURE_OFFSET,
    FRAME_HEADER,
    Decoder,
    SenderFailed,
    TooLong,
    Truncated,
    encode,
    encode_end,
    encode_failure,
)

SIZE = 1 << 30


def decoded(stream: bytes, size: int = SIZE) -> list[tuple[int, bytes]]:
    decoder = Decoder(size)
    pieces: list[tuple[int, bytes]] = []
    while True:
        header, stream = stream[: FRAME_HEADER.size], stream[FRAME_HEADER.size :]
        length = decoder.body_length(header)
        if not length:
            return pieces
        offset, body = decoder.piece(header, stream[:length])
        pieces.append((offset, bytes(body)))
        stream = stream[length:]


@st.composite
def streams(draw: st.DrawFn) -> list[tuple[int, bytes]]:
    position = 0
    pieces = []
    for gap, data in draw(st.lists(st.tuples(st.integers(0, 1 << 20), st.binary(min_size=1, max_size=20)))):
        pieces.append((position + gap, data))
        position += gap + len(data)
    return pieces


@given(streams())
def test_what_is_encoded_is_decoded(pieces: list[tuple[int, bytes]]) -> None:
    stream = b"".join(encode(offset, data) for offset, data in pieces) + encode_end(SIZE)
    assert decoded(stream) == pieces


@given(streams(), st.data())
def test_a_stream_that_is_cut_off_is_never_taken_for_whole(
    pieces: list[tuple[int, bytes]], data: st.DataObject
) -> None:
    stream = b"".join(encode(offset, piece) for offset, piece in pieces) + encode_end(SIZE)
    cut = data.draw(st.integers(0, len(stream) - 1))
    with pytest.raises(Truncated):
        decoded(stream[:cut])


@pytest.mark.parametrize(
    "stream",
    [
        encode(10, b"x") + encode(10, b"y"),
        encode(10, b"x") + encode(5, b"y"),
        encode(10, b"x") + encode_end(10),
        FRAME_HEADER.pack(0, DATA_BYTES_MAX + 1),
        FRAME_HEADER.pack(FAILURE_OFFSET, DATA_BYTES_MAX + 1),
    ],
)
def test_a_stream_that_cannot_be(stream: bytes) -> None:
    with pytest.raises(Truncated):
        decoded(stream + encode_end(SIZE))


def test_a_piece_of_which_the_end_is_missing_is_none() -> None:
    """Whoever reads it may get less than was announced: it is not taken for all of it."""
    header, body = encode(5, b"data")[: FRAME_HEADER.size], b"data"
    for length in range(4):
        with pytest.raises(Truncated, match="cut off"):
            Decoder(SIZE).piece(header, body[:length])
    assert Decoder(SIZE).piece(header, body) == (5, b"data")


@pytest.mark.parametrize("stream", [encode(SIZE, b"x"), encode(SIZE - 1, b"xy"), encode_end(SIZE + 1)])
def test_a_source_that_is_longer_than_the_device_is_said_so(stream: bytes) -> None:
    with pytest.raises(TooLong, match=f"more to write than the {SIZE} bytes of the device"):
        decoded(stream + encode_end(SIZE))


def test_the_source_may_be_shorter_than_the_device() -> None:
    assert decoded(encode(0, b"x") + encode_end(1)) == [(0, b"x")]


def test_a_sender_that_fails_says_why() -> None:
    with pytest.raises(SenderFailed) as caught:
        decoded(encode(0, b"x") + encode_failure(b"damaged"))
    assert caught.value.args == (b"damaged",)


@pytest.mark.parametrize("data", [b"", bytes(DATA_BYTES_MAX + 1)], ids=["none", "too-much"])
def test_a_frame_that_would_say_something_else_is_not_made(data: bytes) -> None:
    """One without data is the end of the whole."""
    with pytest.raises(ValueError, match="a frame has 1 to"):
        encode(0, data)
