"""A start asks for nothing after something else that it does not need first: behind a link of 25 ms, each such round
trip is seen by everybody who waits for a disk.
"""

import asyncio

import pytest

from storage.format.frame import BLOCK_BYTES
from storage.lsm.compaction.write_checkpoint import write_checkpoint
from storage.lsm.options import EngineOptions, MaintenanceOptions
from tests.simulation.virtual import virtually
from tests.storage.lsm.worlds import MIB, StageStore, World, durable
from tests.support.inside import jobs_of

ROUND_TRIPS_MAX = 14
"""Of a writer: a list of manifests, the newest, its checkpoint's trailer, the SSTs, the log, an object of it, its end,
a look for a newer manifest, the take-over, the log again and its end, a look, the fence, and a last look."""

SECONDS = 1.0


class FarAway(StageStore):
    """Each request takes a second, however many there are."""

    async def _asked(self, verb: str, name: str, size: int = 0) -> None:
        await super()._asked(verb, name, size)
        await asyncio.sleep(SECONDS)


async def round_trips(world: World, *, read_only: bool = False) -> int:
    loop = asyncio.get_running_loop()
    began = loop.time()
    engine = await world.open(read_only=read_only)
    taken = round((loop.time() - began) / SECONDS)
    await world.crash(engine)
    return taken


async def written(*, ssts: int, rows_per_part: int, closed: bool) -> World:
    """A store with so many SSTs in its checkpoint and beside it, patches in both, and parts of few rows."""
    maintenance = MaintenanceOptions(look_seconds=1e9, rows_per_part=rows_per_part)
    world = World(options=EngineOptions(cache_bytes=16 * MIB, flush_seconds=1e9, maintenance=maintenance))
    engine, layer = await world.start()
    for half in range(2):
        for number in range(ssts):
            layer.write(number * BLOCK_BYTES, bytes([1 + number]) * BLOCK_BYTES)
            layer.write((number + 1) * BLOCK_BYTES, bytes([2]) * 4096)
            await engine.flush_memtable()
        if not half:
            await write_checkpoint(jobs_of(engine)[0])
    if closed:
        await engine.close()
    else:
        layer.write(0, bytes([3]) * 4096)
        await durable(engine, layer)
        await world.crash(engine)
    far = FarAway(world.store.inner)
    world.store = far
    return world


@pytest.mark.parametrize("closed", [True, False])
@virtually
async def test_a_start_takes_as_many_round_trips_however_large_a_store_is(closed: bool) -> None:
    small = await round_trips(await written(ssts=1, rows_per_part=1 << 17, closed=closed))
    large = await round_trips(await written(ssts=6, rows_per_part=1, closed=closed))
    assert large == small <= ROUND_TRIPS_MAX


@virtually
async def test_a_reader_takes_fewer() -> None:
    world = await written(ssts=3, rows_per_part=1, closed=True)
    assert await round_trips(world, read_only=True) < await round_trips(world)
