"""What is attached is what is remembered of it, where the name comes to mean something else meanwhile: with the real
server.
"""

import asyncio
import socket
from collections.abc import AsyncIterator, Iterator
from dataclasses import replace
from itertools import chain, count, repeat
from pathlib import Path

import pytest

from nbdserver.exports import Exports
from nbdserver.kernel_client import attaching
from nbdserver.kernel_client.attaching import connect_all
from nbdserver.kernel_client.dialing import ExportConnection, dial
from nbdserver.kernel_client.export_address import ExportAddress
from nbdserver.protocol import wire
from nbdserver.server.listener import Listener
from storage.errors import Conflict, NotFound
from tests.support.memory_device import MemoryDevice


class Term:
    """Of the writer: there was no other."""

    id = "1a"

    def is_unbroken_since(self, incarnation: str) -> bool:
        return incarnation == self.id


class Moments:
    """A server of one disk that has another moment of it whenever the name is looked up, as long as there are more."""

    def __init__(self, path: Path) -> None:
        self.address = ExportAddress("disk", unix=path)
        self.moments: Iterator[int] = repeat(1)
        self.server = Listener(Exports(self._look_up, lambda: ["disk"], incarnation=Term))

    def _look_up(self, name: str) -> MemoryDevice:
        if name != "disk":
            raise NotFound(name)
        device = MemoryDevice(1 << 20)
        moment = next(self.moments)
        device.identity = str(moment)
        device.write(0, bytes([moment]) * 512)
        return device


async def moment_of(connection: ExportConnection) -> int:
    """Which one its requests are answered from."""
    with connection.sock as sock:
        loop = asyncio.get_running_loop()
        await loop.run_in_executor(None, sock.sendall, wire.REQUEST.pack(0x25609513_0000_0000, b"cookie!!", 0, 512))
        reply = await loop.run_in_executor(None, lambda: sock.recv(16 + 512, socket.MSG_WAITALL))
        return reply[-1]


@pytest.fixture
async def place(work: Path) -> AsyncIterator[Moments]:
    made = Moments(work / "s")
    await made.server.listen_unix(work / "s")
    yield made
    await made.server.stop(0)


@pytest.mark.parametrize("moments", [(), (1,), (1, 1), (1, 1, 1), (1, 2, 3), (1, 1, 2, 2, 3, 3, 4, 5)])
async def test_what_is_remembered_is_what_is_attached(place: Moments, moments: tuple[int, ...]) -> None:
    place.moments = chain(moments, repeat(9))
    connections, incarnation = await connect_all(place.address, 2)
    assert len(connections) == 2
    shown = {f"1a-{await moment_of(each)}" for each in connections}
    assert shown == {incarnation}


async def test_a_server_that_promises_nothing_of_several_connections_gets_one(
    place: Moments, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What is flushed on one need not be what was written on another."""

    async def dial_one(address: ExportAddress) -> ExportConnection:
        found = await dial(address)
        return replace(found, export=replace(found.export, flags=found.export.flags & ~wire.FLAG_CAN_MULTI_CONN))

    monkeypatch.setattr(attaching, "dial", dial_one)
    (only,), _ = await connect_all(place.address, 3)
    only.sock.close()


async def test_what_never_stays_is_not_attached(place: Moments) -> None:
    place.moments = count()
    with pytest.raises(Conflict, match="try again"):
        await connect_all(place.address, 1)


async def test_what_is_not_there_is_said(place: Moments) -> None:
    with pytest.raises(NotFound, match="no export 'other'"):
        await connect_all(ExportAddress("other", unix=place.address.unix), 1)
