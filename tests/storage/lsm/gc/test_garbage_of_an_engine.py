"""What a running writer deletes, of its own and of what its predecessors left, when, and what stays for ever: fences,
take-overs, and the newest manifests.
"""

import asyncio

import msgspec

from storage.errors import AccessDenied
from storage.format.names import MANIFESTS, SPARES, WALS, manifest_name, spare_manifest_name, sst_name, wal_name
from storage.lsm.options import MANIFESTS_KEPT
from tests.simulation.virtual import virtually
from tests.storage.lsm.recovery.test_verified_copies import DATA, QUIET
from tests.storage.lsm.worlds import World, durable

HOUR = 3600.0


def a_world() -> World:
    """One in which a leftover may go at once."""
    return World(options=msgspec.structs.replace(QUIET, sweep_seconds=HOUR, leftover_seconds=0.0))


@virtually
async def test_the_log_that_was_left_goes_and_no_fence() -> None:
    """A writer that was stalled has a PUT of that very number on its way: it must meet what is there."""
    world = a_world()
    world.store.deny("delete", WALS, AccessDenied("no"))
    engine, layer = await world.start()
    for _ in range(4):
        for _ in range(3):
            layer.write(0, DATA)
            await durable(engine, layer)
        await engine.flush_memtable()
        engine, layer = await world.reopen(engine)
    fences = {wal_name(number) for number in engine.log.position.fences}
    assert len(fences) == 5
    assert len(world.store.names(WALS)) > 12
    world.store.denials.clear()
    await asyncio.sleep(1.1 * HOUR)
    above = {name for name in world.store.names(WALS) if name >= wal_name(engine.manifests.manifest.replay)}
    assert set(world.store.names(WALS)) == fences | above
    await world.crash(engine)


@virtually
async def test_what_lands_late_goes_with_a_later_sweep() -> None:
    world = a_world()
    engine, _ = await world.start()
    await engine.flush_memtable(always=True)
    await engine.copies.settled()
    for _ in range(3):
        await asyncio.sleep(1.1 * HOUR)
        world.store.objects[spare_manifest_name(1)] = b"of a writer that was stalled"
    await asyncio.sleep(1.1 * HOUR)
    assert world.store.names(SPARES) == [spare_manifest_name(engine.manifests.number)]
    await world.crash(engine)


@virtually
async def test_what_was_lost_is_said_until_it_is_back() -> None:
    world = a_world()
    engine, layer = await world.start()
    layer.write(0, DATA * 300)
    await engine.flush_memtable()
    name = sst_name(engine.manifests.manifest.ssts[0].id)
    content = world.store.objects.pop(name)
    await asyncio.sleep(1.1 * HOUR)
    assert engine.report().lost == [f"{name} is missing, though the manifest names it"]
    world.store.objects[name] = content
    await asyncio.sleep(1.1 * HOUR)
    assert engine.report().lost == []
    await world.crash(engine)


@virtually
async def test_what_was_lost_is_said_where_nothing_can_be_deleted_too() -> None:
    """A lock on objects may last for years. What lies there is not looked into meanwhile, and no garbage is added."""
    world = a_world()
    engine, layer = await world.start()
    await engine.close()
    world.store.deny("delete", "", AccessDenied("a lock"))
    engine = await world.open(take_over=False)
    layer = engine.layers[1]
    for _ in range(3):
        layer.write(0, DATA * 300)
        await engine.flush_memtable(always=True)
    await asyncio.sleep(1.1 * HOUR)
    assert engine.garbage.failing is not None
    waiting = len(engine.garbage)
    name = sst_name(engine.manifests.manifest.ssts[-1].id)
    content = world.store.objects.pop(name)
    await asyncio.sleep(1.1 * HOUR)
    assert engine.report().lost == [f"{name} is missing, though the manifest names it"]
    assert engine.sweeper.store_clock() is not None
    world.store.objects[name] = content
    await asyncio.sleep(1.1 * HOUR)
    assert engine.report().lost == []
    assert len(engine.garbage) == waiting
    await world.crash(engine)


@virtually
async def test_the_newest_manifests_stay_and_every_take_over() -> None:
    world = a_world()
    engine, _ = await world.start()
    takeovers = [engine.manifests.number]
    for _ in range(2):
        for _ in range(MANIFESTS_KEPT):
            await engine.flush_memtable(always=True)
        engine, _ = await world.reopen(engine)
        takeovers.append(engine.manifests.number)
    for _ in range(MANIFESTS_KEPT + 3):
        await engine.flush_memtable(always=True)
    await engine.copies.settled()
    await asyncio.sleep(60)
    newest = range(engine.manifests.number - MANIFESTS_KEPT + 1, engine.manifests.number + 1)
    assert world.store.names(MANIFESTS) == [manifest_name(number) for number in (*takeovers, *newest)]
    await world.crash(engine)
