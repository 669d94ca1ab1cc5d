"""Layers that come and go while operations are under way."""

import asyncio

from storage.format.names import wal_name
from tests.storage.lsm.worlds import World, durable, read, record
from tests.support.idle import idle
from tests.support.waiting import soon

A = b"a" * 4096


async def test_a_flush_waits_for_what_a_dropped_layer_still_has_on_its_way() -> None:
    """Otherwise the log is truncated up to an object that may never exist, and what follows it cannot be read."""
    world = World()
    engine, gone = await world.start()
    await engine.change_tree(record("create", 2))
    kept = engine.layers[2]
    gone.write(0, A)
    await durable(engine, gone)
    await engine.change_tree(record("drop", 1))
    await engine.flush_memtable()
    kept.write(0, A)
    await durable(engine, kept)
    held = world.store.hold("create", "wal/")
    gone.write(4096, A)
    gone.queue.want_durable(gone.last_sequence)
    await held.someone_waits()
    flushing = asyncio.ensure_future(engine.flush_memtable())
    await idle()
    assert not flushing.done()
    held.release()
    await soon(flushing)
    kept.write(4096, A)
    await durable(engine, kept)
    await world.crash(engine)
    engine = await world.open()
    assert await read(engine.layers[2], 0, 8192) == A + A
    await world.crash(engine)


async def test_a_drop_that_is_not_durable_costs_a_layer_nothing() -> None:
    """A flush passes over what it finds dropped, and truncates the log behind it. A crash may still undo the drop."""
    world = World()
    engine, layer = await world.start()
    await engine.change_tree(record("create", 2))
    engine.layers[2].write(0, A)
    await durable(engine, engine.layers[2])
    number = engine.log.position.next_number
    before, drop = (world.store.hold("create", wal_name(number + step)) for step in (0, 1))
    layer.write(0, A)
    layer.queue.want_durable(layer.last_sequence)
    await before.someone_waits()
    flushing = asyncio.ensure_future(engine.flush_memtable())
    await idle()
    dropping = asyncio.ensure_future(engine.change_tree(record("drop", 2)))
    await idle()
    before.release()
    await drop.someone_waits()
    await idle()
    await world.crash(engine)
    await asyncio.gather(flushing, dropping, return_exceptions=True)
    engine = await world.open()
    assert await read(engine.layers[2], 0, len(A)) == A
    await world.crash(engine)
