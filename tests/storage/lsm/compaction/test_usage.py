"""Counting what is used of many small disks, beside everything else that the event loop has to do."""

import asyncio

from storage.lsm.engine import Engine
from tests.simulation.virtual import virtually
from tests.storage.lsm.worlds import World, durable, record


async def turns_beside_a_count(engine: Engine) -> int:
    """How many turns of the loop others have while what is used is counted anew."""
    turns = 0

    async def others() -> None:
        nonlocal turns
        while True:
            turns += 1
            await asyncio.sleep(0)

    beside = asyncio.ensure_future(others())
    await engine.meter.count()
    beside.cancel()
    return turns


@virtually
async def test_each_of_many_small_disks_is_a_turn_of_its_own() -> None:
    world = World()
    engine, layer = await world.start()
    layer.write(0, b"of one")
    await durable(engine, layer)
    await engine.flush_memtable()
    of_one = await turns_beside_a_count(engine)
    for number in range(2, 42):
        await engine.change_tree(record("create", number))
        engine.layers[number].write(0, b"of many")
    await engine.flush_memtable()
    assert await turns_beside_a_count(engine) >= of_one + 40
    await world.crash(engine)
