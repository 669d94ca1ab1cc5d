"""Requests of a client that has left: kept, and carried out only with a DISC behind them.

Linux sends a request again on another socket when one stalls or dies. What is then still unread on the old
socket may be an old copy; applied late, it would undo newer writes that were acknowledged
(docs/durability.md, "Sending again"). While they are kept, this is the handler of the connection, in the place of its
`Session`.
"""

from collections import deque
from collections.abc import Callable, Collection
from functools import partial

from nbdserver.protocol.transmission import Payload
from nbdserver.protocol.wire import ProtocolError
from nbdserver.server.limits import Limits
from nbdserver.server.session import Session


class StaleRequests:
    """Stands in for a session whose client has left while bytes of it were still to be read.

    They may be old copies of requests that the client has sent again elsewhere, so they are only kept, and
    carried out if the client said DISC behind them: then it left in good order, and if only its sending side is
    shut it waits for the replies (libnbd does).
    """

    def __init__(self, session: Session, limits: Limits) -> None:
        self._session = session
        self._limits = limits
        self._calls: deque[Callable[[], bool]] = deque()

    def read(self, cookie: bytes, offset: int, length: int, *, dont_fragment: bool = False) -> bool:
        return self._keep(partial(self._session.read, cookie, offset, length, dont_fragment=dont_fragment))

    def write(self, cookie: bytes, offset: int, data: Payload, *, fua: bool = False) -> bool:
        return self._keep(partial(self._session.write, cookie, offset, data, fua=fua))

    def zero(self, cookie: bytes, offset: int, length: int, *, command: int, allocated: bool, fua: bool) -> bool:
        change = partial(self._session.zero, command=command, allocated=allocated, fua=fua)
        return self._keep(partial(change, cookie, offset, length))

    def flush(self, cookie: bytes) -> bool:
        return self._keep(partial(self._session.flush, cookie))

    def cache(self, cookie: bytes, offset: int, length: int) -> bool:
        return self._keep(partial(self._session.nothing, cookie, read=False))

    def block_status(self, cookie: bytes, offset: int, length: int, *, one: bool, only: Collection[int] | None) -> bool:
        return self._keep(partial(self._session.block_status, cookie, offset, length, one=one, only=only))

    def nothing(self, cookie: bytes, *, read: bool) -> bool:
        return self._keep(partial(self._session.nothing, cookie, read=read))

    def refuse(self, cookie: bytes, error: int, message: str) -> bool:
        return self._keep(partial(self._session.refuse, cookie, error, message))

    def allocate(self, length: int) -> memoryview | None:
        return self._session.allocate(length)

    def disconnect(self) -> None:
        self._session.disconnect()
        self.carry_on()

    def carry_on(self) -> bool:
        """After DISC: carry out what was kept, as far as the session takes it now. True: nothing is left."""
        while self._calls and self._calls[0]():
            self._calls.popleft()
        return not self._calls

    def _keep(self, call: Callable[[], bool]) -> bool:
        if len(self._calls) >= self._limits.requests:
            raise ProtocolError("the client left behind too many requests")
        self._calls.append(call)
        return True
