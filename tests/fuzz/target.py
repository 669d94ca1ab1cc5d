"""What is done with one input of a fuzzer, and what must be true of it.

An input is two bytes of choices (`Choice`) and then what a client sends. A handshake takes it, and
transmission what is behind; a handler stands where a session would, checks that it is given valid requests
only, and encodes replies. ProtocolError ends an input well. Everything else that is raised is a finding:
AssertionError says which promise was broken.
"""

import struct
from collections.abc import Collection, Sequence
from dataclasses import dataclass

import numpy

from nbdserver.protocol import wire
from nbdserver.protocol.dialects import replies_in, transmission_in
from nbdserver.protocol.handshake import Handshake
from nbdserver.protocol.option_answers import TlsMode
from nbdserver.protocol.replies import ChunkedReplies, Parts, Replies
from nbdserver.protocol.states import HandshakeState
from nbdserver.protocol.transmission import Payload
from nbdserver.protocol.wire import ProtocolError
from tests.nbdserver.cases import case

ERRORS = {1, 5, 22, 28, 75, 95, 108}
"""Of the specification's "Error values", all but ENOMEM, which SHOULD NOT be used."""

PAYLOAD_MAX = 32 << 20
INPUT_BYTES_MAX = 1024
"""Room for a dozen messages; longer ones are not more interesting, only slower."""

TURNS_MAX = 200_000
"""Turns after which an input is held not to end."""

STARTS = (b"", case.in_simple().say, case.in_structured().say, case.in_extended().say)
"""What may be said before the input, so that half of a fuzzer's inputs reach what lies behind."""

SECURITY = (TlsMode.OFF, TlsMode.OFFERED, TlsMode.REQUIRED, TlsMode.OFF)
STEPS = (0, 1, 7, 64)
"""Lengths of segments; 0: all at once."""


@dataclass(frozen=True, slots=True)
class Export:
    """An export that is nothing but its facts."""

    name: str
    size: int
    read_only: bool
    exclusive: bool = False
    is_view: bool = False

    @property
    def description(self) -> str:
        return "an export"

    def incarnations(self, queries: object) -> tuple[str, ...]:
        return ()

    def snapshots(self) -> tuple[str, ...]:
        return ()


class Catalogue:
    """Three exports: one that can be written, one that cannot, one that is huge."""

    def __init__(self) -> None:
        self._exports = {
            name: Export(name, size, read_only)
            for name, size, read_only in (
                ("disk", case.SIZE, False),
                ("locked", case.SIZE, True),
                ("huge", case.HUGE, False),
            )
        }

    def names(self) -> Sequence[str]:
        return list(self._exports)

    def find(self, name: str) -> Export | None:
        assert len(name.encode()) <= 4096, "a name that is too long was looked up"
        assert "\0" not in name
        return self._exports.get(name)

    def refusal(self, export: Export) -> str | None:
        return None


CATALOGUE = Catalogue()


class Handler:
    """Takes valid requests, replies, and notes both. With `busy` it declines every third offer.

    Of long parts of replies only the length is noted: they are zeros.
    """

    def __init__(self, export: Export, replies: Replies, *, busy: bool, structured: bool) -> None:
        self.seen: list[object] = []
        self.parts: Parts = []
        self.over = False
        self._export = export
        self._replies = replies
        self._busy = busy
        self._structured = structured
        self._offers = 0

    def read(self, cookie: bytes, offset: int, length: int, *, dont_fragment: bool = False) -> bool:
        if self._declines():
            return False
        self._check(offset, length)
        assert length <= PAYLOAD_MAX
        assert self._structured or not dont_fragment
        pieces: list[bytes | bytearray | memoryview | int] = [length]
        if 1 < length < 1 << 16:
            pieces = [b"x" * (length // 2), length - length // 2]
        self._replies.data(self.parts, cookie, offset, length, pieces, dont_fragment=dont_fragment)
        return self._note("read", cookie, offset, length, dont_fragment)

    def write(self, cookie: bytes, offset: int, data: Payload, *, fua: bool = False) -> bool:
        if self._declines():
            return False
        self._check(offset, len(data), writes=True)
        assert len(data) <= PAYLOAD_MAX
        self.parts.append(self._replies.done(cookie))
        return self._note("write", cookie, offset, bytes(data), fua)

    def zero(self, cookie: bytes, offset: int, length: int, *, command: int, allocated: bool, fua: bool) -> bool:
        if self._declines():
            return False
        self._check(offset, length, writes=True)
        self.parts.append(self._replies.done(cookie))
        return self._note("zero", cookie, offset, length, allocated, fua)

    def flush(self, cookie: bytes) -> bool:
        if self._declines():
            return False
        self.parts.append(self._replies.done(cookie))
        return self._note("flush", cookie)

    def cache(self, cookie: bytes, offset: int, length: int) -> bool:
        if self._declines():
            return False
        self._check(offset, length)
        self.parts.append(self._replies.done(cookie))
        return self._note("cache", cookie, offset, length)

    def block_status(self, cookie: bytes, offset: int, length: int, *, one: bool, only: Collection[int] | None) -> bool:
        if self._declines():
            return False
        self._check(offset, length)
        assert isinstance(self._replies, ChunkedReplies), "block status without structured replies"
        extents = [(length - length // 2, 3), (length // 2, 0)] if length > 1 else [(length, 3)]
        self.parts.append(self._replies.status(cookie, 1, extents, length, one=one))
        return self._note("status", cookie, offset, length, one)

    def nothing(self, cookie: bytes, *, read: bool) -> bool:
        if self._declines():
            return False
        self.parts.append(self._replies.done(cookie))
        return self._note("nothing", cookie, read)

    def refuse(self, cookie: bytes, error: int, message: str) -> bool:
        if self._declines():
            return False
        assert error in ERRORS, f"error {error} is not the specification's"
        assert len(message.encode()) <= 4096
        self.parts.append(self._replies.error(cookie, error, message))
        return self._note("refuse", cookie, error)

    def disconnect(self) -> None:
        assert not self.over
        self.over = True

    def allocate(self, length: int) -> memoryview | None:
        if self._declines():
            return None
        assert 0 < length <= PAYLOAD_MAX
        return numpy.empty(length, numpy.uint8).data

    def _declines(self) -> bool:
        assert not self.over, "a request behind DISC"
        self._offers += 1
        return self._busy and self._offers % 3 == 0

    def _check(self, offset: int, length: int, *, writes: bool = False) -> None:
        assert length > 0
        assert offset >= 0
        assert offset + length <= self._export.size
        assert not (writes and self._export.read_only), "a write to a read-only export"

    def _note(self, *what: object) -> bool:
        self.seen += (what, *(bytes(part) if len(part) < 1 << 16 else len(part) for part in self.parts))
        self.parts.clear()
        return True


@dataclass(frozen=True, slots=True)
class Choice:
    """What the first two bytes of an input choose."""

    security: TlsMode
    start: bytes
    step: int
    busy: bool
    compare: bool
    """Run the input whole as well: it must come to the same."""


def choose(data: bytes) -> Choice:
    head = int.from_bytes(data[:2].ljust(2, b"\0"), "big")
    return Choice(
        SECURITY[head & 3], STARTS[head >> 2 & 3], STEPS[head >> 4 & 3], bool(head >> 6 & 1), not head >> 7 & 7
    )


def run(data: bytes) -> None:
    """Run one input."""
    choice = choose(data)
    stream = choice.start + data[2:]
    result = converse(stream, choice, step=choice.step)
    # Where TLS is offered, segments do make a difference: behind STARTTLS in the same one nothing may follow.
    if choice.compare and choice.step and choice.security is TlsMode.OFF:
        assert converse(stream, choice, step=0) == result, "segments make a difference"


def converse(stream: bytes, choice: Choice, *, step: int) -> tuple[object, ...]:
    """One client from its first byte to its last; what it was answered, which requests were seen, how it
    ended."""
    handshake: Handshake[Export] = Handshake(CATALOGUE, security=choice.security)
    output: list[bytes] = []
    place = 0
    try:
        while handshake.state not in (HandshakeState.TRANSMISSION, HandshakeState.CLOSED):
            piece = stream[place : place + step] if step else stream[place:]
            if not piece:
                break
            if handshake.state is HandshakeState.UPGRADING:
                handshake.secured(CATALOGUE)
            place += len(piece)
            while not handshake.received(piece):
                output += handshake.take_output()
                piece = b""
            output += handshake.take_output()
    except ProtocolError:
        return b"".join(output + handshake.take_output()), "dropped"
    answered = b"".join(output)
    if handshake.agreement is None:
        return answered, handshake.state
    rest = handshake.take_rest()
    return answered, *_transmit(handshake, rest, stream[place:], choice, step)


def _transmit(
    handshake: Handshake[Export], rest: bytes, stream: bytes, choice: Choice, step: int
) -> tuple[object, ...]:
    agreement = handshake.agreement
    assert agreement is not None
    replies = replies_in(agreement.dialect)
    handler = Handler(agreement.export, replies, busy=choice.busy, structured=agreement.structured)
    transmission = transmission_in(agreement, handler)
    ended = "silent"
    try:
        view = memoryview(rest + stream)
        place, turns = 0, 0
        while place < len(view) and not handler.over:
            room = transmission.buffer()
            assert len(room), "no room for the next bytes"
            count = min(len(room), len(view) - place, step or len(view))
            room[:count] = view[place : place + count]
            place += count
            need_data = transmission.received(count)
            while not need_data and not handler.over:
                turns += 1
                assert turns < TURNS_MAX, "an input without an end"
                need_data = transmission.resume()
    except ProtocolError:
        ended = "dropped"
    return tuple(handler.seen), handler.over, ended


HEADS = [
    struct.pack(">Q", wire.IHAVEOPT),
    *(struct.pack(">QI", wire.IHAVEOPT, option) for option in range(1, 12)),
    *(struct.pack(">IHH", 0x25609513, 0, command) for command in range(9)),
    *(struct.pack(">IHH", 0x21E41C71, flags, command) for command in range(9) for flags in (0, 1 << 5)),
    *(struct.pack(">I", len(name)) + name for name in (b"disk", b"locked", b"huge", b"base:allocation", b"base:")),
    struct.pack(">Q", case.SIZE),
    struct.pack(">Q", case.HUGE),
    struct.pack(">I", PAYLOAD_MAX + 1),
    struct.pack(">I", 4096),
    bytes(8),
    b"\xff" * 8,
]
"""Words that a fuzzer would be long in finding."""
