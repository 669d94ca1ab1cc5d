"""A client's first request waits until this host remembers who it is."""

import asyncio
import contextlib
import socket
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from nbdserver.attachments import HERE, Attachment, Attachments
from nbdserver.exports import Exports
from nbdserver.server.listener import Listener
from tests.nbdserver.inside import connections
from tests.support import messages as m
from tests.support.memory_device import MemoryDevice
from tests.support.nbd import Client, NbdError
from tests.support.running import GREETING_BYTES
from tests.support.waiting import until


@contextlib.asynccontextmanager
async def serving(path: Path, exports: Exports) -> AsyncIterator[Listener]:
    """It is stopped whatever happens: a connection that is held would keep the loop from ending."""
    server = Listener(exports)
    await server.listen_unix(path)
    try:
        yield server
    finally:
        await server.stop(grace_seconds=0)


async def another_is_greeted(path: Path) -> None:
    """By then the loop has looked at least once for what had been sent before."""
    reader, writer = await asyncio.open_unix_connection(path)
    await reader.readexactly(GREETING_BYTES)
    writer.close()


@pytest.mark.parametrize("together", [True, False], ids=["behind its handshake", "while it is written"])
async def test_no_request_is_carried_out_before(work: Path, together: bool) -> None:
    go = asyncio.Event()
    records: list[bytes] = []

    async def keep(data: bytes) -> None:
        records.append(data)
        await go.wait()

    device = MemoryDevice(1 << 20)
    attachments = Attachments(keep)
    exports = Exports(lambda name: device, lambda: ["disk"], attachments=attachments)
    hello, request = m.FIXED_ZEROLESS_FLAGS + m.go("disk"), m.write(0)
    async with serving(work / "s", exports) as server:
        with socket.socket(socket.AF_UNIX) as client:
            client.connect(str(work / "s"))
            client.sendall(hello + (request if together else b""))
            await until(lambda: bool(records))
            if together:
                (connection,) = connections(server)
                assert connection.stream.bytes_received == len(hello + request), "it is here"
            else:
                client.sendall(request)
                await another_is_greeted(work / "s")
                await another_is_greeted(work / "s")
            assert device.last_sequence == 0
            go.set()
            await until(lambda: device.last_sequence == 1)
    await attachments.write()


async def test_one_that_leaves_meanwhile_is_gone(work: Path) -> None:
    """With what it sent behind its handshake."""
    go, asked = asyncio.Event(), asyncio.Event()

    async def keep(data: bytes) -> None:
        asked.set()
        await go.wait()

    attachments = Attachments(keep)
    device = MemoryDevice(1 << 20)
    exports = Exports(lambda name: device, lambda: ["disk"], attachments=attachments)
    async with serving(work / "s", exports) as server:
        with socket.socket(socket.AF_UNIX) as client:
            client.connect(str(work / "s"))
            client.sendall(m.FIXED_ZEROLESS_FLAGS + m.go("disk") + m.write(0))
            await asked.wait()
            await server.stop(grace_seconds=0)
    go.set()
    await attachments.write()
    assert device.last_sequence == 0


async def test_who_is_refused_is_told_why(work: Path) -> None:
    attachments = Attachments(None, refused=[Attachment("disk", HERE)])
    device = MemoryDevice(1 << 20)
    exports = Exports(lambda name: device, lambda: ["disk", "other"], attachments=attachments)
    async with serving(work / "s", exports) as server:
        with pytest.raises(NbdError, match="nbdserver client accept disk"):
            await asyncio.to_thread(Client, work / "s", "disk")
        other = await asyncio.to_thread(Client, work / "s", "other")
        other.close()
        assert await server.accept("disk") == [HERE]
        client = await asyncio.to_thread(Client, work / "s", "disk")
        client.close()
