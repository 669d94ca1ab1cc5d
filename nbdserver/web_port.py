"""A TCP port that speaks HTTP to whoever reaches it, without a word of who that is.

Promises: however many connect, no more than `connections` of them have a descriptor, so that a crowd that says nothing
takes none from clients of disks and from the store. Of those the first one goes that asks for nothing just then, then
the one that is longest in its TLS handshake; if all ask for something, the newcomer. So who does ask is answered. And
what is no HTTP is refused without a line in the log.
"""

import asyncio
import contextlib
import logging
import socket
import ssl

from aiohttp import web
from aiohttp.http_exceptions import HttpProcessingError
from aiohttp.typedefs import Handler
from aiohttp.web_protocol import RequestHandler

from nbdserver import tcp_sockets

logger = logging.getLogger("nbdserver")


def _is_own_fault(record: logging.LogRecord) -> bool:
    """Not that somebody sent what is no HTTP: anybody could fill the log with that, at a dozen lines each."""
    return not (record.exc_info and isinstance(record.exc_info[1], HttpProcessingError))


_faults = logging.getLogger("nbdserver.web_port")
_faults.addFilter(_is_own_fault)

WEB_CONNECTIONS_MAX = 64
"""A browser takes six, a scrape one."""

ACCEPT_AGAIN_SECONDS = 0.2
"""As an `Acceptor` waits: descriptors do not come back by asking."""


class WebPort:
    """The port of one application, which may have no other. Owned by the event loop."""

    def __init__(
        self,
        app: web.Application,
        *,
        context: ssl.SSLContext | None = None,
        handler_cancellation: bool = False,
        connections: int = WEB_CONNECTIONS_MAX,
    ) -> None:
        """With a `context` it speaks TLS."""
        app.middlewares.insert(0, self._know)
        self._runner = web.AppRunner(
            app,
            access_log=None,
            logger=_faults,
            handle_signals=False,
            shutdown_timeout=1.0,
            handler_cancellation=handler_cancellation,
        )
        self._context = context
        self._most = connections
        self._loop = asyncio.get_running_loop()
        self._bound: list[socket.socket] = []
        self._accepting: list[asyncio.Task[None]] = []
        self._beginning: dict[asyncio.Task[None], socket.socket] = {}
        """Those that were accepted and are in no transport yet, or in their handshake, longest first."""
        self._asking: set[RequestHandler] = set()
        """The connections whose requests are being answered."""

    async def listen(self, host: str, port: int) -> int:
        """From now on; gives the port. Conflict, AccessDenied, Invalid: that is not possible there."""
        await self._runner.setup()
        try:
            self._bound = await tcp_sockets.listen(host, port)
        except BaseException:
            await self._runner.cleanup()
            raise
        self._accepting = [self._loop.create_task(self._accept_from(sock)) for sock in self._bound]
        bound: int = self._bound[0].getsockname()[1]
        return bound

    async def stop(self) -> None:
        """Accept nobody any more, and end who is there: what is under way has a second."""
        for task in self._accepting:
            task.cancel()
        await asyncio.gather(*self._accepting, return_exceptions=True)
        for sock in self._bound:
            sock.close()
        for accepted in self._beginning.values():
            _end(accepted)
        await asyncio.gather(*self._beginning, return_exceptions=True)
        await self._runner.cleanup()

    @web.middleware
    async def _know(self, request: web.Request, handler: Handler) -> web.StreamResponse:
        """Know whose requests are being answered."""
        self._asking.add(request.protocol)
        try:
            return await handler(request)
        finally:
            self._asking.discard(request.protocol)

    async def _accept_from(self, sock: socket.socket) -> None:
        failing = False
        while True:
            await asyncio.sleep(0)  # a crowd in the queue does not keep everybody else from their turn
            try:
                accepted, _ = await self._loop.sock_accept(sock)
            except ConnectionError:
                continue  # it went away again
            except OSError as error:
                if not failing:
                    logger.warning("accept_failed", extra={"reason": error.strerror or str(error)})
                failing = True
                await asyncio.sleep(ACCEPT_AGAIN_SECONDS)
                continue
            failing = False
            if self._make_room():
                task = self._loop.create_task(self._begin(accepted))
                self._beginning[task] = accepted
                task.add_done_callback(lambda done: self._beginning.pop(done, None))
            else:
                accepted.close()

    def _make_room(self) -> bool:
        """Whether there is room for one more, once somebody was dropped if need be."""
        server = self._runner.server
        there = [] if server is None else [each for each in server.connections if each.transport is not None]
        if len(there) + len(self._beginning) < self._most:
            return True
        for connection in there:
            if connection not in self._asking:
                if connection.transport is not None:
                    connection.transport.abort()  # what it does not take must not keep its descriptor
                connection.force_close()
                return True
        for task, accepted in self._beginning.items():
            _end(accepted)
            del self._beginning[task]
            return True
        return False

    async def _begin(self, accepted: socket.socket) -> None:
        server = self._runner.server
        if server is None:
            accepted.close()
            return
        try:
            await self._loop.connect_accepted_socket(server, accepted, ssl=self._context)
        except Exception as error:
            logger.debug("client_gone", extra={"reason": str(error)})


def _end(accepted: socket.socket) -> None:
    """Have whatever waits for it see its end; who reads it closes it."""
    with contextlib.suppress(OSError):
        accepted.shutdown(socket.SHUT_RDWR)
