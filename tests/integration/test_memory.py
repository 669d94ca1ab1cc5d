"""What the real program keeps in memory: no more than it says, and never what only a stranger's object asks for."""

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.support.nbd import Client
from tests.support.processes import resident_bytes
from tests.support.program import EXIT_CORRUPT, Server
from tests.support.stores import StoreUnderTest

MIB = 1 << 20
SECTOR = 4096
CACHE_BYTES = 64 * MIB

SERVER_BYTES = 256 * MIB
"""A server with a small cache and nothing under way: the interpreter, and freed memory that the allocator keeps for the
buffers of the next requests."""


def write_until_stored(client: Client, server: Server, payload: bytearray, *, count: int, first: int) -> None:
    """Long writes with little in them that is worth keeping, each durable before the next."""
    for number in range(count):
        payload[number * SECTOR : number * SECTOR + 8] = b"a sector"
        client.write(first + number * len(payload), bytes(payload))
        client.flush()
    server.host.run("flush", "--store", server.location)


@pytest.mark.parametrize("offset", [0, 5 * SECTOR])
def test_the_cache_keeps_what_it_says(
    local_store: StoreUnderTest, make_server: Callable[..., Server], offset: int
) -> None:
    """Each write leaves a block or two in the cache, and its ends in the memtable; none may keep all 32 MiB."""
    server = make_server(local_store, create={"disk": "8GiB"}, arguments=["--cache-size", "64MiB"])
    server.start()
    with server.connect() as client:
        write_until_stored(client, server, bytearray(32 * MIB), count=60, first=offset)
        assert resident_bytes(server.pid) < SERVER_BYTES + CACHE_BYTES


OPENED_BYTES = 512 * MIB
"""A server that has replayed a log: Argon2id's 256 MiB, which are free again, and a memtable of as much."""


def test_a_log_that_compresses_well_is_opened_in_little_memory(
    local_store: StoreUnderTest, make_server: Callable[..., Server]
) -> None:
    """Written and discarded over and over until the server is killed: little is left of it but its log."""
    server = make_server(local_store, create={"disk": "1GiB"})
    server.start()
    data = bytes(range(256)) * (3 * MIB // 256)
    with server.connect() as client:
        for _ in range(200):
            client.write(SECTOR, data)
            client.flush()
            client.trim(0, 64 * MIB)
        client.write(SECTOR, data)
        client.flush()
    server.kill()
    server.start()
    with server.connect() as client:
        assert client.read(SECTOR, len(data)) == data
    assert resident_bytes(server.pid, "VmHWM") < OPENED_BYTES


HUGE_BYTES = 1000 * MIB


def sparse(path: Path, size: int) -> None:
    with path.open("wb") as file:
        file.truncate(size)


@pytest.mark.parametrize("size", [HUGE_BYTES, 500 * MIB], ids=["larger than any", "as large as a log object may be"])
def test_huge_objects_of_a_stranger_are_not_read(
    local_store: StoreUnderTest, make_server: Callable[..., Server], size: int
) -> None:
    """Who can put objects into the store, but has not its password, puts four of them behind the log."""
    server = make_server(local_store, create={"disk": "1GiB"})
    server.start()
    with server.connect() as client:
        client.write(0, b"x" * SECTOR)
        client.flush()
    server.kill()
    log = Path(local_store.location.removeprefix("file://")) / "wal"
    last = max(int(path.stem) for path in log.iterdir())
    for number in range(1, 5):
        sparse(log / f"{last + number:020}.sst", size)
    peak, status, said = peak_of(server)
    assert status == EXIT_CORRUPT
    assert f"{last + 1:020}.sst is damaged" in said
    assert peak < OPENED_BYTES


def test_a_huge_keys_object_is_not_read(local_store: StoreUnderTest, make_server: Callable[..., Server]) -> None:
    server = make_server(local_store, create={"disk": "1GiB"})
    server.start()
    assert server.stop() == 0
    keys = Path(local_store.location.removeprefix("file://")) / "keys"
    sparse(keys / f"{2:020}.keys", 1 << 30)
    peak, status, said = peak_of(server)
    assert status == EXIT_CORRUPT
    assert f"{2:020}.keys is damaged" in said
    assert peak < OPENED_BYTES


PEAK = """
import os, sys
child = os.spawnvp(os.P_NOWAIT, sys.argv[1], sys.argv[1:])
_, status, usage = os.wait4(child, 0)
print(os.waitstatus_to_exitcode(status), usage.ru_maxrss * 1024)
"""
"""Runs a command, and prints its status and its highest resident memory in bytes. A process is counted from its fork
on, with the memory of its parent: so the parent must be small (getrusage(2), `ru_maxrss`).
"""


def peak_of(server: Server) -> tuple[int, int, str]:
    """Run a server that will not start: its highest resident memory in bytes, its status, and what it said."""
    done = subprocess.run(
        [sys.executable, "-S", "-c", PEAK, *server.command()],
        env=server.host.environment(),
        cwd=server.host.folder,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=120,
    )
    status, peak = done.stdout.split()[-2:]
    return int(peak), int(status), done.stderr
