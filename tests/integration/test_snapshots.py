"""Snapshots as tools see them: read as `disk@one` over NBD, and exported, while the device goes on and at rest."""

import random
from pathlib import Path

import pytest

from tests.integration.images import MIB, make_image
from tests.support.commands import run
from tests.support.program import Server
from tests.support.requirements import require

SNAPSHOT = "disk@one"
ACCESS_DENIED = 13
NOT_FOUND = 10


@pytest.fixture
def image(server: Server, work: Path) -> Path:
    """What `disk@one` holds; the disk holds something else since."""
    require("nbdcopy", "qemu-img")
    path = work / "image.raw"
    make_image(path, 256)
    run("nbdcopy", "--flush", path, server.uri())
    server.host.run("snapshot", "create", SNAPSHOT, "--store", server.location)
    chance = random.Random(1)
    with server.connect("disk") as client:
        for _ in range(200):
            client.write(chance.randrange(256 * MIB // 4096 - 16) * 4096 + 100, chance.randbytes(60000))
        client.trim(0, 20 * MIB)
        client.flush()
    return path


def test_clients_copy_a_snapshot(server: Server, image: Path, work: Path) -> None:
    run("nbdcopy", "--connections=4", server.uri(SNAPSHOT), work / "copy.raw")
    assert (work / "copy.raw").read_bytes() == image.read_bytes()
    run("qemu-img", "convert", "-f", "raw", "-O", "qcow2", server.uri(SNAPSHOT), work / "copy.qcow2")
    run("qemu-img", "compare", "-f", "qcow2", "-F", "raw", work / "copy.qcow2", image)
    run("nbdcopy", image, server.uri(SNAPSHOT), status=1)
    run("qemu-img", "compare", "-f", "raw", "-F", "raw", image, server.uri(), status=1)


@pytest.mark.parametrize(("store", "served"), [("minio", True), ("file", False)], indirect=["store"])
def test_a_snapshot_is_exported(server: Server, image: Path, work: Path, served: bool) -> None:
    if not served:
        assert server.stop() == 0
    out = work / "out.raw"

    def command(*words: str, status: int = 0) -> str:
        done = server.host.run("device", *words, "--store", server.location, status=status)
        return done.stdout + done.stderr

    assert command("export", SNAPSHOT, str(out)) == f"{SNAPSHOT}: exported, 256 MiB\n"
    assert out.read_bytes() == image.read_bytes()
    assert out.stat().st_blocks <= image.stat().st_blocks * 1.1, "holes stay holes"
    assert "read-only" in command("import", SNAPSHOT, str(image), "--overwrite", status=ACCESS_DENIED)
    assert "no snapshot named 'two'" in command("export", "disk@two", str(work / "none"), status=NOT_FOUND)
    command("export", SNAPSHOT, str(work / "again.raw"))
    assert (work / "again.raw").read_bytes() == image.read_bytes()
