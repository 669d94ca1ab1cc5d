"""The acceptor: takes connections from a listening socket, one at a time, and never more than there is room for.

Promises: between two connections that are accepted the event loop serves everybody else, so that a thousand that come
at once do not hold it up; while `wait_seconds` says so, newcomers stay in the kernel's queue. Whatever goes wrong with
one of them, a lack of file descriptors too, the acceptor goes on.
"""

import asyncio
import logging
import socket
from collections.abc import Callable

logger = logging.getLogger("nbdserver")

PAUSE_SECONDS = 0.2
"""Until a connection is accepted again after the kernel could not give one: what is missing then (file descriptors,
memory) does not come back by asking."""


class Acceptor:
    """One listening socket, which belongs to it."""

    def __init__(
        self, sock: socket.socket, make: Callable[[], asyncio.BufferedProtocol], wait_seconds: Callable[[], float]
    ) -> None:
        sock.setblocking(False)
        self._sock = sock
        self._make = make
        self._wait_seconds = wait_seconds
        self._loop = asyncio.get_running_loop()
        self._pause: asyncio.TimerHandle | None = None
        """Until it looks for newcomers again."""
        self._beginning: asyncio.Task[None] | None = None
        """What is being done for the connection that was accepted last."""
        self._failing = False
        self._closed = False
        self._watch()

    async def close(self) -> None:
        """Accept nothing more. What was accepted is not touched: a transport that is taken back half made would never
        say that it ended."""
        if self._closed:
            return
        self._closed = True
        self._loop.remove_reader(self._sock)
        if self._pause is not None:
            self._pause.cancel()
        if self._beginning is not None:
            await self._beginning
        self._sock.close()

    def _watch(self) -> None:
        """Look for the next newcomer."""
        if not self._closed:
            self._loop.add_reader(self._sock, self._accept)

    def _accept(self) -> None:
        """Somebody is in the queue."""
        self._loop.remove_reader(self._sock)
        if (seconds := self._wait_seconds()) > 0:
            self._pause = self._loop.call_later(seconds, self._watch)
            return
        try:
            accepted, _ = self._sock.accept()
        except (BlockingIOError, ConnectionError):
            self._watch()  # it went away again
        except OSError as error:
            if not self._failing:
                logger.warning("accept_failed", extra={"reason": error.strerror or str(error)})
            self._failing = True
            self._pause = self._loop.call_later(PAUSE_SECONDS, self._watch)
        else:
            self._failing = False
            self._beginning = self._loop.create_task(self._begin(accepted))

    async def _begin(self, accepted: socket.socket) -> None:
        """Hand it to a connection of its own, and go on when that has greeted it."""
        try:
            await self._loop.connect_accepted_socket(self._make, accepted)
        except Exception as error:
            # It went away, or was dropped as it came, which uvloop calls a closed transport.
            logger.debug("client_gone", extra={"reason": str(error)})
        self._watch()
