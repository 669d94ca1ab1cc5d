"""The transmission phase as bytes: a stream becomes requests, of which only valid ones pass.

Promises: a `Handler` sees only valid requests, whole, in the order they came; how the bytes were cut into
segments makes no difference. An invalid request is refused with the error the specification names, its
payload consumed without being stored. What leaves no way to go on raises ProtocolError. Nothing here waits,
allocates by a length that was not checked, or knows of sockets, loops and devices.

How it works. A `Transmission` owns the receive buffer. `buffer()` says where the next bytes go,
`received(count)` that they came; every request that is complete is handed to the handler in that same call,
with its arguments and no event object. A method of the handler answers True (taken) or False: not now, offer
it again when `resume()` is called. That one rule carries all back-pressure. Requests come in two layouts, each
with a loop of its own for the plain ones (`compact`, `extended`); everything else is in this file.

The arithmetic. A 4 KiB request passes in 0.4 us: one `unpack_from` for all of a header, whose first eight
bytes, taken as one number, equal one of two constants for a plain READ or WRITE; everything else takes the
general path. The payload of a small WRITE is copied out of the receive buffer (0.2 us for 4 KiB). That of a
long one is received straight into a buffer of its own that the device adopts; while such writes follow each
other, the receive buffer offers room for one header only, so that their data arrives where it is to stay (a
read of 28 bytes costs 1 us, copying 256 KiB 25 us).
"""

from abc import ABC, abstractmethod
from collections.abc import Collection
from dataclasses import dataclass
from enum import Enum
from typing import ClassVar, Protocol

from nbdserver.protocol import wire
from nbdserver.protocol.commands import COMMANDS, RequestRefusal, Rules
from nbdserver.protocol.wire import ProtocolError

BUFFER_BYTES = 256 << 10
"""The receive buffer: more than 32 writes of 4 KiB at once, and what one read of a socket usually gives at
most."""

ADOPT_BYTES_MIN = 32 << 10
"""From this length on a payload that is not there yet is received into a buffer of its own."""

DISCARD_BYTES_MAX = 64 << 20
"""A refused WRITE of up to this length is read to its end and answered; beyond it the connection ends: it is
no mistake in size any more, and reading it serves nobody."""

Payload = bytes | memoryview


class Bounds(Protocol):
    """What requests are checked against."""

    @property
    def size(self) -> int:
        """Bytes now."""


class Handler(Protocol):
    """Who carries out requests. Each method answers True if it took the request, False to be offered it
    again.

    `cookie` is what the reply repeats of the request, to be handed on as it is: the client's 64 bits, and under
    extended headers the 64 bits of the offset behind them. A method must not call back into the `Transmission`.
    Ranges are never empty (but for `nothing`) and inside the device.
    """

    def read(self, cookie: bytes, offset: int, length: int, *, dont_fragment: bool = False) -> bool:
        """READ; `dont_fragment` if the client forbade fragments (DF)."""

    def write(self, cookie: bytes, offset: int, data: Payload, *, fua: bool = False) -> bool:
        """WRITE; `data` is the handler's to keep and is never written to again."""

    def zero(self, cookie: bytes, offset: int, length: int, *, command: int, allocated: bool, fua: bool) -> bool:
        """TRIM, or WRITE_ZEROES (`allocated` if the space must be kept: NO_HOLE), as `command` says."""

    def flush(self, cookie: bytes) -> bool:
        """FLUSH: answer when all completed writes of the device are durable."""

    def cache(self, cookie: bytes, offset: int, length: int) -> bool:
        """CACHE: fetch the range ahead, and answer at once."""

    def block_status(self, cookie: bytes, offset: int, length: int, *, one: bool, only: Collection[int] | None) -> bool:
        """BLOCK_STATUS; `one` extent only (REQ_ONE), and `only` for these contexts, else for all that were selected."""

    def nothing(self, cookie: bytes, *, read: bool) -> bool:
        """A valid request of length 0, which succeeds; `read` if it was a READ."""

    def refuse(self, cookie: bytes, error: int, message: str) -> bool:
        """A request that is answered with an error."""

    def disconnect(self) -> None:
        """DISC; nothing comes after it."""

    def allocate(self, length: int) -> memoryview | None:
        """A writable buffer for a long payload, or None: no memory now, ask again at `resume()`."""


@dataclass(slots=True)
class _Adopted:
    """A WRITE whose payload is received into a buffer of its own; `filled` bytes of it are there."""

    cookie: bytes
    offset: int
    fua: bool
    payload: memoryview
    filled: int


@dataclass(slots=True)
class _Discarded:
    """A refused request with a payload: answered when `left` more bytes have been thrown away. A client still
    sending its payload would not know what to make of an earlier answer (libnbd gives the connection up)."""

    cookie: bytes
    refusal: RequestRefusal
    left: int


class Outcome(Enum):
    """What became of one step through what was received."""

    TAKEN = "taken"
    LATER = "the handler did not take it now"
    MORE = "more bytes are needed"


TAKEN, LATER, MORE = Outcome.TAKEN, Outcome.LATER, Outcome.MORE


class Transmission(ABC):
    """The transmission phase of one connection, as seen from the server.

    Invariant between calls: bytes [_start, _end) of the receive buffer are received and not yet handed over,
    and while a payload is being adopted there are none.
    """

    _header: ClassVar[int]
    """Bytes of a request's header."""

    _magic: ClassVar[int]

    def __init__(self, handler: Handler, bounds: Bounds, rules: Rules) -> None:
        self.handler = handler
        self.requests = 0
        """Requests handed over so far."""
        self._others = [0] * (max(COMMANDS) + 2)
        """Of these, by command, all but plain READs; the last one counts commands that are not known,
        and payloads that were thrown away."""
        self._bounds = bounds
        self._rules = rules
        self._memory = bytearray(BUFFER_BYTES)
        self._view = memoryview(self._memory)
        self._start = 0
        self._end = 0
        self._body: _Adopted | _Discarded | None = None
        self._headers_only = False
        self._over = False
        self._only: Collection[int] | None = None
        """The contexts that the request at hand names."""

    def buffer(self) -> memoryview:
        """Where the next bytes are to be put; not empty unless a request waits to be offered again."""
        body = self._body
        if isinstance(body, _Adopted):
            return body.payload[body.filled :]
        if self._headers_only and self._end < self._header:
            return self._view[self._end : self._header]
        return self._view[self._end :] if self._end else self._view

    def received(self, count: int) -> bool:
        """`count` bytes were put where `buffer()` said. Answers as `resume` does. ProtocolError: no way to go
        on."""
        body = self._body
        if isinstance(body, _Adopted):
            body.filled += count
        else:
            self._end += count
        return self.resume()

    @property
    def between_requests(self) -> bool:
        """Whether no byte of a request is here that is not carried out yet."""
        return self._body is None and self._start == self._end

    @abstractmethod
    def resume(self) -> bool:
        """Hand over every request that is complete. True: more bytes are needed; False: one was not taken
        now."""

    @abstractmethod
    def _request(self, command: int, flags: int, cookie: bytes, offset: int, length: int) -> Outcome:
        """Take the request whose header lies at `_start`; moves `_start` behind it if it is taken."""

    # What `resume` is made of, apart from the loop over plain requests

    def _clear(self) -> Outcome:
        """Before any request is looked at: swallow what follows DISC, or go on with a payload."""
        if self._over:
            self._start = self._end = 0
            return MORE
        adopted = isinstance(self._body, _Adopted)
        outcome = self._continue_body()
        if outcome is TAKEN:
            self.requests += 1
            self._others[wire.CMD_WRITE if adopted else -1] += 1
        return outcome

    @property
    def by_command(self) -> dict[int, int]:
        """Requests handed over so far, by the number of their command; -1: it is not known."""
        counts = dict(enumerate(self._others[:-1]))
        counts[-1] = self._others[-1]
        counts[wire.CMD_READ] += self.requests - sum(self._others)
        return {command: count for command, count in counts.items() if count}

    def _keep(self, start: int, end: int, *, need_data: bool) -> None:
        """Remember what is left of the receive buffer; at its front if it waits for more bytes."""
        if start == end:
            start = end = 0
        elif need_data and start:
            self._memory[: end - start] = self._memory[start:end]
            start, end = 0, end - start
        self._start, self._end = start, end

    # The general path: everything that is not a plain READ or a short plain WRITE.

    def _general(self, head: int, cookie: bytes, offset: int, length: int) -> Outcome:
        """Take the request whose header lies at `_start`; moves `_start` behind it if it is taken."""
        if head >> 32 != self._magic:
            raise ProtocolError("a request does not begin with the magic number")
        flags, command = head >> 16 & 0xFFFF, head & 0xFFFF
        if command == wire.CMD_DISC:
            self._over = True
            self._start = self._end
            self.handler.disconnect()
            return MORE
        outcome = self._request(command, flags, cookie, offset, length)
        if outcome is TAKEN:
            self._others[command if command in COMMANDS else -1] += 1
        return outcome

    def _judge(self, command: int, flags: int, offset: int, length: int) -> RequestRefusal | None:
        return self._rules.judge(command, flags, offset, length, size=self._bounds.size)

    def _bare(
        self, command: int, flags: int, cookie: bytes, offset: int, length: int, refusal: RequestRefusal | None
    ) -> Outcome:
        """A request without payload."""
        self._headers_only = False
        if refusal is not None:
            taken = self.handler.refuse(cookie, refusal.error, refusal.message)
        elif not length and command != wire.CMD_FLUSH:
            taken = self.handler.nothing(cookie, read=command == wire.CMD_READ)
        else:
            taken = self._run(command, flags, cookie, offset, length)
        if not taken:
            return LATER
        self._start += self._header
        return TAKEN

    def _run(self, command: int, flags: int, cookie: bytes, offset: int, length: int) -> bool:
        """Hand a valid request without payload to the handler."""
        handler = self.handler
        fua = bool(flags & wire.CMD_FLAG_FUA)
        if command == wire.CMD_READ:
            return handler.read(cookie, offset, length, dont_fragment=bool(flags & wire.CMD_FLAG_DF))
        if command == wire.CMD_FLUSH:
            return handler.flush(cookie)
        if command == wire.CMD_TRIM:
            return handler.zero(cookie, offset, length, command=command, allocated=False, fua=fua)
        if command == wire.CMD_WRITE_ZEROES:
            # FAST_ZERO asks for nothing more: zeroing is one entry whatever its length, so it is always fast.
            no_hole = bool(flags & wire.CMD_FLAG_NO_HOLE)
            return handler.zero(cookie, offset, length, command=command, allocated=no_hole, fua=fua)
        if command == wire.CMD_CACHE:
            return handler.cache(cookie, offset, length)
        if command == wire.CMD_BLOCK_STATUS:
            one = bool(flags & wire.CMD_FLAG_REQ_ONE)
            return handler.block_status(cookie, offset, length, one=one, only=self._only)
        raise NotImplementedError(f"command {command} is said to be valid, and nothing carries it out")

    # Requests with a payload

    def _write(self, cookie: bytes, offset: int, length: int, flags: int) -> Outcome:
        """Take a valid WRITE: as a copy if all of its payload is there, otherwise begin to receive it."""
        fua = bool(flags & wire.CMD_FLAG_FUA)
        begin = self._start + self._header
        here = self._end - begin
        if here >= length:
            if not self.handler.write(cookie, offset, bytes(self._view[begin : begin + length]), fua=fua):
                return LATER
            self._start = begin + length
            self._headers_only = length >= ADOPT_BYTES_MIN
            return TAKEN
        if length < ADOPT_BYTES_MIN:
            return MORE
        payload = self.handler.allocate(length)
        if payload is None:
            return LATER
        payload[:here] = self._view[begin : self._end]
        self._start = self._end
        self._body = _Adopted(cookie, offset, fua, payload, here)
        return MORE

    def _discard(self, cookie: bytes, length: int, refusal: RequestRefusal) -> Outcome:
        """Refuse a request, but read its payload first."""
        if length > DISCARD_BYTES_MAX:
            raise ProtocolError(f"a refused request announces a payload of {length} bytes")
        self._headers_only = False
        self._start += self._header
        self._body = _Discarded(cookie, refusal, length)
        return self._continue_body()

    def _continue_body(self) -> Outcome:
        """Go on with the request whose payload is being received or discarded."""
        body = self._body
        if isinstance(body, _Adopted):
            if body.filled < len(body.payload):
                return MORE
            if not self.handler.write(body.cookie, body.offset, body.payload, fua=body.fua):
                return LATER
            self._headers_only = True
        elif body is None:
            raise RuntimeError("no payload is on its way")
        else:
            gone = min(body.left, self._end - self._start)
            self._start += gone
            body.left -= gone
            if body.left:
                self._start = self._end = 0
                return MORE
            if not self.handler.refuse(body.cookie, body.refusal.error, body.refusal.message):
                return LATER
        self._body = None
        return TAKEN
