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
from collections import Counter
from pathlib import Path

from nbdserver import unix_sockets
from nbdserver.exports import Exports
from nbdserver.listen_errors import listening_failed
from nbdserver.protocol.option_answers import TlsMode
from nbdserver.protocol.wire import PAYLOAD_BYTES_MAX
from nbdserver.server.busy_poll import BusyPoll
from nbdserver.server.client_report import describe
from nbdserver.server.connection import Connection
from nbdserver.server.limits import RESERVE_BYTES, Budget, Limits
from nbdserver.server.refusal_log import RefusalLog
from nbdserver.tls import Credentials
from nbdserver.traffic import Traffic, Waits
from storage.env import Env, RealEnv
from storage.errors import Invalid, NotFound

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
        self._listeners: list[asyncio.Server] = []
        self._sockets: list[tuple[Path, unix_sockets.Identity]] = []
        """Paths of our Unix sockets, and which file was there."""
        self._clients: dict[Connection, float] = {}
        """Everybody who is connected: since when, or if attached since when that."""
        self._numbers = itertools.count(1)
        self._haggling: dict[Connection, None] = {}
        """Those in the handshake, longest first."""
        self._refusals = RefusalLog()
        self.stopping = False
        """It accepts nobody any more."""
        self._all_gone = asyncio.Event()
        self._all_gone.set()

    async def listen_tcp(self, host: str, port: int) -> tuple[str, int]:
        """Listen on a TCP address; port 0 takes a free one. Returns the address in use."""
        loop = asyncio.get_running_loop()
        try:
            listener = await loop.create_server(self._make_connection, host, port, backlog=unix_sockets.BACKLOG)
        except UnicodeError:
            raise Invalid(f"{host!a} is no address that can be listened on") from None
        except OSError as error:
            raise listening_failed(error, f"port {port} on {host}") from error
        self._listeners.append(listener)
        bound_host, bound_port = listener.sockets[0].getsockname()[:2]
        return bound_host, bound_port

    async def listen_unix(self, path: Path) -> None:
        """Listen on a Unix socket that only this user can connect to.

        A socket that is left over at `path` is replaced; one on which a program listens is not (Conflict).
        """
        loop = asyncio.get_running_loop()
        try:
            sock, real = unix_sockets.listen(path, self._env.random_bytes(4).hex())
        except OSError as error:
            raise listening_failed(error, f"the socket {path}") from error
        self._sockets.append((real, unix_sockets.identity(real)))
        listener = await loop.create_unix_server(self._make_connection, sock=sock, backlog=unix_sockets.BACKLOG)
        self._listeners.append(listener)

    def clients(self) -> list[dict[str, object]]:
        """Who is connected, as `clients.describe` does."""
        return [describe(connection, since) for connection, since in self._clients.items()]

    def traffic(self) -> dict[str, Traffic]:
        """What was counted of all clients that are or were attached, by the name under which they had their export."""
        found = dict(self._exports.past)
        for connection in self._clients:
            if (export := connection.export) is not None:
                found[export.name] = found.get(export.name, Traffic()).plus(connection.traffic)
        return found

    def clients_of(self, name: str) -> list[dict[str, object]]:
        """Those that have the device of that name, under whichever name they attached it."""
        names = set(self._exports.clients_of(name))
        found = self._clients.items()
        return [describe(connection, since) for connection, since in found if connection.client.name in names]

    def disconnect(self, number: int) -> str:
        """Drop a client at once: what it sent and was not carried out is not carried out any more. Returns what it
        was called. NotFound: there is none of that number."""
        for connection in self._clients:
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
        self.stopping = True
        for listener in self._listeners:
            listener.close()
        for path, identity in self._sockets:
            unix_sockets.remove(path, identity)
        for connection in list(self._clients):
            connection.drain()
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(grace_seconds):
                await self._all_gone.wait()
        for connection in list(self._clients):
            connection.fail()
        await self._all_gone.wait()
        for listener in self._listeners:
            await listener.wait_closed()

    def _make_connection(self) -> Connection:
        return Connection(
            self,
            self._exports,
            self._limits,
            self._budget,
            self._busy_poll,
            self.waits,
            number=next(self._numbers),
            security=self._security,
            credentials=self._credentials,
        )

    # What connections tell

    def opened(self, connection: Connection) -> None:
        """A client connected. If there are too many, of its address or in all, one goes that is still in its
        handshake, or else this one: of the address that has most of them, so that a crowd of sockets that say
        nothing does not cost others theirs, the one that is longest in it."""
        address = connection.client.peer.address
        near = [each for each in self._clients if each.client.peer.address == address]
        refused = self.stopping
        if refused:
            connection.fail()
        elif len(near) >= self._limits.connections_per_address:
            refused = self._make_room([each for each in near if each in self._haggling], connection, f"of {address} ")
        elif len(self._clients) >= self._limits.connections:
            crowd = Counter(each.client.peer.address for each in self._haggling)
            busiest = max(crowd, key=crowd.__getitem__, default=address)
            crowded = [each for each in self._haggling if each.client.peer.address == busiest]
            refused = self._make_room(crowded, connection, "")
        self._clients[connection] = self._env.wall_clock()
        if not refused:  # or it would make room for the next one, though it has no place itself
            self._haggling[connection] = None
        self._all_gone.clear()

    def _make_room(self, haggling: list[Connection], newcomer: Connection, of_whom: str) -> bool:
        """Drop the first of those in the handshake, or else the newcomer. Whether it was the newcomer."""
        victim = haggling[0] if haggling else newcomer
        self.refused(victim, "client_dropped", f"too many clients {of_whom}are connected", level=logging.WARNING)
        self._haggling.pop(victim, None)
        victim.fail()
        return victim is newcomer

    def refused(self, connection: Connection, event: str, reason: str, *, level: int = logging.INFO) -> None:
        """It did not get what it wanted."""
        self._refusals.note(connection.client.peer, asyncio.get_running_loop().time(), event, reason, level=level)

    def attached(self, connection: Connection) -> None:
        """Its handshake is over."""
        self._haggling.pop(connection, None)
        self._clients[connection] = self._env.wall_clock()

    def closed(self, connection: Connection) -> None:
        """A client is gone."""
        self._clients.pop(connection, None)
        self._haggling.pop(connection, None)
        if not self._clients:
            self._all_gone.set()
