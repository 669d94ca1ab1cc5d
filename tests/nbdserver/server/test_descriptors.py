"""A server that has run out of file descriptors: it goes on with the clients it has, and accepts again when it can."""

import contextlib
import selectors
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.nbd import Client
from tests.support.processes import end, until
from tests.support.program import REPOSITORY

DESCRIPTORS = 40
PROGRAM = f"""
import asyncio, resource, sys
from pathlib import Path
import uvloop
from nbdserver.server.limits import Limits
from nbdserver.server.listener import Listener
from tests.support.memory_device import MemoryDevice, memory_exports

async def serve():
    server = Listener(
        memory_exports({{"disk": MemoryDevice(1 << 20)}}),
        limits=Limits(connections=10_000, connections_per_address=10_000, handshake_seconds=3600),
    )
    host, port = await server.listen_tcp("127.0.0.1", 0)
    await server.listen_unix(Path(sys.argv[1]))
    resource.setrlimit(resource.RLIMIT_NOFILE, ({DESCRIPTORS}, {DESCRIPTORS}))
    print(port, flush=True)
    await asyncio.Event().wait()

uvloop.run(serve())
"""


@pytest.fixture
def address(work: Path) -> Iterator[tuple[str, int]]:
    process = subprocess.Popen(
        [sys.executable, "-c", PROGRAM, str(work / "socket")],
        cwd=REPOSITORY,
        stdout=subprocess.PIPE,
        stdin=subprocess.DEVNULL,
    )
    assert process.stdout is not None
    yield "127.0.0.1", int(process.stdout.readline())
    assert process.poll() is None, "the server has died of it"
    end(process, sign=signal.SIGKILL)


@pytest.mark.parametrize("tcp", [True, False], ids=["tcp", "unix"])
def test_accepting_goes_on(address: tuple[str, int], work: Path, tcp: bool) -> None:
    place = address if tcp else work / "socket"
    with Client(place, "disk") as attached:
        held = [_connect(place) for _ in range(2 * DESCRIPTORS)]
        with selectors.DefaultSelector() as greeted:
            for sock in held:
                greeted.register(sock, selectors.EVENT_READ)
            # Those it cannot take are turned away, or wait; those it could take were greeted.
            until(lambda: len(greeted.select(0)) > DESCRIPTORS // 2, seconds=60, what="the greetings")
        attached.write(0, b"x" * 4096)
        assert attached.read(0, 4096) == b"x" * 4096
        for sock in held:
            sock.close()
        until(lambda: _can_attach(place), seconds=60, what="a client that is accepted again")
        assert attached.read(0, 4096) == b"x" * 4096


def _connect(place: tuple[str, int] | Path) -> socket.socket:
    if isinstance(place, Path):
        sock = socket.socket(socket.AF_UNIX)
        sock.connect(str(place))
        return sock
    return socket.create_connection(place, timeout=60)


def _can_attach(place: tuple[str, int] | Path) -> bool:
    with contextlib.suppress(OSError, EOFError), Client(place, "disk", timeout=5) as client:
        return client.size == 1 << 20
    return False
