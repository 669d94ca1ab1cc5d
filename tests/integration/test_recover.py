"""`scripts/recover` reads, out of a copy of a store, what the program itself gives: every device and every snapshot, as
SHA-256 of its image, after all that may happen to a store.
"""

import ast
import hashlib
import random
import re
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import cast

import pytest

from tests.support.minio import BUCKET, RunningMinio
from tests.support.program import REPOSITORY, Host, Server
from tests.support.stores import StoreUnderTest

KIB, MIB = 1 << 10, 1 << 20
DAMAGED, NOT_FOUND, WRONG_PASSWORD, CORRUPT = 3, 10, 12, 20


def recover(store: Path, *words: str, password: str = "a password for tests") -> "subprocess.CompletedProcess[str]":
    """Run `scripts/recover` with nothing but the password in its environment, in a folder from which no module of the
    project can be imported.
    """
    command = [sys.executable, "-I", str(REPOSITORY / "scripts" / "recover"), str(store), *words]
    return subprocess.run(
        command, env={"NBDSERVER_PASSWORD": password}, cwd=store, capture_output=True, text=True, timeout=120
    )


def digest(path: Path) -> str:
    with path.open("rb") as file:
        found = hashlib.file_digest(file, "sha256").hexdigest()
    path.unlink()
    return found


def recovered(store: Path, image: Path) -> dict[str, str]:
    """Every disk that `scripts/recover` finds, whole, as the SHA-256 of its image."""
    listed = recover(store, "list")
    assert (listed.returncode, listed.stderr) == (0, "")
    found = {}
    for line in listed.stdout.splitlines():
        name, size = line.split("\t")
        done = recover(store, "export", name, str(image))
        assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
        assert image.stat().st_size == int(size)
        found[name] = digest(image)
    return found


def served(copy: Path, host: Host) -> dict[str, str]:
    """Every disk, as the program itself gives it to clients; it may change that copy, and no other."""
    server = Server(host, f"file://{copy}", arguments=("--journal", "off"))
    server.start("--take-over")
    try:
        found = {}
        for kind in ("device", "snapshot"):
            for disk in cast(list[dict[str, str]], host.json(kind, "list", "--store", server.location)):
                name = disk["name"] if kind == "device" else f"{disk['device']}@{disk['name']}"
                found[name] = hashlib.sha256()
                with server.connect(name) as client:
                    for offset in range(0, client.size, MIB):
                        found[name].update(client.read(offset, min(MIB, client.size - offset)))
    finally:
        server.close()
    return {name: hashed.hexdigest() for name, hashed in found.items()}


@pytest.fixture
def copied(store: StoreUnderTest, work: Path, request: pytest.FixtureRequest) -> Callable[[], Path]:
    """Makes a copy of the store as it lies there, as tools do that mirror a bucket or a folder."""

    def copy() -> Path:
        folder = work / "copy"
        shutil.rmtree(folder, ignore_errors=True)
        if store.kind == "file":
            shutil.copytree(work / "store", folder)
            return folder
        client = cast(RunningMinio, request.getfixturevalue("minio")).client()
        prefix = store.location.removeprefix(f"s3://{BUCKET}/")
        for each in client.list_objects(BUCKET, prefix, recursive=True):
            client.fget_object(BUCKET, each.object_name, str(folder / each.object_name.removeprefix(f"{prefix}/")))
        return folder

    return copy


def scribble(server: Server, name: str, size: int, chance: random.Random, count: int) -> None:
    """What clients do: data that compresses and data that does not, of any length, zeros, discards, flushes."""
    with server.connect(name) as client:
        for _ in range(count):
            offset = chance.randrange(size)
            length = min(chance.choice((1, 100, 512, 4096, 60000, 300000, 1 << 20)), size - offset)
            match chance.randrange(8):
                case 0:
                    client.trim(offset // 4096 * 4096, length)
                case 1:
                    client.zero(offset, length)
                case 2:
                    client.write(offset, bytes([chance.randrange(256)]) * length)
                case 3:
                    client.flush()
                case _:
                    client.write(offset, chance.randbytes(length))


@pytest.mark.slow
@pytest.mark.parametrize("store", ["file"], indirect=True)
def test_every_disk_is_recovered(
    store: StoreUnderTest, make_server: Callable[..., Server], copied: Callable[[], Path], work: Path
) -> None:
    sizes = {"vol1": 8 * MIB, "tenant-a/vol2": 3 * MIB + 512 * 3, "empty": 5 * MIB, "doomed": MIB}
    server = make_server(store, create={"doomed": "1MiB"}, arguments=("--journal", "off"))
    host, image, chance = server.host, work / "image", random.Random(14)
    another = Host(work / "another")
    another.folder.mkdir()
    server.start()
    server.create.clear()

    def command(*words: str) -> None:
        host.run(*words, "--store", server.location)

    def compare() -> None:
        assert server.process is None
        copy = copied()
        found = recovered(copy, image)
        assert found == served(copy, another)
        assert len(found) > 4

    def everywhere(count: int) -> None:
        for name in ("vol1", "tenant-a/vol2", "doomed"):
            scribble(server, name, sizes[name], chance, count)

    for name, size in sizes.items():
        if name != "doomed":
            command("device", "create", name, f"{size}B")
    everywhere(60)
    command("snapshot", "create", "vol1@one")
    command("snapshot", "create", "@both", "--devices", "vol1,tenant-a/vol2")
    everywhere(40)
    command("device", "clone", "vol1@one", "clone")
    command("device", "clone", "doomed", "copy")
    command("device", "delete", "doomed", "--yes")
    sizes["doomed"] = sizes["vol1"]
    command("device", "create", "doomed", f"{sizes['vol1']}B")
    scribble(server, "clone", sizes["vol1"], chance, 30)
    everywhere(20)
    server.kill()
    compare()
    server.start("--take-over")
    everywhere(20)
    command("snapshot", "rollback", "vol1@one")
    command("snapshot", "delete", "vol1@both")
    command("device", "resize", "vol1", f"{5 * MIB + 512}B", "--shrink")
    command("device", "resize", "vol1", f"{9 * MIB}B")
    command("device", "rename", "copy", "tenant-b/copied")
    command("fs", "ln", "vol1", "/.nbd/current")
    everywhere(20)
    assert server.stop() == 0
    command("compact")
    compare()
    server.start()
    everywhere(10)
    command("snapshot", "create", "vol1@two")
    command("snapshot", "rollback", "tenant-a/vol2@both")
    everywhere(60)
    command("compact")
    command("snapshot", "delete", "vol1@one")
    everywhere(40)
    server.kill()
    compare()


def test_what_is_damaged_is_said_by_range(
    local_store: StoreUnderTest, make_server: Callable[..., Server], work: Path
) -> None:
    """A flipped bit in data costs the sectors that lie there; a lost part of the log what was written since."""
    server = make_server(local_store, create={"vol1": "4MiB", "vol2": "4MiB"}, arguments=("--journal", "off"))
    server.start()
    chance, image = random.Random(3), work / "image"
    whole = chance.randbytes(4 * MIB)
    for name in ("vol1", "vol2"):
        with server.connect(name) as client:
            client.write(0, whole)
            client.flush()
    assert server.stop() == 0
    server.start()
    with server.connect("vol2") as client:
        client.write(4096, b"newer" * 100)
        client.flush()
    server.kill()
    folder = work / "store"

    log = max(folder.glob("wal/*.sst"))
    aside = log.rename(work / "aside")
    done = recover(folder, "export", "vol2", str(image))
    assert done.returncode in (0, DAMAGED), "an end that nobody is known to have acknowledged may be missing unnoticed"
    assert digest(image) == hashlib.sha256(whole).hexdigest()
    log.write_bytes(bytes([aside.read_bytes()[0] ^ 1]) + aside.read_bytes()[1:])
    done = recover(folder, "list")
    assert done.returncode == DAMAGED
    assert (
        f"recover: wal/{log.name} is of another store, or damaged: what was written from there on is missing"
        in done.stderr
    )
    aside.rename(log)

    largest = max(folder.glob("compacted/*.sst"), key=lambda path: path.stat().st_size)
    data = bytearray(largest.read_bytes())
    data[len(data) // 2] ^= 4
    largest.write_bytes(data)
    found, lost = {}, 0
    for name in ("vol1", "vol2"):
        done = recover(folder, "export", name, str(image))
        assert done.returncode == (DAMAGED if done.stderr else 0)
        got, expected = bytearray(image.read_bytes()), bytearray(whole)
        if name == "vol2":
            expected[4096:4596] = b"newer" * 100
        for line in done.stderr.splitlines():
            match = re.fullmatch(
                rf"recover: {name}, bytes (\d+) to (\d+), cannot be read: compacted/{largest.name}.*", line
            )
            assert match, line
            start, end = int(match[1]), int(match[2]) + 1
            assert got[start:end] == bytes(end - start), "what cannot be read is a hole"
            expected[start:end] = bytes(end - start)
            lost += end - start
        found[name] = got == expected
        image.unlink()
    assert found == {"vol1": True, "vol2": True}, "the rest is right"
    assert lost == 262144, "one block, and no more"


def test_what_it_refuses(local_store: StoreUnderTest, host: Host, work: Path) -> None:
    host.run("init", local_store.location)
    host.run("device", "create", "vol1", "1MiB", "--store", local_store.location)
    folder = work / "store"

    def refused(status: int, *words: str, **more: str) -> str:
        done = recover(folder, *words, **more)
        assert (done.returncode, done.stdout) == (status, "")
        return done.stderr

    assert refused(WRONG_PASSWORD, "list", password="another") == (
        "recover: wrong password: it opens none of the key slots of this store\n"
    )
    assert refused(NOT_FOUND, "export", "vol2", str(work / "image")) == (
        "recover: there is no disk vol2: `list` says which there are\n"
    )
    (work / "image").write_text("precious")
    assert "exists" in refused(1, "export", "vol1", str(work / "image"))
    assert (work / "image").read_text() == "precious"
    for manifest in (*folder.glob("manifest/*"), *folder.glob("spare/*.manifest")):
        manifest.unlink()
    assert "there is no manifest: this is a part of a store" in refused(CORRUPT, "list")
    assert "holds no store" in recover(work, "list").stderr


def test_it_has_nothing_of_this_project() -> None:
    """Beside the standard library it imports what its first lines say, and no more."""
    tree = ast.parse((REPOSITORY / "scripts" / "recover").read_text())
    imported = {
        name.split(".")[0]
        for node in ast.walk(tree)
        for name in (
            [alias.name for alias in node.names]
            if isinstance(node, ast.Import)
            else [node.module or "."]
            if isinstance(node, ast.ImportFrom)
            else []
        )
    }
    assert imported - set(sys.stdlib_module_names) == {"argon2", "lz4", "msgspec", "nacl", "numpy"}
