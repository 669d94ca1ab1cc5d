"""A store that was used heavily has no finding: at rest, and beside its writer, whose memory says the same."""

import random

import pytest

from storage.check.findings import Finding
from storage.check.running import held
from storage.check.subject import Subject
from storage.check.survey import survey
from storage.lsm.engine import Engine
from storage.lsm.options import EngineOptions, MaintenanceOptions
from tests.storage.lsm.compaction.test_jobs import Disk
from tests.storage.lsm.worlds import KEY, MIB, Layers, World, record
from tests.support.examples import first_soon
from tests.support.idle import idle


def subject(world: World, **more: object) -> Subject:
    return Subject(store=world.store, key=KEY, keys_number=1, env=world.env, make_tree=Layers, **more)  # type: ignore[arg-type]


async def at_rest(world: World) -> list[Finding]:
    return (await survey(subject(world))).findings.all


async def running(world: World, engine: Engine) -> list[Finding]:
    async with held(engine.compactor.context) as moment:
        return (await survey(subject(world, moment=moment))).findings.all


@pytest.mark.parametrize("seed", first_soon(range(12)))
async def test_a_store_with_every_job_done_has_no_finding(seed: int) -> None:
    # Jobs are done here, by chance, and not by the writer itself, which does one as soon as it begins.
    world = World(options=EngineOptions(cache_bytes=16 * MIB, maintenance=MaintenanceOptions(look_seconds=1e9)))
    engine, layer = await world.start()
    disk = Disk(world, engine, layer, seed)
    steps = [disk.write, disk.flush, disk.flush, disk.job, disk.job, disk.job, disk.crash]
    chance = random.Random(f"check {seed}")
    for _ in range(40):
        await chance.choice(steps)()
        await idle()
        assert await running(world, disk.engine) == []
        assert await at_rest(world) == []
    await disk.engine.close()
    assert await at_rest(world) == []


async def test_a_disk_that_is_deleted_during_a_check_is_no_finding() -> None:
    """Its deletion is in the log, which is read when memory was looked at already."""
    world = World(options=EngineOptions(cache_bytes=16 * MIB, maintenance=MaintenanceOptions(look_seconds=1e9)))
    engine, layer = await world.start()
    layer.write(0, b"a" * 4096)
    await engine.flush_memtable()
    async with held(engine.compactor.context) as moment:
        await engine.change_tree(record("drop", 1))
        await engine.flush()
        assert (await survey(subject(world, moment=moment))).findings.all == []
    assert await running(world, engine) == []
    await world.crash(engine)
