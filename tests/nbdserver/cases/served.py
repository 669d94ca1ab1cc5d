"""Serves the exports of the table, in a process of its own: `python -m tests.nbdserver.cases.served FOLDER`.

Several servers, each with its own limits, on a TCP port and a Unix socket in FOLDER; when all listen, one
line of JSON says where: {"plain": ["socket", port], ...}. Ends at SIGTERM, and when its standard input does,
so that it does not outlive tests that were killed. On standard error only what the server logs: the tests
look for tracebacks there.
"""

import asyncio
import json
import logging
import signal
import sys
from dataclasses import replace
from pathlib import Path

import uvloop

from nbdserver.exports import Exports
from nbdserver.server.limits import Limits
from nbdserver.server.listener import Listener
from nbdserver.tls import Credentials
from storage.env import RealEnv
from tests.nbdserver.cases.case import DATA, HUGE, SIZE
from tests.support.memory_device import MemoryDevice, memory_exports

HASTY_SECONDS = 1.0
"""The time for a handshake at the server that is impatient: some rows are to be answered before it is over."""

CERTIFICATES = "pki"
"""The folder in FOLDER with what the servers with TLS need."""

CROWD = 10_000
"""Exports of the server that has many."""


class Hole(MemoryDevice):
    """A disk that is a hole of any size, and forgets what is written: nothing in it takes time or space."""

    def write(self, offset: int, data: bytes | bytearray | memoryview) -> int:
        return self._written()

    def zero(self, offset: int, length: int, *, allocated: bool) -> int:
        return self._written()


def exports() -> tuple[Exports, MemoryDevice]:
    """The four exports that most rows are about, and `disk` among them as the rows find it."""
    locked = MemoryDevice(SIZE, read_only=True)
    locked.write(0, b"d" * DATA)
    disk = MemoryDevice(SIZE)
    disk.write(0, b"d" * DATA)
    return memory_exports({"disk": disk, "locked": locked, "huge": Hole(HUGE), "beside": MemoryDevice(SIZE)}), disk


def servers(certificates: Path) -> dict[str, Listener]:
    """Every server by name."""
    shared, _ = exports()
    hasty = replace(Limits(), handshake_seconds=HASTY_SECONDS)
    credentials = Credentials(certificates, verify_peer=False, env=RealEnv())
    crowd = memory_exports({f"export-{number:05}": MemoryDevice(SIZE) for number in range(CROWD)})
    return {
        "plain": Listener(shared),
        "hasty": Listener(shared, limits=hasty),
        "tls": Listener(shared, credentials=credentials),
        "required": Listener(shared, credentials=credentials, tls_required=True),
        "hasty-tls": Listener(shared, limits=hasty, credentials=credentials),
        "crowd": Listener(crowd),
    }


async def serve(folder: Path) -> None:
    addresses: dict[str, tuple[str, int]] = {}
    running = servers(folder / CERTIFICATES)
    for name, server in running.items():
        path = folder / name
        await server.listen_unix(path)
        _, port = await server.listen_tcp("127.0.0.1", 0)
        addresses[name] = (str(path), port)
    ended = asyncio.Event()
    loop = asyncio.get_running_loop()
    loop.add_signal_handler(signal.SIGTERM, ended.set)
    loop.add_reader(sys.stdin.fileno(), ended.set)
    print(json.dumps(addresses), flush=True)
    await ended.wait()
    for server in running.values():
        await server.stop(grace_seconds=1)


if __name__ == "__main__":
    logging.basicConfig(level=logging.WARNING)
    uvloop.run(serve(Path(sys.argv[1])))
