"""A client's first request waits until this host remembers who it is."""

import asyncio
import socket
from pathlib import Path

import pytest

from nbdserver.attachments import HERE, Attachment, Attachments
from nbdserver.exports import Exports
from nbdserver.server.listener import Server
from tests.storage.lsm.worlds import until
from tests.support import messages as m
from tests.support.memory_device import MemoryDevice
from tests.support.nbd import Client, NbdError


async def test_no_request_is_carried_out_before(work: Path) -> None:
    go = asyncio.Event()
    records: list[bytes] = []

    async def keep(data: bytes) -> None:
        records.append(data)
        await go.wait()

    device = MemoryDevice(1 << 20)
    attachments = Attachments(keep)
    server = Server(Exports(lambda name: device, lambda: ["disk"], attachments=attachments))
    await server.listen_unix(work / "s")
    client = await asyncio.to_thread(Client, work / "s", "disk")
    try:
        writing = asyncio.ensure_future(asyncio.to_thread(client.write, 0, b"x" * 4096))
        await until(lambda: bool(records))
        await asyncio.sleep(0.05)  # long enough for a write, were it not held
        assert not writing.done()
        assert device.last_sequence == 0
        go.set()
        await writing
        assert device.last_sequence == 1
        await asyncio.to_thread(client.disconnect)
    finally:
        go.set()
        client.close()
        await server.stop(grace_seconds=0)
    await attachments.write()


async def test_one_that_leaves_meanwhile_is_gone(work: Path) -> None:
    """With what it sent behind its handshake."""
    go, asked = asyncio.Event(), asyncio.Event()

    async def keep(data: bytes) -> None:
        asked.set()
        await go.wait()

    attachments = Attachments(keep)
    device = MemoryDevice(1 << 20)
    server = Server(Exports(lambda name: device, lambda: ["disk"], attachments=attachments))
    await server.listen_unix(work / "s")
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
    server = Server(Exports(lambda name: device, lambda: ["disk", "other"], attachments=attachments))
    await server.listen_unix(work / "s")
    with pytest.raises(NbdError, match="nbdserver client accept disk"):
        await asyncio.to_thread(Client, work / "s", "disk")
    other = await asyncio.to_thread(Client, work / "s", "other")
    other.close()
    assert await server.accept("disk") == [HERE]
    client = await asyncio.to_thread(Client, work / "s", "disk")
    client.close()
    await server.stop(grace_seconds=0)
