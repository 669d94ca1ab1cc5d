"""The servers of the table, and a good client beside whatever the others do."""

import json
import socket
import ssl
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.nbdserver.cases.case import DATA, SIZE
from tests.nbdserver.cases.served import CERTIFICATES
from tests.support.certificates import Authority, write_folder
from tests.support.nbd import Client
from tests.support.processes import end, resident_bytes

PEAK_BYTES_MAX = 400 << 20
"""The most that the servers may ever hold: payloads of 32 MiB come one after the other."""


class Servers:
    """The process of `served`, and where its servers listen."""

    def __init__(self, folder: Path) -> None:
        self._log = folder / "log"
        write_folder(folder / CERTIFICATES, Authority())
        self.tls = ssl.create_default_context(cafile=folder / CERTIFICATES / "ca-cert.pem")
        with self._log.open("wb") as log:
            self.process = subprocess.Popen(
                [sys.executable, "-m", "tests.nbdserver.cases.served", str(folder)],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=log,
            )
        assert self.process.stdout is not None
        self.addresses: dict[str, tuple[str, int]] = json.loads(self.process.stdout.readline())

    def connect(self, name: str = "plain", *, unix: bool = False) -> socket.socket:
        """A bare socket to one of them."""
        path, port = self.addresses[name]
        if unix:
            sock = socket.socket(socket.AF_UNIX)
            sock.settimeout(20)
            sock.connect(path)
            return sock
        sock = socket.create_connection(("127.0.0.1", port), timeout=60)
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        return sock

    def client(self, export: str, name: str = "plain") -> Client:
        return Client(Path(self.addresses[name][0]), export, timeout=60)

    def resident(self, field: str = "VmRSS") -> int:
        """Bytes of memory that the process holds."""
        return resident_bytes(self.process.pid, field)

    def said(self) -> str:
        """What it logged."""
        return self._log.read_text()


class Good:
    """A well-behaved client: writes, reads and flushes on an export of its own, and must be answered right.

    It also looks at `disk`, on which the others act.
    """

    def __init__(self, servers: Servers) -> None:
        self._own = servers.client("beside")
        self._disk = servers.client("disk")
        self._turn = 0

    def work(self) -> None:
        """One round; AssertionError or NbdError if it noticed anything."""
        self._turn += 1
        data = self._turn.to_bytes(4, "big") * 1024
        place = self._turn * 4096 % SIZE
        self._own.write(place, data)
        assert self._own.read(place, len(data)) == data
        self._own.flush()

    def lay_out(self) -> None:
        """Bring `disk` into the state that every case finds."""
        self._disk.trim(DATA, SIZE - DATA)
        self._disk.write(0, b"d" * DATA)

    def contents(self, offset: int, length: int) -> bytes:
        return self._disk.read(offset, length)

    def close(self) -> None:
        self._own.disconnect()
        self._disk.disconnect()


@pytest.fixture(scope="module")
def servers() -> Iterator[Servers]:
    with tempfile.TemporaryDirectory(prefix="nbd-cases-") as folder:
        running = Servers(Path(folder))
        yield running
        peak = running.resident("VmHWM")
        assert end(running.process) == 0
        assert "Traceback" not in running.said(), running.said()
        assert peak < PEAK_BYTES_MAX, f"the servers held {peak >> 20} MiB"


@pytest.fixture
def good(servers: Servers) -> Iterator[Good]:
    client = Good(servers)
    client.lay_out()
    yield client
    client.close()
