"""The handshake of one connection: bytes to the state machine, its answers out, and the upgrade to TLS.

Promises: it is over within Limits.handshake_seconds, TLS included, or the client is dropped. After STARTTLS a
`TlsTransport` takes the place of the transport; everything else stays as it is.
"""

import asyncio
from typing import Protocol

from nbdserver.exports import Export
from nbdserver.protocol.agreement import Agreement, Catalogue
from nbdserver.protocol.handshake import Handshake
from nbdserver.protocol.states import HandshakeState
from nbdserver.server.byte_stream import ByteStream
from nbdserver.server.limits import Limits
from nbdserver.server.phase import Phase, PhaseOwner, shared_buffer
from nbdserver.server.tls_transport import Above, TlsTransport
from nbdserver.tls import Credentials


class HandshakeOwner(Above, PhaseOwner, Protocol):
    """The connection, as its handshake sees it."""

    def attach(self, agreement: Agreement[Export], rest: bytes) -> None:
        """The handshake is over; `rest` came behind it."""


class HandshakePhase(Phase):
    """From the first byte to the transmission phase."""

    def __init__(
        self,
        owner: HandshakeOwner,
        stream: ByteStream,
        handshake: Handshake[Export],
        limits: Limits,
        credentials: Credentials | None,
    ) -> None:
        """`credentials` are those of a server that has TLS."""
        self.buffer = lambda: shared_buffer
        self._owner = owner
        self._stream = stream
        self._handshake = handshake
        self._credentials = credentials
        self._loop = asyncio.get_running_loop()
        self._deadline = self._loop.call_later(limits.handshake_seconds, owner.drop, "its handshake takes too long")

    def begin(self) -> None:
        """Greet the client."""
        self._stream.transport.write(b"".join(self._handshake.take_output()))

    def received(self, count: int) -> None:
        self._haggle(shared_buffer[:count])

    def proceed(self) -> None:
        if not self._stream.write_paused:
            self._owner.guarded(self._haggle, b"")

    def leave(self) -> None:
        self._deadline.cancel()

    def secured(self, catalogue: Catalogue[Export]) -> None:
        """The handshake goes on under TLS, and as if nothing had been said before; `catalogue` is what the client may
        see now."""
        self._handshake.secured(catalogue)

    def _haggle(self, data: bytes | memoryview) -> None:
        """Give bytes to the handshake, send its answers."""
        handshake, stream = self._handshake, self._stream
        try:
            need_data = handshake.received(data)
        finally:
            for reason in handshake.refusals:
                self._owner.refused("client_refused", reason)
            handshake.refusals.clear()
            output = handshake.take_output()
            if output:
                stream.transport.write(b"".join(output))
        if handshake.state is HandshakeState.CLOSED:
            self._owner.close()
        elif handshake.agreement is not None:
            self._owner.attach(handshake.agreement, handshake.take_rest())
        else:
            if handshake.state is HandshakeState.UPGRADING:
                self._begin_tls()
            if need_data and not stream.write_paused:
                stream.read_on()
            else:
                stream.stop_reading()
                if not stream.write_paused:
                    self._loop.call_soon(self._owner.proceed)

    def _begin_tls(self) -> None:
        """STARTTLS was acknowledged, in clear: whatever comes or goes from here on is TLS."""
        stream = self._stream
        if isinstance(stream.transport, TlsTransport):
            return
        if self._credentials is None:
            raise RuntimeError("a server without certificates acknowledged STARTTLS")
        context = self._credentials.make_context()
        stream.transport = TlsTransport(stream.transport, self._owner, context, write_paused=stream.write_paused)
