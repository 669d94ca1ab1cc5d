"""`nbdserver fs`, on a store at rest and through its server."""

from collections.abc import Callable
from typing import Any

import pytest

from tests.support.nbd import NbdError
from tests.support.program import EXIT_CONFLICT, EXIT_EXISTS, Server
from tests.support.stores import StoreUnderTest

pytestmark = pytest.mark.integration

EXIT_USAGE = 2
EXIT_NOT_FOUND = 10
SIZE = 64 << 20


def fields(output: str) -> list[tuple[str, ...]]:
    """Mode, owner, group, size, path and target of each line."""
    rows = [line.split("\t") for line in output.splitlines()]
    return [(*row[:4], *row[5:]) for row in rows]


@pytest.mark.parametrize("is_served", [True, False], ids=["served", "at_rest"])
def test_files_are_made_moved_and_removed(
    local_store: StoreUnderTest, make_server: Callable[..., Server], *, is_served: bool
) -> None:
    server = make_server(local_store, create={"disk": str(SIZE)}, tcp=False)
    server.start()
    host = server.host
    host.store_environment = {"NBDSERVER_STORE": local_store.location}
    if not is_served:
        assert server.stop() == 0
    assert fields(host.run("fs", "ls").stdout) == [("drwxr-xr-x", "0", "0", "0", "/.nbd", "")]
    host.run("fs", "mkdir", "/notes")
    host.run("fs", "chmod", "750", "/notes")
    host.run("fs", "chown", "1000:", "/notes")
    host.run("fs", "chown", ":100", "/notes")
    host.run("fs", "ln", "disk", "/.nbd/current")
    host.run("fs", "mv", "/.nbd/current", "/.nbd/newest")
    assert fields(host.run("fs", "tree").stdout) == [
        ("drwxr-xr-x", "0", "0", "0", "/.nbd", ""),
        ("brw-------", "0", "0", str(SIZE), "/.nbd/disk", ""),
        ("lrwxrwxrwx", "0", "0", "4", "/.nbd/newest", "disk"),
        ("drwxr-x---", "1000", "100", "0", "/notes", ""),
    ]
    shown: Any = host.json("fs", "stat", "/.nbd/newest")
    assert (shown["kind"], shown["target"], shown["path"]) == ("symlink", "disk", "/.nbd/newest")
    assert host.run("fs", "mkdir", "/notes", status=EXIT_EXISTS).stderr.count("\n") == 1
    assert "device delete" not in host.run("fs", "rm", "/.nbd/disk", status=EXIT_CONFLICT).stdout
    assert host.run("fs", "stat", "/nothing", status=EXIT_NOT_FOUND).stderr == "nbdserver: there is no '/nothing'\n"
    assert "not an absolute path" in host.run("fs", "ls", "notes", status=EXIT_USAGE).stderr
    for wrong in (("chmod", "888"), ("chmod", "17777"), ("chown", "root"), ("chown", ":")) if is_served else ():
        host.run("fs", *wrong, "/notes", status=EXIT_USAGE)
    host.run("fs", "rm", "/notes")
    if not is_served:
        server.start()
    with server.connect("newest") as client:
        assert client.read(0, 4096) == bytes(4096)
    host.run("fs", "rm", "/.nbd/newest")
    with pytest.raises(NbdError):
        server.connect("newest")
