"""The real program on a folder of a real filesystem, of whose disk a sector can no longer be read."""

import json
import os
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from storage.format.frame import BLOCK_BYTES
from tests.support.bad_disk import BadDisk
from tests.support.nbd import Client, NbdError
from tests.support.processes import until
from tests.support.program import Server
from tests.support.stores import folder_store

MIB = 1 << 20
EIO = 5
STOP_SECONDS = 60


def unreadable(server: Server) -> list[tuple[str, int, int]]:
    """What `status` says cannot be read: device, offset, length."""
    found = server.host.run("status", "--json", "--store", server.location, status=None)
    objects = json.loads(found.stdout)["store"]["unreadable"]
    return [(place["device"], place["offset"], place["length"]) for one in objects for place in one["ranges"]]


def blocks_that_fail(client: Client, blocks: range, data: bytes) -> list[int]:
    """Of these, those that are an I/O error; all others hold what was written."""
    failed = []
    for block in blocks:
        try:
            read = client.read(block * BLOCK_BYTES, BLOCK_BYTES)
        except NbdError as error:
            if error.errno != EIO:
                raise
            failed.append(block)
        else:
            assert read == data[block * BLOCK_BYTES :][:BLOCK_BYTES]
    return failed


@pytest.fixture
def disk(work: Path) -> Iterator[BadDisk]:
    with BadDisk(work) as disk:
        yield disk


@pytest.mark.slow
@pytest.mark.xdist_group("loop devices")
def test_a_bad_sector_costs_the_range_over_it_and_nothing_else(
    disk: BadDisk, make_server: Callable[..., Server]
) -> None:
    server = make_server(folder_store(disk.mount), create={"bad": "16MiB", "good": "64MiB"})
    server.start()
    data = os.urandom(4 * MIB)
    with server.connect("bad") as client:
        client.write(0, data)
    assert server.stop() == 0
    sst = max((disk.mount / "store" / "compacted").glob("*.sst"), key=lambda path: path.stat().st_size)
    assert sst.stat().st_size > 3 * BLOCK_BYTES, "it holds more than the block that is lost"
    disk.spoil(sst, BLOCK_BYTES // 2)
    disk.mount_again()

    server.start()
    with server.connect("bad", timeout=300) as bad, server.connect("good", timeout=30) as good:
        failed = blocks_that_fail(bad, range(len(data) // BLOCK_BYTES), data)
        assert len(failed) == 1
        # A part of the block that cannot be read is written, and many writes of others go on over it.
        bad.write(failed[0] * BLOCK_BYTES + 512, b"p" * 512)
        bad.flush()
        other = os.urandom(MIB)
        for number in range(32):
            good.write(number * MIB, other)
        good.flush()
        assert server.host.run("flush", "--store", server.location).returncode == 0
        assert good.read(31 * MIB, MIB) == other
        assert [device for device, *_ in unreadable(server)] == ["bad"]
        (_, offset, length) = unreadable(server)[0]
        assert offset <= failed[0] * BLOCK_BYTES < offset + length
        disk.heal()
        expected = bytearray(data[failed[0] * BLOCK_BYTES :][:BLOCK_BYTES])
        expected[512:1024] = b"p" * 512
        assert bad.read(failed[0] * BLOCK_BYTES, BLOCK_BYTES) == expected
        until(lambda: not unreadable(server), seconds=120, what="the object to be well again")
    assert server.stop(seconds=STOP_SECONDS) == 0


@pytest.mark.slow
@pytest.mark.xdist_group("loop devices")
def test_bad_sectors_below_the_newest_manifest_and_the_keys_keep_no_store_shut(
    disk: BadDisk, make_server: Callable[..., Server]
) -> None:
    """Their copies stand in for them, and a server that takes the store makes the manifest anew."""
    server = make_server(folder_store(disk.mount), create={"disk": "16MiB"})
    server.start()
    data = os.urandom(BLOCK_BYTES)
    with server.connect("disk") as client:
        client.write(0, data)
    assert server.stop() == 0
    for folder in ("manifest", "keys"):
        disk.spoil(max((disk.mount / "store" / folder).iterdir()), 0)
        disk.mount_again()
        server.start()
        with server.connect("disk") as client:
            assert client.read(0, BLOCK_BYTES) == data
        assert f"{folder}_read_from_copy" in server.said()
        assert server.stop(seconds=STOP_SECONDS) == 0
