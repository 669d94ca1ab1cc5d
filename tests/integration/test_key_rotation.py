"""`nbdserver key rotate` beside a real server: its clients go on, the next start takes the new key, and at the end the
old one opens nothing of the store.
"""

import os
import shutil
import uuid
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from nbdserver.admin.client import AdminClient
from nbdserver.admin.snapshot_operations import CreateSnapshot
from nbdserver.admin.sockets import socket_path
from nbdserver.config import locate
from tests.support.minio import RunningMinio
from tests.support.processes import until
from tests.support.program import EXIT_CONFLICT, Host, Server
from tests.support.recover_script import recover
from tests.support.stores import minio_store
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
    assert "the server uses key 1: nbdserver restart" in key(served, "show")
    write(2, 4096, 8192)
    served.host.run("restart", served.location)
    write(3, DISK_BYTES - 5000, 4000)

    until(lambda: rotation(served) is None, seconds=120, what="the end of the rotation")
    assert key(served, "show").splitlines()[:2] == ["key\t2", "older keys\tnone"]
    with served.connect("disk") as client:
        assert client.read(0, DISK_BYTES) == content
    successor = pid_of(served.host, served.location)
    assert successor is not None
    end_of(successor)

    raws = {str(path.relative_to(store)): path.read_bytes() for path in store.glob("[!~]*/*")}
    # Where other objects have the id of their key, keys and their copies have the first byte of the store's id.
    older = {name: raw[10] for name, raw in raws.items() if not name.endswith(".keys") and raw[11] == 1}
    assert set(older.values()) <= {FENCE_KIND, MANIFEST_KIND}
    assert all(name in ("manifest/00000000000000000001.manifest", "wal/00000000000000000001.sst") for name in older)
    script = recover.Store(store, b"a second password")
    assert script.missing == []
    assert script.export(script.tree.disks()["disk"], work / "image") == []
    assert (work / "image").read_bytes() == content
    served.host.run("check", "--read-data", "--store", served.location)

    copy = shutil.copytree(store, work / "copy")
    for path in copy.glob("*/*.keys"):
        path.unlink()
    (copy / "keys/00000000000000000001.keys").write_bytes(old_keys)
    done = served.host.run("device", "list", "--store", str(copy), status=EXIT_DAMAGED)
    assert "which no keys object there holds: an older one was put back" in done.stderr


def rotation(server: Server) -> object:
    """How far it is; None: there is none."""
    return admin(server).status()["store"]["rotation"]


def admin(server: Server) -> AdminClient:
    """The way to it without a command, which takes seconds to begin."""
    return AdminClient(socket_path(server.host.runtime, locate(server.location, server.host.store_environment)))


def test_kills_in_the_midst_of_a_rotation(minio: RunningMinio, make_server: Callable[..., Server], work: Path) -> None:
    """Behind the new key, behind the first start that has it, and while things are sealed anew. A stream that is read
    of the store at rest in between holds what either key sealed.
    """
    server = make_server(minio_store(minio, f"test-{uuid.uuid4().hex[:12]}"), create={"disk": "64MiB"})
    host, content = server.host, bytearray(64 << 20)

    def write(offset: int, length: int) -> None:
        data = os.urandom(length)
        with server.connect("disk") as client:
            client.write(offset, data)
            client.flush()
        content[offset : offset + length] = data

    server.start()
    for number in range(12):  # so much that a kill comes before all of it is sealed anew
        write(number << 22, 4 << 20)
    key(server, "rotate")
    write(4096, 300_000)
    server.kill()
    server.start()
    write(50 << 20, 8192)
    admin(server).perform(CreateSnapshot(["disk"], "between"))
    server.kill()
    between, stream = bytes(content), work / "stream"
    host.run("device", "export", "disk@between", str(stream), "--stream", "--store", server.location)
    assert "; it goes on where the store is served" in key(server, "show")

    server.start()
    left = rotation(server)
    assert left is not None
    until(lambda: rotation(server) != left, seconds=120, what="something that is sealed anew")
    server.kill()
    server.start()
    write(51 << 20, 4096)
    until(lambda: rotation(server) is None, seconds=120, what="the end of the rotation")
    host.run("device", "import", "copy", str(stream), "--store", server.location)
    for name, want in (("disk", content), ("disk@between", between), ("copy", between)):
        with server.connect(name) as client:
            for offset in range(0, len(want), 4 << 20):
                assert client.read(offset, 4 << 20) == want[offset : offset + (4 << 20)]
    assert server.stop() == 0
    host.run("check", "--read-data", "--store", server.location)
