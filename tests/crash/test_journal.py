"""The journal in memory: kill -9 behind writes that were answered and not flushed, and they are there afterwards."""

import shutil
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.crash.reconnecting import SLOTS, SPACING, Forgotten, survive
from tests.crash.rounds import Rounds
from tests.support.memory_device import SECTOR
from tests.support.messages import WRITE
from tests.support.nbd import Client
from tests.support.program import Host, Server
from tests.support.stores import StoreUnderTest

pytestmark = pytest.mark.integration

COUNT = 200
"""Writes of a sector: so few that the log has them only when they are a second old."""

TRIES = 8
"""Kills among which one comes before the log has what was written, on a machine that is busy."""

KILLS = 20
"""`python -m tests.crash.reconnecting` does as many as one likes."""

ROUNDS = {"file": 8, "minio": 4}
SEED = 20261128


def content(number: int, life: int) -> bytes:
    return f"{life} {number} ".encode().ljust(SECTOR, b".")


def write_all(client: Client, life: int) -> None:
    """All answered, none flushed."""
    cookies = {client.submit(WRITE, number * SECTOR, data=content(number, life)) for number in range(COUNT)}
    while cookies:
        reply = client.receive()
        assert not reply.error
        cookies.remove(reply.cookie)


def missing(client: Client, life: int) -> list[int]:
    """The sectors that do not hold what was written last."""
    return [number for number in range(COUNT) if client.read(number * SECTOR, SECTOR) != content(number, life)]


@pytest.fixture
def server(work: Path, memory: Path, store: StoreUnderTest) -> Iterator[Server]:
    made = Server(
        Host(work, store.environment), store.location, create={"disk": "16MiB"}, arguments=["--journal", str(memory)]
    )
    yield made
    made.close()


def kill_behind_answers(server: Server, life: int) -> None:
    with server.connect() as client:
        write_all(client, life)
        server.kill()


def files(memory: Path) -> list[Path]:
    return [path for path in memory.rglob("*") if path.is_file()]


def test_nothing_that_was_answered_is_lost(server: Server, memory: Path) -> None:
    server.start()
    restored = 0
    for life in range(1, TRIES):
        kill_behind_answers(server, life)
        assert all(path.stat().st_mode & 0o077 == 0 for path in files(memory))
        server.start()
        with server.connect() as client:
            assert missing(client, life) == []
        restored = server.said().count("journal_restored")
        if restored:
            break
    assert restored, "the log always had everything: this showed nothing"
    with server.connect() as client:
        client.write(0, content(0, 99))
    assert server.stop() == 0
    assert files(memory) == []
    server.start()
    with server.connect() as client:
        assert client.read(0, SECTOR) == content(0, 99)


def test_without_a_journal_it_is_lost(server: Server) -> None:
    server.arguments = ["--journal", "off"]
    server.start()
    for life in range(1, TRIES):
        kill_behind_answers(server, life)
        server.start()
        with server.connect() as client:
            if missing(client, life):
                return
    pytest.fail("nothing was lost: the test of the journal would show nothing")


@pytest.mark.parametrize("store", ["minio"], indirect=True)
def test_a_command_on_the_store_at_rest_does_it_again_too(server: Server, memory: Path) -> None:
    server.start()
    kill_behind_answers(server, 1)
    server.host.run("device", "create", "other", "1MiB", "--store", server.location, "--journal", str(memory))
    assert files(memory) == []
    server.start()
    with server.connect() as client:
        assert missing(client, 1) == []


@pytest.mark.parametrize("store", ["minio"], indirect=True)
def test_a_journal_of_before_another_host_had_the_store_is_set_aside(
    server: Server, work: Path, memory: Path, store: StoreUnderTest
) -> None:
    server.start()
    kill_behind_answers(server, 1)
    folder = work / "b"
    folder.mkdir()
    there = Server(Host(folder, store.environment), store.location)
    try:
        there.start("--take-over")
        with there.connect() as client:
            write_all(client, 2)
        assert there.stop() == 0
    finally:
        there.close()
    server.start()
    with server.connect() as client:
        assert missing(client, 2) == []
    assert "journal_not_used" in server.said()
    assert [path for path in memory.iterdir() if path.suffix == ".aside"]


@pytest.mark.parametrize(("store", "change"), [("file", "flipped"), ("minio", "lost")], indirect=["store"])
def test_a_journal_that_is_damaged_is_set_aside(server: Server, memory: Path, change: str) -> None:
    server.start()
    with server.connect() as client:
        write_all(client, 1)
        client.flush()
        write_all(client, 2)
        server.kill()
    (segment,) = memory.rglob("*.segment")
    raw = bytearray(segment.read_bytes())
    if change == "flipped":
        raw[int.from_bytes(raw[:8], sys.byteorder) - 100] ^= 1
        segment.write_bytes(raw)
    else:
        shutil.rmtree(segment.parent)
    server.start()
    with server.connect() as client:
        assert "journal_not_used" in server.said()
        assert ("set aside" in server.said()) == (change == "flipped")
        lost = missing(client, 2)
        assert all(client.read(number * SECTOR, SECTOR) == content(number, 1) for number in lost)
        write_all(client, 3)
        server.kill()
    server.start()
    with server.connect() as client:
        assert missing(client, 3) == []


@pytest.mark.parametrize("store", ["file"], indirect=True)
def test_a_journal_never_lies_on_a_disk(server: Server, work: Path) -> None:
    folder = work / "disk"
    done = server.host.run("serve", server.location, "--journal", str(folder), status=None)
    assert done.returncode == 2
    assert "tmpfs" in done.stderr


@pytest.mark.slow
@pytest.mark.parametrize("store", ["minio"], indirect=True)
def test_a_client_that_attaches_again_does_not_notice(server: Server) -> None:
    server.create = {"disk": str(SLOTS * SPACING)}
    assert survive(server, kills=KILLS, seed=SEED) > KILLS


@pytest.mark.slow
@pytest.mark.parametrize("store", ["file"], indirect=True)
def test_without_a_journal_a_client_that_attaches_again_reads_old_data(server: Server) -> None:
    server.create = {"disk": str(SLOTS * SPACING)}
    server.arguments = ["--journal", "off"]
    with pytest.raises(Forgotten):
        survive(server, kills=KILLS, seed=SEED)


@pytest.mark.slow
@pytest.mark.parametrize("store", ["file"], indirect=True)
def test_kill_under_load(work: Path, memory: Path, store: StoreUnderTest) -> None:
    rounds = Rounds(Host(work, store.environment), store, seed=SEED, journal=memory)
    try:
        for number in range(ROUNDS[store.kind]):
            rounds.crash(connections=4 if number % 2 else 1)
        rounds.stop_cleanly(connections=4)
    finally:
        rounds.close()
