"""Who one client is: its number, the other end of its socket, its user or certificate, and what it is called.

The number is given before the socket is known, and who it is may change once: nothing that was said in clear counts
under TLS, but for the user, which the kernel told.
"""

import ssl

from nbdserver.access import Identity
from nbdserver.server.peer import UNKNOWN_PEER, Peer
from nbdserver.tls import names_in_certificate


class ClientIdentity:
    """What is known of a client, whatever phase it is in."""

    def __init__(self, number: int) -> None:
        self.number = number
        self.peer = UNKNOWN_PEER
        self.identity = Identity()
        self.tls_version: str | None = None

    def connected(self, peer: Peer) -> None:
        """Its socket is known."""
        self.peer = peer
        self.identity = Identity(peer.uid)

    def secured(self, tls: ssl.SSLObject) -> None:
        """Its TLS is up."""
        self.tls_version = tls.version()
        self.identity = Identity(self.peer.uid, names_in_certificate(tls))

    @property
    def name(self) -> str:
        """What the client is called, in sentences for people."""
        certified = f", {self.identity.names[0]}" if self.identity.names else ""
        return f"client {self.number} ({self.peer.name}{certified})"

    def fields(self) -> dict[str, object]:
        """The fields of the log that say whose event it is."""
        return {"client": self.number, "peer": self.peer.name}
