"""The job of maintenance that is said to be under way is the one that is."""

import asyncio
import random

from storage.format.frame import SECTOR_BYTES
from storage.lsm.compaction.plan import WriteCheckpoint
from storage.lsm.engine import Engine
from storage.lsm.layer import Layer
from storage.lsm.options import EngineOptions, MaintenanceOptions
from tests.simulation.virtual import virtually
from tests.storage.lsm.worlds import MIB, World, durable


async def written(world: World) -> tuple[Engine, Layer]:
    engine, layer = await world.start()
    for number in range(2):
        layer.write(number * MIB, random.Random(number).randbytes(20 * SECTOR_BYTES))
        await durable(engine, layer)
        await engine.flush_memtable()
    return engine, layer


@virtually
async def test_none_is_under_way_behind_one_that_somebody_asked_for() -> None:
    """However it is asked for: the background may look again in an hour."""
    world = World(options=EngineOptions(maintenance=MaintenanceOptions(look_seconds=36000.0)))
    engine, _ = await written(world)
    await asyncio.sleep(1)
    async with engine.compactor.working:
        await engine.compactor.do(WriteCheckpoint("for the test"))
    assert engine.report().maintenance_job is None
    await engine.close()


@virtually
async def test_one_that_somebody_asked_for_is_under_way_until_its_end() -> None:
    """The background finds nothing to do meanwhile, again and again."""
    world = World(options=EngineOptions(maintenance=MaintenanceOptions(look_seconds=1.0)))
    engine, _ = await written(world)
    await asyncio.sleep(1000)
    upload = world.store.hold("create")
    asked = asyncio.ensure_future(engine.compactor.thorough_step(None))
    await upload.someone_waits()
    job = engine.report().maintenance_job
    await asyncio.sleep(100)
    assert engine.report().maintenance_job == job
    upload.release()
    done = await asked
    assert type(done).__name__ == job
    assert engine.report().maintenance_job is None
    await engine.close()
