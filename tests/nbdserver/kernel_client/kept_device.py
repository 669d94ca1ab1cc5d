"""A device that a keeper keeps, with a real server that comes and goes, and a stand-in for the kernel."""

import asyncio
import contextlib
import os
import subprocess
import sys
from collections.abc import AsyncIterator, Iterator, Sequence
from pathlib import Path

from nbdserver.attachments import HERE, Attachment, Attachments
from nbdserver.exports import Exports
from nbdserver.kernel_client.dialing import ExportConnection, OfferedExport, dial
from nbdserver.kernel_client.export_address import ExportAddress
from nbdserver.kernel_client.keeper import Attached, Keeper
from nbdserver.kernel_client.keeper_lock import KeeperLock
from nbdserver.kernel_client.nbd_family import Timeouts
from nbdserver.server.listener import Listener
from tests.nbdserver.kernel_client.kernel_of_one_device import Kernel
from tests.support.memory_device import MemoryDevice
from tests.support.other_users import NEIGHBOUR
from tests.support.program import REPOSITORY

WAIT_SECONDS = 20.0
OTHER = b"of another disk "


class Incarnation:
    """What a server says of its store."""

    def __init__(self, *lineage: str) -> None:
        self.lineage = lineage

    @property
    def id(self) -> str:
        return self.lineage[-1] if self.lineage else ""

    def is_unbroken_since(self, incarnation: str) -> bool:
        return incarnation in self.lineage


class Place:
    """A socket on which servers of one disk come and go."""

    def __init__(self, path: Path, port: int = 0) -> None:
        """At a path, or at a port of this machine."""
        self.address = ExportAddress("disk", port=port) if port else ExportAddress("disk", unix=path)
        self._path, self._port = path, port
        self.device = MemoryDevice(1 << 20)
        self._server: Listener | None = None

    async def serve(self, *lineage: str, refused: bool = False, disk: str = "1.0", before: Sequence[str] = ()) -> None:
        """A new server, of a store with that lineage, takes the place of the one before. The name means that disk, and
        at the first look-ups those `before`, whose data is other than zeros."""
        await self.stop()
        self.device.identity = disk
        others = iter(before)

        def look_up(name: str) -> MemoryDevice:
            identity = next(others, disk)
            if identity == disk:
                return self.device
            other = MemoryDevice(1 << 20)
            other.identity = identity
            other.write(0, OTHER)
            return other

        attachments = Attachments(None, refused=[Attachment("disk", HERE)] if refused else [])
        exports = Exports(
            look_up,
            lambda: ["disk"],
            incarnation=lambda: Incarnation(*lineage),
            attachments=attachments,
        )
        self._server = Listener(exports)
        if self._port:
            await self._server.listen_tcp("127.0.0.1", self._port)
        else:
            await self._server.listen_unix(self._path)

    @property
    def clients(self) -> int:
        """Those of the server that is there now."""
        return 0 if self._server is None else len(self._server.clients())

    async def stop(self) -> None:
        if self._server is not None:
            await self._server.stop(0)
            self._server = None


_STRANGER = """
import asyncio, os, socket, sys
from pathlib import Path
from tests.nbdserver.kernel_client.kept_device import Place

listen = socket.socket.listen

def listen_as_neighbour(sock, *rest):
    os.seteuid(NEIGHBOUR)
    try:
        listen(sock, *rest)
    finally:
        os.seteuid(0)

async def main():
    place = Place(Path(sys.argv[1]), int(sys.argv[2]))
    socket.socket.listen = listen_as_neighbour
    await place.serve(*sys.argv[3:])
    os.seteuid(NEIGHBOUR)
    print("listening", flush=True)
    await asyncio.to_thread(sys.stdin.read)
    os.seteuid(0)
    await place.stop()

asyncio.run(main())
"""


@contextlib.contextmanager
def stranger_at(path: Path, port: int, *lineage: str) -> Iterator[None]:
    """A process of another user serves a disk of that name at the path, or the port, and says that lineage of it.
    Requires root."""
    program = _STRANGER.replace("NEIGHBOUR", str(NEIGHBOUR))
    with subprocess.Popen(
        [sys.executable, "-c", program, str(path), str(port), *lineage],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        cwd=REPOSITORY,
    ) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == b"listening\n"
        yield
        process.communicate()


async def dialed(address: ExportAddress) -> OfferedExport:
    """What is offered there."""
    connection = await dial(address)
    connection.sock.close()
    return connection.export


@contextlib.asynccontextmanager
async def kept(
    place: Place, kernel: Kernel, work: Path, incarnation: str | None, *, adopted: bool = False
) -> AsyncIterator[asyncio.Task[None]]:
    """A device with two connections, attached in an incarnation, and its keeper at work; `adopted`: another process
    attached it.
    """
    live: list[ExportConnection] = [] if adopted else [await dial(place.address) for _ in range(2)]
    export = OfferedExport(1 << 20, (await dialed(place.address)).flags)
    attached = Attached(kernel.device, place.address, export, 2, Timeouts(1, 1), incarnation, os.geteuid())
    lock = KeeperLock(0, work / "locks")
    keeper = Keeper(kernel, attached, live, lock)  # type: ignore[arg-type]
    task = asyncio.ensure_future(keeper.keep())
    try:
        yield task
    finally:
        task.cancel()
        await asyncio.wait([task])
        keeper.close()
        lock.close()


async def ended(task: asyncio.Task[None]) -> None:
    async with asyncio.timeout(WAIT_SECONDS):
        await task
