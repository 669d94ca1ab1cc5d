"""Replies of one client on their way to its transport: they wait for the journal, and go out in one call.

Promises: replies go out in the order in which they were added, and none after `close`.

What waits in the transport is bounded: the session asks `has_room` before it adds much, and data that was counted when
it was read from the store is counted until the transport has sent it.

No reply goes out before the journal has every write that was carried out before it, of whichever client: so what
somebody was told of, or has read, outlives this process.
"""

import asyncio
import logging
from collections.abc import Callable, Iterator
from typing import Protocol

from nbdserver.block_device import WriteJournal
from nbdserver.protocol.replies import Parts
from nbdserver.server.operation_trace import OperationTrace, TraceSpan
from nbdserver.server.reads import copied

logger = logging.getLogger("nbdserver")


class ReplyTransport(Protocol):
    """What replies go out through."""

    def writelines(self, parts: Parts) -> None:
        """Send these buffers, one after the other."""

    def get_write_buffer_size(self) -> int:
        """Bytes that are not sent yet."""


class Outbox:
    """The replies that are ready, and what is known of those that went out."""

    def __init__(
        self,
        transport: ReplyTransport,
        journal: WriteJournal,
        give: Callable[[int], None],
        traced: Callable[[OperationTrace], object],
        *,
        is_paused: Callable[[], bool],
        sent_all: Callable[[], None],
        fail: Callable[[], None],
    ) -> None:
        """`give`: so many counted bytes are sent. `traced`: the reply of that operation is. `is_paused`: more than
        Limits.reply_bytes are unsent. `sent_all`: `send_soon` has been done. `fail`: something happened that nobody
        foresaw.
        """
        self.parts: Parts = []
        """What is ready; who adds data to it says so with `holds`."""
        self.queued = 0
        """Bytes of data in `parts`."""
        self.bytes_sent = 0
        """Bytes of data that the transport was given so far."""
        self._transport = transport
        self._journal = journal
        self._unkept = journal.pending
        self._give = give
        self._traced = traced
        self._is_paused = is_paused
        self._leaving: list[tuple[int, OperationTrace | None]] = []
        """Of replies which the transport may not have sent yet: bytes that are counted for one, and its trace."""
        self._sent_all = sent_all
        self._fail = fail
        self._loop = asyncio.get_running_loop()
        self._sending_soon = False
        self._closed = False

    def holds(self, length: int) -> None:
        """Data of `length` bytes is among `parts`, or is about to be."""
        self.queued += length

    def leaves(self, length: int, trace: OperationTrace | None = None) -> None:
        """`length` bytes that were counted are in replies that are ready: count them until they are sent. So long the
        operation that they answer takes."""
        if trace is not None:
            trace.enter(TraceSpan.SENDING)
        self._leaving.append((length, trace))

    def send(self) -> None:
        """Hand everything that is ready to the transport."""
        if self.parts and not self._closed:
            if self._unkept:
                self._journal.keep()
            parts = self.parts if not self._transport.get_write_buffer_size() else copied(self.parts)
            self._transport.writelines(parts)
            self.parts.clear()
            self.bytes_sent += self.queued
            self.queued = 0
        if self._leaving and not self._is_paused():
            self.sent()

    def send_soon(self) -> None:
        """Once in this turn of the loop: a commit may finish a thousand flushes."""
        if not self._sending_soon and not self._closed:
            self._sending_soon = True
            self._loop.call_soon(self._send_now)

    def sent(self) -> None:
        """The transport has sent (all but Limits.reply_bytes of) what it was given."""
        leaving, self._leaving = self._leaving, []
        self._give(sum(length for length, _ in leaving))
        for _, trace in leaving:
            if trace is not None:
                self._traced(trace)

    def traces(self) -> Iterator[OperationTrace]:
        """The operations whose replies are ready and not sent."""
        return (trace for _, trace in self._leaving if trace is not None)

    @property
    def bytes_taken(self) -> int:
        """How much of the data it was sent the client has taken. Not "less of it waits": while it reads, answers to its
        other requests come too."""
        return self.bytes_sent - self._transport.get_write_buffer_size()

    def close(self) -> None:
        """Send nothing more: what was not handed to the transport yet is dropped, and what comes is ignored."""
        self._closed = True
        self.parts.clear()
        self._leaving.clear()

    def _send_now(self) -> None:
        self._sending_soon = False
        if self._closed:
            return
        try:
            self.send()
            self._sent_all()
        except Exception:
            logger.exception("replies_crashed")
            self._fail()
