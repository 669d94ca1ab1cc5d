"""A large disk goes: its SSTs leave in parts, and none of them is forgotten before it is deleted."""

import asyncio

import pytest

from storage.errors import AccessDenied, Unavailable
from storage.format.names import TABLES, sst_name
from storage.lsm.compaction.plan import Drop, is_over_target, next_drop, space_debt
from storage.lsm.compaction.sst_table import LEAVING_SSTS_MAX
from storage.lsm.engine import Engine
from storage.lsm.gc.garbage import Garbage
from storage.lsm.options import LEFTOVER_SECONDS_MIN, EngineOptions, MaintenanceOptions
from storage.objects.memory import MemoryStore
from tests.simulation.virtual import virtually
from tests.storage.lsm.compaction.test_plan import names, snapshot, sst
from tests.storage.lsm.gc.test_sweep import Clocks, put_table, sweeper
from tests.storage.lsm.worlds import StageStore, World, record

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
    assert (len(engine.garbage), engine.garbage.forgotten, engine.compactor.waiting_deletions) == (0, 0, 0)


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


@virtually
async def test_one_deletion_that_fails_makes_nobody_forget() -> None:
    """A store that asks for a pause deletes on, and drops wait for it as before."""
    world, engine = await a_large_disk_that_went()
    loop = asyncio.get_running_loop()
    held = world.store.hold("delete", TABLES)

    def answers() -> None:
        world.store.deny("delete", TABLES, Unavailable("slow down"))
        held.release()
        loop.call_later(1.0, world.store.denials.clear)

    loop.call_later(20 * LOOK_SECONDS, answers)
    await asyncio.sleep(90 * LOOK_SECONDS)
    assert engine.garbage.forgotten == 0
    nothing_is_left(world, engine)
    await world.crash(engine)


async def test_what_earlier_writers_left_pushes_out_nothing_that_this_one_dropped() -> None:
    """The rest of it is found by the next sweep; what this writer dropped is not, as long as it runs."""
    env = Clocks()
    store = StageStore(MemoryStore(clock=env.of_the_store))
    left = {await put_table(store, env, 1) for _ in range(NAMES_MAX)}
    env.elapsed += LEFTOVER_SECONDS_MIN
    garbage = Garbage(store, env, names_max=NAMES_MAX)
    dropped = {sst_name(await put_table(store, env, 4)) for _ in range(NAMES_MAX // 2 - 1)}
    garbage.add(dropped)
    sweeping = await sweeper(store, env, garbage=garbage)
    await sweeping.sweep()
    assert garbage.forgotten == 0
    assert not dropped & set(store.names(TABLES))
    assert len(store.names(TABLES)) == len(left) - 1
    await sweeping.sweep()
    await sweeping.sweep()
    assert not store.names(TABLES)


def test_what_waits_for_a_drop_slows_no_writer() -> None:
    many = snapshot(*(sst(number, 0, frames=5) for number in range(1, 50)))
    assert space_debt(many, MaintenanceOptions(space_slack_bytes=1)) == 0
    assert not is_over_target(many, MaintenanceOptions(space_slack_bytes=1))


def test_a_job_takes_no_more_than_a_step_can_have() -> None:
    many = snapshot(*(sst(number, 0, frames=5) for number in range(1, LEAVING_SSTS_MAX + 3)))
    job = next_drop(many)
    assert isinstance(job, Drop)
    assert len(names(job)) == LEAVING_SSTS_MAX
