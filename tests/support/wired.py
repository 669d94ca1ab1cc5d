"""How to drive a `Connection` without a network: bytes are fed exactly as cut, replies are
collected.

`Wire` stands where a socket and the event loop's transport would. It obeys pauses of reading, can be made to
stop sending (`block`), and has a real socket pair only so that "has the peer left?" has something to ask.
"""

import asyncio
import socket
from collections.abc import Callable
from types import TracebackType
from typing import Self, cast

from nbdserver.exports import Exports
from nbdserver.server.busy_poll import BusyPoll
from nbdserver.server.connection import Connection
from nbdserver.server.limits import Budget, Limits
from nbdserver.server.operation_trace import Tracing
from nbdserver.server.transmission_phase import TransmissionPhase
from nbdserver.slow_operations import SlowOperations
from nbdserver.traffic import Waits
from tests.support.answers import read_answers
from tests.support.idle import comes_true, idle
from tests.support.memory_device import MemoryDevice, memory_exports


class Wire:
    """One client's end: what it sends, and what came back (`output`)."""

    def __init__(self, exports: Exports, *, limits: Limits | None = None, budget: Budget | None = None) -> None:
        self.limits = limits or Limits()
        self.output = bytearray()
        self.closed = False
        """The server ended the connection; it will not read on."""
        self.lost = False
        self._gone = asyncio.Event()
        self.ours, self._theirs = socket.socketpair()
        self._blocked = False
        self._reading = True
        self._unsent = 0
        self._high = 0
        self._paused = False
        self._bidden = False
        """The server has ended its stream."""
        self.busy_poll = BusyPoll()
        self.waits = Waits()
        self.slow = SlowOperations()
        self.later = 0.0
        """Seconds by which the clock of traces is ahead; whoever adds to it lets what is under way take so long."""
        self.looks_at_clock = 0
        tracing = Tracing(self.waits, self.slow, self._clock, lambda: 1e9 + self.later)
        shared = budget or Budget(self.limits.memory_bytes), self.busy_poll, tracing
        self.connection = Connection(_Nobody(), exports, self.limits, *shared)
        self.connection.connection_made(cast(asyncio.BaseTransport, self))

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if not self.lost:
            self._lose()
        self.ours.close()
        self._theirs.close()

    def _clock(self) -> float:
        self.looks_at_clock += 1
        return self.later

    # What the client does

    async def feed(self, data: bytes, *, step: int | None = None) -> None:
        """Send bytes, in segments of `step`; waits while the server does not read, until it closes."""
        view = memoryview(data)
        while view and not self.closed:
            if not await self.until(lambda: self._reading or self.closed):
                raise AssertionError("the server stopped reading for good")
            if not self.closed:
                view = view[self.offer(view[:step]) :]
        await idle()

    def offer(self, data: bytes | memoryview) -> int:
        """One read of the socket by the loop: as much of `data` as the server has room for."""
        room = self.connection.get_buffer(-1)
        count = min(len(room), len(data))
        room[:count] = data[:count]
        self.connection.buffer_updated(count)
        return count

    @property
    def reading(self) -> bool:
        """Whether the server takes bytes."""
        return self._reading and not self.closed

    def leave(self) -> None:
        """Close the client's end; the server's loop has not noticed yet, but the kernel knows."""
        self.ours.close()

    def shut(self) -> None:
        """The client will send nothing more; the server's loop has not noticed yet."""
        self.ours.shutdown(socket.SHUT_WR)

    def end(self) -> None:
        """The server's loop reads the end of the stream."""
        if not self.connection.eof_received() and not self.closed:
            self.close()

    def block(self) -> None:
        """The client stops reading its replies, and no buffer in between has room."""
        self._blocked = True

    def read_some(self, count: int) -> None:
        """It reads `count` bytes of what waits, and no more."""
        self._unsent -= count

    def unblock(self) -> None:
        """It reads everything that waited, and goes on reading."""
        self._blocked = False
        self._unsent = 0
        if self._paused:
            self._paused = False
            self.connection.resume_writing()
        if self._bidden and not self.closed:
            asyncio.get_running_loop().call_soon(self.end)

    @property
    def unsent(self) -> int:
        """Bytes of replies that the client has not read."""
        return self._unsent

    async def gone(self) -> None:
        """Wait until the connection is no more, which real time may have to bring about."""
        await asyncio.wait_for(self._gone.wait(), 10)

    async def until(self, condition: Callable[[], bool]) -> bool:
        """Turn the loop until something is so; False if it never becomes so by itself."""
        return await comes_true(condition)

    # What the connection asks of its transport

    def get_extra_info(self, name: str) -> socket.socket:
        assert name == "socket"
        return self._theirs

    def set_write_buffer_limits(self, *, high: int) -> None:
        self._high = high

    def get_write_buffer_size(self) -> int:
        return self._unsent

    def writelines(self, parts: list[bytes | bytearray | memoryview]) -> None:
        for part in parts:
            self.write(part)

    def write(self, data: bytes | bytearray | memoryview) -> None:
        assert not self.lost, "written to a transport that is gone"
        self.output += data
        if self._blocked:
            self._unsent += len(data)
            if self._unsent > self._high and not self._paused:
                self._paused = True
                self.connection.pause_writing()

    def pause_reading(self) -> None:
        self._reading = False

    def resume_reading(self) -> None:
        self._reading = True

    def write_eof(self) -> None:
        """The server ends its stream: the client, which waits for that, ends its own and closes."""
        self._bidden = True
        if not self._blocked:
            asyncio.get_running_loop().call_soon(self.end)

    def close(self) -> None:
        if not self.closed:
            self.closed = True
            if not self._blocked:
                asyncio.get_running_loop().call_soon(self._lose)

    def abort(self) -> None:
        self.closed = True
        asyncio.get_running_loop().call_soon(self._lose)

    def _lose(self) -> None:
        if not self.lost:
            self.lost = True
            self._gone.set()
            self.connection.connection_lost(None)


def transmission(connection: Connection) -> TransmissionPhase:
    """The phase of a connection that is attached."""
    assert isinstance(connection.phase, TransmissionPhase)
    return connection.phase


def attach(disk: MemoryDevice, limits: Limits | None = None, budget: Budget | None = None) -> Wire:
    """A connection to a server whose only export is `disk`."""
    return Wire(memory_exports({"disk": disk}), limits=limits, budget=budget)


def answers(wire: Wire) -> list[str]:
    """What was answered after the handshake of `messages.structured()`."""
    return read_answers(wire.output)[3:]


class _Nobody:
    """A server that does not care."""

    def opened(self, connection: Connection) -> None: ...

    def attached(self, connection: Connection) -> None: ...

    def closed(self, connection: Connection) -> None: ...

    def refused(self, connection: Connection, event: str, reason: str) -> None: ...
