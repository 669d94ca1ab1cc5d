"""A server that is taken over while it takes over itself."""

import asyncio

import pytest

from storage.errors import Fenced
from storage.format.frame import SECTOR_BYTES
from storage.format.names import MANIFESTS, TABLES
from tests.storage.lsm.worlds import World, durable, read
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
