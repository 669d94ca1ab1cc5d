"""A large disk goes: its SSTs leave in parts, and none of them is forgotten before it is deleted."""

import asyncio

import pytest

from storage.errors import AccessDenied
from storage.format.names import TABLES, sst_name
from storage.lsm.compaction.plan import Drop, next_drop
from storage.lsm.compaction.sst_table import LEAVING_SSTS_MAX
from storage.lsm.engine import Engine
from storage.lsm.options import EngineOptions, MaintenanceOptions
from tests.simulation.virtual import virtually
from tests.storage.lsm.compaction.test_plan import names, snapshot, sst
from tests.storage.lsm.worlds import World, record

pytestmark = pytest.mark.fast

SSTS = 100
NAMES_MAX = 24
LOOK_SECONDS = 300.0


async def a_large_disk_that_went() -> tuple[World, Engine]:
    """One of more SSTs than names of garbage are remembered. Nothing was done about it yet."""
    maintenance = MaintenanceOptions(look_seconds=LOOK_SECONDS, pack_count=1 << 30)
    world = World(options=EngineOptions(maintenance=maintenance, garbage_names_max=NAMES_MAX))
    engine, _ = await world.start()
    await engine.change_tree(record("create", 2))
    for number in range(SSTS):
        engine.layers[2].write(number * 4096, number.to_bytes(2) * 2048)
        await engine.flush_memtable()
        await engine.copies.settled()
        await engine.garbage.delete_now()
    await engine.change_tree(record("drop", 2))
    await engine.flush_memtable()
    await engine.copies.settled()
    await engine.garbage.delete_now()
    return world, engine


def nothing_is_left(world: World, engine: Engine) -> None:
    manifest = engine.manifests.manifest
    named = {sst_name(ref.id) for ref in (manifest.tree, manifest.checkpoint, *engine.manifests.listed()) if ref}
    assert len(engine.manifests.listed()) == 0
    assert set(world.store.names(TABLES)) == named
    assert (len(engine.garbage), engine.garbage.forgotten, engine.compactor.awaiting_deletion) == (0, 0, 0)


@virtually
async def test_none_of_it_is_forgotten_while_the_writer_runs() -> None:
    """Also where deletions take long: drops wait for them, and go on."""
    world, engine = await a_large_disk_that_went()
    held = world.store.hold("delete", TABLES)
    await asyncio.sleep(60 * LOOK_SECONDS)
    assert 0 < len(engine.garbage) <= NAMES_MAX
    assert engine.garbage.forgotten == 0
    held.release()
    await asyncio.sleep(60 * LOOK_SECONDS)
    assert engine.compactor.progress.jobs["Drop"] > SSTS / NAMES_MAX
    nothing_is_left(world, engine)
    await world.crash(engine)


@virtually
async def test_none_of_it_is_left_to_who_asks_for_maintenance_now() -> None:
    world, engine = await a_large_disk_that_went()
    held = world.store.hold("delete", TABLES)
    asyncio.get_running_loop().call_later(LOOK_SECONDS / 2, held.release)
    while await engine.compactor.thorough_step(None) is not None:
        pass
    await engine.compactor.make_room()
    await engine.copies.settled()
    await engine.garbage.delete_now()
    nothing_is_left(world, engine)
    await world.crash(engine)


@virtually
async def test_where_nothing_can_be_deleted_nobody_waits_for_it() -> None:
    """The list gets shorter all the same, and so does the next start."""
    world, engine = await a_large_disk_that_went()
    world.store.deny("delete", "", AccessDenied("a lock"))
    await asyncio.sleep(60 * LOOK_SECONDS)
    assert len(engine.manifests.listed()) == 0
    assert len(engine.garbage) >= SSTS
    await world.crash(engine)


def test_a_job_takes_no_more_than_a_step_can_have() -> None:
    many = snapshot(*(sst(number, 0, frames=5) for number in range(1, LEAVING_SSTS_MAX + 3)))
    job = next_drop(many)
    assert isinstance(job, Drop)
    assert len(names(job)) == LEAVING_SSTS_MAX
