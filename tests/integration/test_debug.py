"""`nbdserver debug`: every object of a store that was used opens, and says what it is."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.support.program import EXIT_CORRUPT, Host, Server
from tests.support.stores import StoreUnderTest

EXIT_USAGE = 2
EXIT_NOT_FOUND = 10


@pytest.fixture
def used(local_store: StoreUnderTest, make_server: Callable[..., Server]) -> Server:
    """Written, flushed, snapshotted and compacted; it was killed, so that there is a log."""
    server = make_server(local_store, create={"disk": "64MiB"})
    server.start()
    with server.connect() as client:
        client.write(0, bytes(range(256)) * 4096)
        client.flush()
        server.host.run("snapshot", "create", "disk@one", "--store", server.location)
        client.write(4096, b"x" * 4096)
        client.flush()
        server.host.run("compact", "--store", server.location)
        client.write(1 << 20, b"y" * 8192)
        client.flush()
        client.write(1 << 20, b"z" * 512)
        client.flush()
        client.disconnect()
    server.kill()
    return server


def shown(host: Host, location: str, name: str, *more: str) -> dict[str, Any]:
    found = json.loads(host.run("debug", "object", name, *more, "--store", location).stdout)
    assert isinstance(found, dict)
    return found


def test_every_object_says_what_it_is(used: Server) -> None:
    host, location = used.host, used.location
    listed = host.json("debug", "list", "--store", location)
    assert isinstance(listed, list)
    found = {each["object"]: shown(host, location, each["object"], "--records") for each in listed}
    kinds = {each["kind"] for each in found.values()}
    assert kinds == {"keys", "manifest", "wal", "fence", "data", "metadata", "checkpoint"}
    for each in listed:
        assert found[each["object"]]["bytes"] == each["bytes"]
    newest = found[max(name for name in found if name.startswith("manifest/"))]["manifest"]
    assert f"compacted/{newest['checkpoint']['id']}.sst" in found
    table = found[f"compacted/{newest['checkpoint']['id']}.sst"]["ssts"]
    listed_ssts = [sst for position, sst in enumerate(table, 1) if position not in newest["gone"]]
    assert all(f"compacted/{sst}.sst" in found for sst in listed_ssts)
    # What was written last is in the log, and says where it belongs.
    log = [record for name, each in found.items() if each["kind"] == "wal" for record in each["records"]]
    wanted = {"type": "write", "offset": 1 << 20, "length": 512}
    assert [record for record in log if wanted.items() <= record.items()], log
    links = [each["link"] for each in found.values() if each["kind"] == "wal"]
    assert len(links) == len(set(links))


def test_what_is_not_right_is_said(used: Server, work: Path) -> None:
    host, location = used.host, used.location
    names = [line.split("\t")[0] for line in host.run("debug", "list", "wal/", "--store", location).stdout.splitlines()]
    assert names == sorted(names)
    assert all(name.startswith("wal/") for name in names)
    said = host.run("debug", "object", "wal/1", "--store", location, status=EXIT_NOT_FOUND).stderr
    assert "Traceback" not in said
    folder = Path(location.removeprefix("file://"))
    damaged = folder / names[-1]
    damaged.write_bytes(damaged.read_bytes()[:-1] + b"?")
    said = host.run("debug", "object", names[-1], "--store", location, status=EXIT_CORRUPT).stderr
    assert names[-1] in said
    (folder / "wal" / "notes.txt").write_text("somebody's")
    said = host.run("debug", "object", "wal/notes.txt", "--store", location, status=EXIT_USAGE).stderr
    assert "is not the name of an object" in said


def test_a_served_store_is_looked_into_too(store: StoreUnderTest, make_server: Callable[..., Server]) -> None:
    server = make_server(store, create={"disk": "1MiB"})
    server.start()
    found = shown(server.host, server.location, "manifest/00000000000000000001.manifest")
    assert found["manifest"]["takeover"] is True
    keys = shown(server.host, server.location, "keys/00000000000000000001.keys")
    assert keys["slots"][0]["slot"] == 1
    assert keys["sealed_by_this_store"] is True
