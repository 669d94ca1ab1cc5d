"""Who is attached to what, and what that keeps others from doing."""

import errno
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.support.commands import run
from tests.support.messages import FLAG_CAN_MULTI_CONN, FUA
from tests.support.nbd import Client, NbdError
from tests.support.processes import until
from tests.support.program import EXIT_CONFLICT, Server
from tests.support.requirements import require
from tests.support.stores import StoreUnderTest

MakeServer = Callable[..., Server]

MIB = 1 << 20


@pytest.fixture
def served(local_store: StoreUnderTest, make_server: MakeServer) -> Server:
    server = make_server(local_store, create={"disk": "4MiB", "other": "1MiB"})
    server.start()
    return server


def clients(server: Server) -> list[dict[str, Any]]:
    listed = server.host.json("--store", server.location, "client", "list")
    assert isinstance(listed, list)
    return listed


def test_who_is_attached(served: Server) -> None:
    with served.connect("disk") as client, served.connect("other", structured=False):
        client.write(0, b"x" * 8192)
        client.read(0, 4096)
        one, two = clients(served)
        assert (one["export"], one["structured"], one["extended"], one["tls"]) == ("disk", True, False, None)
        assert (one["read_only"], one["exclusive"], one["user"]) == (False, False, os.geteuid())
        assert one["peer"] == f"unix:pid={os.getpid()},uid={os.geteuid()}"
        assert one["requests"] == 2
        assert one["bytes_received"] > 8192
        assert one["bytes_sent"] >= 4096
        assert (two["export"], two["structured"]) == ("other", False)
        assert one["since"] <= two["since"]
        shown = served.host.json("device", "show", "disk", "--store", served.location)
        assert isinstance(shown, dict)
        assert shown["client_count"] == 1
        (attachment,) = shown["clients"]
        assert attachment["id"] == one["id"]
        status = served.host.json("status", "--store", served.location)
        assert isinstance(status, dict)
        assert [each["export"] for each in status["clients"]] == ["disk", "other"]
        store = ["--store", served.location]
        line = f"{one['id']}: {one['peer']} on disk since "
        for command in (["status"], ["device", "show", "disk"]):
            assert f"client\t{line}" in served.host.run(*command, *store).stdout
        fields = served.host.run("client", "list", *store).stdout.splitlines()[0].split("\t")
        assert (fields[0], fields[2], fields[4], fields[5]) == (str(one["id"]), "disk", "structured", "2")
    until(lambda: not clients(served), seconds=60, what="the end of both")


def test_one_is_disconnected(served: Server) -> None:
    client, other = served.connect("disk"), served.connect("disk")
    client.write(0, b"x" * 4096)
    number = next(each["id"] for each in clients(served) if each["requests"] == 1)
    store = ["--store", served.location]
    said = served.host.run("client", "disconnect", str(number), *store).stdout
    assert said.startswith(f"client {number} (unix:pid=")
    assert said.endswith("): disconnected\n")
    with pytest.raises((EOFError, ConnectionError)):
        client.read(0, 4096)
    client.close()
    assert other.read(0, 4096) == b"x" * 4096
    other.disconnect()
    refused = served.host.run("client", "disconnect", str(number), *store, status=10)
    assert refused.stderr == f"nbdserver: no client {number} is connected: `client list` shows who is\n"


def test_without_a_server_there_is_nobody(served: Server) -> None:
    served.stop()
    for command in (["list"], ["disconnect", "1"]):
        done = served.host.run("client", *command, "--store", served.location, status=10)
        assert "no server of" in done.stderr


def test_an_attached_device_is_not_changed_and_the_client_is_named(served: Server) -> None:
    store = ["--store", served.location]
    with served.connect("disk"):
        (client,) = clients(served)
        who = f"client {client['id']} ({client['peer']})"
        for change in (["delete", "disk"], ["rename", "disk", "new"], ["resize", "disk", "1M", "--shrink"]):
            refused = served.host.run("device", *change, *store, status=EXIT_CONFLICT)
            assert f"'disk' is attached by {who}: detach first to " in refused.stderr
    until(lambda: not clients(served), seconds=60, what="the client's end")
    served.host.run("device", "rename", "disk", "new", *store)


# One client at a time


def test_exclusive(local_store: StoreUnderTest, make_server: MakeServer) -> None:
    """One connection: the flag that a second would work is not set, and a second is refused by policy."""
    server = make_server(local_store, create={"disk": "1MiB", "other": "1MiB"}, arguments=["--exclusive"])
    server.start()
    with server.connect("disk") as first:
        assert not first.flags & FLAG_CAN_MULTI_CONN
        (client,) = clients(server)
        assert client["exclusive"] is True
        with pytest.raises(
            NbdError, match=rf"disk is attached by client {client['id']} \(unix:pid=\d+,uid=\d+\), and"
        ) as refused:
            server.connect("disk")
        assert refused.value.errno == (1 << 31) + 2
        server.connect("other").disconnect()
        first.write(0, b"x" * 4096)
    until(lambda: not clients(server), seconds=60, what="the end of the first")
    with server.connect("disk") as second:
        assert second.read(0, 4096) == b"x" * 4096


def test_nbdcopy_makes_do_with_one_connection(local_store: StoreUnderTest, make_server: MakeServer, work: Path) -> None:
    require("nbdcopy")
    server = make_server(local_store, create={"disk": "8MiB"}, arguments=["--exclusive"])
    server.start()
    image, back = work / "image", work / "back"
    image.write_bytes(os.urandom(8 * MIB))
    run("nbdcopy", "--connections=4", image, server.uri())
    run("nbdcopy", "--connections=4", server.unix_uri(), back)
    assert back.read_bytes() == image.read_bytes()


def test_shared_unless_told_otherwise(served: Server) -> None:
    with served.connect("disk") as first, served.connect("disk") as second:
        assert first.flags & FLAG_CAN_MULTI_CONN
        first.write(0, b"x" * 4096)
        assert second.read(0, 4096) == b"x" * 4096


# Sizes


def beyond(call: Callable[[], object]) -> int:
    with pytest.raises(NbdError) as refused:
        call()
    assert refused.value.errno is not None
    return refused.value.errno


def check_end(client: Client, end: int) -> None:
    """Requests up to the end are answered whole, beyond it with the error of the specification."""
    assert beyond(lambda: client.read(end - 512, 513)) == errno.EINVAL
    assert beyond(lambda: client.read(end, 1)) == errno.EINVAL
    assert beyond(lambda: client.write(end - 512, b"x" * 513)) == errno.ENOSPC
    assert beyond(lambda: client.write(end - 512, b"x" * 100_000)) == errno.ENOSPC
    assert beyond(lambda: client.zero(end - 512, 1024, flags=FUA)) == errno.ENOSPC
    assert beyond(lambda: client.trim(end - 512, 1024)) == errno.EINVAL
    assert beyond(lambda: client.extents(end - 512, 1024)) == errno.EINVAL
    assert sum(length for length, _ in client.extents(0, end)) == end
    client.write(end - 512, b"e" * 512)
    assert client.read(end - 512, 512) == b"e" * 512


def test_a_device_grows_under_its_clients(served: Server) -> None:
    """An attached client keeps the end it knows, to the byte, in both directions; the next one has the new end."""
    store = ["--store", served.location]
    old = served.connect("disk")
    served.host.run("device", "resize", "disk", "8M", *store)
    new = served.connect("disk")
    assert (old.size, new.size) == (4 * MIB, 8 * MIB)
    new.write(4 * MIB - 2048, b"n" * 4096)
    assert old.read(4 * MIB - 2048, 2048) == b"n" * 2048
    assert new.read(4 * MIB - 4096, 8192) == bytes(2048) + b"n" * 4096 + bytes(2048)
    check_end(old, 4 * MIB)
    check_end(new, 8 * MIB)
    old.disconnect()
    new.disconnect()
    until(lambda: not clients(served), seconds=60, what="their end")
    served.host.run("device", "resize", "disk", "1M", "--shrink", *store)
    served.host.run("device", "resize", "disk", "8M", *store)
    with served.connect("disk") as client:
        assert client.read(4 * MIB - 4096, 8192) == bytes(8192), "what was cut off does not come back"
