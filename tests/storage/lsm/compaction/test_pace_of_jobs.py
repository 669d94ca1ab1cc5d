"""Maintenance of a running writer in virtual time: how often it tries what the store refuses, and who waits for that;
one job at a time; and what jobs replaced goes, and not before a manifest says so.
"""

import asyncio
import random
from collections.abc import Awaitable

import msgspec
import pytest

from storage.errors import AccessDenied
from storage.format.names import MANIFESTS, TABLES, sst_name
from storage.lsm.compaction.compactor import GROWN_BYTES_MIN, RETRY_SECONDS
from storage.lsm.compaction.plan import Drop, Repack, WriteCheckpoint
from storage.lsm.engine import Engine
from storage.lsm.layer import Layer
from storage.lsm.options import EngineOptions, MaintenanceOptions
from tests.simulation.virtual import virtually
from tests.storage.lsm.worlds import InlineEnv, World, durable, read
from tests.support.inside import debt_of

BLOCK = 256 * 1024
SECTOR = 4096
HOUR = 3600.0


class TimedEnv(InlineEnv):
    """Time is that of the loop."""

    def monotonic(self) -> float:
        return asyncio.get_running_loop().time()


def a_world(maintenance: MaintenanceOptions) -> World:
    world = World(options=EngineOptions(maintenance=maintenance, cache_bytes=0, flush_seconds=HOUR, watch_seconds=HOUR))
    world.env = TimedEnv()
    return world


async def overwritten(engine: Engine, layer: Layer, seeds: range) -> None:
    """A block again and again: all SSTs but the last one are dead."""
    for seed in seeds:
        layer.write(0, random.Random(seed).randbytes(BLOCK))
        await durable(engine, layer)
        await engine.flush_memtable()


@virtually
async def test_what_the_store_refuses_is_tried_now_and_then_and_keeps_no_writer(
    caplog: pytest.LogCaptureFixture,
) -> None:
    world = a_world(MaintenanceOptions(unmerged_ssts_max=2, space_slack_bytes=0))
    engine, layer = await world.start()
    async with engine.compactor.working:  # so that it is all there when the first job comes
        await overwritten(engine, layer, range(6))
        engine.compactor.grown(GROWN_BYTES_MIN)  # counted anew, as when a flush has listed much
        await asyncio.sleep(1)
        assert debt_of(engine) > 0
        world.store.deny("create", TABLES, AccessDenied("a policy denies it"))
    await asyncio.sleep(RETRY_SECONDS / 2)
    assert caplog.messages.count("maintenance_failed") == 1
    assert debt_of(engine) == 0
    tried = world.store.count("create", TABLES)
    await asyncio.sleep(20 * RETRY_SECONDS)
    assert 15 <= world.store.count("create", TABLES) - tried <= 25
    assert caplog.messages.count("maintenance_failed") == 1, "it is said once, as long as the reason is the same"
    held = world.store.hold("create", TABLES)
    await asyncio.sleep(RETRY_SECONDS)
    await held.someone_waits()
    assert debt_of(engine) == 0, "nor while it is tried"
    held.release()
    assert not engine.failed.done()
    world.store.denials.clear()
    await asyncio.sleep(2 * RETRY_SECONDS)
    assert engine.compactor.progress.jobs
    async with engine.compactor.working:
        await overwritten(engine, layer, range(6, 12))
        engine.compactor.grown(GROWN_BYTES_MIN)
        await asyncio.sleep(1)
        assert debt_of(engine) > 0, "what can be done again is waited for again"
    await world.crash(engine)


@virtually
async def test_what_jobs_replaced_goes_while_the_writer_runs() -> None:
    world = a_world(MaintenanceOptions(unmerged_ssts_max=2, space_slack_bytes=0, rest_seconds=10.0))
    engine, layer = await world.start()
    await overwritten(engine, layer, range(6))
    await asyncio.sleep(600)
    assert engine.compactor.progress.jobs["Drop"]
    assert engine.compactor.waiting_deletions == 0
    assert len(world.store.names(TABLES)) <= 3, "what is live, the tree, and the checkpoint"
    await world.crash(engine)


@virtually
async def test_what_a_job_replaced_last_goes_with_the_end() -> None:
    """Nobody reads any more; the next writer would sweep it only after a day."""
    world = a_world(MaintenanceOptions(look_seconds=HOUR))
    engine, layer = await world.start()
    await overwritten(engine, layer, range(1))
    await engine.compactor.do(WriteCheckpoint("for the test"))
    (victim,) = [sst for sst in (await engine.compactor.look()).ssts if sst.live]
    await engine.compactor.do(Repack((victim,), "for the test"))
    assert sst_name(victim.id) in world.store.objects
    await engine.close()
    assert sst_name(victim.id) not in world.store.objects


@virtually
async def test_what_nothing_shows_stays_until_a_manifest_lists_it_no_more() -> None:
    """Who opens the store after a crash before that finds all that is listed."""
    world = a_world(MaintenanceOptions(look_seconds=HOUR))
    engine, layer = await world.start()
    await overwritten(engine, layer, range(3))
    await engine.compactor.do(WriteCheckpoint("for the test"))
    dead = tuple(sst for sst in (await engine.compactor.look()).ssts if not sst.live)
    assert len(dead) == 2
    await engine.copies.settled()
    held = world.store.hold("create", MANIFESTS)
    dropping = asyncio.ensure_future(engine.compactor.do(Drop(dead)))
    await held.someone_waits()
    engine.compactor.delete_replaced()
    await engine.garbage.delete_now()
    assert {sst_name(sst.id) for sst in dead} <= world.store.objects.keys()
    held.release()
    await dropping
    await engine.copies.settled()
    engine.compactor.delete_replaced()
    await engine.garbage.delete_now()
    assert not {sst_name(sst.id) for sst in dead} & world.store.objects.keys()
    engine, layer = await world.reopen(engine)
    assert await read(layer, 0, BLOCK) == random.Random(2).randbytes(BLOCK)
    await world.crash(engine)


async def jobs_done(*, together: bool) -> tuple[dict[str, int], int]:
    """How many of each kind it takes until nothing is worth doing, by one who asks or by three; what that uploads."""
    world = a_world(MaintenanceOptions(look_seconds=HOUR, rest_seconds=0.0, pack_count=2, patches_max=2))
    engine, layer = await world.start()
    chance = random.Random(1)
    for number in range(6):
        for sector in range(5):
            layer.write((number % 3) * BLOCK + (number * 5 + sector) * SECTOR, chance.randbytes(SECTOR))
        await durable(engine, layer)
        await engine.flush_memtable()
    before = await read(layer, 0, 3 * BLOCK)

    async def all_of_it() -> None:
        for _ in range(100):
            if await engine.compactor.thorough_step(None) is None:
                return

    async def in_the_background() -> None:
        for _ in range(100):
            if not await engine.compactor.step():
                return

    work: list[Awaitable[None]] = [all_of_it()]
    if together:
        work += [all_of_it(), in_the_background()]
    await asyncio.gather(*work)
    assert not engine.failed.done()
    assert await read(layer, 0, 3 * BLOCK) == before
    done = dict(engine.compactor.progress.jobs), engine.compactor.progress.uploaded_bytes
    await world.crash(engine)
    return done


@virtually
async def test_one_job_is_done_at_a_time_whoever_asks() -> None:
    jobs, uploaded = await jobs_done(together=False)
    assert sum(jobs.values()) > 2
    more, more_uploaded = await jobs_done(together=True)
    assert sum(more.values()) <= sum(jobs.values()) + 2
    assert more_uploaded <= 1.5 * uploaded


async def work_and_rests(
    maintenance: MaintenanceOptions, *, writes: bool, hangs: float = 0.0
) -> tuple[list[tuple[float, float]], int]:
    """How long it works at a time, and how long it rests then; and how many jobs that were. The store takes five
    seconds for an SST, and so much longer for the first one.
    """
    world = a_world(maintenance)
    engine, layer = await world.start()
    async with engine.compactor.working:
        for number in range(24):
            layer.write(number % 4 * BLOCK + number * SECTOR, random.Random(number).randbytes(20 * SECTOR))
            await durable(engine, layer)
            await engine.flush_memtable()
        create, seconds = world.store.create, iter([hangs])

        async def slowly(name: str, data: bytes) -> None:
            if name.startswith(TABLES):
                await asyncio.sleep(5.0 + next(seconds, 0.0))
            await create(name, data)

        world.store.create = slowly  # type: ignore[method-assign, assignment]
    clock, changes = asyncio.get_running_loop().time, [(False, 0.0)]
    for tenth in range(3000 + int(10 * hangs)):
        if writes and not tenth % 10:
            layer.write(0, b"new")
        await asyncio.sleep(0.1)
        is_busy = engine.compactor.progress.job is not None
        if is_busy != changes[-1][0]:
            changes.append((is_busy, clock()))
    jobs = engine.compactor.progress.jobs_done
    await world.crash(engine)
    times = [at for _, at in changes[1:]]
    times.append(clock())
    found = [(end - begin, then - end) for begin, end, then in zip(times[::2], times[1::2], times[2::2], strict=False)]
    return found, jobs


SMALL = MaintenanceOptions(pack_count=2, unmerged_ssts_max=2, patches_max=2, look_seconds=1.0)


@virtually
async def test_half_of_the_time_is_that_of_clients_while_they_write() -> None:
    found, jobs = await work_and_rests(SMALL, writes=True)
    assert len(found) >= jobs - 1 > 2
    assert all(0.9 * took < rest < 1.1 * took + 2.0 for took, rest in found[:-1]), found


@virtually
async def test_who_waited_long_for_the_store_rests_a_minute() -> None:
    ((took, rest), *_), _ = await work_and_rests(SMALL, writes=True, hangs=1000.0)
    assert took > 1000.0
    assert 50.0 < rest < 70.0


@pytest.mark.parametrize("why", ["nobody writes", "it is beyond its space target"])
@virtually
async def test_there_is_no_rest_where_it_serves_nobody(why: str) -> None:
    at_rest = why == "nobody writes"
    changed = {"rest_seconds": 0.0} if at_rest else {"space_slack_bytes": 0, "space_factor": 0.5}
    found, jobs = await work_and_rests(msgspec.structs.replace(SMALL, **changed), writes=not at_rest)
    assert len(found) == 1 < jobs - 1, "one follows the other at once"
