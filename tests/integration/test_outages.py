"""A store that is full, or away for a while: flushes wait, reads go on, and nothing is lost."""

import json
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.support.commands import run
from tests.support.minio import RunningMinio
from tests.support.nbd import Client
from tests.support.processes import until
from tests.support.program import EXIT_NO_SPACE, Host, NotListening, Server
from tests.support.requirements import require
from tests.support.stores import StoreUnderTest, folder_store, minio_store

MIB = 1 << 20
EXIT_INTERRUPTED = 130
EXIT_PROBLEMS = 3


class Flush:
    """A flush under way on its own thread."""

    def __init__(self, client: Client) -> None:
        self._thread = threading.Thread(target=client.flush)
        self._thread.start()

    def waits(self) -> bool:
        """Whether it is still unanswered after a few seconds, far more than it takes when all is well."""
        self._thread.join(3)
        return self._thread.is_alive()

    def answered(self) -> None:
        self._thread.join(60)
        assert not self._thread.is_alive(), "the flush was not answered within 60 s"


@pytest.fixture
def small_disk(work: Path) -> Iterator[Path]:
    """A filesystem of 40 MiB of its own."""
    require("root", "mount")
    folder = work / "small"
    folder.mkdir()
    run("mount", "-t", "tmpfs", "-o", "size=40m", "tmpfs", folder)
    yield folder
    run("umount", "--lazy", folder)


def fill(folder: Path) -> Path:
    """Leave no room on the folder's filesystem; removing the file gives it back."""
    filler = folder / "filler"
    with filler.open("wb", buffering=0) as file:
        try:
            while True:
                file.write(bytes(65536))
        except OSError:
            return filler


def test_a_full_disk(small_disk: Path, host: Host, make_server: Callable[..., Server]) -> None:
    store = StoreUnderTest("file", f"file://{small_disk / 'store'}")
    server = make_server(store, create={"disk": "256MiB"})
    server.start()
    data = os.urandom(MIB)
    client, other = server.connect(), server.connect()
    for number in range(56):
        client.write(number * MIB, data)
    flush = Flush(client)
    assert flush.waits()
    assert other.read(5 * MIB, MIB) == data
    until(lambda: "make room" in server.said(), seconds=60, what="a word about the full disk")
    run("mount", "-o", "remount,size=400m", small_disk)
    flush.answered()
    filler = fill(small_disk)
    for number in range(24):
        client.write(number * MIB, bytes(4096))
    server.send(signal.SIGTERM)  # what was not flushed has nowhere to go: it waits for room
    client.close()
    other.close()
    with pytest.raises(subprocess.TimeoutExpired):
        server.wait(3)
    server.send(signal.SIGTERM)  # the second ends it at once, like a power cut
    assert server.wait(20) == EXIT_INTERRUPTED
    with pytest.raises(NotListening) as refused:
        server.start()
    assert refused.value.status == EXIT_NO_SPACE
    assert len(refused.value.output.strip().splitlines()) == 1
    assert "make room" in refused.value.output
    filler.unlink()
    server.start()
    with server.connect() as again:
        for number in range(56):
            assert again.read(number * MIB + 4096, MIB - 4096) == data[4096:], "flushed data was lost"


def test_a_full_state_folder_and_journal_are_seen(
    small_disk: Path, local_store: StoreUnderTest, make_server: Callable[..., Server]
) -> None:
    """Clients notice nothing, and whoever looks after the server learns what it could not do for them after a crash.
    There is no room for the journal from the start, and for both later; room is noticed though nobody comes or goes.
    """
    journal = small_disk / "journal"
    journal.mkdir(mode=0o700)
    server = make_server(local_store, create={"disk": "256MiB"})
    state = small_disk / "state"
    server.start("--journal", "off", "--state-folder", str(state))
    assert server.stop() == 0
    status = ("status", "--json", "--store", local_store.location)

    def said(expected: int) -> str:
        return " ".join(json.loads(server.host.run(*status, status=expected).stdout)["problems"])

    def well() -> bool:
        return not server.host.run(*status, status=None).returncode

    run("mount", "-t", "tmpfs", "-o", "mode=0700,size=16m,nr_inodes=1", "tmpfs", journal)
    server.start("--journal", str(journal), "--state-folder", str(state))
    assert "the journal is off, and what is answered is lost until it is flushed" in said(EXIT_PROBLEMS)
    run("mount", "-o", "remount,size=16m,nr_inodes=100", journal)
    until(well, seconds=120, what="a journal")
    fillers = fill(small_disk), fill(journal)
    with server.connect() as client:
        for number in range(24):
            client.write(number * MIB, os.urandom(MIB))
        found = said(EXIT_PROBLEMS)
        assert "this host cannot keep who is attached: the state folder cannot be used" in found
        assert "the journal is off, and what is answered is lost until it is flushed" in found
        assert found.count("make room") == 2
        for filler in fillers:
            filler.unlink()
        client.flush()
        until(well, seconds=180, what="a status without problems")


def test_a_store_that_is_away_for_a_while(work: Path, make_server: Callable[..., Server]) -> None:
    require("minio")
    minio = RunningMinio(work)
    minio.start()
    try:
        server = make_server(minio_store(minio, "away"), create={"disk": "64MiB"})
        server.start()
        with server.connect() as client, server.connect() as other:
            client.write(0, b"before" * 1000)
            client.flush()
            minio.stop()
            client.write(MIB, b"during" * 1000)
            flush = Flush(client)
            assert flush.waits()
            assert other.read(0, 6000) == b"before" * 1000
            assert other.read(MIB, 6000) == b"during" * 1000
            minio.start()
            flush.answered()
        server.kill()
        server.start()
        with server.connect() as again:
            assert again.read(0, 6000) == b"before" * 1000
            assert again.read(MIB, 6000) == b"during" * 1000
        assert server.stop() == 0
    finally:
        minio.stop()


class OnABadDisk(Server):
    """A server on a folder in which writes fail while the file `control` is there."""

    def __init__(self, work: Path, store: StoreUnderTest) -> None:
        super().__init__(Host(work, store.environment), store.location, create={"disk": "64MiB"})
        self.control = work / "control"

    def command(self) -> list[str]:
        words = super().command()
        return [
            *(sys.executable, "-m", "tests.soak.failing_writes", str(self.control)),
            *words[words.index("serve") :],
        ]


def test_a_folder_that_fails_what_is_written(work: Path) -> None:
    server = OnABadDisk(work, folder_store(work))
    server.start()
    try:
        with server.connect() as client, server.connect() as other:
            client.write(0, b"before" * 1000)
            client.flush()
            server.control.write_text("1")
            client.write(MIB, b"during" * 1000)
            flush = Flush(client)
            assert flush.waits()
            assert other.read(0, 6000) == b"before" * 1000
            assert other.read(MIB, 6000) == b"during" * 1000
            said = server.host.run("status", "--store", server.location, status=EXIT_PROBLEMS).stdout
            assert "the store fails since" in said
            assert "Input/output error" in said
            server.control.unlink()
            flush.answered()
            assert server.host.run("status", "--store", server.location).returncode == 0
        server.kill()
        server.start()
        with server.connect() as again:
            assert again.read(MIB, 6000) == b"during" * 1000
        assert server.stop() == 0
    finally:
        server.close()
