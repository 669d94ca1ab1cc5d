"""The session of a client that may only read.

The protocol refuses its writes already. This is the second lock: whatever is handed over as a write, the device does
not see it. (A request that the protocol had taken for a WRITE by mistake has been one of this server's bugs.)
"""

from nbdserver.protocol import wire
from nbdserver.protocol.transmission import Payload
from nbdserver.server.session import Session

_REASON = "this client may only read"


class ReadOnlySession(Session):
    """A session that changes nothing."""

    def write(self, cookie: bytes, offset: int, data: Payload, *, fua: bool = False) -> bool:
        self.admission.release_payload()
        return self.refuse(cookie, wire.EPERM, _REASON)

    def zero(self, cookie: bytes, offset: int, length: int, *, command: int, allocated: bool, fua: bool) -> bool:
        return self.refuse(cookie, wire.EPERM, _REASON)
