"""What one client of an export gets: requests of one kind, so many at a time, for a while.

On one connection with simple replies, over blocking sockets: nothing but the server and this process. Reads change
nothing; what writes is only ever given a device that was made for it.
"""

from __future__ import annotations

import socket
import struct
from dataclasses import dataclass

from nbdserver.protocol import wire
from storage.env import Env
from storage.errors import StorageError, Unavailable
from storage.units import KIB, MIB

ANSWER_SECONDS_MAX = 120.0
"""A server that answers nothing for so long has failed here; its store may be away."""

NOISE_BYTES = 4 * MIB
"""What is written is cut out of so much noise, which does not compress."""

_REPLY = struct.Struct(">II8s")


@dataclass(frozen=True, slots=True)
class TrialLoad:
    """One kind of load; `flushed`: each write has a FLUSH behind it, and that is what is timed."""

    name: str
    command: int
    block: int
    depth: int
    sequential: bool
    flushed: bool = False


READS = (
    TrialLoad("sequential read", wire.CMD_READ, 256 * KIB, 8, sequential=True),
    TrialLoad("random read", wire.CMD_READ, 4 * KIB, 1, sequential=False),
    TrialLoad("random read", wire.CMD_READ, 4 * KIB, 32, sequential=False),
    TrialLoad("random read", wire.CMD_READ, 256 * KIB, 8, sequential=False),
)
WRITES = (
    TrialLoad("sequential write", wire.CMD_WRITE, 256 * KIB, 8, sequential=True),
    TrialLoad("random write", wire.CMD_WRITE, 4 * KIB, 1, sequential=False),
    TrialLoad("random write", wire.CMD_WRITE, 4 * KIB, 32, sequential=False),
    TrialLoad("flush after a random write", wire.CMD_WRITE, 4 * KIB, 1, sequential=False, flushed=True),
)


@dataclass(frozen=True, slots=True)
class TrialResult:
    """What one load got; latencies in seconds."""

    name: str
    block_bytes: int
    depth: int
    count: int
    seconds: float
    median: float
    p99: float

    @property
    def rate(self) -> float:
        """Operations a second."""
        return self.count / self.seconds


class DeviceTrial:
    """A connection on which loads are tried, one after the other. `size`: bytes of the export."""

    def __init__(self, sock: socket.socket, size: int, env: Env) -> None:
        self._sock = sock
        self._size = size
        sock.settimeout(ANSWER_SECONDS_MAX)
        self._noise = memoryview(env.random_bytes(NOISE_BYTES + 256 * KIB))
        self._env = env
        self._into = memoryview(bytearray(256 * KIB))
        self._number = 0

    def run(self, load: TrialLoad, seconds: float) -> TrialResult:
        """Try one for so long. Unavailable: the server is gone, or answers nothing. StorageError: it refused one."""
        block, clock = min(load.block, self._size), self._env.monotonic
        began = clock()
        under_way: dict[bytes, float] = {}
        took: list[float] = []
        while True:
            now = clock()
            while len(under_way) < load.depth and now - began < seconds:
                self._send(load, block, under_way)
            if not under_way:
                break
            cookie = self._receive(block if load.command == wire.CMD_READ else 0)
            if load.flushed:
                self._request(wire.CMD_FLUSH, cookie, 0, 0)
                under_way[cookie] = clock()
                self._receive(0)
            took.append(clock() - under_way.pop(cookie))
        took.sort()
        median, p99 = took[len(took) // 2], took[min(len(took) * 99 // 100, len(took) - 1)]
        return TrialResult(load.name, block, load.depth, len(took), clock() - began, median, p99)

    def leave(self) -> None:
        """Say goodbye, and close."""
        with self._sock:
            self._request(wire.CMD_DISC, bytes(8), 0, 0)

    def _send(self, load: TrialLoad, block: int, under_way: dict[bytes, float]) -> None:
        self._number += 1
        cookie = struct.pack(">Q", self._number)
        places = self._size // block
        place = self._number % places if load.sequential else int(self._env.jitter() * places)
        data = memoryview(b"")
        if load.command == wire.CMD_WRITE:
            start = int(self._env.jitter() * NOISE_BYTES)
            data = self._noise[start : start + block]
        under_way[cookie] = self._env.monotonic()
        self._request(load.command, cookie, place * block, block, data)

    def _request(self, command: int, cookie: bytes, offset: int, length: int, data: memoryview | None = None) -> None:
        head = wire.REQUEST.pack(wire.REQUEST_MAGIC << 32 | command, cookie, offset, length)
        try:
            self._sock.sendall(head + (data or b""))
        except OSError as error:
            raise Unavailable(f"the server took no request: {error}") from error

    def _receive(self, length: int) -> bytes:
        """The cookie of the next reply, which has so much data."""
        magic, refused, cookie = _REPLY.unpack(self._take(_REPLY.size))
        if magic != wire.SIMPLE_REPLY_MAGIC:
            raise Unavailable("the server answers with something that is no reply")
        if refused:
            raise StorageError(f"the server answered a request with error {refused}: its log says why")
        self._take(length)
        return bytes(cookie)

    def _take(self, count: int) -> memoryview:
        got = 0
        while got < count:
            try:
                more = self._sock.recv_into(self._into[got:count])
            except OSError as error:
                raise Unavailable(f"the server does not answer: {error}") from error
            if not more:
                raise Unavailable("the server closed the connection")
            got += more
        return self._into[:count]
