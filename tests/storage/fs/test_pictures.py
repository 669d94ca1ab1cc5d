"""Pictures of a store: a map of a device says of each block what the device itself says of it."""

import asyncio
import random
from collections.abc import AsyncIterator

import pytest

from storage import Store
from storage.errors import Invalid, NotFound
from storage.fs.devices.device import Device
from storage.lsm.read.extents import ExtentState
from tests.storage.fs.places import Place

BLOCK = 1 << 18
BLOCKS = 64
SIZE = BLOCKS * BLOCK - 4096


@pytest.fixture
async def opened(place: Place) -> AsyncIterator[Store]:
    store = await place.open(create=True)
    yield store
    await store.close()


def is_shown(device: Device, block: int) -> bool:
    """Whether a block has anything but a hole."""
    at, end = block * BLOCK, min((block + 1) * BLOCK, device.size)
    while at < end:
        for length, state in device.extents(at, end - at):
            if state is not ExtentState.HOLE:
                return True
            at += length
    return False


async def test_a_map_says_what_the_device_says(opened: Store) -> None:
    drawn = random.Random(5)
    size = BLOCKS * BLOCK
    await opened.create_device("disk", size)
    device = opened.device("disk")
    for _ in range(8):
        for _ in range(6):
            block = drawn.randrange(BLOCKS)
            match drawn.randrange(4):
                case 0:
                    device.write(block * BLOCK, drawn.randbytes(4096))
                case 1:
                    device.write(block * BLOCK, drawn.randbytes(BLOCK))
                case 2:
                    device.zero(
                        block * BLOCK, min(BLOCK * drawn.randrange(1, 9), size - block * BLOCK), allocated=False
                    )
                case _:
                    device.zero(block * BLOCK, min(BLOCK, size - block * BLOCK), allocated=True)
        found = await opened.pictures.device_map("disk", BLOCKS)
        assert (found.size, found.cell_blocks) == (size, 1)
        assert found.allocated == [int(is_shown(device, block)) for block in range(BLOCKS)]
        assert sum(found.unlogged) > 0
        if drawn.randrange(2):
            await opened.flush()
            assert sum((await opened.pictures.device_map("disk", BLOCKS)).unlogged) == 0
        if drawn.randrange(2):
            await opened.maintenance.flush()
            assert sum((await opened.pictures.device_map("disk", BLOCKS)).waiting) == 0


async def test_what_was_discarded_while_older_writes_are_flushed_is_a_hole(opened: Store) -> None:
    await opened.create_device("disk", SIZE)
    device = opened.device("disk")
    for block in range(BLOCKS - 1):
        device.write(block * BLOCK, random.Random(block).randbytes(BLOCK))
    flushing = asyncio.create_task(opened.maintenance.flush())
    seen = 0
    while not flushing.done():
        await asyncio.sleep(0)
        device.zero(0, 8 * BLOCK, allocated=False)
        found = await opened.pictures.device_map("disk", BLOCKS)
        assert found.allocated == [int(is_shown(device, block)) for block in range(BLOCKS)]
        assert found.allocated[:8] == [0] * 8
        device.write(0, b"x" * (4 * BLOCK))
        assert (await opened.pictures.device_map("disk", BLOCKS)).allocated[:8] == [1] * 4 + [0] * 4
        seen += 1
    assert seen
    await flushing


async def test_cells_are_sums_of_blocks(opened: Store) -> None:
    await opened.create_device("disk", SIZE)
    device = opened.device("disk")
    for block in (0, 1, 5, 63):
        device.write(block * BLOCK, b"x" * 4096)
    await opened.maintenance.flush()
    await opened.snapshots.create(["disk"], "monday")
    device.write(5 * BLOCK, b"y" * 4096)
    fine = await opened.pictures.device_map("disk", BLOCKS, "monday")
    coarse = await opened.pictures.device_map("disk", 10, "monday")
    assert coarse.cell_blocks == 7
    for one, other in ((fine.allocated, coarse.allocated), (fine.changed, coarse.changed)):
        assert other == [sum(one[at : at + 7]) for at in range(0, BLOCKS, 7)]
    assert fine.changed == [int(block == 5) for block in range(BLOCKS)]
    assert sum(fine.waiting) == 1
    for cells in (0, 5000):
        with pytest.raises(Invalid, match="cells"):
            await opened.pictures.device_map("disk", cells)
    with pytest.raises(NotFound):
        await opened.pictures.device_map("disk", 10, "tuesday")


async def test_what_was_read_is_cached(opened: Store) -> None:
    await opened.create_device("disk", SIZE)
    device = opened.device("disk")
    device.write(3 * BLOCK, random.Random(1).randbytes(BLOCK))
    await opened.maintenance.flush()
    await device.read(3 * BLOCK, 4096)
    found = await opened.pictures.device_map("disk", BLOCKS)
    assert found.cached == [int(block == 3) for block in range(BLOCKS)]


async def test_ssts_with_what_is_live(opened: Store) -> None:
    await opened.create_device("disk", SIZE)
    device = opened.device("disk")
    assert await opened.pictures.ssts(10) == []
    for number in range(5):
        for block in range(4):
            device.write(block * BLOCK, random.Random(number).randbytes(BLOCK))
        await opened.maintenance.flush()
    for groups in (1, 2, 1000):
        while True:
            await opened.count_usage()
            status = opened.status()
            found = await opened.pictures.ssts(groups)
            if opened.status().manifest == status.manifest:
                break  # else maintenance did something meanwhile
        assert len(found) <= groups
        assert groups < status.ssts or len(found) == status.ssts
        assert sum(group.ssts for group in found) == status.ssts
        assert sum(group.stored for group in found) == status.stored_bytes
        assert sum(group.live for group in found) == status.live_bytes
        assert sum(group.frames - group.live for group in found) == status.dead_bytes


async def test_what_changed_is_of_the_device_that_was_asked_for(opened: Store) -> None:
    """The name that it was asked by means none any more when its blocks are counted."""
    await opened.create_device("disk", SIZE)
    await opened.files.link("disk", "/.nbd/link")
    await opened.snapshots.create(["disk"], "monday")
    opened.device("disk").write(5 * BLOCK, b"y" * 4096)
    found, _ = await asyncio.gather(
        opened.pictures.device_map("link", BLOCKS, "monday"), opened.files.remove("/.nbd/link")
    )
    assert found.changed == [int(block == 5) for block in range(BLOCKS)]
