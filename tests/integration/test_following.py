"""A store that is served read-only beside a server elsewhere that writes, compacts and deletes: every connection has
one moment of a disk, the newest when it came; and where that was deleted, an error, which the status says too.
"""

import contextlib
import json
import os
import re
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.integration.test_store_copies import SECTOR, SECTORS, Writer
from tests.support.nbd import Client, NbdError
from tests.support.processes import until
from tests.support.program import EXIT_FENCED, Host, Server
from tests.support.stores import StoreUnderTest

ESHUTDOWN = 108
PROBLEMS = 3
REGION = 64 << 20
REGION_BYTES = 8 << 20
CAN_MULTI_CONN = 1 << 8
SECONDS = 90


@pytest.fixture
def writing(store: StoreUnderTest, make_server: Callable[..., Server]) -> Server:
    server = make_server(store, create={"disk": "128MiB"})
    server.start()
    with server.connect() as client:
        client.write(REGION, os.urandom(REGION_BYTES))
        client.flush()
    return server


@pytest.fixture
def reading(store: StoreUnderTest, writing: Server, work: Path, make_server: Callable[..., Server]) -> Iterator[Server]:
    """On another host."""
    (work / "elsewhere").mkdir()
    server = make_server(store, on=Host(work / "elsewhere", store.environment), arguments=["--read-only"])
    server.start()
    yield server
    assert server.stop() == 0


def rounds(client: Client) -> list[int]:
    data = client.read(0, SECTORS * SECTOR)
    return [int.from_bytes(data[at : at + 8], "big") for at in range(0, len(data), SECTOR)]


def reclaim(server: Server) -> None:
    """What nothing of the newest state needs is deleted."""
    server.host.run("compact", "--store", server.location)
    server.host.run("gc", "--store", server.location)


def shown(server: Server, at_least: int) -> Client:
    """A connection that shows this round, or a later one."""
    clients = [server.connect()]

    def is_shown() -> bool:
        if min(rounds(clients[-1])) < at_least:
            clients.pop().close()
            clients.append(server.connect())
            return False
        return True

    until(is_shown, seconds=SECONDS, what=f"round {at_least}")
    return clients[-1]


@pytest.mark.slow
def test_each_connection_has_one_moment(writing: Server, reading: Server) -> None:
    writer = Writer(writing)
    writer.start()
    held: list[tuple[Client, list[int]]] = []
    try:
        for _ in range(3):
            until(lambda: writer.flushed > 0, seconds=SECONDS, what="a round")
            client = shown(reading, writer.flushed)
            found = rounds(client)
            assert found == sorted(found, reverse=True), "not a prefix of the writes"
            assert max(found) - min(found) <= 1, "not a prefix of the writes"
            assert max(found) <= writer.flushed + 1
            assert not client.flags & CAN_MULTI_CONN, "another connection may have another moment"
            held.append((client, found))
            reclaim(writing)
            for other, before in held:
                assert rounds(other) == before
        writer.end()
        writing.kill()
        with reading.connect() as client:
            assert rounds(client) == sorted(rounds(client), reverse=True)
    finally:
        writer.end()
        for client, _ in held:
            client.close()


def test_what_was_deleted_is_an_error_and_said(writing: Server, reading: Server) -> None:
    host, location = reading.host, reading.location
    held = reading.connect()
    first = held.read(REGION, SECTOR)
    new = os.urandom(REGION_BYTES)
    with writing.connect() as client:
        client.write(REGION, new)
        client.flush()
    reclaim(writing)
    assert held.read(REGION, SECTOR) == first
    with pytest.raises(NbdError) as refused:
        held.read(REGION + REGION_BYTES // 2, SECTOR)
    assert refused.value.errno == ESHUTDOWN
    assert "a part of that was deleted by its writer" in reading.said()
    told = host.run("status", "--store", location, status=PROBLEMS).stdout
    assert "its reads fail, until it attaches again" in told
    assert f"process {reading.pid}" in told

    def is_new() -> bool:
        with reading.connect() as client, contextlib.suppress(NbdError):
            return client.read(REGION, REGION_BYTES) == new
        return False

    until(is_new, seconds=SECONDS, what="the newest state")
    held.close()
    until(lambda: view_of(host, location)["older"] == 0, seconds=SECONDS, what="the older view is let go")
    host.run("status", "--store", location)


def view_of(host: Host, location: str) -> dict[str, float]:
    told = json.loads(host.run("status", "--store", location, "--json", status=None).stdout)
    # Where the store is a folder, commands of the other host find its writer too.
    found = (told["follower"] or told)["store"]["view"]
    assert isinstance(found, dict)
    return found


def test_snapshots_and_commands_beside_it(writing: Server, reading: Server) -> None:
    host, location = reading.host, reading.location
    writing.host.run("snapshot", "create", "disk@one", "--store", location)
    until(lambda: has_snapshot(reading), seconds=SECONDS, what="the snapshot")
    client = reading.connect("disk@one")
    before = client.read(REGION, REGION_BYTES)
    with writing.connect() as other:
        other.write(REGION, os.urandom(REGION_BYTES))
        other.flush()
        assert client.read(REGION, REGION_BYTES) == before
    assert view_of(host, location)["age_seconds"] < SECONDS
    if location.startswith("s3:"):
        assert len(host.run("client", "list", "--store", location).stdout.splitlines()) == 1
        assert "disk" in host.run("device", "list", "--store", location).stdout
        told = host.run("device", "show", "disk", "--store", location).stdout
        assert re.search(r"^view\tof .*, \d+ s old", told, re.MULTILINE), told
        assert json.loads(host.run("device", "show", "disk", "--store", location, "--json").stdout)["view"]["as_of"]
        host.run("device", "create", "other", "1MiB", "--store", location, status=EXIT_FENCED)
    writing.host.run("device", "create", "other", "1MiB", "--store", location)
    # Its name may mean another one, so that two connections would show different disks.
    writing.host.run("snapshot", "delete", "disk@one", "--store", location)
    writing.host.run("snapshot", "create", "disk@one", "--store", location)

    def is_retaken() -> bool:
        with contextlib.suppress(NbdError), reading.connect("disk@one") as other:
            return other.read(REGION, REGION_BYTES) != before
        return False

    until(is_retaken, seconds=SECONDS, what="the snapshot that was taken again")
    assert client.read(REGION, REGION_BYTES) == before
    assert not client.flags & CAN_MULTI_CONN
    client.close()


def has_snapshot(server: Server) -> bool:
    try:
        server.connect("disk@one").close()
    except NbdError:
        return False
    return True


@pytest.mark.parametrize("store", ["file"], indirect=True)
def test_both_on_one_host(writing: Server, store: StoreUnderTest, make_server: Callable[..., Server]) -> None:
    """Commands mean the one that writes, and neither is in the other's way."""
    follower = make_server(store, on=writing.host, arguments=["--read-only"])
    follower.start()
    writing.host.run("device", "create", "other", "1MiB", "--store", writing.location)
    told = writing.host.run("status", "--store", writing.location).stdout
    assert f"by process {writing.pid}\n" in told
    assert f"process {follower.pid} shows a view of " in told
    with writing.connect() as client:
        client.write(0, b"after")
        client.flush()
    until(lambda: first_bytes(follower) == b"after", seconds=SECONDS, what="what was flushed")
    assert writing.stop() == 0
    told = writing.host.run("status", "--store", writing.location).stdout
    assert f"by process {follower.pid}, which follows its writer" in told
    writing.start()
    assert first_bytes(writing) == first_bytes(follower) == b"after"
    assert follower.stop() == 0


def first_bytes(server: Server) -> bytes:
    with server.connect() as client:
        return bytes(client.read(0, 5))


@pytest.mark.parametrize("store", ["file"], indirect=True)
def test_it_is_refused_what_it_cannot_be(store: StoreUnderTest, make_server: Callable[..., Server]) -> None:
    follower = make_server(store, arguments=["--read-only"])
    host = follower.host
    done = host.run("serve", store.location, "--read-only", "--run", "true", status=10)
    assert "there is no store" in done.stderr
    for option in ("--take-over", "--accept-rollback"):
        host.run("serve", store.location, "--read-only", option, status=2)
