"""Whole images through nbdcopy and qemu-img, both ways, and back after a restart."""

import json
from pathlib import Path

import pytest

from tests.integration.images import MIB, make_image
from tests.support.commands import run
from tests.support.program import Server
from tests.support.requirements import require


@pytest.fixture
def image(work: Path) -> Path:
    path = work / "image.raw"
    make_image(path, 256)
    return path


def same(one: Path, other: Path) -> bool:
    with one.open("rb") as first, other.open("rb") as second:
        while piece := first.read(MIB):
            if piece != second.read(MIB):
                return False
        return not second.read(1)


@pytest.mark.parametrize("connections", [1, 4])
def test_nbdcopy_there_and_back(server: Server, image: Path, work: Path, connections: int) -> None:
    require("nbdcopy", "qemu-img")
    run("nbdcopy", "--flush", f"--connections={connections}", image, server.uri())
    run("qemu-img", "compare", "-f", "raw", "-F", "raw", image, server.uri())
    back = work / "back.raw"
    run("nbdcopy", f"--connections={connections}", server.unix_uri(), back)
    assert same(image, back)
    assert server.stop() == 0
    server.start()
    run("nbdcopy", f"--connections={connections}", server.uri(), back)
    assert same(image, back)


def test_nbdcopy_over_old_data(server: Server, image: Path, work: Path) -> None:
    """Zeros of the second image must overwrite data of the first."""
    require("nbdcopy", "qemu-img")
    make_image(work / "second.raw", 256, seed=2)
    run("nbdcopy", "--flush", image, server.uri())
    run("nbdcopy", "--flush", work / "second.raw", server.uri())
    run("qemu-img", "compare", "-f", "raw", "-F", "raw", work / "second.raw", server.uri())


def test_qemu_img_converts_both_ways(server: Server, image: Path, work: Path) -> None:
    require("qemu-img")
    run("qemu-img", "convert", "-n", "-W", "-m", "8", "-f", "raw", "-O", "raw", image, server.uri())
    run("qemu-img", "compare", "-f", "raw", "-F", "raw", image, server.uri())
    run("qemu-img", "convert", "-f", "raw", "-O", "qcow2", server.uri(), work / "out.qcow2")
    run("qemu-img", "compare", "-f", "qcow2", "-F", "raw", work / "out.qcow2", image)
    holes = json.loads(run("qemu-img", "map", "--output=json", "-f", "raw", server.uri()))
    assert sum(part["length"] for part in holes if part["zero"]) > 100 * MIB, "holes were not kept"


def test_qcow2_inside_an_export(server: Server) -> None:
    require("qemu-img", "qemu-io")
    run("qemu-img", "create", "-f", "qcow2", server.uri(), "100M")
    run("qemu-io", "-f", "qcow2", "-c", "write -P 0x5a 10M 3M", "-c", "flush", server.uri())
    assert server.stop() == 0
    server.start()
    assert "Pattern verification failed" not in run(
        "qemu-io", "-f", "qcow2", "-c", "read -P 0x5a 10M 3M", "-c", "read -P 0 13M 1M", server.uri()
    )
    run("qemu-img", "check", "-f", "qcow2", server.uri())
