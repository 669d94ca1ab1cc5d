"""The acceptor: a newcomer that goes away before it is taken keeps no other one out."""

import asyncio
import socket
from pathlib import Path

import pytest

from nbdserver.server.acceptor import Acceptor

WAIT_SECONDS = 30.0


class Fickle(socket.socket):
    """A listening socket of which the first ones in the queue are gone when they are taken."""

    left: list[OSError]

    def accept(self) -> tuple[socket.socket, object]:
        if self.left:
            raise self.left.pop()
        return super().accept()


class Greeted(asyncio.BufferedProtocol):
    """Tells when it is connected."""

    def __init__(self, connected: asyncio.Event) -> None:
        self._connected = connected

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._connected.set()
        transport.close()


@pytest.mark.parametrize("error", [ConnectionAbortedError(), BlockingIOError()])
async def test_one_that_went_away_again_is_passed_over(work: Path, error: OSError) -> None:
    sock = Fickle(socket.AF_UNIX, socket.SOCK_STREAM)
    sock.bind(str(work / "s"))
    sock.listen()
    sock.left = [error]
    connected = asyncio.Event()
    acceptor = Acceptor(sock, lambda: Greeted(connected), lambda: 0.0)
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as client:
        client.setblocking(False)
        await asyncio.get_running_loop().sock_connect(client, str(work / "s"))
        async with asyncio.timeout(WAIT_SECONDS):
            await connected.wait()
    assert not sock.left
    await acceptor.close()
