"""An import into a disk that is there, whose server is killed in the midst of it: the disk is what it was."""

import contextlib
import os
import subprocess
from collections.abc import Callable

from tests.support.nbd import NbdError
from tests.support.processes import kill_quietly, until
from tests.support.program import COMMAND, Server
from tests.support.stores import StoreUnderTest

MIB = 1 << 20
SECONDS = 60


def test_a_disk_that_an_import_was_to_replace(local_store: StoreUnderTest, make_server: Callable[..., Server]) -> None:
    server = make_server(local_store, create={"disk": "8MiB"})
    server.start()
    old = os.urandom(MIB)
    with server.connect() as client:
        client.write(0, old)
    importing = subprocess.Popen(
        [*COMMAND, "device", "import", "disk", "-", "--overwrite", "--store", server.location],
        env=server.host.environment(),
        cwd=server.host.folder,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    )
    try:
        assert importing.stdin is not None
        importing.stdin.write(os.urandom(4 * MIB))
        importing.stdin.flush()
        until(lambda: snapshots(server) == ["import-under-way"], seconds=SECONDS, what="the import")
        server.kill()
        _, said = importing.communicate(timeout=SECONDS)
    finally:
        kill_quietly(importing)
    assert importing.returncode
    assert b"if disk was not filled to its end, it is as it was before, or will be once its server is back" in said
    server.start()
    found: list[bytes] = []

    def is_back() -> bool:
        with contextlib.suppress(NbdError), server.connect() as client:
            found.append(client.read(0, 8 * MIB))
        return bool(found)

    until(is_back, seconds=SECONDS, what="the rollback")
    assert found == [old + bytes(7 * MIB)]
    until(lambda: not snapshots(server), seconds=SECONDS, what="the end of what was kept for it")
    assert server.stop() == 0


def snapshots(server: Server) -> list[str]:
    """Of the disk, by name."""
    told = server.host.json("snapshot", "list", "disk", "--store", server.location)
    assert isinstance(told, list)
    return [each["name"] for each in told]
