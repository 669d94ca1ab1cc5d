"""Keeps a device attached: gives it a new connection for each one that dies, for as long as it takes.

While there is no connection, requests wait in the kernel; when there is one they are sent again, and whoever uses the
device sees a pause. A connection that died is noticed three ways: the socket, of which this process has a copy, is
closed at either end (epoll); the kernel says so (netlink); and where neither helps, by asking now and then. The kernel
itself says nothing of how many live, so what it does not take (`netlink_socket.was_taken`) is how one knows that none
is missing.

Never goes on over a disk that is not the one that was attached, or that lacks what was answered (`judgement`): then the
device is detached, and all that waits for it fails. Nor over a server of another user than the one it was attached to:
that one is waited for, and what the other says of the disk counts for nothing.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import select
import socket
from dataclasses import dataclass, replace

from nbdserver.kernel_client.dialing import ExportConnection, OfferedExport, dial
from nbdserver.kernel_client.export_address import ExportAddress
from nbdserver.kernel_client.judgement import forgotten, hindrance, loss
from nbdserver.kernel_client.keeper_lock import KeeperLock
from nbdserver.kernel_client.kernel_device import KernelDevice
from nbdserver.kernel_client.lineage import Lineage, ask, remember
from nbdserver.kernel_client.nbd_family import Timeouts
from nbdserver.kernel_client.netlink_socket import KernelClient, news, was_taken
from nbdserver.kernel_client.server_user import ServerUser, stranger
from storage.errors import AccessDenied, Conflict, RolledBack, StorageError, Unavailable

logger = logging.getLogger("nbdserver")

REDIAL_SECONDS_MIN = 0.05
REDIAL_SECONDS_MAX = 1.0
"""Between attempts to reach a server that is away: as long as a person hardly notices."""

ASK_SECONDS_MIN = 0.05
ASK_SECONDS_MAX = 600.0
"""Between attempts to give the kernel a connection that it did not take: it may only be about to notice that one died,
or none is missing."""

HANG_UP = select.EPOLLRDHUP | select.EPOLLHUP | select.EPOLLERR


@dataclass(frozen=True, slots=True)
class Attached:
    """A device and what it was attached with."""

    device: KernelDevice
    address: ExportAddress
    export: OfferedExport
    connections: int
    waits: Timeouts
    incarnation: str | None
    """Of the server, up to which nothing was lost that was answered; None: it says nothing of that."""
    user: int | None
    """Whose the server was when the device was attached; None: not known, so anybody's will do."""


class Keeper:
    """Keeps one device. `live` are connections that the kernel has, less those that a former keeper gave it."""

    def __init__(
        self, kernel: KernelClient, attached: Attached, live: list[ExportConnection], lock: KeeperLock
    ) -> None:
        self._kernel = kernel
        self._attached = attached
        self._lock = lock
        self._live: dict[int, ExportConnection] = {}
        self._changed = asyncio.Event()
        self._told = kernel.dead_links()
        self._hang_ups = select.epoll()
        self._complaint = ""
        self._lost_at: float | None = None
        for connection in live:
            self._add(connection)

    async def keep(self) -> None:
        """Until somebody detaches the device. RolledBack: the export is another one; the device was detached.

        Cancelled, it leaves the device attached.
        """
        loop = asyncio.get_running_loop()
        loop.add_reader(self._told.fileno(), self._hear)
        loop.add_reader(self._hang_ups.fileno(), self._notice)
        try:
            pause = ASK_SECONDS_MIN
            while self._attached.device.attached:
                missing = self._attached.connections - len(self._live)
                if await self._wait(pause if missing else None):
                    pause = ASK_SECONDS_MIN
                if not await self._repair():
                    pause = min(pause * 2, ASK_SECONDS_MAX)
        except Conflict:
            # It was detached. One that is still open looks attached to who only reads sysfs.
            return
        finally:
            loop.remove_reader(self._told.fileno())
            loop.remove_reader(self._hang_ups.fileno())

    def close(self) -> None:
        """Drop this process's copies of the sockets; those of the kernel stay."""
        self._told.close()
        self._hang_ups.close()
        for connection in self._live.values():
            connection.sock.close()

    async def _wait(self, seconds: float | None) -> bool:
        """Until something changes, or so long; whether something did."""
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(seconds):
                await self._changed.wait()
        changed = self._changed.is_set()
        self._changed.clear()
        return changed

    def _hear(self) -> None:
        """The kernel tells of dead connections, of whichever device."""
        if news(self._told, self._attached.device.index) and len(self._live) < self._attached.connections:
            self._lose()

    def _notice(self) -> None:
        """Connections were closed."""
        for descriptor, _ in self._hang_ups.poll(0):
            self._hang_ups.unregister(descriptor)
            self._live.pop(descriptor).sock.close()
            self._lose()

    def _lose(self) -> None:
        self._changed.set()
        if self._lost_at is None:
            self._lost_at = asyncio.get_running_loop().time()
            logger.warning("connection_lost", extra=self._facts())

    async def _repair(self) -> bool:
        """Give the device connections until it has all; False: the kernel did not take one."""
        while len(self._live) < self._attached.connections and self._attached.device.attached:
            connection = await self._dial()
            if connection is None:
                return True
            if not self._hand_over(connection):
                connection.sock.close()
                self._settle()
                return False
        self._settle()
        self._grow()
        return True

    async def _dial(self) -> ExportConnection | None:
        """A connection to the same disk, served as before; None: the device was detached while there was none."""
        pause = REDIAL_SECONDS_MIN
        while self._attached.device.attached:
            complaint = await self._try()
            if isinstance(complaint, ExportConnection):
                return complaint
            self._complain(complaint)
            await asyncio.sleep(pause)
            pause = min(pause * 2, REDIAL_SECONDS_MAX)
        return None

    async def _try(self) -> ExportConnection | str:
        """A connection that may be used, or why there is none now. RolledBack: there never will be."""
        attached = self._attached
        connection, complaint, before = None, None, None
        try:
            # Of a name that meant another disk until just now: see `connect_all`.
            before = (await self._ask(None)).incarnation
            connection = await self._connect()
        except Unavailable as error:
            return str(error)
        except StorageError as error:
            complaint = str(error)
        try:
            # Also where the export is refused: that may be because of a loss. After dialing, see `lineage`.
            lineage = await self._ask(attached.incarnation)
            lost = forgotten(attached.incarnation, lineage)
            if connection is not None:
                lost = lost or loss(attached.export, connection.export)
                complaint = hindrance(attached.export, connection.export)
            if attached.incarnation is not None and lineage.incarnation is None:
                complaint = complaint or "the server does not say any more whether anything was lost"
            if before != lineage.incarnation:
                lost, complaint = None, complaint or "the export changed while it was being connected"
        except StorageError as error:
            lost, complaint = None, complaint or str(error)
        if lost is not None or complaint is not None or connection is None:
            if connection is not None:
                connection.sock.close()
            if lost is not None:
                self._give_up(lost)
            return complaint or ""
        self._know(lineage.incarnation)
        return connection

    async def _ask(self, since: str | None) -> Lineage:
        """`ask`. AccessDenied: a stranger answers, whose word could have the device detached."""
        lineage = await ask(self._attached.address, since)
        self._refuse_stranger(lineage.server)
        return lineage

    async def _connect(self) -> ExportConnection:
        """`dial`. AccessDenied: a stranger answers, who would get the disk."""
        connection = await dial(self._attached.address)
        try:
            self._refuse_stranger(connection.server)
        except AccessDenied:
            connection.sock.close()
            raise
        return connection

    def _refuse_stranger(self, server: ServerUser) -> None:
        why = stranger(self._attached.user, server)
        if why is not None:
            raise AccessDenied(why)

    def _give_up(self, why: str) -> None:
        """What waits for the device fails now, and its filesystem stops: it must not go on over another disk."""
        with contextlib.suppress(StorageError):
            self._kernel.disconnect(self._attached.device.index)
        raise RolledBack(f"{self._attached.device.path} was detached, and its requests failed: {why}")

    def _know(self, incarnation: str | None) -> None:
        """Nothing is lost up to this one: from now on that is what is asked about."""
        if incarnation != self._attached.incarnation:
            self._attached = replace(self._attached, incarnation=incarnation)
            remember(self._attached.address, incarnation)

    def _hand_over(self, connection: ExportConnection) -> bool:
        """Whether the kernel took a connection in the place of one that is dead."""
        try:
            self._reconfigure([connection.sock])
        except StorageError:
            connection.sock.close()
            raise
        taken = was_taken(connection.sock)
        if taken:
            self._add(connection)
        return taken

    def _add(self, connection: ExportConnection) -> None:
        self._live[connection.sock.fileno()] = connection
        self._hang_ups.register(connection.sock, HANG_UP)

    def _grow(self) -> None:
        """Let the device have the size of the export, once every connection has it: a session ends where its disk
        ended when it began."""
        size = min((connection.export.size for connection in self._live.values()), default=0)
        if len(self._live) == self._attached.connections and size > self._attached.export.size:
            self._attached = replace(self._attached, export=OfferedExport(size, self._attached.export.flags))
            self._reconfigure([])
            logger.info("device_grew", extra={**self._facts(), "bytes": size})

    def _reconfigure(self, sockets: list[socket.socket]) -> None:
        attached = self._attached
        self._kernel.reconfigure(
            attached.device.index,
            attached.export.size,
            [sock.fileno() for sock in sockets],
            attached.waits,
            attached.address.uri,
        )

    def _complain(self, sentence: str) -> None:
        """Say once why there is no connection."""
        if sentence != self._complaint:
            self._complaint = sentence
            self._lock.say(sentence)
            logger.warning("waiting_for_server", extra={**self._facts(), "error": sentence})

    def _settle(self) -> None:
        """The device has its connections again."""
        if self._lost_at is not None:
            seconds = asyncio.get_running_loop().time() - self._lost_at
            logger.info("connections_back", extra={**self._facts(), "seconds": round(seconds, 3)})
        self._lost_at = None
        self._complaint = ""
        self._lock.say("")

    def _facts(self) -> dict[str, object]:
        return {
            "device": str(self._attached.device.path),
            "export": self._attached.address.uri,
            "connections": len(self._live),
        }
