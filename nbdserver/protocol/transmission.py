"""This file knows how a stream of bytes becomes requests, and which requests are valid.

Promises: a `Handler` sees only valid requests, whole, in the order they came; how the bytes were cut into
segments makes no difference. An invalid request is refused with the error the specification names, its
payload consumed without being stored. What leaves no way to go on raises ProtocolError. Nothing here waits,
allocates by a length that was not checked, or knows of sockets, loops and devices.

How it works. `Transmission` owns the receive buffer. `buffer()` says where the next bytes go,
`received(count)` that they came; every request that is complete is handed to the handler in that same call,
with its arguments and no event object. A method of the handler answers True (taken) or False: not now, offer
it again when `resume()` is called. That one rule carries all back-pressure.

The arithmetic. A 4 KiB request passes in 0.4 us: one `unpack_from` for all of a header, whose first eight
bytes, taken as one number, equal one of two constants for a plain READ or WRITE; everything else takes the
general path. The payload of a small WRITE is copied out of the receive buffer (0.2 us for 4 KiB). That of a
long one is received straight into a buffer of its own that the device adopts; while such writes follow each
other, the receive buffer offers room for one header only, so that their data arrives where it is to stay (a
read of 28 bytes costs 1 us, copying 256 KiB 25 us).
"""

from dataclasses import dataclass
from enum import Enum
from typing import Protocol

from nbdserver.protocol import wire
from nbdserver.protocol.wire import ProtocolError

BUFFER_BYTES = 256 << 10
"""The receive buffer: more than 32 writes of 4 KiB at once, and what one read of a socket usually gives at
most."""

ADOPT_BYTES_MIN = 32 << 10
"""From this length on a payload that is not there yet is received into a buffer of its own."""

DISCARD_BYTES_MAX = 64 << 20
"""A refused WRITE of up to this length is read to its end and answered; beyond it the connection ends: it is
no mistake in size any more, and reading it serves nobody."""

_HEADER = wire.REQUEST_BYTES
assert BUFFER_BYTES >= 2 * (_HEADER + ADOPT_BYTES_MIN)
assert DISCARD_BYTES_MAX > wire.PAYLOAD_BYTES_MAX

_MAGIC_HEAD = wire.REQUEST_MAGIC << 32
_PLAIN_READ = _MAGIC_HEAD | wire.CMD_READ
_PLAIN_WRITE = _MAGIC_HEAD | wire.CMD_WRITE
_NO_HEAD = 0

Payload = bytes | memoryview


class Bounds(Protocol):
    """What requests are checked against."""

    @property
    def size(self) -> int:
        """Bytes now."""


class Handler(Protocol):
    """Who carries out requests. Each method answers True if it took the request, False to be offered it
    again.

    A method must not call back into the `Transmission`. Ranges are never empty (but for `nothing`) and inside
    the device.
    """

    def read(self, cookie: bytes, offset: int, length: int, *, whole: bool = False) -> bool:
        """READ; `whole` if the client forbade fragments (DF)."""

    def write(self, cookie: bytes, offset: int, data: Payload, *, fua: bool = False) -> bool:
        """WRITE; `data` is the handler's to keep and is never written to again."""

    def zero(self, cookie: bytes, offset: int, length: int, *, allocated: bool, fua: bool) -> bool:
        """TRIM, or WRITE_ZEROES (`allocated` if the space must be kept: NO_HOLE)."""

    def flush(self, cookie: bytes) -> bool:
        """FLUSH."""

    def cache(self, cookie: bytes, offset: int, length: int) -> bool:
        """CACHE."""

    def block_status(self, cookie: bytes, offset: int, length: int, *, one: bool) -> bool:
        """BLOCK_STATUS; `one` extent only (REQ_ONE)."""

    def nothing(self, cookie: bytes, *, read: bool) -> bool:
        """A valid request of length 0, which succeeds; `read` if it was a READ."""

    def refuse(self, cookie: bytes, error: int, message: str) -> bool:
        """A request that is answered with an error."""

    def disconnect(self) -> None:
        """DISC; nothing comes after it."""

    def allocate(self, length: int) -> memoryview | None:
        """A writable buffer for a long payload, or None: no memory now, ask again at `resume()`."""


@dataclass(frozen=True, slots=True)
class Refusal:
    """Why a request is answered with an error."""

    error: int
    message: str


@dataclass(frozen=True, slots=True)
class Command:
    """What makes a request of one type valid; `beyond` is the error for a range that reaches past the end."""

    name: str
    flags: int
    beyond: int = wire.EINVAL
    writes: bool = False


# FUA is accepted on every command, as the specification demands ("Command flags"); it means something on
# those that write.
COMMANDS = {
    wire.CMD_READ: Command("READ", wire.CMD_FLAG_FUA | wire.CMD_FLAG_DF),
    wire.CMD_WRITE: Command("WRITE", wire.CMD_FLAG_FUA, beyond=wire.ENOSPC, writes=True),
    wire.CMD_FLUSH: Command("FLUSH", wire.CMD_FLAG_FUA),
    wire.CMD_TRIM: Command("TRIM", wire.CMD_FLAG_FUA, writes=True),
    wire.CMD_CACHE: Command("CACHE", wire.CMD_FLAG_FUA),
    wire.CMD_WRITE_ZEROES: Command(
        "WRITE_ZEROES",
        wire.CMD_FLAG_FUA | wire.CMD_FLAG_NO_HOLE | wire.CMD_FLAG_FAST_ZERO,
        beyond=wire.ENOSPC,
        writes=True,
    ),
    wire.CMD_BLOCK_STATUS: Command("BLOCK_STATUS", wire.CMD_FLAG_FUA | wire.CMD_FLAG_REQ_ONE),
}


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
    """A refused WRITE: answered when `left` more bytes have been thrown away. A client still sending its
    payload would not know what to make of an earlier answer (libnbd gives the connection up)."""

    cookie: bytes
    refusal: Refusal
    left: int


class _Nothing:
    """Bounds inside which no request lies, so that none takes the short way past `_judge`."""

    size = -1


class _Outcome(Enum):
    TAKEN = "taken"
    LATER = "the handler did not take it now"
    MORE = "more bytes are needed"


_TAKEN, _LATER, _MORE = _Outcome.TAKEN, _Outcome.LATER, _Outcome.MORE


class Transmission:
    """The transmission phase of one connection, as seen from the server.

    Invariant between calls: bytes [_start, _end) of the receive buffer are received and not yet handed over,
    and while a payload is being adopted there are none.
    """

    def __init__(
        self,
        handler: Handler,
        bounds: Bounds,
        *,
        read_only: bool,
        structured: bool,
        block_status: bool,
    ) -> None:
        self.handler = handler
        self.requests = 0
        """Requests handed over so far."""
        self._bounds = bounds
        self._read_only = read_only
        self._structured = structured
        self._block_status = block_status
        self._plain_write = _NO_HEAD if read_only else _PLAIN_WRITE
        self._memory = bytearray(BUFFER_BYTES)
        self._view = memoryview(self._memory)
        self._start = 0
        self._end = 0
        self._body: _Adopted | _Discarded | None = None
        self._headers_only = False
        self._refusal: Refusal | None = None
        self._over = False

    def refuse_all(self, error: int, message: str) -> None:
        """From now on every request but FLUSH is answered with this error.

        There are clients that ignore the error of a FLUSH and take the writes before it for durable (ZFS), so as long
        as it can be carried out it is.
        """
        self._refusal = Refusal(error, message)
        self._bounds = _Nothing()

    def buffer(self) -> memoryview:
        """Where the next bytes are to be put; not empty unless a request waits to be offered again."""
        body = self._body
        if isinstance(body, _Adopted):
            return body.payload[body.filled :]
        if self._headers_only and self._end < _HEADER:
            return self._view[self._end : _HEADER]
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

    def resume(self) -> bool:
        """Hand over every request that is complete. True: more bytes are needed; False: one was not taken
        now."""
        if self._over:
            self._start = self._end = 0
            return True
        if self._body is not None:
            outcome = self._continue_body()
            if outcome is not _TAKEN:
                return outcome is _MORE
            self.requests += 1
        memory, view, start, end = self._memory, self._view, self._start, self._end
        handler, plain_write, size = self.handler, self._plain_write, self._bounds.size
        unpack, read, write = wire.REQUEST.unpack_from, handler.read, handler.write
        requests = self.requests
        while True:
            if end - start < _HEADER:
                outcome = _MORE
                break
            head, cookie, offset, length = unpack(memory, start)
            if head == _PLAIN_READ and 0 < length <= wire.PAYLOAD_BYTES_MAX and offset + length <= size:
                if not read(cookie, offset, length):
                    outcome = _LATER
                    break
                start += _HEADER
                self._headers_only = False
            elif head == plain_write and 0 < length < ADOPT_BYTES_MIN and offset + length <= size:
                behind = start + _HEADER + length
                if behind > end:
                    outcome = _MORE
                    break
                if not write(cookie, offset, bytes(view[start + _HEADER : behind])):
                    outcome = _LATER
                    break
                start = behind
                self._headers_only = False
            else:
                self._start = start
                outcome = self._general(head, cookie, offset, length)
                start, end = self._start, self._end
                if outcome is not _TAKEN:
                    break
            requests += 1
        self.requests = requests
        self._keep(start, end, hungry=outcome is _MORE)
        return outcome is _MORE

    def _keep(self, start: int, end: int, *, hungry: bool) -> None:
        """Remember what is left of the receive buffer; at its front if it waits for more bytes."""
        if start == end:
            start = end = 0
        elif hungry and start:
            self._memory[: end - start] = self._memory[start:end]
            start, end = 0, end - start
        self._start, self._end = start, end

    # The general path: everything that is not a plain READ or a short plain WRITE.

    def _general(self, head: int, cookie: bytes, offset: int, length: int) -> _Outcome:
        """Take the request whose header lies at `_start`; moves `_start` behind it if it is taken."""
        if head >> 32 != wire.REQUEST_MAGIC:
            raise ProtocolError("a request does not begin with the magic number")
        flags, command = head >> 16 & 0xFFFF, head & 0xFFFF
        if command == wire.CMD_DISC:
            self._over = True
            self._start = self._end
            self.handler.disconnect()
            return _MORE
        refusal = self._judge(command, flags, offset, length)
        if command == wire.CMD_WRITE and length:
            return self._write(cookie, offset, length, flags, refusal)
        self._headers_only = False
        if refusal is not None:
            taken = self.handler.refuse(cookie, refusal.error, refusal.message)
        elif not length and command != wire.CMD_FLUSH:
            taken = self.handler.nothing(cookie, read=command == wire.CMD_READ)
        else:
            taken = self._run(command, flags, cookie, offset, length)
        if not taken:
            return _LATER
        self._start += _HEADER
        return _TAKEN

    def _judge(self, command: int, flags: int, offset: int, length: int) -> Refusal | None:
        """What is wrong with a request, by the section "Error values" of the specification, or None."""
        if self._refusal is not None and command != wire.CMD_FLUSH:
            return self._refusal
        known = COMMANDS.get(command)
        if known is None:
            return Refusal(wire.EINVAL, f"command {command} is not known")
        forbidden = flags & ~known.flags
        if not self._structured:
            forbidden |= flags & wire.CMD_FLAG_DF
        if forbidden:
            return Refusal(wire.EINVAL, f"{known.name} does not take the flags {forbidden:#x}")
        if known.writes and self._read_only:
            return Refusal(wire.EPERM, "the export is read-only")
        if command == wire.CMD_FLUSH:
            return Refusal(wire.EINVAL, "FLUSH takes neither offset nor length") if offset or length else None
        if command == wire.CMD_BLOCK_STATUS and not self._block_status:
            return Refusal(wire.EINVAL, "no metadata context was selected for this export")
        if command == wire.CMD_BLOCK_STATUS and not length:
            return Refusal(wire.EINVAL, "BLOCK_STATUS needs a length")
        if offset + length > self._bounds.size:
            return Refusal(known.beyond, f"{known.name} reaches past the end of the export")
        if length > wire.PAYLOAD_BYTES_MAX and command == wire.CMD_READ:
            error = wire.EOVERFLOW if self._structured else wire.EINVAL
            return Refusal(error, f"at most {wire.PAYLOAD_BYTES_MAX} bytes are read at once")
        if length > wire.PAYLOAD_BYTES_MAX and command == wire.CMD_WRITE:
            return Refusal(wire.EINVAL, f"at most {wire.PAYLOAD_BYTES_MAX} bytes are written at once")
        return None

    def _run(self, command: int, flags: int, cookie: bytes, offset: int, length: int) -> bool:
        """Hand a valid request without payload to the handler."""
        handler = self.handler
        fua = bool(flags & wire.CMD_FLAG_FUA)
        if command == wire.CMD_READ:
            return handler.read(cookie, offset, length, whole=bool(flags & wire.CMD_FLAG_DF))
        if command == wire.CMD_FLUSH:
            return handler.flush(cookie)
        if command == wire.CMD_TRIM:
            return handler.zero(cookie, offset, length, allocated=False, fua=fua)
        if command == wire.CMD_WRITE_ZEROES:
            # FAST_ZERO asks for nothing more: zeroing is one entry whatever its length, so it is always fast.
            allocated = bool(flags & wire.CMD_FLAG_NO_HOLE)
            return handler.zero(cookie, offset, length, allocated=allocated, fua=fua)
        if command == wire.CMD_CACHE:
            return handler.cache(cookie, offset, length)
        return handler.block_status(cookie, offset, length, one=bool(flags & wire.CMD_FLAG_REQ_ONE))

    # WRITE with its payload

    def _write(self, cookie: bytes, offset: int, length: int, flags: int, refusal: Refusal | None) -> _Outcome:
        """Take a WRITE: as a copy if all of its payload is there, otherwise begin to receive or to discard
        it."""
        if refusal is not None:
            if length > DISCARD_BYTES_MAX:
                raise ProtocolError(f"a refused WRITE announces {length} bytes")
            self._headers_only = False
            self._start += _HEADER
            self._body = _Discarded(cookie, refusal, length)
            return self._continue_body()
        fua = bool(flags & wire.CMD_FLAG_FUA)
        begin = self._start + _HEADER
        here = self._end - begin
        if here >= length:
            if not self.handler.write(cookie, offset, bytes(self._view[begin : begin + length]), fua=fua):
                return _LATER
            self._start = begin + length
            self._headers_only = length >= ADOPT_BYTES_MIN
            return _TAKEN
        if length < ADOPT_BYTES_MIN:
            return _MORE
        payload = self.handler.allocate(length)
        if payload is None:
            return _LATER
        payload[:here] = self._view[begin : self._end]
        self._start = self._end
        self._body = _Adopted(cookie, offset, fua, payload, here)
        return _MORE

    def _continue_body(self) -> _Outcome:
        """Go on with the WRITE whose payload is being received or discarded."""
        body = self._body
        if isinstance(body, _Adopted):
            if body.filled < len(body.payload):
                return _MORE
            if not self.handler.write(body.cookie, body.offset, body.payload, fua=body.fua):
                return _LATER
            self._headers_only = True
        else:
            assert body is not None, "only called while a payload is on its way"
            gone = min(body.left, self._end - self._start)
            self._start += gone
            body.left -= gone
            if body.left:
                self._start = self._end = 0
                return _MORE
            if not self.handler.refuse(body.cookie, body.refusal.error, body.refusal.message):
                return _LATER
        self._body = None
        return _TAKEN
