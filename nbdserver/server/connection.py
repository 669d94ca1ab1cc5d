"""The life of one client's connection, as phases: handshake, transmission, closing.

    made ──> HandshakePhase ──(agreement)──> TransmissionPhase
                   │  (STARTTLS: TLS takes the transport's place)  │
                   └──────────────> Closing <──────────────────────┘

Promises: a peer that breaks the protocol, stalls in the handshake or leaves harms only its own connection; nothing of a
connection outlives it. A `Connection` has what is true in every phase: who the client is, the stream to it; and it
hands on to the phase what the event loop says.
"""

import asyncio
import logging
import ssl
from collections.abc import Callable
from typing import Protocol, cast

from nbdserver.exports import Export, Exports
from nbdserver.protocol.agreement import Agreement
from nbdserver.protocol.handshake import Handshake
from nbdserver.protocol.option_answers import TlsMode
from nbdserver.protocol.wire import ProtocolError
from nbdserver.server.busy_poll import BusyPoll
from nbdserver.server.byte_stream import ByteStream
from nbdserver.server.client_identity import ClientIdentity
from nbdserver.server.handshake_phase import HandshakePhase
from nbdserver.server.limits import Budget, Limits
from nbdserver.server.operation_trace import Tracing
from nbdserver.server.peer import prepare
from nbdserver.server.peer_liveness import PeerLiveness
from nbdserver.server.phase import Closing, Phase
from nbdserver.server.transmission_phase import TransmissionPhase
from nbdserver.tls import Credentials
from nbdserver.traffic import Traffic

logger = logging.getLogger("nbdserver")


class ConnectionListener(Protocol):
    """The server, as its connections see it."""

    def opened(self, connection: "Connection") -> None:
        """A client connected."""

    def attached(self, connection: "Connection") -> None:
        """It entered the transmission phase."""

    def closed(self, connection: "Connection") -> None:
        """The client is gone, and nothing of its connection is left."""

    def refused(self, connection: "Connection", event: str, reason: str) -> None:
        """It did not get what it wanted; `event` is "client_refused", or "client_dropped" if that ended it."""


class Connection(asyncio.BufferedProtocol):
    """One client."""

    def __init__(
        self,
        owner: ConnectionListener,
        exports: Exports,
        limits: Limits,
        budget: Budget,
        busy_poll: BusyPoll,
        tracing: Tracing,
        *,
        number: int = 0,
        security: TlsMode = TlsMode.OFF,
        credentials: Credentials | None = None,
    ) -> None:
        """`number` is what the client is called by; `credentials` are those of a server that has TLS."""
        self.client = ClientIdentity(number)
        self.agreement: Agreement[Export] | None = None
        """When it was attached."""
        self.export: Export | None = None
        """While it is attached."""
        self.phase: Phase = Closing(Traffic())
        self._owner = owner
        self._exports = exports
        self._limits = limits
        self._budget = budget
        self._busy_poll = busy_poll
        self._tracing = tracing
        self._loop = asyncio.get_running_loop()
        self._security = security
        self._credentials = credentials
        self.stream: ByteStream
        self._liveness: PeerLiveness
        self.lingering: asyncio.TimerHandle | None = None
        """The end of what a connection that is ending may take, counted from when it first said so."""

    @property
    def traffic(self) -> Traffic:
        """What was counted of this client so far."""
        return self.phase.traffic

    @property
    def is_closing(self) -> bool:
        """Whether nothing that arrives is carried out any more."""
        return isinstance(self.phase, Closing)

    # What the event loop calls

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        # A transport of uvloop is none of asyncio's classes, but does what they promise.
        raw = cast(asyncio.Transport, transport)
        self.stream = ByteStream(raw)
        try:
            sock = transport.get_extra_info("socket")
            self.client.connected(prepare(sock))
            self._liveness = PeerLiveness(sock, self._limits.unseen_seconds, self._limits.vanished_seconds)
        except OSError:
            self.fail()
            return
        catalogue = self._exports.seen_by(self.client.identity, self.client.peer.place)
        handshake = Handshake(catalogue, security=self._security)
        phase = HandshakePhase(self, self.stream, handshake, self._limits, self._credentials)
        self.phase = phase
        self._owner.opened(self)
        logger.debug("client_connected", extra=self.client.fields())
        raw.set_write_buffer_limits(high=self._limits.reply_bytes)
        if not self.is_closing:
            phase.begin()

    def get_buffer(self, sizehint: int) -> memoryview:
        return self.phase.buffer()

    def buffer_updated(self, nbytes: int) -> None:
        self.stream.bytes_received += nbytes
        try:
            self.phase.received(nbytes)
        except Exception as error:
            self._went_wrong(error)

    def pause_writing(self) -> None:
        self.stream.pause_writing()
        self.phase.writing_paused()

    def resume_writing(self) -> None:
        self.stream.resume_writing()
        self.phase.writing_resumed()
        if not self.stream.reading:
            self._loop.call_soon(self.proceed)

    def eof_received(self) -> bool:
        """Without DISC the client has gone, whatever it still wanted; after it, its last replies may be on
        their way."""
        self.stream.end()
        if self.phase.owes_replies:
            self._linger()
            return True
        self.close()
        return False

    def connection_lost(self, exc: Exception | None) -> None:
        if exc is not None and self.export is not None and not (self.is_closing or self.phase.owes_replies):
            # The kernel ended it, or the client reset it. Who left in order is not told so, nor is who only looked.
            self.refused("client_dropped", f"the connection was lost: {exc}")
        self._enter_closing()
        if self.lingering is not None:
            self.lingering.cancel()
        self._owner.closed(self)

    # What the upgrade to TLS calls

    def secured(self, tls: ssl.SSLObject) -> None:
        """The handshake goes on under TLS."""
        self.guarded(self._begin_anew, tls)

    def not_secured(self, reason: str) -> None:
        """What came after STARTTLS was no TLS, or not such as the server takes."""
        self.refused("client_dropped", f"no TLS: {reason}")
        self.close()

    def _begin_anew(self, tls: ssl.SSLObject) -> None:
        self.client.secured(tls)
        if isinstance(self.phase, HandshakePhase):
            self.phase.secured(self._exports.seen_by(self.client.identity, self.client.peer.place))

    # What the phases and the server call

    def attach(self, agreement: Agreement[Export], rest: bytes) -> None:
        """Enter the transmission phase."""
        export = agreement.export
        tracer = self._tracing.of(self.client.number, self.client.peer.name, export.name)
        shared = self._limits, self._budget, self._busy_poll, tracer
        phase = TransmissionPhase(self, self.stream, self._liveness, agreement, *shared)
        self.phase.leave()
        self.phase, self.agreement, self.export = phase, agreement, export
        recorded = self._exports.attach(export, self.client.name, self.client.peer.place)
        fields = {**self.client.fields(), "export": export.name, "tls": self.client.tls_version}
        logger.info("client_attached", extra=fields)
        self._owner.attached(self)
        phase.begin(rest, recorded)

    def proceed(self) -> None:
        """What stopped the parsing may be over: go on, in whichever phase that is."""
        self.phase.proceed()

    def refused(self, event: str, reason: str) -> None:
        """The client did not get what it wanted; "client_dropped" if that ended it."""
        self._owner.refused(self, event, reason)

    def drop(self, why: str) -> None:
        """Say why, and drop the client at once."""
        self.refused("client_dropped", why)
        self.fail()

    def fail(self) -> None:
        """Drop the client at once, with all that was not carried out."""
        self._enter_closing()
        self.stream.transport.abort()

    def close(self) -> None:
        """End the connection when what is queued has been sent, or after a while without that.

        A client that is leaving is read to the end of its stream: TCP resets a connection that is closed with bytes
        unread, and then what was sent last is lost.
        """
        if self.is_closing:
            return
        leaving, stream = self.phase.is_last_word, self.stream
        self._enter_closing()
        if leaving and not stream.ended:
            stream.transport.write_eof()
            stream.read_on()
        else:
            stream.transport.close()
        self._linger()

    def drain(self) -> None:
        """The server is stopping: finish what is under way, take nothing more, then close."""
        if not self.phase.drain():
            self.close()

    def guarded(self, function: "Callable[..., None]", *arguments: object) -> None:
        """Run a step of the protocol; whatever goes wrong in it ends this connection and no other."""
        try:
            function(*arguments)
        except Exception as error:
            self._went_wrong(error)

    # Inside

    def _went_wrong(self, error: Exception) -> None:
        if isinstance(error, ProtocolError):
            self.refused("client_dropped", str(error))
            self.phase.send()
            self.close()
        else:
            logger.error(
                "client_dropped", extra={**self.client.fields(), "reason": "an unexpected error"}, exc_info=error
            )
            self.fail()

    def _linger(self) -> None:
        """Give the client Limits.linger_seconds, counted from the first call."""
        if self.lingering is None:
            self.lingering = self._loop.call_later(self._limits.linger_seconds, self.fail)

    def _enter_closing(self) -> None:
        """Forget what was under way; no request is carried out after this."""
        phase = self.phase
        self.phase = Closing(phase.traffic)
        phase.leave()
        if self.export is not None:
            self._exports.detach(self.export, self.client.name, self.phase.traffic, self.client.peer.place)
            logger.info("client_left", extra={**self.client.fields(), "export": self.export.name})
            self.export = None
