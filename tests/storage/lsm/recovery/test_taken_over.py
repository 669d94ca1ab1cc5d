"""A server that is taken over while it takes over itself."""

import asyncio
import random

import pytest

from storage.errors import Fenced
from storage.format.frame import BLOCK_BYTES, SECTOR_BYTES
from storage.format.names import MANIFESTS, TABLES
from storage.lsm.options import EngineOptions
from tests.storage.lsm.worlds import MIB, World, durable, read
from tests.support.waiting import soon

B = b"b" * SECTOR_BYTES


async def test_who_asked_for_keys_that_were_changed_meanwhile_takes_nothing() -> None:
    """Its writer lives: what it says of passwords and of the data key is newer than what was asked for."""
    world = World()
    writer, layer = await world.start()
    layer.write(0, B)

    async def change() -> None:
        writer.keys_are(2)
        await writer.flush_memtable(always=True)

    with pytest.raises(Fenced, match="were changed meanwhile: try again"):
        await world.open(prepare=change)
    layer.write(0, B)
    await durable(writer, layer)
    assert not writer.failed.done()
    await writer.close()


@pytest.mark.parametrize("flushed", [True, False])
async def test_what_the_writer_does_after_it_was_looked_at_is_read_too(flushed: bool) -> None:
    """What was read before the take-over shows the store as it was then."""
    world = World(options=EngineOptions(cache_bytes=16 * MIB))
    writer, layer = await world.start()
    layer.write(0, bytes(BLOCK_BYTES))
    await writer.flush_memtable()
    written = random.Random(1).randbytes(16 * BLOCK_BYTES)

    async def meanwhile() -> None:
        layer.write(0, written)
        await durable(writer, layer)
        if flushed:
            await writer.flush_memtable()

    taken = await world.open(prepare=meanwhile)
    assert await read(taken.layers[1], 0, len(written)) == written
    await taken.close()
    await world.crash(writer)


async def test_who_is_taken_over_while_it_loads_is_told_so() -> None:
    """Its own take-over and fence have landed, and it reads once more what the writer has added meanwhile."""
    world = World()
    writer, layer = await world.start()
    layer.write(0, b"a" * SECTOR_BYTES)
    await writer.flush_memtable()
    taking = world.store.hold("create", MANIFESTS)
    opening = asyncio.ensure_future(world.open())
    await taking.someone_waits()
    world.store.holds.clear()
    layer.write(0, B)
    await durable(writer, layer)
    loading = world.store.hold("get", TABLES)
    taking.release()
    await loading.someone_waits()
    world.store.holds.clear()
    newest = await world.open()
    loading.release()
    with pytest.raises(Fenced):
        await soon(opening)
    assert await read(newest.layers[1], 0, SECTOR_BYTES) == B
    await newest.close()
