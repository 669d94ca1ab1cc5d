"""A server that runs in the test's own event loop, on real sockets, with one disk in memory.

`Running` listens on TCP and on a Unix socket, and makes the clients that talk to it; `closed` and `drop` are the two
ways in which such a conversation ends.
"""

import asyncio
import contextlib
from pathlib import Path

from nbdserver.server.limits import Limits
from nbdserver.server.listener import Listener
from tests.support.memory_device import MemoryDevice, memory_exports
from tests.support.nbd import Client

GREETING_BYTES = 18
"""What a server says first."""


class Running:
    """A server over TCP and a Unix socket, with one disk."""

    def __init__(self, folder: Path, limits: Limits) -> None:
        self.disk = MemoryDevice(1 << 30)
        self.exports = memory_exports({"disk": self.disk})
        self.server = Listener(self.exports, limits=limits)
        self.path = folder / "socket"
        self.address = ("127.0.0.1", 0)

    async def start(self) -> None:
        self.address = await self.server.listen_tcp("127.0.0.1", 0)
        await self.server.listen_unix(self.path)

    async def client(self, *, tcp: bool = False, is_structured: bool = True) -> Client:
        address = self.address if tcp else self.path
        return await asyncio.to_thread(Client, address, "disk", structured=is_structured, timeout=60)

    async def raw(self, *, tcp: bool = False) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        if tcp:
            return await asyncio.open_connection(*self.address)
        return await asyncio.open_unix_connection(self.path)


async def closed(reader: asyncio.StreamReader) -> bytes:
    """Everything up to the end of the stream, which must come."""
    async with asyncio.timeout(20):
        with contextlib.suppress(ConnectionError):
            return await reader.read(-1)
    return b""


def drop(writer: asyncio.StreamWriter) -> None:
    writer.transport.abort()
