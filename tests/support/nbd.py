"""A small blocking client of the NBD protocol; what it says, it says in the words of `messages`.

It serves the tests that must see every reply themselves: stamped writes around a crash, replies in order of
arrival, and machines where libnbd's binding cannot be imported. Requests can be pipelined: `submit` sends one
and returns its cookie, `receive` waits for the next complete reply. A client belongs to one thread.
Big-endian throughout (NBD protocol, "Values").
"""

import contextlib
import socket
import ssl
import struct
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType
from typing import Self

from tests.support import messages as m

Address = tuple[str, int] | Path | socket.socket


class NbdError(OSError):
    """The server answered one request or option with an error; `errno` holds its number."""


@dataclass(slots=True)
class Reply:
    """One complete reply: `error` is 0 or an NBD error number, `holes` counts hole chunks, `chunks` all of
    them.
    """

    cookie: int
    error: int = 0
    message: str = ""
    data: bytearray = field(default_factory=bytearray)
    extents: list[tuple[int, int]] = field(default_factory=list)
    chunks: int = 0
    holes: int = 0


class Client:
    """One connection to one export, in transmission.

    `structured=False` speaks simple replies; then there is no block status. EOFError: the server closed the
    connection.
    """

    def __init__(
        self,
        address: Address,
        export: str = "",
        *,
        structured: bool = True,
        timeout: float = 60,
        tls: ssl.SSLContext | None = None,
    ) -> None:
        """With `tls` the connection is upgraded before anything else is said."""
        if isinstance(address, socket.socket):
            self.socket = address
            self.socket.settimeout(timeout)
        elif isinstance(address, Path):
            self.socket = socket.socket(socket.AF_UNIX)
            self.socket.settimeout(timeout)
            try:
                self.socket.connect(str(address))
            except OSError:
                self.socket.close()
                raise
        else:
            self.socket = socket.create_connection(address, timeout=timeout)
            self.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self._stream = self.socket.makefile("rb", buffering=1 << 18)
        self.structured = structured
        self.size = 0
        self.flags = 0
        self.block_sizes: tuple[int, int, int] | None = None
        self._cookie = 0
        self._pending: dict[int, tuple[int, int, int]] = {}
        self._partial: dict[int, Reply] = {}
        try:
            self._greet()
            if tls is not None:
                self._upgrade(tls)
            self._handshake(export)
        except BaseException:
            self.close()
            raise

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if kind is None:
            self.disconnect()
        else:
            self.close()

    def close(self) -> None:
        """Drop the connection without a word."""
        self._stream.close()
        self.socket.close()

    def disconnect(self) -> None:
        """Say DISC, then close."""
        with contextlib.suppress(OSError):
            self._send(m.DISC, 0, 0, 0)
        self.close()

    # Handshake (NBD protocol, "Newstyle negotiation")

    def _greet(self) -> None:
        if self._take(len(m.GREETING)) != m.GREETING:
            raise ConnectionError("not a fixed newstyle NBD server")
        self.socket.sendall(m.FIXED_ZEROLESS_FLAGS)

    def _upgrade(self, context: ssl.SSLContext) -> None:
        self._option(m.STARTTLS, b"")
        self._stream.close()
        self.socket = context.wrap_socket(self.socket, server_hostname="localhost")
        self._stream = self.socket.makefile("rb", buffering=1 << 18)

    def _handshake(self, export: str) -> None:
        if self.structured:
            self._option(m.STRUCTURED_REPLY, b"")
            self._option(m.SET_META_CONTEXT, m.context_data(export, m.BASE))
        for kind, data in self._option(m.GO, m.info_data(export, m.INFO_BLOCK_SIZE)):
            if kind == m.REP_INFO and data[:2] == struct.pack(">H", m.INFO_EXPORT):
                self.size, self.flags = struct.unpack(">QH", data[2:])
            elif kind == m.REP_INFO and data[:2] == struct.pack(">H", m.INFO_BLOCK_SIZE):
                self.block_sizes = struct.unpack(">III", data[2:])

    def _option(self, option: int, data: bytes) -> list[tuple[int, bytes]]:
        """Send an option and gather its replies up to the final ACK; NbdError when it is refused."""
        self.socket.sendall(m.option(option, data))
        replies: list[tuple[int, bytes]] = []
        while True:
            magic, _, kind, length = struct.unpack(">8sIII", self._take(20))
            if magic != m.OPTION_REPLY_MAGIC:
                raise ConnectionError("an option reply without its magic number")
            payload = self._take(length)
            if kind & m.REP_ERROR:
                raise NbdError(kind, f"option {option} refused: {payload.decode(errors='replace')}")
            if kind == m.REP_ACK:
                return replies
            replies.append((kind, payload))

    def _take(self, count: int) -> bytes:
        data: bytes = self._stream.read(count)
        if len(data) < count:
            raise EOFError("the server closed the connection")
        return data

    # Transmission

    def _send(self, command: int, offset: int, length: int, flags: int, data: bytes | memoryview = b"") -> int:
        self._cookie += 1
        header = m.request(command, offset, length, flags=flags, cookie=self._cookie)
        if len(data) < 1 << 16:
            self.socket.sendall(header + data)
        else:
            self.socket.sendall(header)
            self.socket.sendall(data)
        return self._cookie

    def submit(
        self,
        command: int,
        offset: int = 0,
        length: int = 0,
        *,
        flags: int = 0,
        data: bytes | memoryview = b"",
    ) -> int:
        """Send one request and return its cookie; for WRITE the length is that of `data`."""
        if command == m.WRITE:
            length = len(data)
        # Before it is sent: its reply may come to another thread at once.
        self._pending[self._cookie + 1] = (command, offset, length)
        return self._send(command, offset, length, flags, data)

    def receive(self) -> Reply:
        """Wait for the next reply to be complete, of whichever request. EOFError: the connection ended."""
        while True:
            magic = self._take(4)
            if magic == m.SIMPLE_MAGIC:
                error, cookie = struct.unpack(">IQ", self._take(12))
                command, _, length = self._pending.pop(cookie)
                reply = Reply(cookie, error)
                if command == m.READ and not error:
                    reply.data = bytearray(self._take(length))
                return reply
            if magic != m.STRUCTURED_MAGIC:
                raise ConnectionError("a reply without its magic number")
            flags, kind, cookie, length = struct.unpack(">HHQI", self._take(16))
            reply = self._chunk(kind, cookie, self._take(length))
            if flags & m.CHUNK_DONE:
                del self._pending[cookie]
                self._partial.pop(cookie, None)
                return reply

    def _chunk(self, kind: int, cookie: int, payload: bytes) -> Reply:
        command, start, length = self._pending[cookie]
        reply = self._partial.get(cookie)
        if reply is None:
            reply = self._partial[cookie] = Reply(cookie)
            if command == m.READ:
                reply.data = bytearray(length)
        reply.chunks += 1
        if kind == m.CHUNK_DATA:
            (offset,) = struct.unpack_from(">Q", payload)
            place = offset - start
            if place < 0 or place + len(payload) - 8 > length:
                raise ConnectionError("a data chunk outside the range asked for")
            reply.data[place : place + len(payload) - 8] = payload[8:]
        elif kind == m.CHUNK_HOLE:
            reply.holes += 1
        elif kind == m.CHUNK_STATUS:
            numbers = struct.unpack(f">{len(payload) // 4}I", payload)
            reply.extents = list(zip(numbers[1::2], numbers[2::2], strict=True))
        elif kind & m.CHUNK_ERROR:
            reply.error, size = struct.unpack_from(">IH", payload)
            reply.message = payload[6 : 6 + size].decode(errors="replace")
        elif kind != m.CHUNK_NONE:
            raise ConnectionError(f"a chunk of unknown type {kind}")
        return reply

    def call(
        self,
        command: int,
        offset: int = 0,
        length: int = 0,
        *,
        flags: int = 0,
        data: bytes | memoryview = b"",
    ) -> Reply:
        """One request and its reply, nothing else in flight. NbdError: answered with an error."""
        cookie = self.submit(command, offset, length, flags=flags, data=data)
        reply = self.receive()
        if reply.cookie != cookie:
            raise ConnectionError("a reply to a request that was not sent")
        if reply.error:
            raise NbdError(reply.error, reply.message or "the server answered with an error")
        return reply

    def read(self, offset: int, length: int) -> bytes:
        return bytes(self.call(m.READ, offset, length).data)

    def write(self, offset: int, data: bytes | memoryview, *, flags: int = 0) -> None:
        self.call(m.WRITE, offset, data=data, flags=flags)

    def flush(self) -> None:
        self.call(m.FLUSH)

    def trim(self, offset: int, length: int, *, flags: int = 0) -> None:
        self.call(m.TRIM, offset, length, flags=flags)

    def zero(self, offset: int, length: int, *, flags: int = 0) -> None:
        self.call(m.WRITE_ZEROES, offset, length, flags=flags)

    def extents(self, offset: int, length: int) -> list[tuple[int, int]]:
        """(length, flags) of base:allocation from `offset` on."""
        return self.call(m.BLOCK_STATUS, offset, length).extents
