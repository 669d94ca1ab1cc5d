"""Layers that are dropped, or change, while a memtable flush is under way."""

import asyncio
import random

import pytest

from storage.format.frame import BLOCK_BYTES, SECTOR_BYTES
from tests.storage.lsm.flush.test_flush_hazards import A, B
from tests.storage.lsm.worlds import MIB, World, durable, read, record
from tests.support.examples import first_soon
from tests.support.idle import idle, turns
from tests.support.waiting import soon


async def test_a_layer_dropped_under_a_flush_is_waited_for_no_more() -> None:
    world = World()
    engine, layer = await world.start()
    await engine.change_tree(record("create", 2))
    held = world.store.hold("create", "wal/")
    engine.layers[1].write(0, A)
    engine.layers[2].write(0, B)
    flushing = asyncio.ensure_future(engine.flush_memtable())
    covered = asyncio.ensure_future(engine.flush())
    await asyncio.sleep(0)
    await asyncio.sleep(0)
    dropping = asyncio.ensure_future(engine.change_tree(record("drop", 2)))
    await idle()
    held.release()
    await soon(flushing)
    await soon(covered)
    await soon(dropping)
    engine, layer = await world.reopen(engine)
    assert list(engine.layers) == [1]
    assert await read(layer, 0, SECTOR_BYTES) == A
    await world.crash(engine)


async def test_bulk_of_a_dropped_layer_lands_behind_the_flush_without_harm() -> None:
    """Its object of the log is in flight when the replay point passes it: the chain must not break there."""
    world = World()
    engine, layer = await world.start()
    await engine.change_tree(record("create", 2))
    uploads = world.store.hold("create", "compacted/")
    engine.layers[2].write(0, bytes(range(256)) * (8 * MIB // 256))
    gone = engine.layers[2]
    gone.queue.want_durable(gone.last_sequence)
    await uploads.someone_waits()
    await engine.change_tree(record("drop", 2))
    logs = world.store.hold("create", "wal/")
    uploads.release()
    await idle()
    layer.write(0, A)
    flushing = asyncio.ensure_future(engine.flush_memtable())
    await idle()
    logs.release()
    await soon(flushing)
    layer.write(SECTOR_BYTES, B)
    await durable(engine, layer)
    engine, layer = await world.reopen(engine)
    assert await read(layer, 0, 2 * SECTOR_BYTES) == A + B
    await world.crash(engine)


async def test_a_flush_does_not_pass_what_a_dropped_layer_has_on_its_way() -> None:
    """Its object is not acknowledged yet, so its tag, which the next one is linked to, would not be in the manifest."""
    world = World()
    engine, layer = await world.start()
    await engine.change_tree(record("create", 2))
    layer.write(0, A)
    await durable(engine, layer)
    uploads = world.store.hold("create", "compacted/")
    gone = engine.layers[2]
    gone.write(0, random.Random(1).randbytes(8 * MIB))
    gone.queue.want_durable(gone.last_sequence)
    await uploads.someone_waits()
    await engine.change_tree(record("drop", 2))
    logs = world.store.hold("create", "wal/")
    uploads.release()
    await logs.someone_waits()
    flushing = asyncio.ensure_future(engine.flush_memtable())
    await idle()
    assert not flushing.done()
    logs.release()
    await soon(flushing)
    layer.write(SECTOR_BYTES, B)
    await durable(engine, layer)
    engine, layer = await world.reopen(engine)
    assert await read(layer, 0, 2 * SECTOR_BYTES) == A + B
    await world.crash(engine)


@pytest.mark.parametrize("first", first_soon(range(6)))
async def test_a_layer_may_be_dropped_at_every_step_of_a_flush(first: int) -> None:
    for steps in range(first, 60, 6):
        world = World()
        engine, layer = await world.start()
        await engine.change_tree(record("create", 2))
        engine.layers[1].write(100, A)
        engine.layers[2].write(100, B)
        engine.layers[2].zero(0, 100 * BLOCK_BYTES, allocated=True)
        flushing = asyncio.ensure_future(engine.flush_memtable())
        await turns(steps)
        dropping = asyncio.ensure_future(engine.change_tree(record("drop", 2)))
        await soon(flushing)
        await soon(dropping)
        engine.layers[1].write(0, A)
        await durable(engine, engine.layers[1])
        engine, layer = await world.reopen(engine)
        assert list(engine.layers) == [1]
        assert await read(layer, 0, 2 * SECTOR_BYTES) == A + A[:100] + bytes(SECTOR_BYTES - 100)
        await engine.close()
        assert (engine.writes.unlogged_bytes, engine.writes.memtable_bytes) == (0, 0)


@pytest.mark.parametrize("first", first_soon(range(0, 60, 3)))
@pytest.mark.parametrize("change", ["shrink", "write", "discard", "bulk"])
async def test_a_layer_may_change_at_every_step_of_a_flush(change: str, first: int) -> None:
    """What comes while a memtable is being flushed lies above it, in memory, after the flush and after a crash."""
    size = 20 * BLOCK_BYTES
    for steps in range(first, 120, 60):
        world = World()
        engine, layer = await world.start()
        disk = bytearray(random.Random(steps).randbytes(size))
        layer.write(0, bytes(disk))
        await engine.flush_memtable()
        layer.write(5000, A)
        layer.write(2 * BLOCK_BYTES, B * 64)
        layer.zero(6 * BLOCK_BYTES, 3 * BLOCK_BYTES, allocated=True)
        disk[5000 : 5000 + SECTOR_BYTES] = A
        disk[2 * BLOCK_BYTES : 3 * BLOCK_BYTES] = B * 64
        disk[6 * BLOCK_BYTES : 9 * BLOCK_BYTES] = bytes(3 * BLOCK_BYTES)
        flushing = asyncio.ensure_future(engine.flush_memtable())
        await turns(steps)
        if change == "shrink":
            disk[5500:] = bytes(size - 5500)
            await soon(asyncio.ensure_future(engine.change_tree(record("zero", 1, 5500, size - 5500))))
        elif change == "write":
            disk[5100:5200] = bytes(range(100))
            layer.write(5100, bytes(range(100)))
        elif change == "discard":
            disk[BLOCK_BYTES + 77 : 12 * BLOCK_BYTES + 5] = bytes(11 * BLOCK_BYTES - 72)
            layer.zero(BLOCK_BYTES + 77, 11 * BLOCK_BYTES - 72, allocated=False)
        else:
            disk[BLOCK_BYTES : 19 * BLOCK_BYTES] = bytes(range(256)) * (18 * BLOCK_BYTES // 256)
            layer.write(BLOCK_BYTES, bytes(disk[BLOCK_BYTES : 19 * BLOCK_BYTES]))
        assert await read(layer, 0, size) == disk
        await durable(engine, layer)
        await soon(flushing)
        assert await read(layer, 0, size) == disk
        engine, layer = await world.reopen(engine)
        assert await read(layer, 0, size) == disk
        await engine.close()
        assert (engine.writes.unlogged_bytes, engine.writes.memtable_bytes) == (0, 0)
        engine = await world.open(take_over=False)
        assert await read(engine.layers[1], 0, size) == disk
        await world.crash(engine)
