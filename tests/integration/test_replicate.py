"""A device that is written to all the time, kept alike in a second store while each of the processes is killed."""

import contextlib
import hashlib
import json
import random
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from tests.integration.images import MIB
from tests.support.minio import RunningMinio
from tests.support.nbd import Client
from tests.support.processes import until
from tests.support.program import Host, Server
from tests.support.replicating import Replicating
from tests.support.seeds import fresh_seed
from tests.support.stores import StoreUnderTest, minio_store

DISK_BYTES = 64 * MIB
SLOT_BYTES = 64 * 1024


class Pair:
    """A disk `disk` that is served from a folder, and its replica `copy` in a bucket, served by another server."""

    def __init__(self, host: Host, source: Server, target: Server) -> None:
        self.host = host
        self.source = source
        self.target = target

    def replicating(self, *words: str) -> Replicating:
        return Replicating(self.host, self.source.location, self.target.location, "disk", "--as", "copy", *words)

    def snapshots(self, server: Server, device: str) -> list[str]:
        found: list[dict[str, Any]] = json.loads(
            self.host.run("snapshot", "list", device, "--json", "--store", server.location).stdout
        )
        return [str(one["name"]) for one in found]


@pytest.fixture
def pair(work: Path, minio: RunningMinio, make_server: Callable[..., Server], request: pytest.FixtureRequest) -> Pair:
    store = minio_store(minio, f"replica-{abs(hash(request.node.name)):x}-{work.name}")
    host = Host(work, store.environment)
    source = make_server(StoreUnderTest("file", f"file://{work}/one"), on=host, create={"disk": str(DISK_BYTES)})
    target = make_server(store, on=host, create={"other": "1MiB"})
    for each in (source, target):
        each.start()
    return Pair(host, source, target)


def sha(server: Server, export: str) -> str:
    """Of all that an export shows, read in one go by a client that keeps it from changing."""
    digest = hashlib.sha256()
    with server.connect(export) as client:
        for at in range(0, DISK_BYTES, MIB):
            digest.update(client.read(at, MIB))
    return digest.hexdigest()


class Writer:
    """Writes to a disk, through whatever server it has now, until the block ends. A slot holds the number of its write,
    so that what a whole state of the disk is can be told: numbers that were written with a flush in between are in it
    in that order.
    """

    def __init__(self, server: Server, seed: int) -> None:
        self._server = server
        self._chance = random.Random(seed)
        self._stop = threading.Event()
        self.count = 0

    @contextmanager
    def __call__(self) -> Iterator["Writer"]:
        thread = threading.Thread(target=self._run)
        thread.start()
        try:
            yield self
        finally:
            self._stop.set()
            thread.join(60)

    def goes_on(self) -> None:
        """Return when one more write is durable."""
        before = self.count
        until(lambda: self.count > before, seconds=60, what="one more write")

    def _run(self) -> None:
        while not self._stop.is_set():
            try:
                with self._server.connect("disk", timeout=10) as client:
                    while not self._stop.wait(0.002):
                        self._write(client)
            except (OSError, EOFError, AssertionError):
                self._stop.wait(0.05)  # the server was killed, or is not there yet

    def _write(self, client: Client) -> None:
        number = self.count + 1
        body = self._chance.randbytes(SLOT_BYTES // 8)
        client.write(self._chance.randrange(1, DISK_BYTES // SLOT_BYTES) * SLOT_BYTES, number.to_bytes(8, "big") + body)
        client.write(0, number.to_bytes(8, "big"))
        client.flush()
        self.count = number


def test_bytes_that_move_are_those_that_changed(pair: Pair) -> None:
    chance = random.Random(5)
    content = chance.randbytes(DISK_BYTES // 2)
    whole = hashlib.sha256(content).hexdigest()
    with pair.source.connect("disk") as client:
        for at in range(0, len(content), MIB):
            client.write(at, content[at : at + MIB])
        client.flush()
        with contextlib.ExitStack() as stack:
            running = stack.enter_context(pair.replicating("--every", "1s"))
            first = running.line("summary")
            past = stack.enter_context(pair.target.connect(f"copy@{first['snapshot']}"))
            assert DISK_BYTES / 2 <= first["stream_bytes"] <= DISK_BYTES / 2 * 1.02
            changed = 0
            for at in chance.sample(range(0, DISK_BYTES, 256 * 1024), 40):
                length = chance.choice([4096, 65536, 256 * 1024])
                client.write(at, chance.randbytes(length))
                changed += length
            client.flush()
            moved = 0
            while moved < changed:
                moved += running.line("summary")["stream_bytes"]
            assert not running.line("summary")["changed"]
            assert (
                hashlib.sha256(b"".join(bytes(past.read(at, MIB)) for at in range(0, len(content), MIB))).hexdigest()
                == whole
            ), "who reads is not disturbed"
            past.disconnect()
            until(lambda: len(pair.snapshots(pair.target, "copy")) == 1, seconds=60, what="the end of the older one")
            assert running.stop() == 0
    print(f"{changed} bytes were changed, {moved} bytes were moved")
    assert moved <= changed * 1.1
    assert sha(pair.source, "disk") == sha(pair.target, "copy")
    assert len(pair.snapshots(pair.source, "disk")) == len(pair.snapshots(pair.target, "copy")) == 1


@pytest.mark.parametrize("victim", ["command", "stopped", "source", "target"])
def test_an_end_in_the_midst_of_a_transfer(pair: Pair, victim: str) -> None:
    """Of the first one, and of a later one: the replica is not there, or is as it was; and the next round goes on."""
    chance = random.Random(victim)
    before: str | None = None
    for _ in range(2):
        with pair.source.connect("disk") as client:
            for at in range(0, DISK_BYTES, MIB):
                client.write(at, chance.randbytes(MIB))
            client.flush()
        with contextlib.ExitStack() as stack:
            running = stack.enter_context(pair.replicating("--every", "1s"))
            assert running.line("status")["bytes_done"] < DISK_BYTES / 2
            if victim == "command":
                running.kill()
            elif victim == "stopped":
                assert running.stop() == 0
            else:
                server = pair.source if victim == "source" else pair.target
                server.kill()
                assert running.line("waiting")["reason"]
                server.start()
            if victim in ("command", "stopped"):
                is_as_it_was(pair, before)
                running = stack.enter_context(pair.replicating("--every", "1s"))
            done = running.line("summary")
            running.line("summary")  # by then the one before has tidied up
            assert running.stop() == 0
        before = sha(pair.target, "copy")
        assert before == sha(pair.source, "disk")
        assert pair.snapshots(pair.source, "disk") == pair.snapshots(pair.target, "copy") == [done["snapshot"]]


@pytest.mark.slow
def test_a_kill_while_the_command_has_the_store_open(pair: Pair) -> None:
    """The second store is at rest: who opens it next finds the replica not there, or as it was."""
    assert pair.target.stop() == 0
    chance = random.Random(9)
    before: str | None = None
    for _ in range(2):
        with pair.source.connect("disk") as client:
            for at in range(0, DISK_BYTES, MIB):
                client.write(at, chance.randbytes(MIB))
            client.flush()
        with pair.replicating() as running:
            assert running.line("status")["bytes_done"] < DISK_BYTES / 2
            running.kill()
        pair.target.start()
        is_as_it_was(pair, before)
        assert pair.target.stop() == 0
        for _ in range(2):
            with pair.replicating() as running:
                running.line("status")
                running.kill()
        with pair.replicating() as running:
            running.line("summary")
            assert running.process.wait(60) == 0
        pair.target.start()
        before = sha(pair.target, "copy")
        assert before == sha(pair.source, "disk")
        assert len(pair.snapshots(pair.source, "disk")) == len(pair.snapshots(pair.target, "copy")) == 1
        assert pair.target.stop() == 0


def is_as_it_was(pair: Pair, content: str | None) -> None:
    """The replica comes to hold that again, or not to be there."""
    until(lambda: is_there(pair.target, "copy") == (content is not None), seconds=60, what="it is undone")
    assert content is None or sha(pair.target, "copy") == content


def is_there(server: Server, export: str) -> bool:
    """Whether somebody could attach it now."""
    try:
        with server.connect(export):
            return True
    except (OSError, EOFError):
        return False


@pytest.mark.slow
@pytest.mark.parametrize("seed", [fresh_seed()], ids=["fresh"])
def test_kills_of_each_of_the_three(pair: Pair, seed: int) -> None:
    """At moments that the seed draws. After each the replica holds a whole state of the source, never an older one, and
    the next round goes on; in the end the sides are alike, and nothing is left over.
    """
    chance = random.Random(seed)
    with Writer(pair.source, seed)() as writer:
        writer.goes_on()
        running = pair.replicating("--every", "1s")
        try:
            running.line("summary")
            shown = 0
            for _ in range(9):
                writer.goes_on()
                threading.Event().wait(chance.uniform(0, 2.5))  # which moment of a round that is, chance decides
                victim = chance.choice(["command", "source", "target"])
                if victim == "command":
                    running.kill()
                    running = pair.replicating("--every", "1s")
                else:
                    server = pair.source if victim == "source" else pair.target
                    server.kill()
                    server.start()
                shown = is_whole(pair, shown)
                running.line("summary")
        except BaseException:
            running.kill()
            raise
    final = running.line("summary")
    while final["changed"]:
        final = running.line("summary")
    assert running.stop() == 0
    assert sha(pair.source, "disk") == sha(pair.target, "copy")
    assert sha(pair.target, "copy") == sha(pair.target, f"copy@{final['snapshot']}")
    assert pair.snapshots(pair.source, "disk") == pair.snapshots(pair.target, "copy") == [final["snapshot"]]
    for server in (pair.source, pair.target):
        pair.host.run("check", "--store", server.location)


def is_whole(pair: Pair, least: int) -> int:
    """The number of the newest write in the replica, which holds exactly what a snapshot of the source holds, and one
    that is no older than that.
    """
    found: list[int] = []

    def shows() -> bool:
        try:
            with pair.target.connect("copy") as client:  # while it is attached, nothing is brought
                found.append(_look(pair, client))
        except (OSError, EOFError):
            return False  # nobody gets it while an import is under way or being undone
        return True

    until(shows, seconds=120, what="the replica can be attached")
    assert found[-1] >= least, "it went back"
    return found[-1]


def _look(pair: Pair, client: Client) -> int:
    content = b"".join(bytes(client.read(at, MIB)) for at in range(0, DISK_BYTES, MIB))
    numbers = [int.from_bytes(content[at : at + 8], "big") for at in range(0, DISK_BYTES, SLOT_BYTES)]
    assert numbers[0] <= max(numbers[1:]) <= numbers[0] + 1, "no moment of the source was like that"
    newest = pair.snapshots(pair.target, "copy")[-1]
    assert hashlib.sha256(content).hexdigest() == sha(pair.source, f"disk@{newest}")
    return numbers[0]
