"""The server: where it listens, who is connected, and how it stops.

    exports = Exports(store.device, store.names)
    server = Listener(exports)
    host, port = await server.listen_tcp("127.0.0.1", 10809)
    await server.listen_unix(Path("/run/nbdserver/socket"))
    ...
    await server.stop(grace_seconds=5)      # 0 drops everybody at once: what to do when the store has failed

`listen_*` raise Conflict, AccessDenied or Invalid with one sentence that says what to do. `clients()` lists
who is connected, and `exports.clients_of(name)` who has a device. With `credentials` clients may, or must, upgrade to
TLS.
"""

import asyncio
import contextlib
import itertools
import logging
import socket
from pathlib import Path

from nbdserver import tcp_sockets, unix_sockets
from nbdserver.exports import Exports
from nbdserver.listen_errors import listening_failed
from nbdserver.protocol.option_answers import TlsMode
from nbdserver.protocol.wire import PAYLOAD_BYTES_MAX
from nbdserver.server.acceptor import Acceptor
from nbdserver.server.busy_poll import BusyPoll
from nbdserver.server.client_report import describe
from nbdserver.server.connection import Connection
from nbdserver.server.connection_table import ConnectionTable
from nbdserver.server.limits import RESERVE_BYTES, Budget, Limits
from nbdserver.server.operation_trace import Tracing
from nbdserver.slow_operations import SlowOperation, SlowOperations
from nbdserver.tls import Credentials
from nbdserver.traffic import Traffic, Waits
from storage.env import Env, RealEnv
from storage.errors import NotFound

logger = logging.getLogger("nbdserver")

DEFAULT_LIMITS = Limits()


class Listener:
    """An NBD server for some exports. Belongs to the event loop in which it is made.

    `env` gives the time of day that `clients()` shows.
    """

    def __init__(
        self,
        exports: Exports,
        *,
        limits: Limits = DEFAULT_LIMITS,
        env: Env | None = None,
        credentials: Credentials | None = None,
        tls_required: bool = False,
    ) -> None:
        self._exports = exports
        self._credentials = credentials
        self._security = TlsMode.OFF
        if credentials is not None:
            self._security = TlsMode.REQUIRED if tls_required else TlsMode.OFFERED
        self._limits = limits
        self._env = env or RealEnv()
        self._budget = Budget(
            limits.memory_bytes, max(0, min(RESERVE_BYTES, limits.memory_bytes - 2 * PAYLOAD_BYTES_MAX))
        )
        self._busy_poll = BusyPoll()
        self.waits = Waits()
        """How long requests of all clients took that memory could not answer."""
        self._slow = SlowOperations()
        self._tracing = Tracing(self.waits, self._slow, self._env.monotonic, self._env.wall_clock)
        self._acceptors: list[Acceptor] = []
        self._sockets: list[tuple[Path, unix_sockets.Identity]] = []
        """Paths of our Unix sockets, and which file was there."""
        self._connections = ConnectionTable(limits, self._env)
        self._numbers = itertools.count(1)

    async def listen_tcp(self, host: str, port: int) -> tuple[str, int]:
        """Listen on a TCP address; port 0 takes a free one. Returns the address in use."""
        bound = await tcp_sockets.listen(host, port)
        bound_host, bound_port = bound[0].getsockname()[:2]
        for sock in bound:
            self._accept_from(sock)
        return bound_host, bound_port

    async def listen_unix(self, path: Path) -> None:
        """Listen on a Unix socket that only this user can connect to.

        A socket that is left over at `path` is replaced; one on which a program listens is not (Conflict).
        """
        try:
            sock, real = unix_sockets.listen(path, self._env.random_bytes(4).hex())
        except OSError as error:
            raise listening_failed(error, f"the socket {path}") from error
        self._sockets.append((real, unix_sockets.identity(real)))
        self._accept_from(sock)

    @property
    def stopping(self) -> bool:
        """Whether it accepts nobody any more."""
        return self._connections.closed_to_all

    def use_limits(self, limits: Limits) -> None:
        """From now on these count for who connects, but for the memory of all, which is what it was."""
        self._limits = limits
        self._connections.use_limits(limits)

    def clients(self) -> list[dict[str, object]]:
        """Who is connected, as `clients.describe` does."""
        return [describe(connection, since) for connection, since in self._connections.items()]

    def traffic(self) -> dict[str, Traffic]:
        """What was counted of all clients that are or were attached, by the name under which they had their export."""
        found = dict(self._exports.past)
        for connection in self._connections:
            if (export := connection.export) is not None:
                found[export.name] = found.get(export.name, Traffic()).plus(connection.traffic)
        return found

    def slow_operations(self, after: int = 0) -> list[SlowOperation]:
        """What clients waited long for: what ended, from number `after` on, and then what is under way."""
        under_way = [each for connection in self._connections for each in connection.phase.slow_operations()]
        return [*self._slow.remembered(after), *under_way]

    def clients_of(self, name: str) -> list[dict[str, object]]:
        """Those that have the device of that name, under whichever name they attached it."""
        names = set(self._exports.clients_of(name))
        found = self._connections.items()
        return [describe(connection, since) for connection, since in found if connection.client.name in names]

    def disconnect(self, number: int) -> str:
        """Drop a client at once: what it sent and was not carried out is not carried out any more. Returns what it
        was called. NotFound: there is none of that number."""
        for connection in self._connections:
            if connection.client.number == number:
                logger.warning(
                    "client_dropped",
                    extra={**connection.client.fields(), "reason": "an operator asked for it"},
                )
                connection.fail()
                return connection.client.name
        raise NotFound(f"no client {number} is connected: `client list` shows who is")

    async def accept(self, export: str) -> list[str]:
        """Refuse nobody this export any more for what was lost; gives whom it was refused."""
        return await self._exports.attachments.accept(export)

    async def stop(self, grace_seconds: float) -> None:
        """Accept nobody any more, finish what is under way for at most this long, then drop who is left."""
        self._connections.closed_to_all = True
        for acceptor in self._acceptors:
            await acceptor.close()
        for path, identity in self._sockets:
            unix_sockets.remove(path, identity)
        for connection in self._connections:
            connection.drain()
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(grace_seconds):
                await self._connections.wait_empty()
        for connection in self._connections:
            connection.fail()
        await self._connections.wait_empty()

    def _accept_from(self, sock: socket.socket) -> None:
        self._acceptors.append(Acceptor(sock, self._make_connection, self._connections.answer_time))

    def _make_connection(self) -> Connection:
        return Connection(
            self._connections,
            self._exports,
            self._limits,
            self._budget,
            self._busy_poll,
            self._tracing,
            number=next(self._numbers),
            security=self._security,
            credentials=self._credentials,
        )
