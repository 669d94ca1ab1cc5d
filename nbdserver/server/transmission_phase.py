"""The transmission phase of one connection: what arrives is carried out by a `Session`, in passes.

Promises: a peer that stalls or leaves harms only its own connection; what it sent but was not applied when it left is
dropped; nothing of it outlives the phase.

How it works. `Transmission` owns the receive buffer, and a `Session` carries out what it finds there: one pass over
what arrived, one `writelines`. When a request was not taken, or too many replies are unsent, reading stops until
`proceed` is called.

Stale copies. Linux sends a request again on another socket when one stalls. An old copy that is applied late would undo
a newer write that was acknowledged. So before bytes are carried out after a pause, or after a second of silence, the
kernel is asked whether the peer is still there (`peer_liveness`), and again in every pass until no request is half
received. If it has left, a `StaleRequests` takes the requests. And if the end of its stream could be out of sight,
because its requests were not taken for long, no write of it is carried out until enough was read to know.

A stop. What is under way is finished and answered; what arrives then is dropped, unanswered. The
specification allows ESHUTDOWN for it (proto.md, "Terminating the transmission phase"), but Linux and QEMU hand every
error to who uses the disk, where a request without an answer is one that they send again, to the next server.
"""

import asyncio

from nbdserver.exports import Export
from nbdserver.protocol.agreement import Agreement
from nbdserver.protocol.dialects import replies_in, transmission_in
from nbdserver.server.block_status import BlockStatus
from nbdserver.server.busy_poll import BusyPoll
from nbdserver.server.byte_stream import ByteStream
from nbdserver.server.limits import Budget, Limits
from nbdserver.server.operation_trace import Tracer
from nbdserver.server.peer_liveness import PeerLiveness
from nbdserver.server.phase import Phase, PhaseOwner, shared_buffer
from nbdserver.server.read_only import ReadOnlySession
from nbdserver.server.session import Session
from nbdserver.server.stale_requests import StaleRequests
from nbdserver.server.throughput import Progress
from nbdserver.traffic import Traffic


class TransmissionPhase(Phase):
    """From the agreement on an export to the end; what the session takes for its connection."""

    def __init__(
        self,
        owner: PhaseOwner,
        stream: ByteStream,
        liveness: PeerLiveness,
        agreement: Agreement[Export],
        limits: Limits,
        budget: Budget,
        busy_poll: BusyPoll,
        tracer: Tracer,
    ) -> None:
        export = agreement.export
        kind = ReadOnlySession if export.read_only else Session
        replies = replies_in(agreement.dialect)
        status = BlockStatus(export.maps(agreement.contexts))
        self.session = kind(self, stream.transport, export.device, replies, limits, budget, tracer, status)
        self.slow_operations = lambda: tracer.under_way(self.session.traces(), "under way")
        self._admission = self.session.admission
        self._outbox = self.session.outbox
        self._transmission = transmission_in(agreement, self.session)
        self.buffer = self._transmission.buffer
        self._owner = owner
        self._stream = stream
        self.liveness = liveness
        self._limits = limits
        self._busy_poll = busy_poll
        self._loop = asyncio.get_running_loop()
        self._unrecorded = False
        """The record of who has the export is being written."""
        self._watch: asyncio.TimerHandle | None = None
        """While something of it is under way that others may wait for, or that could hide that it left."""
        gap_seconds = 2 * limits.look_seconds
        self._replies_progress = Progress(limits.stuck_seconds, gap_seconds)
        self._payload_progress = Progress(limits.stuck_seconds, gap_seconds)
        self.heard = self._loop.time()
        """When bytes came last."""
        self.straddled = False
        """Since a silence, there was no moment without a request half received: the peer is asked for in every pass."""
        self._draining = False
        """What is under way is the last that is carried out."""

    def begin(self, rest: bytes, recorded: asyncio.Future[None] | None) -> None:
        """`rest` came behind the handshake. No request is carried out before `recorded` is done: this
        host remembers who has the export.
        """
        if recorded is None:
            self._begin(rest)
            return
        # A crash before the record is there: this client was answered nothing.
        self._unrecorded = True
        self._stream.stop_reading()
        recorded.add_done_callback(lambda _: self._owner.guarded(self._recorded, rest))

    def _recorded(self, rest: bytes) -> None:
        if self._unrecorded:  # and the phase is not over
            self._unrecorded = False
            self._begin(rest)

    def _begin(self, rest: bytes) -> None:
        if self._stream.write_paused or self.liveness.may_vanish:  # of the handshake's replies some may be on their way
            self._watch_on()
        if rest:
            self.buffer()[: len(rest)] = rest
            self._pass(len(rest))
        elif not self._stream.write_paused:
            self._stream.read_on()

    # What the connection calls

    def received(self, count: int) -> None:
        now = self._loop.time()
        silence = now - self.heard
        self.heard = now
        if silence > self._limits.silence_seconds or self.straddled:
            self.straddled = True
            self._ask_for_peer()
        elif silence < self._busy_poll.seconds:
            self._busy_poll.stay()
        self._pass(count)

    def writing_paused(self) -> None:
        self._watch_on()

    def writing_resumed(self) -> None:
        self._outbox.sent()

    def send(self) -> None:
        self._outbox.send()

    def drain(self) -> bool:
        if not self._admission.outstanding:
            return False
        self._draining = True
        self.buffer = lambda: shared_buffer  # what comes is dropped, so that the end behind it is seen
        self._stream.read_on()
        self.session.ending = True
        return True

    @property
    def owes_replies(self) -> bool:
        return self.session.disconnected and bool(self._admission.outstanding)

    @property
    def is_last_word(self) -> bool:
        return self.session.ending

    @property
    def traffic(self) -> Traffic:
        return Traffic(self._transmission.by_command, self._stream.bytes_received, self._outbox.bytes_sent)

    def leave(self) -> None:
        """Forget what was under way; no request is carried out after this."""
        self._unrecorded = False
        if self._watch is not None:
            self._watch.cancel()
        self.session.close()

    # What the session calls

    @property
    def write_paused(self) -> bool:
        return self._stream.write_paused

    def proceed(self) -> None:
        if self._stream.write_paused or self._draining or self._unrecorded:
            return
        unseen = self.unseen_bytes()
        if unseen and not self.session.disconnected:
            self.session.look_ahead(unseen)
        self._ask_for_peer()
        self._owner.guarded(self._pass, 0)

    def idle(self) -> None:
        """The last request is answered and no other will come, unless one is left of a client that has left."""
        session, stale = self.session, self._transmission.handler
        left = session.disconnected and isinstance(stale, StaleRequests) and not stale.carry_on()
        self._outbox.send()
        if left:
            self._stream.stop_reading()
            if not self._stream.write_paused and not self._admission.stalled:
                self._loop.call_soon(self._owner.proceed)
        elif not self._admission.outstanding:
            self._owner.close()

    def peer_is_here(self) -> bool:
        """Whether the peer has not left, as far as the kernel knows."""
        return not self.liveness.gone()

    def unseen_bytes(self) -> int:
        """How many bytes the end of the client's stream could lie behind, unseen for so long that the client may have
        given up; 0: it would be seen."""
        liveness = self.liveness
        return liveness.look_ahead(self._stream.bytes_received) if liveness.unseen(self._loop.time()) else 0

    def fail(self) -> None:
        """Something happened that nobody foresaw: drop the client."""
        self._owner.fail()

    # Passes over what arrived

    def _pass(self, count: int) -> None:
        """So many bytes came; also none, if others wait."""
        if self._draining:
            return
        transmission = self._transmission
        need_data = transmission.received(count)
        if self.straddled and transmission.between_requests:
            self.straddled = False
        self._pass_done(need_data=need_data)

    def _pass_done(self, *, need_data: bool) -> None:
        """Send what a pass over the received bytes produced, and decide what comes next."""
        admission, stream = self._admission, self._stream
        self._outbox.send()
        if admission.stalled:
            self.liveness.unread(self._loop.time())
        if admission.stalled or admission.arriving or self.liveness.may_vanish:
            self._watch_on()
        if self.session.ending and not admission.outstanding:
            self.idle()
        elif stream.write_paused or not need_data:
            stream.stop_reading()
            if not stream.write_paused and not admission.stalled:
                # The pass ended because it had made enough replies for one turn of the loop.
                self._loop.call_soon(self._owner.proceed)
        elif not stream.reading:
            stream.read_on()

    def _ask_for_peer(self) -> None:
        """If the peer has left, what it left behind counts only with a DISC behind it."""
        transmission = self._transmission
        if self.session.disconnected or isinstance(transmission.handler, StaleRequests):
            return
        if not self.peer_is_here():
            transmission.handler = StaleRequests(self.session, self._limits)

    # Looking after it, once a second while there is a reason

    def _watch_on(self) -> None:
        if self._watch is None:
            seconds = min(self._limits.look_seconds, self._limits.stuck_seconds)
            self._watch = self._loop.call_later(seconds, self._owner.guarded, self._look)

    def _look(self) -> None:
        self._watch = None
        admission, liveness, stream, now = self._admission, self.liveness, self._stream, self._loop.time()
        for progress, moved, moves, what in (
            (self._replies_progress, self._outbox.bytes_taken, stream.write_paused, "read its replies"),
            (self._payload_progress, stream.bytes_received, admission.arriving and stream.reading, "send its data"),
        ):
            if not moves or not admission.takes_from_others:
                progress.begin_anew()
            elif progress.is_stuck(now, moved):
                self._owner.drop(f"it does not {what}, and others wait for the memory that takes")
                return
        if liveness.vanished(now):
            self._owner.drop(f"its machine has answered nothing for {self._limits.vanished_seconds:.0f} s")
            return
        liveness.look(now, stream.bytes_received, reading=stream.reading)
        if admission.looks_ahead and not liveness.unseen(now):
            self.session.seen()
        owed = liveness.may_vanish and (admission.outstanding or liveness.owes_answers())
        if stream.write_paused or admission.arriving or owed or liveness.unread_since is not None:
            self._watch_on()
