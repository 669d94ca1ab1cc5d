"""The connection table: who is connected, and whose place a newcomer takes when there are too many.

Promises: a client that is attached never loses its place to another one; of those still in their handshake the one that
is longest in it goes first, of the newcomer's own address if that has its share, or else of the address that has most.
So a crowd of sockets that say nothing costs others nothing, and itself no more than its oldest. Whoever was accepted
has Limits.answer_seconds to answer the greeting before any of this befalls it: `answer_time` says how long the next
newcomer has to wait for that in the kernel's queue.
"""

import asyncio
import logging
from collections.abc import Iterator

from nbdserver.server.connection import Connection
from nbdserver.server.crowds import Crowds
from nbdserver.server.limits import Limits
from nbdserver.server.refusal_log import RefusalLog
from storage.env import Env


class ConnectionTable:
    """The connections of one server. `env` gives the time of day at which they came."""

    def __init__(self, limits: Limits, env: Env) -> None:
        self.closed_to_all = False
        """The server is stopping: whoever comes is dropped."""
        self.limits = limits
        self._env = env
        self._loop = asyncio.get_running_loop()
        self._since: dict[Connection, float] = {}
        """Everybody who is connected: since when, or if attached since when that."""
        self._crowds: Crowds[Connection] = Crowds(limits.connections_per_address)
        """Until when they keep their place is by the loop's clock."""
        self._refusals = RefusalLog()
        self._all_gone = asyncio.Event()
        self._all_gone.set()

    def use_limits(self, limits: Limits) -> None:
        """From now on these count for who connects."""
        self.limits = limits
        self._crowds.use_share(limits.connections_per_address)

    def __iter__(self) -> Iterator[Connection]:
        """Everybody, as it is now: who iterates may drop them."""
        return iter(list(self._since))

    def __len__(self) -> int:
        return len(self._since)

    def items(self) -> list[tuple[Connection, float]]:
        """Everybody, with the time of day since which they are attached, or else connected."""
        return list(self._since.items())

    async def wait_empty(self) -> None:
        """Until nobody is connected."""
        await self._all_gone.wait()

    def answer_time(self) -> float:
        """Seconds until nobody would lose a place to a newcomer, wherever that came from, who has not had the time to
        answer. What a crowd can make others wait is that time, once for each of its shares that it fills."""
        until = self._crowds.full_until()
        if len(self._since) >= self.limits.connections and (busiest := self._crowds.busiest()) is not None:
            until = max(until, self._crowds.kept_until(busiest))
        return until - self._loop.time() if until else 0.0

    # What connections tell

    def opened(self, connection: Connection) -> None:
        """A client connected. If there are too many, of its address or in all, one goes, which may be this one."""
        address, crowds = connection.client.peer.address, self._crowds
        refused = self.closed_to_all
        if refused:
            connection.fail()
        elif crowds.is_full(address):
            refused = self._make_room(crowds.longest_of(address), connection, f"of {address} ")
        elif len(self._since) >= self.limits.connections:
            busiest = crowds.busiest()
            refused = self._make_room(None if busiest is None else crowds.longest_of(busiest), connection, "")
        self._since[connection] = self._env.wall_clock()
        crowds.opened(connection, address)
        if not refused:  # or it would make room for the next one, though it has no place itself
            crowds.haggles(connection, self._loop.time() + self.limits.answer_seconds)
        self._all_gone.clear()

    def attached(self, connection: Connection) -> None:
        """Its handshake is over."""
        self._crowds.settled(connection)
        self._since[connection] = self._env.wall_clock()

    def closed(self, connection: Connection) -> None:
        """A client is gone."""
        self._since.pop(connection, None)
        self._crowds.closed(connection)
        if not self._since:
            self._all_gone.set()

    def refused(self, connection: Connection, event: str, reason: str, *, level: int = logging.INFO) -> None:
        """It did not get what it wanted."""
        self._refusals.note(connection.client.peer, self._loop.time(), event, reason, level=level)

    # Who goes

    def _make_room(self, longest: Connection | None, newcomer: Connection, of_whom: str) -> bool:
        """Drop the one that is longest in its handshake, or else the newcomer. Whether it was the newcomer."""
        victim = newcomer if longest is None else longest
        self.refused(victim, "client_dropped", f"too many clients {of_whom}are connected", level=logging.WARNING)
        self._crowds.settled(victim)
        victim.fail()
        return victim is newcomer
