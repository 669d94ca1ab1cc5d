"""Attaching an export as a device, taking one over that has lost its keeper, and detaching."""

from __future__ import annotations

import asyncio
import contextlib
from dataclasses import dataclass

from nbdserver.kernel_client.dialing import ExportConnection, OfferedExport, dial
from nbdserver.kernel_client.export_address import ExportAddress
from nbdserver.kernel_client.keeper import Attached, Keeper
from nbdserver.kernel_client.keeper_lock import KeeperLock, attaching_alone, keeper
from nbdserver.kernel_client.kernel_device import KernelDevice
from nbdserver.kernel_client.lineage import ask, recall, recall_user, remember, remember_user
from nbdserver.kernel_client.nbd_family import Timeouts
from nbdserver.kernel_client.netlink_socket import KernelClient
from nbdserver.kernel_client.server_user import ServerUser
from nbdserver.protocol import wire
from storage.errors import AccessDenied, Conflict, Invalid

CONNECTIONS = 3
"""The kernel serves each by one queue of its own."""

LOCAL_REQUEST_SECONDS = 10
REMOTE_REQUEST_SECONDS = 30
"""How long the kernel waits for a reply before it sends a request again on another connection.

After a crash of the server what was under way waits that long. On this machine a server knows at once that the kernel
has given a connection up, and drops what came over it. From another machine it may learn it only after 25 seconds; a
request that was sent again before could be overtaken by its older copy.
"""

FOR_EVER_SECONDS = 100 * 365 * 86400
"""The kernel has no word for it; a device waits so long for a server."""

ADDRESS_BYTES_MAX = 2000
"""Longest URI: the kernel shows it in a page of memory, with others' names in the path escaped threefold."""


CONNECT_ROUNDS_MAX = 5
"""To reach an export that stays what it is meanwhile: the server of a reader has a newer moment every few seconds."""

LET_GO_SECONDS = 0.2
"""Until a server has seen that connections are closed."""


@dataclass(frozen=True, slots=True)
class AttachSettings:
    """What `nbdserver attach` was asked to do."""

    address: ExportAddress
    device: KernelDevice | None = None
    connections: int = CONNECTIONS
    request_seconds: int | None = None
    """None: what suits the way to the server."""
    dead_seconds: int = FOR_EVER_SECONDS

    @property
    def waits(self) -> Timeouts:
        usual = LOCAL_REQUEST_SECONDS if self.address.is_local else REMOTE_REQUEST_SECONDS
        return Timeouts(self.request_seconds or usual, self.dead_seconds)


@dataclass(frozen=True, slots=True)
class NbdDevice:
    """One device that is attached, for people."""

    device: KernelDevice
    keeper: int | None
    """The process that connects it again; None: nobody does."""
    waits_for: str | None
    """Why it has not all its connections, if it has not."""


async def attach(kernel: KernelClient, settings: AttachSettings) -> tuple[KernelDevice, Keeper, KeeperLock]:
    """Attach an export, or go on with a device that is attached to it and that nobody keeps.

    Conflict: the device, or the export, is in use. Whatever `dial` and the kernel refuse with.
    """
    if len(settings.address.uri) > ADDRESS_BYTES_MAX:
        raise Invalid(f"the name of the export and the way to its server are longer than {ADDRESS_BYTES_MAX} bytes")
    # From the look whether it is attached until it shows a keeper: two devices of one disk would be two page caches.
    with attaching_alone(settings.address):
        left = _left_behind(kernel, settings)
        return await _attach_new(kernel, settings) if left is None else _adopt(kernel, settings, left)


async def _attach_new(kernel: KernelClient, settings: AttachSettings) -> tuple[KernelDevice, Keeper, KeeperLock]:
    """`attach`, where the export is not attached."""
    connections, incarnation = await connect_all(settings.address, settings.connections)
    with contextlib.ExitStack() as undo:
        undo.callback(_close, connections)
        # A crash from here on leaves the incarnation of a device that is not attached yet, or that is.
        remember(settings.address, incarnation)
        user = connections[0].server.uid
        remember_user(settings.address, user)
        wanted = None if settings.device is None else settings.device.index
        sockets = [each.sock.fileno() for each in connections]
        export, uri = connections[0].export, settings.address.uri
        index = kernel.connect(wanted, export.size, export.flags, sockets, settings.waits, uri)
        # A crash from here on leaves a device that works and that nobody keeps: the same command takes it over.
        device = KernelDevice(index)
        undo.callback(let_go, kernel, device)
        lock = KeeperLock(index)
        device.tune()
        attached = Attached(device, settings.address, export, len(connections), settings.waits, incarnation, user)
        kept = Keeper(kernel, attached, connections, lock)
        undo.pop_all()
        return device, kept, lock


async def connect_all(address: ExportAddress, count: int) -> tuple[list[ExportConnection], str | None]:
    """So many connections to an export, or one where it can have no more, and its incarnation. Conflict: it changes all
    the time. What `dial` refuses with.

    The incarnation is told on another connection (`lineage`), which gets what the name means then: another disk, or a
    newer moment of it. So it is asked for before and after, and what was attached in between counts only if it stayed.
    """
    before = (await ask(address, None)).incarnation
    for number in range(CONNECT_ROUNDS_MAX):
        with contextlib.ExitStack() as undo:
            connections: list[ExportConnection] = []
            undo.callback(_close, connections)
            same = True
            try:
                await _dial_all(address, count, connections)
            except AccessDenied:
                # The name means another disk by now, and its server gives nobody both: until it has seen that the
                # connections to the first one are closed, the other is refused.
                if not connections and not number:
                    raise
                same = False
            told = await ask(address, None)
            after = told.incarnation
            if same and after == before and all(_is_one(each, connections[0], told.server) for each in connections):
                undo.pop_all()
                return connections, after
            before = after
        if not same:
            await asyncio.sleep(LET_GO_SECONDS)
    raise Conflict("the export changed while it was being attached: try again")


async def _dial_all(address: ExportAddress, count: int, connections: list[ExportConnection]) -> None:
    """Add as many as the export may have. What `dial` refuses with: those that were made before are there."""
    connections.append(await dial(address))
    if connections[0].export.flags & wire.FLAG_CAN_MULTI_CONN:
        while len(connections) < count:
            connections.append(await dial(address))


def _is_one(connection: ExportConnection, first: ExportConnection, server: ServerUser) -> bool:
    """Whether two connections are to one export of one user's server, who also said which one it is."""
    return connection.export == first.export and connection.server == first.server == server


def detach(kernel: KernelClient, device: KernelDevice, *, force: bool) -> None:
    """Detach a device. Invalid: it is not attached. Conflict: it is in use, and not to be torn away (`force`)."""
    if device.index not in kernel.in_use():
        raise Invalid(f"{device.path} is not attached")
    if not force and device.claimed:
        raise Conflict(f"{device.path} is in use: unmount it, or export its pool, first; --force tears it away")
    kernel.disconnect(device.index)


def let_go(kernel: KernelClient, device: KernelDevice) -> bool:
    """Detach a device, if it is attached, unless that would tear it away from somebody; whether it is detached."""
    if device.attached and device.claimed:
        return False
    if device.attached:
        kernel.disconnect(device.index)
    return True


def devices(kernel: KernelClient) -> list[NbdDevice]:
    """All NBD devices that are attached, by whomever."""
    found = (KernelDevice(index) for index in kernel.in_use())
    return [NbdDevice(device, *keeper(device.index)) for device in found if device.attached]


def _left_behind(kernel: KernelClient, settings: AttachSettings) -> KernelDevice | None:
    """The device that is attached to the export already and that nobody keeps. Conflict: somebody does."""
    for found in devices(kernel):
        if found.device.backend != settings.address.uri:
            continue
        if settings.device is not None and settings.device.index != found.device.index:
            raise Conflict(f"{settings.address.uri} is attached as {found.device.path} already")
        if found.keeper is not None:
            raise Conflict(
                f"{settings.address.uri} is attached as {found.device.path} already, and process {found.keeper} "
                "keeps it so"
            )
        return found.device
    return None


def _adopt(
    kernel: KernelClient, settings: AttachSettings, device: KernelDevice
) -> tuple[KernelDevice, Keeper, KeeperLock]:
    """Keep a device that another process attached. How it was served is known from the device as far as that goes."""
    lock = KeeperLock(device.index)
    export = OfferedExport(device.size, device.flags)
    incarnation = recall(settings.address)
    user = recall_user(settings.address)
    attached = Attached(device, settings.address, export, settings.connections, settings.waits, incarnation, user)
    return device, Keeper(kernel, attached, [], lock), lock


def _close(connections: list[ExportConnection]) -> None:
    for each in connections:
        each.sock.close()
