"""Requests with extended headers: what announces a payload, what 64 bits of length are good for, and that they are
heard like compact ones in every other respect."""

import random
import struct

import pytest
from hypothesis import given
from hypothesis import strategies as st

from nbdserver.protocol import wire
from nbdserver.protocol.commands import COMMANDS
from nbdserver.protocol.extended import ExtendedTransmission
from nbdserver.protocol.transmission import ADOPT_BYTES_MIN, BUFFER_BYTES, Transmission
from nbdserver.protocol.wire import ProtocolError
from tests.nbdserver.protocol.test_transmission import SIZE, Disk, calls, feed
from tests.support import messages as m
from tests.support.recorder import Call, Recorder

PAYLOAD_LEN = m.PAYLOAD_LEN
TAG = struct.pack(">QQ", 1, 0)
"""Cookie 1 and offset 0."""


def make(recorder: Recorder, *, read_only: bool = False, block_status: bool = True, size: int = SIZE) -> Transmission:
    return ExtendedTransmission(recorder, Disk(size), read_only=read_only, contexts=(1, 2) if block_status else ())


def heard(said: bytes, *, read_only: bool = False, block_status: bool = True, size: int = SIZE) -> list[Call]:
    """What the handler is asked, without the messages of refusals."""
    recorder = Recorder()
    feed(make(recorder, read_only=read_only, block_status=block_status, size=size), said)
    return recorder.calls


def without_offset(call: Call) -> Call:
    """A call as it would be for a compact request."""
    if len(call) == 1:
        return call
    name, cookie, *rest = call
    assert isinstance(cookie, bytes)
    return (name, cookie[:8], *rest)


def wanted(length: int, *contexts: int) -> bytes:
    """The payload of a BLOCK_STATUS."""
    return struct.pack(f">Q{len(contexts)}I", length, *contexts)


NUMBERS = st.sampled_from([*COMMANDS, 99])
FLAGS = st.one_of(st.just(0), st.just(0), st.integers(0, 31), st.just(1 << 15))
OFFSETS = st.one_of(st.integers(0, SIZE + 4096), st.integers(0, 2**64 - 1))
LENGTHS = st.one_of(st.integers(0, 9000), st.integers(0, SIZE), st.integers(0, 2**64 - 1))
PAYLOADS = st.one_of(
    st.integers(1, 9000),
    st.integers(ADOPT_BYTES_MIN - 33, ADOPT_BYTES_MIN + 33),
    st.sampled_from([BUFFER_BYTES - 32, BUFFER_BYTES, 300_000]),
)


@st.composite
def one_request(draw: st.DrawFn) -> bytes:
    number, flags, offset = draw(NUMBERS), draw(FLAGS), draw(OFFSETS)
    cookie = draw(st.integers(0, 2**64 - 1))
    if number == m.BLOCK_STATUS and draw(st.booleans()):
        ids = draw(st.lists(st.integers(0, 2), max_size=3))
        return m.extended(number, offset, data=wanted(draw(LENGTHS), *ids), flags=flags, cookie=cookie)
    rarely = not draw(st.integers(0, 9))
    if number == m.WRITE or rarely:
        length = draw(PAYLOADS)
        data = random.Random(length).randbytes(length)
        if number == m.WRITE and rarely:
            return m.extended(number, offset, length, flags=flags & ~PAYLOAD_LEN, cookie=cookie) + data
        return m.extended(number, offset, data=data, flags=flags, cookie=cookie)
    return m.extended(number, offset, draw(LENGTHS), flags=flags, cookie=cookie)


CONVERSATIONS = st.lists(one_request(), min_size=1, max_size=8).map(b"".join)


@given(CONVERSATIONS, st.integers(0, 2**32), st.sampled_from([1, 40, 5000, 100_000]))
def test_cutting_makes_no_difference(conversation: bytes, seed: int, longest: int) -> None:
    chance = random.Random(seed)
    recorder = Recorder()
    step = longest if len(conversation) < 20_000 else max(longest, 500)
    feed(make(recorder), conversation, lambda: chance.randint(1, step))
    assert recorder.calls == heard(conversation)


@given(CONVERSATIONS, st.integers(0, 2**32))
def test_what_was_not_taken_is_offered_again_once(conversation: bytes, seed: int) -> None:
    chance = random.Random(seed)
    recorder = Recorder(takes=lambda: chance.random() < 0.5)
    feed(make(recorder), conversation, lambda: chance.randint(1, 50_000))
    assert recorder.calls == heard(conversation)


@given(CONVERSATIONS, CONVERSATIONS)
def test_joined_streams_are_heard_one_after_the_other(first: bytes, second: bytes) -> None:
    assert heard(first + second) == heard(first) + heard(second)


@given(CONVERSATIONS)
def test_nothing_invalid_reaches_a_handler(conversation: bytes) -> None:
    for call in heard(conversation):
        if call[0] in ("read", "write", "zero", "cache", "block_status"):
            offset, second = call[2], call[3]
            length = len(second) if isinstance(second, bytes) else second
            assert isinstance(offset, int)
            assert isinstance(length, int)
            assert length > 0
            assert offset + length <= SIZE
    assert [call for call in heard(conversation, read_only=True) if call[0] in ("write", "zero")] == []


def likeness(magic: int, command: int, length: int) -> bytes:
    """A request that is right but for its magic number, with a payload."""
    return magic.to_bytes(4, "big") + m.extended(command, 0, data=bytes(length))[4:]


LIKENESSES = st.builds(likeness, st.sampled_from([0, 1, 2**31, 2**32 - 1]), st.integers(0, 8), st.integers(1, 600))


@given(st.binary(max_size=2000) | LIKENESSES, st.booleans())
def test_garbage_is_a_protocol_error_or_nothing(garbage: bytes, read_only: bool) -> None:
    recorder = Recorder()
    try:
        feed(make(recorder, read_only=read_only), garbage)
    except ProtocolError:
        assert garbage[:4] != b"\x21\xe4\x1c\x71"
    assert recorder.calls == [] or garbage[:4] == b"\x21\xe4\x1c\x71"


@given(st.data())
def test_both_layouts_are_heard_alike(data: st.DataObject) -> None:
    """A request without payload, or a WRITE with one, means the same in either, but for the cookie."""
    compact = extended = b""
    for _ in range(data.draw(st.integers(1, 6))):
        number, flags, offset = data.draw(NUMBERS), data.draw(FLAGS), data.draw(OFFSETS)
        if number == m.WRITE:
            payload = bytes(data.draw(PAYLOADS))
            compact += m.request(number, offset, data=payload, flags=flags)
            extended += m.extended(number, offset, data=payload, flags=flags)
        else:
            length = data.draw(st.integers(0, 2**32 - 1))
            compact += m.request(number, offset, length, flags=flags)
            extended += m.extended(number, offset, length, flags=flags)
    assert list(map(without_offset, heard(extended))) == calls(compact)


READ_BEHIND = m.extended(m.READ, 4096, 512, cookie=2)
READ_CALL = ("read", struct.pack(">QQ", 2, 4096), 4096, 512, False)


@pytest.mark.parametrize(
    ("said", "expected"),
    [
        (m.extended(m.READ, 0, data=bytes(8)), wire.EINVAL),
        (m.extended(m.READ, 0, 0, flags=PAYLOAD_LEN), wire.EINVAL),
        (m.extended(m.FLUSH, 0, data=bytes(100)), wire.EINVAL),
        (m.extended(m.TRIM, 0, data=bytes(100)), wire.EINVAL),
        (m.extended(m.CACHE, 0, data=bytes(100)), wire.EINVAL),
        (m.extended(m.WRITE_ZEROES, 0, data=bytes(100)), wire.EINVAL),
        (m.extended(99, 0, data=bytes(100_000)), wire.EINVAL),
        (m.extended(m.WRITE, 0, data=bytes(100), flags=m.DF), wire.EINVAL),
        (m.extended(m.TRIM, 0, 1 << 63), wire.EINVAL),
        (m.extended(m.WRITE_ZEROES, 0, SIZE + 1), wire.ENOSPC),
        (m.extended(m.READ, 0, (32 << 20) + 1), wire.EOVERFLOW),
        (m.extended(m.BLOCK_STATUS, 0, 0), wire.EINVAL),
        (m.extended(m.BLOCK_STATUS, 0, 0, flags=PAYLOAD_LEN), wire.EINVAL),
        (m.extended(m.BLOCK_STATUS, 0, data=bytes(7)), wire.EINVAL),
        (m.extended(m.BLOCK_STATUS, 0, data=wanted(4096)), wire.EINVAL),
        (m.extended(m.BLOCK_STATUS, 0, data=wanted(4096, 1, 1)), wire.EINVAL),
        (m.extended(m.BLOCK_STATUS, 0, data=wanted(4096, 3)), wire.EINVAL),
        (m.extended(m.BLOCK_STATUS, 0, data=wanted(4096, 1, 3)), wire.EINVAL),
        (m.extended(m.BLOCK_STATUS, 0, data=wanted(4096, 1, 2, 1)), wire.EINVAL),
        (m.extended(m.BLOCK_STATUS, 0, data=wanted(4096, 1) + b"12"), wire.EINVAL),
        (m.extended(m.BLOCK_STATUS, 0, data=wanted(4096, *range(100_000))), wire.EINVAL),
        (m.extended(m.BLOCK_STATUS, 0, data=wanted(SIZE + 1, 1)), wire.EINVAL),
        (m.extended(m.BLOCK_STATUS, 0, data=wanted(0, 1)), wire.EINVAL),
        (m.extended(m.BLOCK_STATUS, 0, data=wanted(2**64 - 1, 1)), wire.EINVAL),
        (m.extended(m.BLOCK_STATUS, 0, data=wanted(4096, 1), flags=m.DF), wire.EINVAL),
    ],
)
def test_a_refused_request_has_its_payload_consumed(said: bytes, expected: int) -> None:
    """66, 67, 69: and the next request is heard."""
    assert heard(said + READ_BEHIND) == [("refuse", TAG, expected), READ_CALL]


def test_a_status_for_named_contexts() -> None:
    said = m.extended(m.BLOCK_STATUS, 0, data=wanted(1 << 20, 1), flags=m.REQ_ONE)
    assert heard(said + READ_BEHIND) == [("block_status", TAG, 0, 1 << 20, True, (1,)), READ_CALL]
    both = m.extended(m.BLOCK_STATUS, 0, data=wanted(1 << 20, 2, 1))
    assert heard(both + READ_BEHIND) == [("block_status", TAG, 0, 1 << 20, False, (2, 1)), READ_CALL]
    assert heard(said + READ_BEHIND, block_status=False) == [("refuse", TAG, wire.EINVAL), READ_CALL]


@pytest.mark.parametrize("length", [(32 << 20) + 1, 1 << 40, 2**64 - 1])
@pytest.mark.parametrize("number", [*COMMANDS, 99])
def test_a_payload_beyond_the_advertised_size_ends_the_connection(number: int, length: int) -> None:
    """67: before a byte of it is received or stored."""
    recorder = Recorder()
    with pytest.raises(ProtocolError):
        feed(make(recorder, size=1 << 50), m.extended(number, 0, length, flags=PAYLOAD_LEN))
    assert recorder.calls == []
    assert recorder.allocated == []


def test_a_length_of_64_bits_is_one_request() -> None:
    size = 1 << 50
    assert heard(
        m.extended(m.TRIM, 0, size)
        + m.extended(m.WRITE_ZEROES, 0, size, flags=m.NO_HOLE)
        + m.extended(m.CACHE, 0, size)
        + m.extended(m.BLOCK_STATUS, 0, size),
        size=size,
    ) == [
        ("zero", TAG, 0, size, False, False),
        ("zero", TAG, 0, size, True, False),
        ("cache", TAG, 0, size),
        ("block_status", TAG, 0, size, False),
    ]


@pytest.mark.parametrize("magic", [wire.REQUEST_MAGIC, wire.EXTENDED_REPLY_MAGIC, 0])
def test_another_magic_ends_the_connection(magic: int) -> None:
    """66: a client that agreed on extended headers and sends compact ones is not in step."""
    said = struct.pack(">I", magic) + m.extended(m.READ, 0, 4096)[4:]
    with pytest.raises(ProtocolError):
        heard(said)


def test_disc() -> None:
    assert heard(m.extended(m.DISC, data=b"ignored") + b"whatever") == [("disconnect",)]


@pytest.mark.parametrize(
    "said",
    [
        m.extended(m.READ, 0, 512),
        m.extended(m.WRITE, 0, data=b"w" * 100),
        m.extended(m.WRITE, 0, data=b"w" * 100, flags=m.FUA),
        m.extended(m.WRITE, 0, data=b"w" * ADOPT_BYTES_MIN),
        m.extended(m.WRITE, 0, data=b"w" * BUFFER_BYTES),
        m.extended(m.BLOCK_STATUS, 0, data=wanted(4096, 1)),
        m.extended(m.BLOCK_STATUS, 0, data=wanted(4096, 2)),
        m.extended(m.READ, 0, data=b"8 bytes."),
        m.extended(m.FLUSH),
    ],
    ids=lambda said: f"{said[7]} {len(said)}",
)
def test_a_request_that_is_not_taken_is_offered_whole_again(said: bytes) -> None:
    taking = False
    recorder = Recorder(takes=lambda: taking)
    transmission = make(recorder)
    view = memoryview(said)
    while view:
        room = transmission.buffer()
        count = min(len(room), len(view))
        room[:count] = view[:count]
        view = view[count:]
        taking = bool(view)
        if not transmission.received(count):
            assert not view
    for _ in range(3):
        assert not transmission.resume()
    taking = True
    assert transmission.resume()
    assert recorder.calls == heard(said)
    feed(transmission, READ_BEHIND)
    assert recorder.calls[-1] == READ_CALL


@pytest.mark.parametrize("step", [BUFFER_BYTES, 1000])
def test_requests_are_counted(step: int) -> None:
    said = m.extended(m.READ, 0, 1) * 3 + m.extended(m.WRITE, 0, data=bytes(100_000)) + m.extended(99, data=bytes(9000))
    transmission = make(Recorder())
    feed(transmission, said, lambda: step)
    assert transmission.requests == 5


def test_a_write_of_nothing() -> None:
    """With the flag, as WRITE must have it, and without."""
    nothing = m.extended(m.WRITE, 0, 0, flags=PAYLOAD_LEN)
    assert heard(nothing + READ_BEHIND) == [("nothing", TAG, False), READ_CALL]
    assert heard(m.extended(m.WRITE) + READ_BEHIND) == [("nothing", TAG, False), READ_CALL]


@pytest.mark.parametrize("length", [1, 4096, 100_000])
def test_a_write_without_the_flag_has_its_payload_all_the_same(length: int) -> None:
    """As QEMU 10 sends it."""
    data = b"q" * length
    said = m.extended(m.WRITE, 0, length) + data
    assert heard(said + READ_BEHIND) == [("write", TAG, 0, data, False), READ_CALL]
    assert heard(m.extended(m.WRITE, SIZE, length) + data + READ_BEHIND) == [
        ("refuse", struct.pack(">QQ", 1, SIZE), wire.ENOSPC),
        READ_CALL,
    ]


def test_a_write_without_the_flag_is_limited_as_one_with_it() -> None:
    with pytest.raises(ProtocolError):
        feed(make(Recorder(), size=1 << 50), m.extended(m.WRITE, 0, (32 << 20) + 1))


def test_a_status_behind_a_long_write_has_room() -> None:
    """While long writes follow each other the buffer offers a header's room: the payload of a BLOCK_STATUS needs
    more."""
    said = m.extended(m.WRITE, 0, data=bytes(1 << 18)) + m.extended(m.BLOCK_STATUS, 0, data=wanted(4096, 1))
    assert [call[0] for call in heard(said)] == ["write", "block_status"]
