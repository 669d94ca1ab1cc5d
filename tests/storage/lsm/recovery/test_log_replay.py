"""The log put on top of the index: in which order, and in how much memory."""

import tracemalloc

from storage.format.frame import BLOCK_BYTES, SECTOR_BYTES
from storage.format.names import WALS
from tests.storage.lsm.worlds import World, durable, read, record
from tests.support.idle import idle

MIB = 1024 * 1024


async def test_a_log_takes_no_more_memory_than_the_memtable_it_becomes() -> None:
    """Writes that compress a hundredfold, over one another: all of them at once would be five times as much."""
    world = World()
    engine, layer = await world.start()
    data = bytes(range(256)) * (3 * MIB // 256)
    held = world.store.hold("create", "compacted/")
    for number in range(20):
        layer.write(number % 4 * 4 * MIB + SECTOR_BYTES, data)
        await durable(engine, layer)
    assert sum(len(world.store.objects[name]) for name in world.store.names(WALS)) < 2 * MIB
    charged = engine.writes.memtable_bytes
    assert charged >= 60 * MIB, "what a replay needs is what the memtable is charged for"
    await world.crash(engine)
    held.release()
    tracemalloc.start()
    try:
        before, _ = tracemalloc.get_traced_memory()
        engine = await world.open()
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert peak - before < 12 * MIB + 12 * MIB, "four times 3 MiB live on, and one object is opened at a time"
    assert engine.writes.memtable_bytes >= 60 * MIB
    assert await read(engine.layers[1], SECTOR_BYTES, 3 * MIB) == data
    await world.crash(engine)


async def test_what_was_written_to_a_device_that_is_gone_takes_nothing() -> None:
    world = World()
    engine, _ = await world.start()
    await engine.change_tree(record("create", 2))
    engine.layers[2].write(0, bytes(MIB))
    await durable(engine, engine.layers[2])
    await engine.change_tree(record("drop", 2))
    engine.layers[1].write(0, b"x" * SECTOR_BYTES)
    await durable(engine, engine.layers[1])
    engine, layer = await world.reopen(engine)
    assert list(engine.layers) == [1]
    assert engine.writes.memtable.bytes < 2 * SECTOR_BYTES
    assert await read(layer, 0, SECTOR_BYTES) == b"x" * SECTOR_BYTES
    await world.crash(engine)


async def test_a_tree_change_zeroes_between_the_writes_it_came_between() -> None:
    """Its record stands in the object before those writes, or in one behind them: the sequences say what came when."""
    world = World()
    engine, layer = await world.start()
    await engine.flush_memtable()
    layer.write(0, b"a" * BLOCK_BYTES)
    held = world.store.hold("create", WALS)
    zeroed = engine.change_tree(record("zero", 1, SECTOR_BYTES, 8 * SECTOR_BYTES))
    layer.write(2 * SECTOR_BYTES, b"b" * SECTOR_BYTES)
    held.release()
    await zeroed
    await durable(engine, layer)
    await idle()
    want = b"a" * SECTOR_BYTES + bytes(SECTOR_BYTES) + b"b" * SECTOR_BYTES + bytes(6 * SECTOR_BYTES)
    assert (await read(layer, 0, BLOCK_BYTES)).startswith(want + b"a")
    engine, layer = await world.reopen(engine)
    assert (await read(layer, 0, BLOCK_BYTES)).startswith(want + b"a")
    await world.crash(engine)
