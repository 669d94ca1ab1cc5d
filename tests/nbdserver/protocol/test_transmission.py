"""The request parser: whole requests in order however the bytes were cut, and nothing kept that was not
checked."""

import random
import struct
from collections.abc import Callable
from dataclasses import dataclass

import pytest
from hypothesis import given
from hypothesis import strategies as st

from nbdserver.protocol import wire
from nbdserver.protocol.commands import COMMANDS
from nbdserver.protocol.compact import CompactTransmission
from nbdserver.protocol.transmission import ADOPT_BYTES_MIN, BUFFER_BYTES, DISCARD_BYTES_MAX, Transmission
from nbdserver.protocol.wire import ProtocolError
from tests.support import messages as m
from tests.support.recorder import Call, Recorder

SIZE = 1 << 30
COOKIE = struct.pack(">Q", 1)


@dataclass
class Disk:
    size: int = SIZE


def make(recorder: Recorder, *, read_only: bool = False, structured: bool = True) -> Transmission:
    return CompactTransmission(recorder, Disk(), read_only=read_only, structured=structured, block_status=structured)


def feed(transmission: Transmission, data: bytes, step: Callable[[], int] = lambda: BUFFER_BYTES) -> None:
    """Put bytes where they are wanted, in pieces of at most `step()`; offer again what was not taken."""
    view = memoryview(data)
    while view:
        room = transmission.buffer()
        assert len(room) > 0
        count = min(len(room), len(view), step())
        room[:count] = view[:count]
        view = view[count:]
        need_data = transmission.received(count)
        while not need_data:
            need_data = transmission.resume()


COMMAND_NUMBERS = st.sampled_from([*COMMANDS, 99])
FLAGS = st.one_of(st.just(0), st.just(0), st.integers(0, 63), st.just(1 << 15))
OFFSETS = st.one_of(st.integers(0, SIZE + 4096), st.integers(0, 2**64 - 1))
LENGTHS = st.one_of(
    st.integers(0, 9000), st.integers(ADOPT_BYTES_MIN - 30, ADOPT_BYTES_MIN + 30), st.integers(0, 2**32 - 1)
)
WRITE_LENGTHS = st.one_of(
    st.integers(0, 9000),
    st.integers(ADOPT_BYTES_MIN - 30, ADOPT_BYTES_MIN + 30),
    st.sampled_from([BUFFER_BYTES - 28, BUFFER_BYTES, 300_000]),
)


@st.composite
def one_request(draw: st.DrawFn) -> bytes:
    number, flags, offset = draw(COMMAND_NUMBERS), draw(FLAGS), draw(OFFSETS)
    if number == m.WRITE:
        length = draw(WRITE_LENGTHS)
        data = random.Random(length).randbytes(length)
        return m.request(number, offset, data=data, flags=flags, cookie=draw(st.integers(0, 2**64 - 1)))
    return m.request(number, offset, draw(LENGTHS), flags=flags)


CONVERSATIONS = st.lists(one_request(), min_size=1, max_size=8).map(b"".join)


def calls(conversation: bytes, *, read_only: bool = False) -> list[Call]:
    recorder = Recorder()
    feed(make(recorder, read_only=read_only), conversation)
    return recorder.calls


@given(CONVERSATIONS, st.integers(0, 2**32), st.sampled_from([1, 40, 5000, 100_000]))
def test_cutting_makes_no_difference(conversation: bytes, seed: int, longest: int) -> None:
    chance = random.Random(seed)
    recorder = Recorder()
    step = longest if len(conversation) < 20_000 else max(longest, 500)
    feed(make(recorder), conversation, lambda: chance.randint(1, step))
    assert recorder.calls == calls(conversation)


@given(CONVERSATIONS, st.integers(0, 2**32))
def test_what_was_not_taken_is_offered_again_once(conversation: bytes, seed: int) -> None:
    chance = random.Random(seed)
    recorder = Recorder(takes=lambda: chance.random() < 0.5)
    feed(make(recorder), conversation, lambda: chance.randint(1, 50_000))
    assert recorder.calls == calls(conversation)


@given(CONVERSATIONS, CONVERSATIONS)
def test_joined_streams_are_heard_one_after_the_other(first: bytes, second: bytes) -> None:
    assert calls(first + second) == calls(first) + calls(second)


@given(CONVERSATIONS)
def test_nothing_invalid_reaches_a_handler(conversation: bytes) -> None:
    for call in calls(conversation):
        if call[0] in ("read", "write", "zero", "cache", "block_status"):
            offset, second = call[2], call[3]
            length = len(second) if isinstance(second, bytes) else second
            assert isinstance(offset, int)
            assert isinstance(length, int)
            assert length > 0
            assert offset + length <= SIZE
    written = [call for call in calls(conversation, read_only=True) if call[0] in ("write", "zero")]
    assert written == []


def likeness(magic: int, command: int, length: int) -> bytes:
    """A request that is right but for its magic number, with a payload."""
    return magic.to_bytes(4, "big") + m.request(command, 0, data=bytes(length))[4:]


LIKENESSES = st.builds(likeness, st.sampled_from([0, 1, 2**31, 2**32 - 1]), st.integers(0, 8), st.integers(1, 600))


@given(st.binary(max_size=2000) | LIKENESSES, st.booleans())
def test_garbage_is_a_protocol_error_or_nothing(garbage: bytes, read_only: bool) -> None:
    recorder = Recorder()
    try:
        feed(make(recorder, read_only=read_only), garbage)
    except ProtocolError:
        assert garbage[:4] != b"\x25\x60\x95\x13"
    assert recorder.calls == [] or garbage[:4] == b"\x25\x60\x95\x13"


@pytest.mark.parametrize("length", [4096, 256 << 10])
def test_between_requests_no_byte_waits(length: int) -> None:
    transmission = make(Recorder())
    said = m.request(m.FLUSH) + m.request(m.WRITE, 0, data=bytes(length))
    assert transmission.between_requests
    for place in (10, 28, 40, len(said) - 1):
        feed(transmission, said[:place])
        assert transmission.between_requests == (place == 28)
        feed(transmission, said[place:])
        assert transmission.between_requests


def test_a_long_payload_is_adopted_where_it_was_received() -> None:
    """While long writes follow each other none of their bytes is copied: the buffer offers a header's
    room."""
    recorder = Recorder()
    transmission = make(recorder)
    first, second = b"1" * (1 << 18), b"2" * (1 << 18)
    feed(transmission, m.request(m.WRITE, 0, data=first))
    assert len(transmission.buffer()) == wire.REQUEST_BYTES
    header = m.request(m.WRITE, 1 << 18, data=second)[: wire.REQUEST_BYTES]
    feed(transmission, header)
    room = transmission.buffer()
    assert room.obj is recorder.allocated[-1].obj
    assert len(room) == len(second)
    feed(transmission, second)
    assert recorder.calls == [
        ("write", COOKIE, 0, first, False),
        ("write", COOKIE, 1 << 18, second, False),
    ]
    feed(transmission, m.request(m.READ, 0, 4096))
    assert len(transmission.buffer()) == BUFFER_BYTES


def test_a_small_request_after_a_long_write_has_room() -> None:
    recorder = Recorder()
    transmission = make(recorder)
    feed(transmission, m.request(m.WRITE, 0, data=bytes(1 << 18)))
    feed(transmission, m.request(m.WRITE, 0, data=b"small" * 100))
    feed(transmission, m.request(m.READ, 0, 1))
    assert [call[0] for call in recorder.calls] == ["write", "write", "read"]


def test_no_memory_for_a_payload_stops_at_its_header() -> None:
    memory = False
    recorder = Recorder(takes=lambda: memory)
    transmission = make(recorder)
    request = m.request(m.WRITE, 0, data=bytes(100_000))
    transmission.buffer()[:1000] = request[:1000]
    assert not transmission.received(1000)
    assert not transmission.resume()
    assert recorder.allocated == []
    memory = True
    assert transmission.resume()
    feed(transmission, request[1000:])
    assert [call[0] for call in recorder.calls] == ["write"]


def test_a_refused_write_is_answered_behind_its_payload() -> None:
    """A client that is still sending (libnbd) does not know a reply to what it has not sent."""
    recorder = Recorder()
    transmission = make(recorder, read_only=True)
    request = m.request(m.WRITE, 0, data=bytes(1 << 20))
    feed(transmission, request[:-1])
    assert recorder.calls == []
    assert recorder.allocated == []
    feed(transmission, request[-1:] + m.request(m.READ, 0, 1))
    assert recorder.calls == [("refuse", COOKIE, wire.EPERM), ("read", COOKIE, 0, 1, False)]


def test_after_disc_nothing_is_heard() -> None:
    recorder = Recorder()
    transmission = make(recorder)
    feed(transmission, m.request(m.DISC) + b"x" * (3 * BUFFER_BYTES))
    assert recorder.calls == [("disconnect",)]


def test_a_payload_beyond_reason_ends_the_connection() -> None:
    recorder = Recorder()
    with pytest.raises(ProtocolError):
        feed(make(recorder), m.request(m.WRITE, 0, DISCARD_BYTES_MAX + 1))
    assert recorder.calls == []
    assert recorder.allocated == []


@pytest.mark.parametrize("step", [BUFFER_BYTES, 1000])
def test_requests_are_counted(step: int) -> None:
    transmission = make(Recorder())
    refused = m.request(m.WRITE, SIZE, data=bytes(9000))
    said = m.request(m.READ, 0, 1) * 3 + m.request(m.WRITE, 0, data=bytes(100_000)) + m.request(99) + refused
    feed(transmission, said, lambda: step)
    assert transmission.requests == 6


def test_a_payload_is_not_thrown_away_by_the_header() -> None:
    """Behind a long write the buffer offers a header's room, but not for a payload that nobody wants."""
    transmission = make(Recorder())
    refused = m.request(m.WRITE, SIZE, data=bytes(1 << 20))
    feed(transmission, m.request(m.WRITE, 0, data=bytes(1 << 18)) + refused[: wire.REQUEST_BYTES])
    assert len(transmission.buffer()) == BUFFER_BYTES


@pytest.mark.parametrize("length", [100, ADOPT_BYTES_MIN, BUFFER_BYTES])
@pytest.mark.parametrize("flags", [0, m.FUA])
def test_a_write_that_is_not_taken_is_offered_whole_again(length: int, flags: int) -> None:
    """Short, long and behind its header in the buffer, long and in a buffer of its own."""
    taking = False
    request = m.request(m.WRITE, 0, data=b"w" * length, flags=flags)
    recorder = Recorder(takes=lambda: taking)
    transmission = make(recorder)
    view = memoryview(request)
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
    assert recorder.calls == [("write", COOKIE, 0, b"w" * length, bool(flags))]


def test_a_refusal_that_is_not_taken_is_offered_again() -> None:
    taking = False
    recorder = Recorder(takes=lambda: taking)
    transmission = make(recorder, read_only=True)
    request = m.request(m.WRITE, 0, data=bytes(4096))
    transmission.buffer()[: len(request)] = request
    assert not transmission.received(len(request))
    taking = True
    assert transmission.resume()
    assert recorder.calls == [("refuse", COOKIE, wire.EPERM)]


def test_a_short_write_with_fua_waits_for_its_payload() -> None:
    recorder = Recorder()
    feed(make(recorder), m.request(m.WRITE, 0, data=b"w" * 100, flags=m.FUA), lambda: 50)
    assert recorder.calls == [("write", COOKIE, 0, b"w" * 100, True)]
