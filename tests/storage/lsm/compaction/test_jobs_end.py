"""Maintenance comes to an end of what there is to do, and one object that cannot be had keeps no others."""

import asyncio
import random

import pytest

from storage.bucket.pace import ObjectSizes
from storage.errors import AccessDenied, NotFound, StorageError
from storage.format.names import sst_name
from storage.lsm.compaction.compactor import GROWN_BYTES_MIN
from storage.lsm.compaction.plan import Drop, Repack, StoreFacts, WriteCheckpoint
from storage.lsm.engine import Engine
from storage.lsm.options import EngineOptions, MaintenanceOptions
from tests.storage.lsm.worlds import World, durable, read, record
from tests.support.idle import idle
from tests.support.inside import debt_of
from tests.support.waiting import soon, until

MIB = 1024 * 1024
BLOCK = 256 * 1024
SECTOR = 4096

SELDOM = 3600.0
"""Seconds between two looks of the maintenance in the background: the test does it by hand."""


async def steps(engine: Engine, limit: int) -> int:
    """How many jobs were worth doing, one after the other."""
    for count in range(limit):
        if not await engine.compactor.step():
            return count
    raise AssertionError(f"after {limit} jobs on a store that nobody writes to another one is worth doing")


@pytest.mark.fast
async def test_on_a_slow_link_what_was_packed_is_not_packed_again() -> None:
    """Objects are of a megabyte there: SSTs of as much cannot become fewer."""
    maintenance = MaintenanceOptions(look_seconds=SELDOM, pack_count=2, unmerged_ssts_max=1)
    world = World(options=EngineOptions(maintenance=maintenance, sizes=ObjectSizes(sst_bytes_max=MIB)))
    engine, layer = await world.start()
    chance = random.Random(1)
    for number in range(4):
        layer.write(number * MIB, chance.randbytes(MIB - 5 * SECTOR))
        await durable(engine, layer)
        await engine.flush_memtable()
    assert await steps(engine, 20) > 0
    await engine.close()


@pytest.mark.fast
@pytest.mark.parametrize("error", [AccessDenied("a policy denies it"), NotFound("it is gone")])
async def test_an_sst_that_is_withheld_keeps_no_others(error: StorageError) -> None:
    maintenance = MaintenanceOptions(look_seconds=SELDOM, unmerged_ssts_max=1)
    world = World(options=EngineOptions(maintenance=maintenance, cache_bytes=0))
    engine, layer = await world.start()
    chance = random.Random(2)
    for number in range(2):
        layer.write(number * MIB, chance.randbytes(20 * SECTOR))
        layer.write(number * MIB + BLOCK, chance.randbytes(10 * SECTOR))
        await durable(engine, layer)
        await engine.flush_memtable()
        layer.zero(number * MIB, BLOCK, allocated=False)
        await durable(engine, layer)
        await engine.flush_memtable()
    await engine.compactor.do(WriteCheckpoint("for the test"))
    little = [sst for sst in (await engine.compactor.look()).ssts if 0 < sst.live < sst.frames // 2]
    assert len(little) == 2
    world.store.deny("get", sst_name(little[0].id), error)
    for _ in range(4):
        try:
            while await engine.compactor.step():
                pass
        except type(error):
            pass
    listed = {ref.id for ref in engine.manifests.listed()}
    assert little[0].id in listed
    assert little[1].id not in listed, "one SST that is withheld keeps another from being repacked"
    world.store.denials.clear()
    await engine.close()


@pytest.mark.fast
async def test_pieces_over_a_frame_that_is_moved_are_completed_all_the_same() -> None:
    """A flush has read what lies below them, and then a repack puts that elsewhere."""
    world = World(options=EngineOptions(maintenance=MaintenanceOptions(look_seconds=SELDOM), cache_bytes=0))
    engine, layer = await world.start()
    layer.write(0, random.Random(3).randbytes(20 * SECTOR))
    await durable(engine, layer)
    await engine.flush_memtable()
    await engine.compactor.do(WriteCheckpoint("for the test"))
    (victim,) = [sst for sst in (await engine.compactor.look()).ssts if sst.live]
    before = await read(layer, 0, 20 * SECTOR)
    layer.write(100, b"a piece")
    await durable(engine, layer)
    # Both have read the frame; the flush is told so only when the repack is done.
    source = engine.source
    fetch_sound = source.fetch_sound
    read_by_flush, repacked = asyncio.Event(), asyncio.Event()

    async def slowly(*arguments: object) -> object:
        found = await fetch_sound(*arguments)  # type: ignore[arg-type]
        read_by_flush.set()
        await repacked.wait()
        return found

    source.fetch_sound = slowly  # type: ignore[method-assign, assignment]
    flushing = asyncio.ensure_future(engine.flush_memtable())
    await soon(asyncio.ensure_future(read_by_flush.wait()))
    await engine.compactor.do(Repack((victim,), "for the test"))
    repacked.set()
    await soon(flushing)
    assert layer.kept_bytes == 0, "a frame that can be read was taken for one that cannot"
    assert await read(layer, 0, 20 * SECTOR) == before[:100] + b"a piece" + before[107:]
    await engine.close()


@pytest.mark.fast
async def test_writers_do_not_wait_for_maintenance_that_can_do_nothing() -> None:
    """The SST that takes the room does not open: it stays, and nobody is slowed down for it."""
    maintenance = MaintenanceOptions(look_seconds=SELDOM, unmerged_ssts_max=1, space_slack_bytes=0)
    world = World(options=EngineOptions(maintenance=maintenance, cache_bytes=0))
    engine, layer = await world.start()
    layer.write(0, random.Random(4).randbytes(20 * SECTOR))
    layer.write(BLOCK, random.Random(5).randbytes(SECTOR))
    await durable(engine, layer)
    await engine.flush_memtable()
    layer.zero(0, BLOCK, allocated=False)
    await durable(engine, layer)
    await engine.flush_memtable()
    await engine.compactor.do(WriteCheckpoint("for the test"))
    (victim,) = [sst for sst in (await engine.compactor.look()).ssts if sst.live]
    world.store.deny("get", sst_name(victim.id), AccessDenied("a policy denies it"))
    with pytest.raises(AccessDenied):
        await steps(engine, 20)
    assert not await engine.compactor.step()
    assert debt_of(engine) == 0
    world.store.denials.clear()
    await engine.close()


@pytest.mark.fast
async def test_writers_feel_what_they_write_while_a_job_is_under_way() -> None:
    """A job takes seconds: what is overwritten meanwhile counts at once, and ends the pause that follows."""
    maintenance = MaintenanceOptions(look_seconds=SELDOM, unmerged_ssts_max=2, space_slack_bytes=0)
    world = World(options=EngineOptions(maintenance=maintenance, cache_bytes=0))
    engine, layer = await world.start()

    def are_slowed() -> bool:
        return engine.writes.gate.slows

    async with engine.compactor.working:
        for seed in range(4):
            layer.write(0, random.Random(seed).randbytes(BLOCK))
            await durable(engine, layer)
            await engine.flush_memtable()
        assert not are_slowed(), "less than a look is worth"
        engine.compactor.grown(GROWN_BYTES_MIN)
        await idle()
        assert are_slowed()
    await until(lambda: not are_slowed())  # nobody asked for it
    await engine.close()


@pytest.mark.fast
async def test_the_store_is_not_counted_while_a_flush_points_indexes_elsewhere() -> None:
    """What is written over goes from a head to its snapshot: between the two it would be nowhere, and be dropped."""
    world = World(options=EngineOptions(maintenance=MaintenanceOptions(look_seconds=SELDOM)))
    engine, layer = await world.start()
    layer.write(0, random.Random(6).randbytes(BLOCK))
    await durable(engine, layer)
    await engine.flush_memtable()
    async with engine.compactor.context.installing:
        look = asyncio.ensure_future(engine.compactor.look())
        await idle()
        assert not look.done()
    assert [sst.live for sst in (await soon(look)).ssts] != [0]
    await engine.close()


@pytest.mark.fast
async def test_a_victim_stays_as_long_as_a_read_waits_for_it() -> None:
    maintenance = MaintenanceOptions(look_seconds=SELDOM)
    world = World(options=EngineOptions(maintenance=maintenance, cache_bytes=0))
    engine, layer = await world.start()
    data = random.Random(6).randbytes(20 * SECTOR)
    layer.write(0, data)
    await durable(engine, layer)
    await engine.flush_memtable()
    await engine.compactor.do(WriteCheckpoint("for the test"))
    (victim,) = [sst for sst in (await engine.compactor.look()).ssts if sst.live]
    await engine.compactor.do(Repack((victim,), "for the test"))
    (copy,) = [sst for sst in (await engine.compactor.look()).ssts if sst.live]
    await engine.compactor.do(WriteCheckpoint("for the test"))
    held = world.store.hold("get", sst_name(copy.id))
    reading = asyncio.ensure_future(read(layer, 0, 20 * SECTOR))
    await held.someone_waits()
    layer.zero(0, BLOCK, allocated=False)
    await durable(engine, layer)
    await engine.flush_memtable()
    dead = tuple(sst for sst in (await engine.compactor.look()).ssts if sst.id == copy.id)
    await engine.compactor.do(Drop(dead))
    engine.compactor.delete_replaced()
    await idle()
    assert sst_name(copy.id) in world.store.objects
    held.release()
    assert await soon(reading) == bytes(20 * SECTOR)
    engine.compactor.delete_replaced()
    await until(lambda: sst_name(copy.id) not in world.store.objects)
    await engine.close()


@pytest.mark.fast
async def test_a_store_that_does_not_change_is_not_counted_again() -> None:
    maintenance = MaintenanceOptions(look_seconds=SELDOM, rest_seconds=0.0)
    world = World(options=EngineOptions(maintenance=maintenance))
    engine, layer = await world.start()
    layer.write(0, b"a" * SECTOR)
    await engine.flush_memtable()
    compactor = engine.compactor
    looks = 0
    look = compactor.look

    async def counted() -> StoreFacts:
        nonlocal looks
        looks += 1
        return await look()

    compactor.look = counted  # type: ignore[method-assign, assignment]
    for _ in range(3):  # the first two find out that nothing is written to it
        await steps(engine, 20)
    seen = looks
    await steps(engine, 20)
    assert looks == seen
    layer.write(SECTOR, b"b" * SECTOR)
    await engine.flush_memtable()
    await steps(engine, 20)
    assert looks > seen, "a flush changes what there is to do"
    seen = looks
    await steps(engine, 20)
    await steps(engine, 20)
    await engine.change_tree(record("drop", 1))
    before = looks
    await steps(engine, 20)
    assert looks > before, "so does a disk that goes"
    await engine.close()


@pytest.mark.fast
async def test_manifests_of_jobs_go_like_those_of_flushes() -> None:
    world = World(options=EngineOptions(maintenance=MaintenanceOptions(look_seconds=SELDOM)))
    engine, layer = await world.start()
    layer.write(0, b"a" * SECTOR)
    await engine.flush_memtable()
    for _ in range(60):
        await engine.compactor.do(WriteCheckpoint("for the test"))
    await until(lambda: len(world.store.names("manifest/")) <= 16 + 2)
    await until(lambda: len(world.store.names("compacted/")) <= 3)  # an SST, the tree, and the newest checkpoint
    await engine.close()


@pytest.mark.fast
@pytest.mark.parametrize("how", ["discarded", "deleted"])
async def test_of_a_disk_without_data_little_stays(how: str) -> None:
    """Below 64 MiB dead, which a busy store waits for: at rest nothing more would come."""
    maintenance = MaintenanceOptions(look_seconds=0.01, rest_seconds=0.02)
    world = World(options=EngineOptions(maintenance=maintenance, cache_bytes=0, flush_seconds=0.05))
    engine, layer = await world.start()
    for number in range(2):
        layer.write(number * 10 * MIB, random.Random(number).randbytes(10 * MIB))
        await durable(engine, layer)
        await engine.flush_memtable()
    if how == "discarded":
        layer.zero(0, 20 * MIB, allocated=False)
    else:
        await engine.change_tree(record("drop", 1))

    def stored() -> int:
        return sum(len(world.store.objects[name]) for name in world.store.names("compacted/"))

    await until(lambda: stored() < 8 * MIB)
    await engine.close()
