"""How to run nbdkit and qemu-nbd with a disk like ours."""

import contextlib
import socket
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

from tests.nbdserver.cases.case import SIZE
from tests.support.processes import end, until
from tests.support.requirements import require

Connect = Callable[[], socket.socket]


@contextlib.contextmanager
def nbdkit(folder: Path) -> Iterator[Connect]:
    require("nbdkit")
    path = folder / "nbdkit"
    command = ["nbdkit", "--foreground", "--unix", str(path), "--exportname", "disk", "memory", str(SIZE)]
    with _running(command, path, folder / "nbdkit.log") as connect:
        yield connect


@contextlib.contextmanager
def qemu_nbd(folder: Path) -> Iterator[Connect]:
    require("qemu-nbd")
    image, path = folder / "image", folder / "qemu"
    with image.open("wb") as file:
        file.truncate(SIZE)
    command = ["qemu-nbd", "-t", "-e", "8", "-f", "raw", "-x", "disk", "--discard=unmap", "-k", str(path), str(image)]
    with _running(command, path, folder / "qemu.log") as connect:
        yield connect


@contextlib.contextmanager
def _running(command: list[str], path: Path, log: Path) -> Iterator[Connect]:
    with log.open("wb") as output:
        process = subprocess.Popen(command, stdout=output, stderr=output)

    def connect() -> socket.socket:
        sock = socket.socket(socket.AF_UNIX)
        try:
            sock.connect(str(path))
        except OSError:
            sock.close()
            raise
        sock.settimeout(20)
        return sock

    def listens() -> bool:
        with contextlib.suppress(OSError), connect():
            return True
        return False

    try:
        until(listens, seconds=60, what=f"{command[0]} listening")
        yield connect
    finally:
        end(process)
