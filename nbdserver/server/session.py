"""This file knows how the requests of one attached client are carried out on its device.

A `Session` is the handler of a `Transmission`. What memory can answer is answered in the very call; replies gather in a
list that `send` hands to the transport in one go. Only a READ that memory cannot answer becomes a task, and tasks
belong to the session: when it closes they end, and nothing it took in but did not apply is applied later.

FLUSH and FUA wait without tasks: the device tells its listeners up to which write it is durable. FLUSH asks for the
newest write of the device, so it covers the completed writes of every connection. If the store fails, nobody is told
anything, no error either: the connection is dropped, because a client that was told its writes succeeded may ignore the
error of a FLUSH.

Back-pressure. While the gate is closed, writes are held, in order, and the socket is still read: only so does the end
of a stream, which lies behind the bytes of unread requests, become known, and with it that the held ones are stale (see
`connection`). When too many requests are under way, or too many bytes, a request is not taken: `stalled` is set, and
the owner is asked to proceed when that changed. If the end could be out of sight by then, the session looks ahead:
writes are held, and more than usual is taken of what follows, until the client is known to be there. A gate with a
delay lets a write be applied and holds its reply.

Memory. Data of requests that wait (long WRITE payloads on their way in, READs from the store, replies longer than
Limits.reply_bytes) is counted before it is allocated. The first Limits.reply_bytes of it are the client's own share;
what is beyond comes out of the budget of all clients, so that hostile ones cannot take the share of others.
"""

import asyncio
import logging
from collections import deque
from collections.abc import Callable
from functools import partial
from typing import Protocol

import numpy

from nbdserver.exports import BlockDevice
from nbdserver.protocol.agreement import BASE_ALLOCATION_ID
from nbdserver.protocol.replies import ChunkedReplies, Parts, Replies
from nbdserver.protocol.transmission import Payload
from nbdserver.server.held_writes import HeldWrite, HeldWrites
from nbdserver.server.limits import Allowance, Budget, Limits
from nbdserver.server.reads import StoreRead, copied, number_of
from storage import cancel
from storage.errors import StorageError

logger = logging.getLogger("nbdserver")

EFFORT_MAX = 16
EFFORT_BYTES = 64 << 20
"""What a client gets done in one turn of the loop, so that others get theirs: 16 discards or prefetches (0.2 ms each),
or the status of 1 GiB (10 ms; 30 if every block of it is written in part)."""


LOOK_AHEAD_FACTOR = 16
"""How many times the requests of a client may be under way while the session looks ahead: 4 KiB each, they fill what it
may take then."""


class ReplyTransport(Protocol):
    """What a session sends through."""

    def writelines(self, parts: Parts) -> None:
        """Send these buffers, one after the other."""

    def get_write_buffer_size(self) -> int:
        """Bytes that are not sent yet."""


class SessionOwner(Protocol):
    """The connection a session belongs to."""

    write_paused: bool
    """More than Limits.reply_bytes are unsent."""

    def proceed(self) -> None:
        """What stalled a request has changed: offer it again."""

    def idle(self) -> None:
        """The session is ending, and its last reply has been handed to the transport."""

    def peer_is_here(self) -> bool:
        """Whether the client has not left, as far as the kernel knows."""

    def unseen_bytes(self) -> int:
        """How many bytes the end of the client's stream could lie behind, unseen for so long that the client may have
        given up; 0: it would be seen."""

    def fail(self) -> None:
        """Something happened that nobody foresaw: drop the client."""


class Session:
    """One client on one device."""

    def __init__(
        self,
        owner: SessionOwner,
        transport: ReplyTransport,
        device: BlockDevice,
        replies: Replies,
        limits: Limits,
        budget: Budget,
    ) -> None:
        self.stalled = False
        """A request was not taken; the owner will be asked to proceed."""
        self.outstanding = 0
        """Requests whose replies will come later."""
        self.ending = False
        """No further request will come; the owner is told when none is outstanding."""
        self.disconnected = False
        """The client said DISC: what it sent before counts, though it may have left."""
        self.bytes_sent = 0
        self._owner = owner
        self._transport = transport
        self._device = device
        self._gate = device.gate
        self._replies = replies
        self._limits = limits
        self._loop = asyncio.get_running_loop()
        self._parts: Parts = []
        self._queued = 0
        self._effort = 0
        self._tasks: set[asyncio.Task[None]] = set()
        self._held = HeldWrites(device.gate, may_go=self._may_go, carry_out=self._carry_out_held, fail=owner.fail)
        self.looks_ahead = False
        """What the client sends is read and held until it is known to be there."""
        self._unconfirmed: deque[tuple[int, bytes]] = deque()
        """Replies that wait until a write is durable, with the sequence of that, in ascending order of it."""
        self._settling = False
        self._abandoned = False
        """What is held is of a client that has left, and waits for its DISC."""
        self._closed = False
        self._allowance = Allowance(limits, budget, self._settle_soon)
        device.listen(self._became_durable)
        self._arriving = 0
        """Bytes taken for a WRITE payload on its way in."""
        self._leaving = 0
        """Bytes taken for replies that the transport may not have sent yet."""

    # The handler's methods: see protocol.transmission.Handler

    def read(self, cookie: bytes, offset: int, length: int, *, dont_fragment: bool = False) -> bool:
        queued = self._queued + length
        if queued > self._limits.reply_bytes:
            return self._read_long(cookie, offset, length, dont_fragment=dont_fragment)
        pieces = self._device.read_cached(offset, length)
        if pieces is None:
            return self._read_later(cookie, offset, length, dont_fragment=dont_fragment)
        self._queued = queued
        self._replies.data(self._parts, cookie, offset, length, pieces, dont_fragment=dont_fragment)
        return True

    def write(self, cookie: bytes, offset: int, data: Payload, *, fua: bool = False) -> bool:
        gate = self._gate
        if fua or gate.closed or gate.delay or self._held.active:
            return self._change(cookie, partial(self._device.write, offset, data), len(data), fua=fua)
        try:
            self._device.write(offset, data)
        except StorageError as error:
            self._failed(cookie, error)
        else:
            self._parts.append(self._replies.done(cookie))
        if self._arriving:
            self._release_payload()
        return True

    def zero(self, cookie: bytes, offset: int, length: int, *, allocated: bool, fua: bool) -> bool:
        if self._is_enough(1):
            return False
        change = partial(self._device.zero, offset, length, allocated=allocated)
        return self._change(cookie, change, 0, fua=fua)

    def flush(self, cookie: bytes) -> bool:
        if not self._admit():
            return False
        self._answer_when_durable(cookie, self._device.last_sequence)
        return True

    def cache(self, cookie: bytes, offset: int, length: int) -> bool:
        if self._is_enough(1):
            return False
        self._device.prefetch(offset, length)
        self._parts.append(self._replies.done(cookie))
        return True

    def block_status(self, cookie: bytes, offset: int, length: int, *, one: bool) -> bool:
        assert isinstance(self._replies, ChunkedReplies), "a context needs replies in chunks"
        effort = min(1 + length // EFFORT_BYTES, EFFORT_MAX)
        if self._queued > self._limits.reply_bytes or self._is_enough(effort):
            return False
        extents = self._device.extents(offset, length)
        reply = self._replies.status(cookie, BASE_ALLOCATION_ID, extents, length, one=one)
        self._queued += len(reply)
        self._parts.append(reply)
        return True

    def nothing(self, cookie: bytes, *, read: bool) -> bool:
        if read:
            self._replies.data(self._parts, cookie, 0, 0, ())
        else:
            self._parts.append(self._replies.done(cookie))
        return True

    def refuse(self, cookie: bytes, error: int, message: str) -> bool:
        self._parts.append(self._replies.error(cookie, error, message))
        return True

    def disconnect(self) -> None:
        self.ending = self.disconnected = True
        self.seen()

    def allocate(self, length: int) -> memoryview | None:
        if not self._take(length):
            return None
        self._arriving = length
        # Not zeroed, since all of it is overwritten: for 256 KiB that would cost as much as receiving them.
        return numpy.empty(length, numpy.uint8).data

    # Sending

    def send(self) -> None:
        """Hand everything that is ready to the transport."""
        if self._parts and not self._closed:
            parts = self._parts if not self._transport.get_write_buffer_size() else copied(self._parts)
            self._transport.writelines(parts)
            self._parts.clear()
            self.bytes_sent += self._queued
            self._queued = 0
        if self._leaving and not self._owner.write_paused:
            self.sent()

    @property
    def bytes_taken(self) -> int:
        """How much of the data it was sent the client has taken. Not "less of it waits": while it reads, answers to its
        other requests come too."""
        return self.bytes_sent - self._transport.get_write_buffer_size()

    def sent(self) -> None:
        """The transport has sent (all but Limits.reply_bytes of) what it was given."""
        leaving, self._leaving = self._leaving, 0
        self._give(leaving)

    # While the client could have left unseen

    def look_ahead(self, unseen: int) -> None:
        """Take `unseen` bytes more than usual, and carry out no write until `seen` is called."""
        if not self.looks_ahead:
            self.looks_ahead = self._held.active = True
            self._allowance.look_ahead(unseen)
            self.stalled = True
            self._settle_soon()

    def seen(self) -> None:
        """The client is there, or has said goodbye behind all that it sent."""
        if self.looks_ahead:
            self.looks_ahead = False
            self._allowance.look_ahead(0)
        self._held.wait()

    # For those who look after it

    @property
    def arriving(self) -> int:
        """Bytes taken for a WRITE payload on its way in."""
        return self._arriving

    @property
    def takes_from_others(self) -> bool:
        """Whether others wait for memory that this client's requests hold."""
        return self._allowance.takes_from_others

    def close(self) -> None:
        """The connection is gone: end everything that was under way for it."""
        self._closed = True
        for task in self._tasks:
            task.cancel()
        self._parts.clear()
        self._held.close()
        self._unconfirmed.clear()
        self._leaving = self._arriving = 0
        self._device.unlisten(self._became_durable)
        self._allowance.close()

    # READs that take long

    def _read_long(self, cookie: bytes, offset: int, length: int, *, dont_fragment: bool) -> bool:
        """A READ with which more than Limits.reply_bytes would be queued: alone, and counted, or after a
        send."""
        if self._queued or self._owner.write_paused:
            return False
        pieces = self._device.read_cached(offset, length)
        if pieces is None:
            return self._read_later(cookie, offset, length, dont_fragment=dont_fragment)
        if not self._take(length):
            return False
        self._leaving += length
        self._queued += length
        self._replies.data(self._parts, cookie, offset, length, pieces, dont_fragment=dont_fragment)
        return True

    def _read_later(self, cookie: bytes, offset: int, length: int, *, dont_fragment: bool) -> bool:
        """A READ that memory cannot answer."""
        if not self._admit() or not self._take(length):
            return False
        self.outstanding += 1
        read = StoreRead(self._device, self._replies, self._deliver, cookie, offset, length, dont_fragment)
        task = self._loop.create_task(self._read(read))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        return True

    async def _read(self, read: StoreRead) -> None:
        try:
            await read.answer()
        except (Exception, asyncio.CancelledError) as error:
            if isinstance(error, asyncio.CancelledError) and cancel.was_asked_for():
                raise
            logger.exception("read_crashed", extra={"offset": read.offset, "length": read.length})
            self._owner.fail()
            return
        self._leaving += read.length
        self._finished()

    def _deliver(self, parts: Parts, length: int) -> None:
        """Replies from the store, with data of `length`."""
        self._parts += parts
        self._queued += length
        self._settle_soon()

    # Writes that are held, or answered later

    def _change(self, cookie: bytes, change: Callable[[], int], length: int, *, fua: bool) -> bool:
        """A write with data of `length`, whatever the gate says."""
        if not self._admit():
            return False
        if not self._gate.closed and not self._held.active:
            self._carry_out(cookie, change, fua=fua)
            self._release_payload()
            return True
        if not self._arriving and not self._take(length):
            return False
        self._arriving = 0
        self.outstanding += 1
        self._held.add(HeldWrite(cookie, change, length, fua))
        return True

    def _carry_out(self, cookie: bytes, change: Callable[[], int], *, fua: bool) -> None:
        try:
            sequence = change()
        except StorageError as error:
            self._failed(cookie, error)
            return
        if fua:
            self._answer_when_durable(cookie, sequence)
        elif self._gate.delay:
            self.outstanding += 1
            self._loop.call_later(self._gate.delay, self._finish, self._replies.done(cookie))
        else:
            self._parts.append(self._replies.done(cookie))

    def _may_go(self) -> bool:
        """Whether a held write may be applied: not if its client has left without saying DISC, or may have.

        Then a DISC may still be unread. If that cannot be read, because what is held leaves no room, none will come.
        """
        if self.disconnected:
            return True
        if not self._owner.peer_is_here():
            self._abandoned = True
            if self.stalled:
                self._owner.fail()
            return False
        unseen = self._owner.unseen_bytes()
        if unseen:
            self.look_ahead(unseen)
        return not self.looks_ahead

    def _carry_out_held(self, held: HeldWrite) -> None:
        self.outstanding -= 1
        self._carry_out(held.cookie, held.change, fua=held.fua)
        self._give(held.length)
        self._settle_soon()

    def _failed(self, cookie: bytes, error: StorageError) -> None:
        """A write that the device did not take."""
        logger.warning("write_failed", extra={"error": str(error)})
        self.refuse(cookie, number_of(error), "the data could not be written")

    def _answer_when_durable(self, cookie: bytes, sequence: int) -> None:
        reply = self._replies.done(cookie)
        if self._device.want_durable(sequence):
            self._parts.append(reply)
        else:
            self.outstanding += 1
            self._unconfirmed.append((sequence, reply))

    def _became_durable(self, sequence: int) -> None:
        """Every write up to this one is durable."""
        waiting = self._unconfirmed
        while waiting and waiting[0][0] <= sequence:
            self._parts.append(waiting.popleft()[1])
            self._finished()

    def _finish(self, reply: bytes) -> None:
        """A reply that had to wait may go out."""
        if not self._closed:
            self._parts.append(reply)
            self._finished()

    def _finished(self) -> None:
        self.outstanding -= 1
        self._settle_soon()

    def _settle_soon(self) -> None:
        """Once in this turn of the loop: a commit may finish a thousand flushes."""
        if not self._settling and not self._closed:
            self._settling = True
            self._loop.call_soon(self._settle)

    def _settle(self) -> None:
        self._settling = False
        if self._closed:
            return
        try:
            self._go_on()
        except Exception:
            logger.exception("replies_crashed")
            self._owner.fail()

    def _go_on(self) -> None:
        self.send()
        if self.stalled:
            self.stalled = False
            self._owner.proceed()
        if self.ending and not self.outstanding:
            self._owner.idle()

    # Admission

    def _is_enough(self, effort: int) -> bool:
        """Whether a command that takes long must wait for the next turn of the loop."""
        if self._effort >= EFFORT_MAX:
            self._effort = 0
            return True
        self._effort += effort
        return False

    def _admit(self) -> bool:
        """Whether one more request may be under way."""
        if self.outstanding < self._limits.requests * (LOOK_AHEAD_FACTOR if self.looks_ahead else 1):
            return True
        self._stall()
        return False

    def _take(self, length: int) -> bool:
        """Count `length` bytes as held for this client, if it may have them."""
        if self._allowance.take(length):
            return True
        self._stall()
        return False

    def _stall(self) -> None:
        """A request is not taken now; if what is in its way will never go, nobody comes after it."""
        self.stalled = True
        if self._abandoned:
            self._loop.call_soon(self._owner.fail)

    def _release_payload(self) -> None:
        """The payload that was allocated last is done with."""
        self._give(self._arriving)
        self._arriving = 0

    def _give(self, length: int) -> None:
        self._allowance.give(length)
        if self.stalled and not self._closed:
            self._settle_soon()
