"""Snapshots that are brought to another store as streams, by the real program: chains, kills, and what is refused."""

import hashlib
import json
import random
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.integration.images import MIB
from tests.support.processes import until
from tests.support.program import COMMAND, EXIT_CONFLICT, EXIT_CORRUPT, EXIT_EXISTS, Host, Server
from tests.support.stores import StoreUnderTest

DISK_BYTES = 64 * MIB
"""Each look at a disk reads all of it, holes too."""


class Pair:
    """A disk `disk` in one store, and another store that gets its snapshots as `copy`."""

    def __init__(self, source: Server, target: Server, folder: Path) -> None:
        self.source = source
        self.target = target
        self._folder = folder
        self._chance = random.Random(1)

    def take(self, snapshot: str) -> None:
        """Write and discard here and there, and take a snapshot."""
        chance = self._chance
        with self.source.connect("disk") as client:
            for _ in range(60):
                data = chance.randbytes(chance.choice([1, 4096, 5000, 300_000]))
                client.write(chance.randrange(DISK_BYTES - len(data)), data)
            client.trim(chance.randrange(DISK_BYTES // (4 * MIB)) * 4 * MIB, 3 * MIB + 512)
            client.flush()
        run(self.source, "snapshot", "create", f"disk@{snapshot}")

    def stream(self, snapshot: str, since: str | None = None) -> Path:
        path = self._folder / f"{since}-{snapshot}.stream"
        how = ["--stream"] if since is None else ["--since", since]
        run(self.source, "device", "export", f"disk@{snapshot}", str(path), "--overwrite", *how)
        return path

    def bring(self, path: Path, status: int = 0, device: str = "copy") -> str:
        done = run(self.target, "device", "import", device, str(path), status=status)
        return done.stdout + done.stderr

    def is_alike(self, snapshot: str, device: str = "copy") -> None:
        """The device there holds what the snapshot holds, and so does its own one."""
        want = self.sha(self.source, f"disk@{snapshot}")
        for name in (device, f"{device}@{snapshot}"):
            assert self.sha(self.target, name) == want, name

    def sha(self, server: Server, name: str) -> str:
        path = self._folder / "image"
        run(server, "device", "export", name, str(path), "--overwrite")
        with path.open("rb") as image:
            return hashlib.file_digest(image, "sha256").hexdigest()

    def snapshots(self) -> list[str]:
        listed = json.loads(run(self.target, "snapshot", "list", "copy", "--json").stdout)
        return [one["name"] for one in listed]


def run(server: Server, *words: str, status: int | None = 0) -> "subprocess.CompletedProcess[str]":
    return server.host.run(*words, "--store", server.location, status=status)


@pytest.fixture
def pair(store: StoreUnderTest, make_server: Callable[..., Server], work: Path) -> Pair:
    source = make_server(store, create={"disk": str(DISK_BYTES)})
    source.start()
    folder = work / "elsewhere"
    folder.mkdir()
    other = StoreUnderTest("file", f"file://{folder}/store")
    target = make_server(other, on=Host(folder), create={"other": "1MiB"})
    target.start()
    return Pair(source, target, work)


@pytest.mark.slow
@pytest.mark.parametrize("store", ["minio"], indirect=True)
def test_two_chains(pair: Pair) -> None:
    """One served on both sides; then one at rest, which begins elsewhere and leaves some out."""
    for number in range(4):
        pair.take(f"s{number}")
        path = pair.stream(f"s{number}", f"s{number - 1}" if number else None)
        pair.bring(path)
        pair.is_alike(f"s{number}")
        if number > 1:  # older ones are needed no more, on either side
            run(pair.source, "snapshot", "delete", f"disk@s{number - 2}")
            run(pair.target, "snapshot", "delete", f"copy@s{number - 2}")
    assert pair.snapshots() == ["s2", "s3"]
    changed = json.loads(run(pair.source, "snapshot", "diff", "disk@s2", "disk@s3", "--json").stdout)["changed_bytes"]
    assert path.stat().st_size <= 1.01 * changed + 100_000, "what did not change is not sent"
    assert pair.source.stop() == pair.target.stop() == 0
    pair.bring(pair.stream("s2"), device="late")
    pair.source.start()
    pair.take("s4")
    assert pair.source.stop() == 0
    pair.bring(pair.stream("s4", "s2"), device="late")
    pair.is_alike("s4", device="late")
    pair.bring(pair.stream("s4", "s3"))
    pair.is_alike("s4")
    run(pair.target, "check")


@pytest.mark.parametrize("store", ["file"], indirect=True)
def test_what_is_refused_changes_nothing(pair: Pair, work: Path) -> None:
    for name in ("one", "two", "three"):
        pair.take(name)
    first, second, third = pair.stream("one"), pair.stream("two", "one"), pair.stream("three", "two")
    pair.bring(first)

    def refused(path: Path, status: int, sentence: str) -> None:
        assert sentence in pair.bring(path, status)
        assert pair.snapshots() == ["one"]
        assert run(pair.target, "device", "list").stdout.count("\n") == 2

    refused(third, EXIT_CONFLICT, "its newest is 'one'")
    refused(first, EXIT_EXISTS, "there is a 'copy' already")
    whole = second.read_bytes()
    damaged = work / "damaged"
    for content in (whole[:-1], whole[: len(whole) // 2], whole[:20], whole + b"x", b"\0" + whole[1:]):
        damaged.write_bytes(content)
        refused(damaged, EXIT_CORRUPT, "the snapshot stream is damaged")
    damaged.write_bytes(whole[:1000000] + bytes([whole[1000000] ^ 1]) + whole[1000001:])
    refused(damaged, EXIT_CORRUPT, "a checksum does not fit")
    assert (
        "replaces nothing" in run(pair.target, "device", "import", "copy", str(second), "--overwrite", status=2).stderr
    )
    with pair.target.connect("copy") as client:
        refused(second, EXIT_CONFLICT, "attached")
        client.write(0, b"changed")
        client.flush()
    refused(second, EXIT_CONFLICT, "nbdserver snapshot rollback copy@one")
    run(pair.target, "snapshot", "rollback", "copy@one", "--discard")
    pair.bring(second)
    assert "holds all of this already" in pair.bring(second, EXIT_EXISTS)
    pair.bring(third)
    pair.is_alike("three")
    assert (
        "no snapshot named 'none'"
        in run(pair.source, "device", "export", "disk@three", str(work / "x"), "--since", "none", status=10).stderr
    )
    assert not (work / "x").exists()
    run(pair.source, "device", "export", "disk", str(work / "x"), "--stream", status=2)


@pytest.mark.parametrize(("store", "killed"), [("minio", "server"), ("file", "command")], indirect=["store"])
def test_a_kill_in_the_midst_of_an_import(pair: Pair, killed: str) -> None:
    pair.take("one")
    pair.take("two")
    pair.bring(pair.stream("one"))
    path = pair.stream("two", "one")
    content = path.read_bytes()
    importing = subprocess.Popen(
        [*COMMAND, "device", "import", "copy", "-", "--store", pair.target.location],
        env=pair.target.host.environment(),
        stdin=subprocess.PIPE,
        stderr=subprocess.PIPE,
    )
    assert importing.stdin is not None
    importing.stdin.write(content[: len(content) * 2 // 3])
    importing.stdin.flush()

    def written() -> int:
        answer = json.loads(run(pair.target, "device", "show", "copy", "--json").stdout)
        return int(answer["usage"]["written_bytes"])

    before = pair.sha(pair.source, "disk@one")
    until(lambda: written() > len(content) // 3, seconds=60, what="half of it is written")
    assert "in use by an import" in run(pair.target, "snapshot", "rollback", "copy@one", status=EXIT_CONFLICT).stderr
    if killed == "server":
        run(pair.target, "flush")
        pair.target.kill()
        pair.target.start()
    else:
        importing.kill()
    importing.communicate()
    assert importing.returncode != 0
    assert pair.snapshots() == ["one"]

    def is_back() -> bool:
        done = run(pair.target, "snapshot", "create", "copy@probe", status=None)
        return done.returncode == 0

    until(is_back, seconds=60, what="the import is undone")
    assert pair.sha(pair.target, "copy") == pair.sha(pair.target, "copy@one") == before
    pair.bring(path)
    pair.is_alike("two")
    run(pair.target, "check")
