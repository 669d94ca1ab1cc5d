"""Maintenance commits nothing that rests on a change of the tree which a crash could still undo."""

import asyncio

import pytest

from storage.errors import Corrupt
from storage.format.names import MANIFESTS, TABLES, WALS
from storage.lsm.compaction.plan import WriteCheckpoint
from storage.lsm.options import EngineOptions, MaintenanceOptions
from tests.storage.lsm.worlds import World, read, record
from tests.support.idle import idle
from tests.support.waiting import until

pytestmark = pytest.mark.fast

A = b"a" * 4096


async def test_a_checkpoint_without_a_device_waits_until_its_end_is_durable() -> None:
    """Else the device would be back behind a crash, and its frames would be gone."""
    world = World(options=EngineOptions(maintenance=MaintenanceOptions(look_seconds=3600.0)))
    engine, _ = await world.start()
    await engine.change_tree(record("create", 2))
    engine.layers[2].write(0, A)
    await engine.flush_memtable()
    held = world.store.hold("create", WALS)
    dropping = asyncio.ensure_future(engine.change_tree(record("drop", 2)))
    await held.someone_waits()
    uploads, commits = world.store.count("create", TABLES), world.store.count("create", MANIFESTS)
    job = asyncio.ensure_future(engine.compactor.do(WriteCheckpoint("for the test")))
    await until(lambda: world.store.count("create", TABLES) > uploads)
    await idle()
    assert world.store.count("create", MANIFESTS) == commits
    await world.crash(engine)
    await asyncio.gather(dropping, job, return_exceptions=True)
    world.store.holds.clear()
    engine = await world.open()
    assert await read(engine.layers[2], 0, len(A)) == A
    await world.crash(engine)


async def test_a_store_that_loses_the_end_of_a_device_is_refused_before_anything_is_written() -> None:
    """The checkpoint lacks the device and the tree has it still: whoever opened it would put a fence where the record
    of its end lay, which may come back.
    """
    world = World(options=EngineOptions(maintenance=MaintenanceOptions(look_seconds=3600.0)))
    engine, _ = await world.start()
    await engine.change_tree(record("create", 2))
    engine.layers[2].write(0, A)
    await engine.flush_memtable()
    before = set(world.store.names(WALS))
    await engine.change_tree(record("drop", 2))
    end = set(world.store.names(WALS)) - before
    await engine.compactor.do(WriteCheckpoint("for the test"))
    await engine.garbage.finish()
    await world.crash(engine)
    assert end
    for name in end:
        del world.store.objects[name]
    left = dict(world.store.objects)
    with pytest.raises(Corrupt, match="acknowledged"):
        await world.open()
    assert world.store.objects == left
