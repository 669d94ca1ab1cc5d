"""Serve disks in memory to real clients: `python -m tests.support.serve_memory UNIX_SOCKET [SIZE [PORT]]`.

Exports: `disk` (and the default). For checks with other people's tools and for measuring the server without
an engine.
"""

import asyncio
import logging
import signal
import sys
from pathlib import Path

import uvloop

from nbdserver.server.listener import Listener
from tests.support.memory_device import MemoryDevice, memory_exports


async def serve(path: Path, size: int, port: int | None) -> None:
    disk = MemoryDevice(size)
    server = Listener(memory_exports({"disk": disk}))
    await server.listen_unix(path)
    if port is not None:
        await server.listen_tcp("127.0.0.1", port)
    ended = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, ended.set)
    print("listening", flush=True)
    await ended.wait()
    await server.stop(grace_seconds=1)


if __name__ == "__main__":
    logging.basicConfig(level=logging.INFO)
    arguments = sys.argv[1:]
    size_bytes = int(arguments[1]) if len(arguments) > 1 else 1 << 30
    uvloop.run(serve(Path(arguments[0]), size_bytes, int(arguments[2]) if len(arguments) > 2 else None))
