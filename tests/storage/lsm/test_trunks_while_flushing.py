"""Snapshots and rollbacks in the midst of flushes and jobs: what is in memory is of one layer, and goes with it."""

import asyncio

import pytest

from storage.lsm.compaction.plan import Consolidate, PatchedBlock
from storage.lsm.engine import Engine
from tests.storage.lsm.worlds import World, read
from tests.support.waiting import soon

BLOCK = 256 * 1024
SECTOR = 4096
A, B, C = (letter * SECTOR for letter in (b"a", b"b", b"c"))


async def taken() -> tuple[World, Engine]:
    """A store whose layer 1, of A, became a snapshot; 2 is the head."""
    world = World()
    engine, layer = await world.start()
    layer.write(0, A)
    await world.change_trunks(engine, "freeze", 1, 2)
    return world, engine


async def test_what_was_zeroed_before_a_snapshot_does_not_hide_what_is_written_after_it() -> None:
    world = World()
    engine, layer = await world.start()
    await engine.flush_memtable()  # what made the layer is in an SST: only what follows is flushed with the snapshot
    layer.zero(0, 3 * BLOCK, allocated=True)
    await world.change_trunks(engine, "freeze", 1, 2)
    head = engine.layers[2]
    head.write(0, B)
    await engine.flush_memtable()
    assert await read(head, 0, SECTOR) == B
    assert await read(engine.layers[1], 0, SECTOR) == bytes(SECTOR)
    await world.crash(engine)


@pytest.mark.parametrize("flushed", [False, True])
async def test_a_rollback_takes_the_writes_of_the_old_head_away_at_once(flushed: bool) -> None:
    """Those that are in memory, before the flush that it waits for; what is written meanwhile is of the new head."""
    world, engine = await taken()
    device = engine.layers[2]
    device.write(0, B)
    device.write(SECTOR, B)
    device.zero(8 * BLOCK, 3 * BLOCK, allocated=True)
    if flushed:
        await engine.flush_memtable()
        device.write(2 * SECTOR, B)
    manifests = world.store.hold("create", "manifest/")
    rolling = asyncio.ensure_future(world.change_trunks(engine, "rollback", 1, 3))
    await manifests.someone_waits()
    assert engine.layers[3] is device
    want = A + bytes(2 * SECTOR)
    assert await read(device, 0, 3 * SECTOR) == want
    device.write(2 * SECTOR, C)
    want = A + bytes(SECTOR) + C
    assert await read(device, 0, 3 * SECTOR) == want
    manifests.release()
    await soon(rolling)
    assert await read(device, 0, 3 * SECTOR) == want
    await engine.flush_memtable()
    await world.crash(engine)
    engine = await world.open()
    assert sorted(engine.layers) == [1, 3]
    assert await read(engine.layers[3], 0, 3 * SECTOR) == want
    await world.crash(engine)


@pytest.mark.parametrize(("verb", "number"), [("freeze", 2), ("rollback", 1)])
async def test_a_consolidation_whose_head_went_meanwhile_is_given_up(verb: str, number: int) -> None:
    """Its SST would be of a layer that takes no more entries; what was read is what was there, so nothing is lost."""
    world, engine = await taken()
    engine.layers[2].write(0, B)
    await engine.flush_memtable()
    engine.layers[2].write(SECTOR, C)
    await engine.flush_memtable()
    uploads = world.store.hold("create", "compacted/")
    consolidating = asyncio.ensure_future(engine.compactor.do(Consolidate((PatchedBlock(2, 0, 2, 2),))))
    await uploads.someone_waits()
    uploads.prefix = world.store.calls[-1][1]  # what a flush uploads is not held
    await world.change_trunks(engine, verb, number, 3)
    listed = engine.manifests.listed()
    uploads.release()
    await soon(consolidating)
    assert engine.manifests.listed() == listed, "what was written is not listed"
    held = {"freeze": {2: B + C, 3: B + C}, "rollback": {3: A + bytes(SECTOR)}}[verb]
    for _ in range(2):
        for layer, content in {1: A + bytes(SECTOR), **held}.items():
            assert await read(engine.layers[layer], 0, 2 * SECTOR) == content
        await world.crash(engine)
        engine = await world.open()
    await world.crash(engine)
