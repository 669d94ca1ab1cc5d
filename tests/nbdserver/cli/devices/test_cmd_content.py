"""Whole disks from a pipe and to a file, with the real program on a store at rest."""

import os
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.support.program import COMMAND, EXIT_WRONG_PASSWORD, Host, Server
from tests.support.stores import StoreUnderTest

pytestmark = pytest.mark.integration

MIB = 1 << 20


def test_a_password_command_takes_nothing_of_the_image(host: Host, work: Path) -> None:
    """It is asked for when the beginning was read already, and what it read of the rest was missing in the device."""
    store, image, back = str(work / "store"), os.urandom(2 * MIB), work / "back"
    host.prepare(store)
    host.run("device", "create", "disk", "2MiB", "--store", store)
    (work / "password").write_text(host.password)
    command = f"sh -c 'head -c 65536 > {work / 'eaten'}; cat {work / 'password'}'"
    environment = {**host.environment(), "NBDSERVER_PASSWORD_COMMAND": command}
    del environment["NBDSERVER_PASSWORD"]
    done = subprocess.run(
        [*COMMAND, "device", "import", "disk", "-", "--store", store],
        env=environment,
        cwd=work,
        input=image,
        capture_output=True,
        timeout=120,
    )
    assert done.returncode == 0, done.stderr
    host.run("device", "export", "disk", str(back), "--store", store)
    assert (work / "eaten").read_bytes() == b""
    assert back.read_bytes() == image


def test_what_cannot_be_exported_costs_no_image_that_is_there(
    host: Host, local_store: StoreUnderTest, work: Path, make_server: Callable[..., Server]
) -> None:
    """A name that is none, a password that does not open, a snapshot that is not there: at rest, and with a server."""
    store, kept = local_store.location, b"the last backup" * 1000
    image, salvaged, salvage_map = work / "image", work / "salvaged", work / "salvaged.map"
    server = make_server(local_store, on=host, create={"disk": "1MiB"}, tcp=False)
    server.start()

    def costs_nothing(*words: str, status: int, password: str = host.password) -> None:
        for path in (image, salvaged, salvage_map):
            path.write_bytes(kept)
        host.run("device", *words, "--overwrite", "--store", store, status=status, NBDSERVER_PASSWORD=password)
        assert [path.read_bytes() == kept for path in (image, salvaged, salvage_map)] == [True] * 3, words

    def refused_exports() -> None:
        costs_nothing("export", "dsk", str(image), status=10)
        costs_nothing("export", "disk@monday", str(image), status=10)
        costs_nothing("export", "disk@monday", str(image), "--stream", status=10)
        costs_nothing("export", "disk@now", str(image), "--since", "monday", status=10)

    host.run("snapshot", "create", "disk@now", "--store", store)
    refused_exports()
    assert server.stop() == 0
    refused_exports()
    costs_nothing("export", "disk", str(image), status=EXIT_WRONG_PASSWORD, password="another one")
    costs_nothing("salvage", "disk", str(salvaged), status=EXIT_WRONG_PASSWORD, password="another one")
    costs_nothing("salvage", "dsk", str(salvaged), status=10)
    host.run("device", "export", "disk", str(image), "--overwrite", "--store", store)
    assert image.read_bytes() == bytes(MIB), "and nothing is left of it by one that comes to its end"
