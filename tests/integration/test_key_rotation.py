"""`nbdserver key rotate` beside a real server: its clients go on, the next start takes the new key, and at the end the
old one opens nothing of the store.
"""

import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.processes import until
from tests.support.program import EXIT_CONFLICT, Host, Server
from tests.support.recover_script import recover
from tests.support.successors import end_of, pid_of

EXIT_DAMAGED = 20
DISK_BYTES = 1 << 20
FENCE_KIND, MANIFEST_KIND = 4, 2


@pytest.fixture
def served(work: Path) -> Iterator[Server]:
    """A server with one disk, and at the end whoever has come in its place."""
    host = Host(work)
    logged = ["--log-file", str(work / "log")]
    server = Server(host, str(work / "store"), create={"disk": "1MiB"}, arguments=logged, tcp=True)
    server.start()
    began = server.pid
    try:
        yield server
    finally:
        successor = pid_of(host, server.location)
        server.close()
        if successor is not None and successor != began:
            end_of(successor)


def key(server: Server, *words: str, status: int = 0) -> str:
    """What `nbdserver key WORDS` says."""
    done = server.host.run("key", *words, "--store", server.location, status=status)
    return done.stderr if status else done.stdout


def test_a_key_is_rotated_under_a_server(served: Server, work: Path) -> None:
    store, content = work / "store", bytearray(DISK_BYTES)

    def write(byte: int, offset: int, length: int) -> None:
        with served.connect("disk") as client:
            client.write(offset, bytes([byte]) * length)
            client.flush()
        content[offset : offset + length] = bytes([byte]) * length

    write(1, 0, DISK_BYTES // 2)
    served.host.run("snapshot", "create", "disk@before", "--store", served.location)
    old_keys = (store / "keys/00000000000000000001.keys").read_bytes()
    (work / "second").write_text("a second password\n")
    served.host.run("password", "add", "second", "--store", served.location, NBDSERVER_NEW_PASSWORD="a second password")
    assert "and of 'second' none was given" in key(served, "rotate", status=EXIT_CONFLICT)
    assert "has data key 2: " in key(served, "rotate", "--also", str(work / "second"))
    assert "being rotated already" in key(served, "rotate", status=EXIT_CONFLICT)
    assert "the server uses key 1: nbdserver restart" in key(served, "show")
    write(2, 4096, 8192)
    served.host.run("restart", served.location)
    write(3, DISK_BYTES - 5000, 4000)

    def is_rotated() -> bool:
        found = served.host.json("status", "--store", served.location)
        assert isinstance(found, dict)
        return found["store"]["rotation"] is None

    until(is_rotated, seconds=120, what="the end of the rotation")
    assert key(served, "show").splitlines()[:2] == ["key\t2", "older keys\tnone"]
    with served.connect("disk") as client:
        assert client.read(0, DISK_BYTES) == content
    successor = pid_of(served.host, served.location)
    assert successor is not None
    end_of(successor)

    raws = {str(path.relative_to(store)): path.read_bytes() for path in store.glob("[!~]*/*")}
    older = {name: raw[10] for name, raw in raws.items() if not name.startswith("keys/") and raw[11] == 1}
    assert set(older.values()) <= {FENCE_KIND, MANIFEST_KIND}
    assert all(name in ("manifest/00000000000000000001.manifest", "wal/00000000000000000001.sst") for name in older)
    for password in (Host.password, "a second password"):
        script = recover.Store(store, password.encode())
        assert script.missing == []
        image = work / f"image of {password}"
        assert script.export(script.tree.disks()["disk"], image) == []
        assert image.read_bytes() == content
    served.host.run("check", "--read-data", "--store", served.location)

    copy = shutil.copytree(store, work / "copy")
    for path in copy.glob("*/*.keys"):
        path.unlink()
    (copy / "keys/00000000000000000001.keys").write_bytes(old_keys)
    done = served.host.run("device", "list", "--store", str(copy), status=EXIT_DAMAGED)
    assert "which no keys object there holds: an older one was put back" in done.stderr
