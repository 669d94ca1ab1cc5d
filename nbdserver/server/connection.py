"""This file knows the life of one client's connection: bytes of a transport in, to the protocol, and replies
out.

Promises: a peer that breaks the protocol, stalls in the handshake or leaves harms only its own connection;
what it sent but was not applied when it left is dropped; nothing of a connection outlives it.

How it works. In the handshake, bytes go through a buffer that all connections share, since they are taken out
of it in the same turn of the loop. In the transmission phase `Transmission` owns the receive buffer, and a
`Session` carries out what it finds there: one pass over what arrived, one `writelines`. When a request was
not taken, or too many replies are unsent, reading stops until `proceed` is called. After STARTTLS a `TlsTransport`
takes the place of the transport; everything else stays as it is.

Stale copies. Linux sends a request again on another socket when one stalls. An old copy that is applied late
would undo a newer write that was acknowledged. So before bytes are carried out after a pause, or after a
second of silence, the kernel is asked whether the peer is still there (`peer_liveness`), and again in every pass until
no request is half received. If it has left, a `StaleRequests` takes the requests. And if the end of its stream could be
out of sight, because its requests were not taken for long, no write of it is carried out until enough was read to
know.
"""

import asyncio
import logging
import ssl
from collections.abc import Callable
from typing import Protocol, cast

from nbdserver.access import Identity
from nbdserver.exports import Export, Exports
from nbdserver.protocol import wire
from nbdserver.protocol.agreement import Agreement
from nbdserver.protocol.dialects import replies_in, transmission_in
from nbdserver.protocol.handshake import Handshake, TlsMode
from nbdserver.protocol.states import HandshakeState
from nbdserver.protocol.transmission import Transmission
from nbdserver.protocol.wire import ProtocolError
from nbdserver.server.busy_poll import BusyPoll
from nbdserver.server.limits import Budget, Limits
from nbdserver.server.peer import NOBODY, prepare
from nbdserver.server.peer_liveness import LOOK_SECONDS, PeerLiveness
from nbdserver.server.progress import Progress
from nbdserver.server.read_only import ReadOnlySession
from nbdserver.server.session import Session
from nbdserver.server.stale_requests import StaleRequests
from nbdserver.server.tls_transport import TlsTransport
from nbdserver.tls import Credentials, names_in_certificate

logger = logging.getLogger("nbdserver")

SILENCE_SECONDS = 1.0
"""After this long without a byte, what comes may be old: the peer is asked for first."""

BUSY_SECONDS = 0.001
"""A client whose bytes follow each other faster than this is worth staying awake for."""

LINGER_SECONDS = 10.0
"""How long a connection that is ending may keep its socket for replies that are unsent or not ready."""

_shared_buffer = memoryview(bytearray(64 << 10))
"""Where the bytes of all handshakes arrive."""


class ConnectionListener(Protocol):
    """The server, as its connections see it."""

    def opened(self, connection: "Connection") -> None:
        """A client connected."""

    def attached(self, connection: "Connection") -> None:
        """It entered the transmission phase."""

    def closed(self, connection: "Connection") -> None:
        """It is gone."""

    def refused(self, connection: "Connection", event: str, reason: str) -> None:
        """It did not get what it wanted; `event` is "client_refused", or "client_dropped" if that ended it."""


class Connection(asyncio.BufferedProtocol):
    """One client. States: in the handshake (`_transmission` is None), attached, closing."""

    def __init__(
        self,
        owner: ConnectionListener,
        exports: Exports,
        limits: Limits,
        budget: Budget,
        busy_poll: BusyPoll,
        *,
        number: int = 0,
        security: TlsMode = TlsMode.OFF,
        credentials: Credentials | None = None,
    ) -> None:
        """`number` is what the client is called by; `credentials` are those of a server that has TLS."""
        self.write_paused = False
        self.number = number
        self.peer = NOBODY
        self.identity = Identity()
        self.tls_version: str | None = None
        self.agreement: Agreement[Export] | None = None
        """When it is attached."""
        self.export: Export | None = None
        self.bytes_received = 0
        self._owner = owner
        self._exports = exports
        self._limits = limits
        self._budget = budget
        self._busy_poll = busy_poll
        self._loop = asyncio.get_running_loop()
        self._transport: asyncio.Transport | TlsTransport
        self._security = security
        self._credentials = credentials
        self._handshake: Handshake[Export]
        self._transmission: Transmission | None = None
        self._session: Session
        self._timer: asyncio.TimerHandle | None = None
        """Until the handshake is over its deadline, then, when closing, the end of lingering."""
        self._watch: asyncio.TimerHandle | None = None
        """While something of it is under way that others may wait for, or that could hide that it left."""
        self._replies_progress = Progress(limits.stuck_seconds)
        self._payload_progress = Progress(limits.stuck_seconds)
        self._closing = False
        self._paused = False
        self._lingers = False
        self._ended = False
        """The client has ended its stream."""
        self._heard = 0.0
        self._straddled = False
        """Since a silence, there was no moment without a request half received: the peer is asked for in every pass."""
        self._liveness: PeerLiveness

    @property
    def name(self) -> str:
        """What the client is called, in sentences for people."""
        certified = f", {self.identity.names[0]}" if self.identity.names else ""
        return f"client {self.number} ({self.peer.name}{certified})"

    @property
    def counters(self) -> tuple[int, int, int]:
        """Requests of this client, bytes from it, and bytes of data to it, so far."""
        if self._transmission is None:
            return 0, self.bytes_received, 0
        return self._transmission.requests, self.bytes_received, self._session.bytes_sent

    # What the event loop calls

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        # A transport of uvloop is none of asyncio's classes, but does what they promise.
        raw = self._transport = cast(asyncio.Transport, transport)
        try:
            sock = transport.get_extra_info("socket")
            self.peer = prepare(sock)
            self._liveness = PeerLiveness(sock)
        except OSError:
            self.fail()
            return
        self.identity = Identity(self.peer.uid)
        self._handshake = Handshake(self._exports.seen_by(self.identity), security=self._security)
        self._owner.opened(self)
        logger.debug("client_connected", extra=self._who())
        raw.set_write_buffer_limits(high=self._limits.reply_bytes)
        self._timer = self._loop.call_later(self._limits.handshake_seconds, self._drop, "its handshake takes too long")
        if not self._closing:
            self._transport.writelines(self._handshake.take_output())

    def get_buffer(self, sizehint: int) -> memoryview:
        return _shared_buffer if self._transmission is None or self._closing else self._transmission.buffer()

    def buffer_updated(self, nbytes: int) -> None:
        if self._closing:
            return
        self.bytes_received += nbytes
        if self._transmission is None:
            self._guarded(self._haggle, _shared_buffer[:nbytes])
            return
        now = self._loop.time()
        silence = now - self._heard
        self._heard = now
        if silence > SILENCE_SECONDS or self._straddled:
            self._straddled = True
            self._ask_for_peer()
        elif silence < BUSY_SECONDS:
            self._busy_poll.stay()
        self._guarded(self._received, nbytes)

    def pause_writing(self) -> None:
        self.write_paused = True
        self._watch_on()

    def resume_writing(self) -> None:
        self.write_paused = False
        if self._transmission is not None:
            self._session.sent()
        if self._paused:
            self._loop.call_soon(self.proceed)

    def eof_received(self) -> bool:
        """Without DISC the client has gone, whatever it still wanted; after it, its last replies may be on
        their way."""
        self._ended = True
        if self.export is not None and self._session.disconnected and self._session.outstanding:
            self._linger()
            return True
        self.close()
        return False

    def connection_lost(self, exc: Exception | None) -> None:
        self._closing = True
        for timer in (self._timer, self._watch):
            if timer is not None:
                timer.cancel()
        self._end_session()
        self._owner.closed(self)

    # What the upgrade to TLS calls

    def secured(self, tls: ssl.SSLObject) -> None:
        """The handshake goes on under TLS, and as if nothing had been said before."""
        self._guarded(self._begin_anew, tls)

    def _begin_anew(self, tls: ssl.SSLObject) -> None:
        self.tls_version = tls.version()
        self.identity = Identity(self.peer.uid, names_in_certificate(tls))
        self._handshake.secured(self._exports.seen_by(self.identity))

    def not_secured(self, reason: str) -> None:
        """What came after STARTTLS was no TLS, or not such as the server takes."""
        self._owner.refused(self, "client_dropped", f"no TLS: {reason}")
        self.close()

    # What the session and the server call

    def proceed(self) -> None:
        """What stopped the parsing may be over: go on, unless the peer left meanwhile."""
        if self._closing or self.write_paused:
            return
        if self._transmission is None:
            self._guarded(self._haggle, b"")
            return
        unseen = self.unseen_bytes()
        if unseen and not self._session.disconnected:
            self._session.look_ahead(unseen)
        self._ask_for_peer()
        self._guarded(self._received, 0)

    def idle(self) -> None:
        """The last request is answered and no other will come, unless one is left of a client that has left."""
        session, transmission = self._session, self._transmission
        assert transmission is not None
        stale = transmission.handler
        left = session.disconnected and isinstance(stale, StaleRequests) and not stale.carry_on()
        session.send()
        if left:
            self._stop_reading()
            if not self.write_paused and not session.stalled:
                self._loop.call_soon(self.proceed)
        elif not session.outstanding:
            self.close()

    def peer_is_here(self) -> bool:
        """Whether the peer has not left, as far as the kernel knows."""
        return not self._liveness.gone()

    def unseen_bytes(self) -> int:
        """How many bytes the end of the client's stream could lie behind, unseen for so long that the client may have
        given up; 0: it would be seen."""
        liveness = self._liveness
        return liveness.look_ahead(self.bytes_received) if liveness.unseen(self._loop.time()) else 0

    def fail(self) -> None:
        """Drop the client at once, with all that was not carried out."""
        self._closing = True
        self._end_session()
        self._transport.abort()

    def close(self) -> None:
        """End the connection when what is queued has been sent, or after a while without that.

        A client that is leaving is read to the end of its stream: TCP resets a connection that is closed with bytes
        unread, and then what was sent last is lost.
        """
        if not self._closing:
            self._closing = True
            leaving = self.export is not None and self._session.ending
            self._end_session()
            if leaving and not self._ended:
                self._transport.write_eof()
                self._read_on()
            else:
                self._transport.close()
            self._linger()

    def _drop(self, why: str) -> None:
        self._owner.refused(self, "client_dropped", why)
        self.fail()

    def drain(self) -> None:
        """The server is stopping: finish what is under way, refuse what comes, then close."""
        if self._closing:
            return
        if self._transmission is None or not self._session.outstanding:
            self.close()
            return
        self._transmission.refuse_all(wire.ESHUTDOWN, "the server is shutting down")
        self._session.ending = True

    # Inside

    def _who(self) -> dict[str, object]:
        """The fields of the log that say whose event it is."""
        return {"client": self.number, "peer": self.peer.name}

    def _guarded(self, function: "Callable[..., None]", *arguments: object) -> None:
        """Run a step of the protocol; whatever goes wrong in it ends this connection and no other."""
        try:
            function(*arguments)
        except ProtocolError as error:
            self._owner.refused(self, "client_dropped", str(error))
            if self._transmission is not None:
                self._session.send()
            self.close()
        except Exception:
            logger.exception("client_dropped", extra={**self._who(), "reason": "an unexpected error"})
            self.fail()

    def _haggle(self, data: bytes | memoryview) -> None:
        """Give bytes to the handshake, send its answers."""
        handshake = self._handshake
        try:
            need_data = handshake.received(data)
        finally:
            for reason in handshake.refusals:
                self._owner.refused(self, "client_refused", reason)
            handshake.refusals.clear()
            output = handshake.take_output()
            if output:
                self._transport.write(b"".join(output))
        if handshake.state is HandshakeState.CLOSED:
            self.close()
        elif handshake.agreement is not None:
            self._attach(handshake.agreement)
        else:
            if handshake.state is HandshakeState.UPGRADING:
                self._upgrade()
            if need_data and not self.write_paused:
                self._read_on()
            else:
                self._stop_reading()
                if not self.write_paused:
                    self._loop.call_soon(self.proceed)

    def _upgrade(self) -> None:
        """STARTTLS was acknowledged, in clear: whatever comes or goes from here on is TLS."""
        if not isinstance(self._transport, TlsTransport):
            assert self._credentials is not None, "only a server with certificates acknowledges STARTTLS"
            self._transport = TlsTransport(
                self._transport, self, self._credentials.make_context(), write_paused=self.write_paused
            )

    def _attach(self, agreement: Agreement[Export]) -> None:
        """Enter the transmission phase."""
        self.agreement, export = agreement, agreement.export
        self.export = export
        self._exports.attach(export, self.name)
        if self._timer is not None:
            self._timer.cancel()
        replies = replies_in(agreement.dialect)
        kind = ReadOnlySession if export.read_only else Session
        self._session = kind(self, self._transport, export.device, replies, self._limits, self._budget)
        self._transmission = transmission_in(agreement, self._session)
        self._heard = self._loop.time()
        logger.info("client_attached", extra={**self._who(), "export": export.name, "tls": self.tls_version})
        self._owner.attached(self)
        rest = self._handshake.take_rest()
        if rest:
            self._transmission.buffer()[: len(rest)] = rest
            self._received(len(rest))
        elif not self.write_paused:
            self._read_on()

    def _received(self, count: int) -> None:
        """So many bytes came; also none, if others wait."""
        assert self._transmission is not None
        need_data = self._transmission.received(count)
        if self._straddled and self._transmission.between_requests:
            self._straddled = False
        self._pass_done(need_data=need_data)

    def _pass_done(self, *, need_data: bool) -> None:
        """Send what a pass over the received bytes produced, and decide what comes next."""
        session = self._session
        session.send()
        if session.stalled:
            self._liveness.unread(self._loop.time())
        if session.stalled or session.arriving:
            self._watch_on()
        if session.ending and not session.outstanding:
            self.idle()
        elif self.write_paused or not need_data:
            self._stop_reading()
            if not self.write_paused and not session.stalled:
                # The pass ended because it had made enough replies for one turn of the loop.
                self._loop.call_soon(self.proceed)
        elif self._paused:
            self._read_on()

    # Looking after it, once a second while there is a reason

    def _watch_on(self) -> None:
        if self._watch is None:
            seconds = min(LOOK_SECONDS, self._limits.stuck_seconds)
            self._watch = self._loop.call_later(seconds, self._guarded, self._look)

    def _look(self) -> None:
        self._watch = None
        if self.export is None:
            return
        session, liveness, now = self._session, self._liveness, self._loop.time()
        for progress, moved, moves, what in (
            (self._replies_progress, session.bytes_taken, self.write_paused, "read its replies"),
            (self._payload_progress, self.bytes_received, session.arriving and not self._paused, "send its data"),
        ):
            if not moves or not session.takes_from_others:
                progress.begin_anew()
            elif progress.is_stuck(now, moved):
                self._drop(f"it does not {what}, and others wait for the memory that takes")
                return
        liveness.look(now, self.bytes_received, reading=not self._paused)
        if session.looks_ahead and not liveness.unseen(now):
            session.seen()
        if self.write_paused or session.arriving or liveness.unread_since is not None:
            self._watch_on()

    def _stop_reading(self) -> None:
        if not self._paused:
            self._paused = True
            self._transport.pause_reading()

    def _read_on(self) -> None:
        if self._paused:
            self._paused = False
            self._transport.resume_reading()

    def _ask_for_peer(self) -> None:
        """If the peer has left, what it left behind counts only with a DISC behind it."""
        transmission = self._transmission
        assert transmission is not None
        if self._session.disconnected or isinstance(transmission.handler, StaleRequests):
            return
        if not self.peer_is_here():
            transmission.handler = StaleRequests(self._session, self._limits)

    def _linger(self) -> None:
        """Give the client LINGER_SECONDS, counted from the first call."""
        if self._lingers:
            return
        self._lingers = True
        if self._timer is not None:
            self._timer.cancel()
        self._timer = self._loop.call_later(LINGER_SECONDS, self.fail)

    def _end_session(self) -> None:
        """Forget what was under way; no request is carried out after this."""
        if self.export is not None:
            self._session.close()
            self._exports.detach(self.export, self.name)
            logger.info("client_left", extra={**self._who(), "export": self.export.name})
            self.export = None
