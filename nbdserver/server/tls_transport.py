"""A transport that speaks TLS: it stands between the transport of the loop and a
`Connection`, a protocol to the one and a transport to the other.

Promises: from the moment it is made every byte that arrives is TLS, and every byte that leaves; what the
connection gets is whole and in order; what arrives behind the end of the client's stream is dropped. The socket
stays the loop's, so that the kernel can still be asked whether the client has left.

Why not the loop's `start_tls`. It needs turns of the loop in which bytes can arrive between the last one in
clear and the first of TLS (CPython gh-142352, uvloop issue 707 are of that kind); uvloop ends a connection at
once when the client ends its side, while here the replies behind a DISC must still go out (libnbd and nbd-client
say goodbye like that); and asyncio's says nothing of an end without close_notify. OpenSSL without a socket is
little code, and is the same in both loops and in tests.

The arithmetic. For 256 KiB: AES-GCM 65 us, copies into OpenSSL and out of it 20 us each. A record holds at most
16 KiB, so whatever the connection has room for is decrypted before it is told, and small replies share a record.
"""

import asyncio
import contextlib
import ssl
from typing import Any, Protocol

from nbdserver.protocol.replies import Parts
from storage.units import KIB

_RECORD_BYTES = 16 * KIB
"""Most plaintext of one record (RFC 8446, 5.1). Parts of that length gain nothing from being joined."""

_PASS_BYTES = 256 * KIB
"""What OpenSSL is given at a time: its buffers never shrink, and a reply may have 32 MiB."""

_ciphertext = memoryview(bytearray(_PASS_BYTES))
"""Where what arrives for any connection lies until OpenSSL has copied it, in the same turn of the loop."""


class Above(Protocol):
    """The connection that is secured. Beside what the loop calls it gets one of `secured` and `not_secured`."""

    def get_buffer(self, sizehint: int) -> memoryview:
        """Memory that the next plaintext is put into, of `sizehint` bytes or another number."""

    def buffer_updated(self, nbytes: int) -> None:
        """`nbytes` of plaintext were put there."""

    def eof_received(self) -> bool:
        """The client sends no more. True: replies are still to go out; False: the connection closes."""

    def pause_writing(self) -> None:
        """Too much is unsent."""

    def resume_writing(self) -> None:
        """The client has taken most of what was unsent."""

    def connection_lost(self, exc: Exception | None) -> None:
        """The client's socket is closed."""

    def secured(self, tls: ssl.SSLObject) -> None:
        """The TLS handshake has succeeded."""

    def not_secured(self, reason: str) -> None:
        """It has failed; the connection closes."""


class TlsTransport(asyncio.BufferedProtocol):
    """One connection under TLS. States: TLS handshake, open, ended (by the client), closed (by the server)."""

    def __init__(
        self, transport: asyncio.Transport, above: Above, context: ssl.SSLContext, *, write_paused: bool
    ) -> None:
        """Takes `transport` away from its protocol. What was written to it before goes out in clear; `write_paused`:
        too much of that is unsent."""
        self._transport = transport
        self._above = above
        self._incoming = ssl.MemoryBIO()
        self._outgoing = ssl.MemoryBIO()
        self._tls = context.wrap_bio(self._incoming, self._outgoing, server_side=True)
        self._loop = asyncio.get_running_loop()
        self._open = False
        self._ended = False
        self._lingers = False
        """The client has ended its stream, and the connection still has replies for it."""
        self._closed = False
        self._wanted = True
        """The connection reads."""
        self._write_paused = write_paused
        """Too much is unsent. Then nothing is read, since reading makes OpenSSL write (key updates)."""
        transport.set_protocol(self)

    # What the event loop calls

    def get_buffer(self, sizehint: int) -> memoryview:
        return _ciphertext

    def buffer_updated(self, nbytes: int) -> None:
        if self._ended or self._closed:
            return
        self._incoming.write(_ciphertext[:nbytes])
        if self._open:
            self._decrypt()
        else:
            self._shake_hands()

    def eof_received(self) -> bool:
        """The end of the stream, with close_notify or without. All that came before it has been handed on, since
        nothing is read while the connection does not."""
        if not self._ended and not self._closed:
            if self._open:
                self._end()
            else:
                self._above.not_secured("the client left")
        return self._lingers

    def pause_writing(self) -> None:
        self._write_paused = True
        if not self._closed:
            self._transport.pause_reading()
        self._above.pause_writing()

    def resume_writing(self) -> None:
        self._write_paused = False
        self._above.resume_writing()
        self._loop.call_soon(self._read_on)

    def connection_lost(self, exc: Exception | None) -> None:
        self._closed = True
        self._above.connection_lost(exc)

    # What the connection and its session call

    def write(self, data: bytes) -> None:
        """Send these bytes."""
        self.writelines([data])

    def writelines(self, parts: Parts) -> None:
        """Send these buffers, one after the other; they are not kept."""
        if self._closed:
            return
        try:
            for piece in _joined(parts):
                for start in range(0, len(piece), _PASS_BYTES):
                    self._tls.write(piece if len(piece) <= _PASS_BYTES else piece[start : start + _PASS_BYTES])
                    if self._outgoing.pending >= _PASS_BYTES:
                        self._flush()
        except ssl.SSLError:
            self.abort()
        else:
            self._flush()

    def pause_reading(self) -> None:
        """Hand nothing on, and leave in the socket what arrives."""
        self._wanted = False
        self._transport.pause_reading()

    def resume_reading(self) -> None:
        """Go on, in another turn of the loop."""
        self._wanted = True
        self._loop.call_soon(self._read_on)

    def close(self) -> None:
        """Say close_notify behind what is queued, and close when all is sent. The client's is not waited for."""
        self._say_goodbye()
        self._transport.close()

    def write_eof(self) -> None:
        """Say close_notify behind what is queued, and drop what arrives until the client ends its stream."""
        self._say_goodbye()
        self._transport.write_eof()
        self._transport.resume_reading()

    def abort(self) -> None:
        """Drop the client at once."""
        self._closed = True
        self._transport.abort()

    def get_write_buffer_size(self) -> int:
        """Bytes that are not sent yet, as ciphertext."""
        return self._transport.get_write_buffer_size()

    def get_extra_info(self, name: str) -> Any:
        """What the loop's transport knows, such as its socket."""
        return self._transport.get_extra_info(name)

    # Inside

    def _say_goodbye(self) -> None:
        if self._open and not self._closed:
            with contextlib.suppress(ssl.SSLError):
                self._tls.unwrap()
            self._flush()
        self._closed = True

    def _shake_hands(self) -> None:
        try:
            self._tls.do_handshake()
        except ssl.SSLWantReadError:
            self._flush()
        except ssl.SSLError as error:
            self._flush()  # an alert tells the client why
            self._above.not_secured((error.reason or str(error)).replace("_", " ").lower())
        else:
            self._open = True
            self._flush()
            self._above.secured(self._tls)
            self._decrypt()

    def _decrypt(self) -> None:
        """Hand on what has arrived, while the connection reads."""
        need_data = over = False
        while self._wanted and not (need_data or self._ended or self._closed):
            buffer = self._above.get_buffer(-1)
            if not len(buffer):
                break  # a request waits to be offered again
            filled = 0
            try:
                while filled < len(buffer):
                    count = self._tls.read(len(buffer) - filled, buffer[filled:])
                    if not count:
                        over = True
                        break
                    filled += int(count)
            except ssl.SSLWantReadError:
                need_data = True
            except ssl.SSLError:
                self._flush()
                self.abort()
                return
            if filled:
                self._above.buffer_updated(filled)
            # If the connection has stopped reading, the end waits as well, and is found again.
            if over and self._wanted and not self._closed:
                self._end()
        if self._outgoing.pending and not self._closed:
            self._flush()

    def _end(self) -> None:
        self._ended = True
        self._lingers = self._above.eof_received()

    def _read_on(self) -> None:
        """Hand on what OpenSSL holds; if the connection still reads, read the socket."""
        if not self._wanted or self._write_paused or self._closed:
            return
        if self._open:
            self._decrypt()
        if self._wanted and not self._write_paused and not self._closed:
            self._transport.resume_reading()

    def _flush(self) -> None:
        data = self._outgoing.read()
        if data:
            self._transport.write(data)


def _joined(parts: Parts) -> Parts:
    """The same bytes, short neighbours in one buffer; none is empty."""
    if len(parts) == 1:
        return [memoryview(parts[0])] if len(parts[0]) else []
    pieces: Parts = []
    short: Parts = []
    for part in parts:
        if len(part) < _RECORD_BYTES:
            short.append(part)
            continue
        if short:
            pieces.append(b"".join(short))
            short = []
        pieces.append(memoryview(part))
    if short:
        pieces.append(b"".join(short))
    return pieces
