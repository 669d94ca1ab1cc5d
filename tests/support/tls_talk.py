"""How to speak TLS as a client by hand: what is encrypted, sent, held back or cut is the test's
to say."""

import contextlib
import socket
import ssl
import struct
from pathlib import Path

from tests.support import messages as m

OPT_STARTTLS = 5
GREETING_BYTES = 18
OPTION_REPLY_BYTES = 20


class TlsTalk:
    """One connection to an NBD server, after the greeting."""

    def __init__(self, address: tuple[str, int] | Path, *, timeout: float = 20) -> None:
        if isinstance(address, Path):
            self.socket = socket.socket(socket.AF_UNIX)
            self.socket.settimeout(timeout)
            self.socket.connect(str(address))
        else:
            self.socket = socket.create_connection(address, timeout=timeout)
        assert len(self.clear(GREETING_BYTES)) == GREETING_BYTES
        self.socket.sendall(m.FIXED_ZEROLESS_FLAGS)
        self._incoming, self._outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
        self.tls: ssl.SSLObject

    def clear(self, count: int) -> bytes:
        """Receive in clear; fewer bytes where the stream ends."""
        data = b""
        with contextlib.suppress(ConnectionError):
            while len(data) < count and (piece := self.socket.recv(count - len(data))):
                data += piece
        return data

    def start(self) -> None:
        """STARTTLS and its acknowledgement."""
        self.socket.sendall(m.option(OPT_STARTTLS))
        answer = self.clear(OPTION_REPLY_BYTES)
        assert struct.unpack(">QIII", answer)[1:] == (OPT_STARTTLS, 1, 0), "STARTTLS was refused"

    def secure(self, context: ssl.SSLContext) -> None:
        """The whole upgrade."""
        self.start()
        self.tls = context.wrap_bio(self._incoming, self._outgoing, server_hostname="localhost")
        while True:
            try:
                self.tls.do_handshake()
                break
            except ssl.SSLWantReadError:
                self._push()
                self.pull()
        self._push()

    def encrypt(self, data: bytes) -> bytes:
        """What is to be sent for it."""
        self.tls.write(data)
        return self._outgoing.read()

    def send(self, data: bytes) -> None:
        """Encrypt and send."""
        self.socket.sendall(self.encrypt(data))

    def receive(self, count: int) -> bytes:
        """Plaintext; fewer bytes where the stream ends."""
        data = b""
        while len(data) < count:
            try:
                piece = self.tls.read(count - len(data))
            except ssl.SSLWantReadError:
                if not self.pull():
                    break
                continue
            except ssl.SSLZeroReturnError:
                break  # the server ended its side, as this one did
            if not piece:
                break
            data += piece
        return data

    def end(self, data: bytes = b"") -> None:
        """Send this and close_notify in one, and that nothing more is sent on the socket either."""
        if data:
            self.tls.write(data)
        with contextlib.suppress(ssl.SSLWantReadError):
            self.tls.unwrap()
        self._push()
        self.socket.shutdown(socket.SHUT_WR)

    def reset(self) -> None:
        """Drop the connection with RST."""
        self.socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self.socket.close()

    def close(self) -> None:
        """Without a word."""
        self.socket.close()

    def _push(self) -> None:
        self.socket.sendall(self._outgoing.read())

    def pull(self) -> bool:
        data = b""
        with contextlib.suppress(ConnectionError):
            data = self.socket.recv(1 << 16)
        self._incoming.write(data)
        return bool(data)
