"""The stream of bytes to and from one client: its transport, and whether it is read and written now."""

import asyncio

from nbdserver.server.tls_transport import TlsTransport


class ByteStream:
    """What all phases of a connection share."""

    def __init__(self, transport: asyncio.Transport) -> None:
        self.transport: asyncio.Transport | TlsTransport = transport
        """TLS takes its place."""
        self.write_paused = False
        """More than Limits.reply_bytes are unsent."""
        self.reading = True
        self.ended = False
        """The client has ended its stream."""
        self.bytes_received = 0
        """Counted by the connection itself, without a call: for every piece that arrives."""

    def pause_writing(self) -> None:
        """The transport has more than Limits.reply_bytes to send."""
        self.write_paused = True

    def resume_writing(self) -> None:
        """It has sent most of that."""
        self.write_paused = False

    def end(self) -> None:
        """The client has said that it sends nothing more."""
        self.ended = True

    def stop_reading(self) -> None:
        """Leave in the socket what arrives."""
        if self.reading:
            self.reading = False
            self.transport.pause_reading()

    def read_on(self) -> None:
        """Take what arrives."""
        if not self.reading:
            self.reading = True
            self.transport.resume_reading()
