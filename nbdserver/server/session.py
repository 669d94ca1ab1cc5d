"""The requests of one attached client, carried out on its device.

A `Session` is the handler of a `Transmission`. What memory can answer is answered in the very call; replies gather in
the `outbox`, which hands them to the transport in one go. Only a READ that memory cannot answer becomes a task
(`read_tasks`). When the session closes, nothing it took in but did not apply is applied later.

A request passes through parts that own what they decide by: `admission` (may one more be under way, with its bytes, in
this turn of the loop), `read_tasks`, `held_writes` (what waits for the gate), `durability_waiters` (FLUSH and FUA) and
`outbox` (what is ready). FLUSH asks for the newest write of the device, so it covers the completed writes of every
connection.

Back-pressure. While the gate is closed, writes are held, in order, and the socket is still read: only so does the end
of a stream, which lies behind the bytes of unread requests, become known, and with it that the held ones are stale (see
`transmission_phase`). When too many requests are under way, or too many bytes, a request is not taken, and the owner is
asked to proceed when that changed. If the end could be out of sight by then, the session looks ahead: writes are held,
and more than usual is taken of what follows, until the client is known to be there. A gate with a delay holds replies.
"""

import asyncio
import logging
from collections.abc import Collection, Iterator
from functools import partial
from itertools import chain, islice
from typing import Protocol

import numpy

from nbdserver.block_device import BlockDevice
from nbdserver.protocol import wire
from nbdserver.protocol.replies import ChunkedReplies, Replies
from nbdserver.protocol.transmission import Payload
from nbdserver.server.admission import Admission
from nbdserver.server.block_status import BlockStatus
from nbdserver.server.durability_waiters import DurabilityWaiters
from nbdserver.server.held_writes import HeldWrite, HeldWrites
from nbdserver.server.limits import Budget, Limits
from nbdserver.server.nbd_errors import nbd_error
from nbdserver.server.operation_trace import UNDER_WAY_MAX, OperationTrace, Tracer, TraceSpan
from nbdserver.server.outbox import Outbox, ReplyTransport
from nbdserver.server.read_tasks import ReadTasks
from storage.errors import StorageError

logger = logging.getLogger("nbdserver")


class SessionOwner(Protocol):
    """The connection a session belongs to."""

    @property
    def write_paused(self) -> bool:
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
        tracer: Tracer,
        status: BlockStatus,
    ) -> None:
        self.ending = False
        """No further request will come; the owner is told when none is outstanding."""
        self.disconnected = False
        """The client said DISC: what it sent before counts, though it may have left."""
        self.admission = Admission(limits, budget, changed=lambda: self.outbox.send_soon(), fail=owner.fail)
        self.outbox = Outbox(
            transport,
            device.journal,
            self.admission.give,
            tracer.sent,
            is_paused=lambda: owner.write_paused,
            sent_all=self._go_on,
            fail=owner.fail,
        )
        self._parts = self.outbox.parts
        """The same list for the life of both."""
        self._device, self._gate = device, device.gate
        self._owner, self._replies, self._status, self._reply_bytes = owner, replies, status, limits.reply_bytes
        self._tracer = tracer
        self._read_tasks = ReadTasks(device, replies, self.admission, self.outbox, tracer, fail=owner.fail)
        self._loop = asyncio.get_running_loop()
        self._limiter = device.gate.rate_limiter(self._loop.time)
        self._held = HeldWrites(device.gate, may_go=self._may_go, carry_out=self._carry_out_held, fail=owner.fail)
        self._durability = DurabilityWaiters(
            device, self._finish, begin=self.admission.begin, waited=tracer.waits.flush
        )
        self._closed = False

    # The handler's methods, which protocol.transmission.Handler describes

    def read(self, cookie: bytes, offset: int, length: int, *, dont_fragment: bool = False) -> bool:
        outbox = self.outbox
        queued = outbox.queued + length
        if queued > self._reply_bytes:
            return self._read_long(cookie, offset, length, dont_fragment=dont_fragment)
        pieces = self._device.read_cached(offset, length)
        if pieces is None:
            return self._read_tasks.take(cookie, offset, length, dont_fragment=dont_fragment)
        outbox.queued = queued  # as `holds` does, without a call: reads from memory are the fast path
        self._replies.data(outbox.parts, cookie, offset, length, pieces, dont_fragment=dont_fragment)
        return True

    def write(self, cookie: bytes, offset: int, data: Payload, *, fua: bool = False) -> bool:
        gate = self._gate
        if fua or gate.closed or gate.slows or self._held.active:
            trace = self._tracer.begin(cookie, wire.CMD_WRITE, offset, len(data), TraceSpan.GATE)
            return self._change(HeldWrite(cookie, partial(self._device.write, offset, data), len(data), fua, trace))
        try:
            self._device.write(offset, data)
        except StorageError as error:
            self._failed(cookie, error)
        else:
            self._parts.append(self._replies.done(cookie))
        if self.admission.arriving:
            self.admission.release_payload()
        return True

    def zero(self, cookie: bytes, offset: int, length: int, *, command: int, allocated: bool, fua: bool) -> bool:
        if self.admission.is_enough(1):
            return False
        change = partial(self._device.zero, offset, length, allocated=allocated)
        trace = self._tracer.begin(cookie, command, offset, length, TraceSpan.GATE)
        return self._change(HeldWrite(cookie, change, 0, fua, trace))

    def flush(self, cookie: bytes) -> bool:
        trace = self._tracer.begin(cookie, wire.CMD_FLUSH, 0, 0, TraceSpan.LOG)
        if not self.admission.has_place():
            return self._tracer.refused(cookie, trace)
        self._answer_when_durable(cookie, self._device.last_sequence, trace)
        return True

    def cache(self, cookie: bytes, offset: int, length: int) -> bool:
        if self.admission.is_enough(1):
            return False
        self._device.prefetch(offset, length)
        self._parts.append(self._replies.done(cookie))
        return True

    def block_status(self, cookie: bytes, offset: int, length: int, *, one: bool, only: Collection[int] | None) -> bool:
        if not isinstance(self._replies, ChunkedReplies):  # no context can be agreed on without them
            return self.refuse(cookie, wire.EINVAL, "block status needs structured replies")
        if self.outbox.queued > self._reply_bytes or self.admission.is_enough(self._status.effort(length, only)):
            return False
        reply = self._status.answer(self._replies, cookie, offset, length, one=one, only=only)
        self.outbox.holds(len(reply))
        self._parts.append(reply)
        return True

    def nothing(self, cookie: bytes, *, read: bool) -> bool:
        if read:
            self._replies.data(self.outbox.parts, cookie, 0, 0, ())
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
        if not self.admission.take_payload(length):
            return None
        # Not zeroed, since all of it is overwritten: for 256 KiB that would cost as much as receiving them.
        return numpy.empty(length, numpy.uint8).data

    # For the connection

    def look_ahead(self, unseen: int) -> None:
        """The client could have left unseen: take `unseen` bytes more than usual, and hold writes until `seen`."""
        if not self.admission.looks_ahead:
            self._held.hold()
            self.admission.look_ahead(unseen)

    def seen(self) -> None:
        """The client is there, or has said goodbye behind all that it sent."""
        self.admission.look_no_more()
        self._held.wait()

    def close(self) -> None:
        """The connection is gone: end everything that was under way for it."""
        self._closed = True
        self._tracer.dropped(self.traces())
        self._read_tasks.close()
        self.outbox.close()
        self._held.close()
        self._durability.close()
        self.admission.close()

    def traces(self) -> Iterator[OperationTrace]:
        """The oldest of each kind that is under way."""
        kinds = self._held, self._durability, self._read_tasks, self.outbox
        return chain.from_iterable(islice(kind.traces(), UNDER_WAY_MAX) for kind in kinds)

    # READs that take long

    def _read_long(self, cookie: bytes, offset: int, length: int, *, dont_fragment: bool) -> bool:
        """A READ with which more than Limits.reply_bytes would be queued: alone and counted, or after a send."""
        if self.outbox.queued or self._owner.write_paused:
            return False
        pieces = self._device.read_cached(offset, length)
        if pieces is None:
            return self._read_tasks.take(cookie, offset, length, dont_fragment=dont_fragment)
        if not self.admission.take(length):
            return False
        self.outbox.leaves(length)
        self.outbox.holds(length)
        self._replies.data(self.outbox.parts, cookie, offset, length, pieces, dont_fragment=dont_fragment)
        return True

    # Writes that are held, or answered later

    def _change(self, write: HeldWrite) -> bool:
        """A write, whatever the gate says."""
        if not self.admission.has_place():
            return self._tracer.refused(write.cookie, write.trace)
        if not self._gate.closed and not self._held.active:
            self._carry_out(write)
            self.admission.release_payload()
            return True
        if not self.admission.keep_payload(write.length):
            return self._tracer.refused(write.cookie, write.trace)
        self.admission.begin()
        self._held.add(write)
        return True

    def _carry_out(self, write: HeldWrite) -> None:
        try:
            sequence = write.change()
        except StorageError as error:
            self._failed(write.cookie, error)
            write.trace.failed = True
            self.outbox.leaves(0, write.trace)
            return
        if write.fua:
            self._answer_when_durable(write.cookie, sequence, write.trace)
        elif self._gate.slows:
            self.admission.begin()
            delay = self._limiter.delay(write.length)
            self._loop.call_later(delay, self._finish, self._replies.done(write.cookie), write.trace)
        else:
            self._parts.append(self._replies.done(write.cookie))
            self.outbox.leaves(0, write.trace)

    def _may_go(self) -> bool:
        """Whether a held write may be applied: not if its client has left without saying DISC, or may have.

        Then a DISC may still be unread. If that cannot be read, because what is held leaves no room, none will come.
        """
        if self.disconnected:
            return True
        if not self._owner.peer_is_here():
            self.admission.abandon()
            return False
        unseen = self._owner.unseen_bytes()
        if unseen:
            self.look_ahead(unseen)
        return not self.admission.looks_ahead

    def _carry_out_held(self, held: HeldWrite) -> None:
        self.admission.end()
        self._carry_out(held)
        self.admission.give(held.length)

    def _failed(self, cookie: bytes, error: StorageError) -> None:
        """A write that the device did not take."""
        logger.warning("write_failed", extra={"error": str(error)})
        self.refuse(cookie, nbd_error(error), "the data could not be written")

    def _answer_when_durable(self, cookie: bytes, sequence: int, trace: OperationTrace) -> None:
        reply = self._replies.done(cookie)
        if self._durability.is_durable(sequence, reply, trace):
            self._parts.append(reply)
            self.outbox.leaves(0, trace)

    def _finish(self, reply: bytes, trace: OperationTrace) -> None:
        """A reply that had to wait may go out."""
        if not self._closed:
            self._parts.append(reply)
            self.outbox.leaves(0, trace)
            self.admission.end()

    def _go_on(self) -> None:
        """All that was ready has been sent."""
        if self.admission.stalls_no_more():
            self._owner.proceed()
        if self.ending and not self.admission.outstanding:
            self._owner.idle()
