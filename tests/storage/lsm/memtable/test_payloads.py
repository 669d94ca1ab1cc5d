"""How long the buffers that writes came in stay in memory: no longer than they are charged for."""

import asyncio
import gc
import random
import weakref
from typing import Any

import numpy
import pytest

from storage.buffers import retained_by_all, retained_bytes
from storage.cache.frame_cache import FrameCache
from storage.format.frame import BLOCK_BYTES, SECTOR_BYTES
from storage.lsm.engine import Engine
from storage.lsm.layer import Layer
from tests.storage.lsm.worlds import World, durable, read
from tests.support.idle import idle

MIB = 1024 * 1024


class Payloads:
    """Buffers as sessions allocate them, and which of them are still alive."""

    def __init__(self) -> None:
        self.alive: list[weakref.ref[Any]] = []

    def make(self, size: int) -> memoryview:
        array = numpy.frombuffer(random.randbytes(size), numpy.uint8).copy()
        self.alive.append(weakref.ref(array))
        return array.data

    def bytes(self) -> int:
        gc.collect()
        return sum(found.nbytes for one in self.alive if (found := one()) is not None)


def kept_by_cache(cache: FrameCache) -> int:
    frames = [frame.data for frame in cache.entries.values()]
    return sum(retained_by_all(data) if isinstance(data, dict) else retained_bytes(data) for data in frames)


def held(engine: Engine) -> int:
    """Bytes that the engine says it holds."""
    return engine.writes.memtable_bytes + engine.writes.unlogged_bytes + engine.cache.bytes


async def write_all(engine: Engine, layer: Layer, payloads: Payloads, *, count: int, size: int, offset: int) -> None:
    for number in range(count):
        layer.write(offset + number * 40 * MIB, payloads.make(size))
        await durable(engine, layer)
        await asyncio.sleep(0)


SIZES = [128 * 1024, 4 * MIB - SECTOR_BYTES, 9 * MIB]
OFFSETS = [0, 3 * SECTOR_BYTES, SECTOR_BYTES - 512]
SOON = {(128 * 1024, 0), (4 * MIB - SECTOR_BYTES, 3 * SECTOR_BYTES), (9 * MIB, SECTOR_BYTES - 512)}
"""Each size and each offset once."""


@pytest.mark.parametrize(
    ("size", "offset"),
    [
        pytest.param(size, offset, marks=[] if (size, offset) in SOON else [pytest.mark.slow])
        for size in SIZES
        for offset in OFFSETS
    ],
)
async def test_what_is_kept_is_charged(size: int, offset: int) -> None:
    """A cached sector must not keep all of the payload it came in, nor must the ends of a write that went to SSTs."""
    world = World()
    engine, layer = await world.start()
    payloads = Payloads()
    await write_all(engine, layer, payloads, count=2, size=size, offset=offset)
    assert payloads.bytes() <= held(engine)
    await engine.flush_memtable()
    await idle()
    assert payloads.bytes() <= held(engine)
    assert kept_by_cache(engine.cache) <= engine.cache.bytes
    await world.crash(engine)


@pytest.mark.parametrize("size", [4 * MIB - SECTOR_BYTES, pytest.param(9 * MIB, marks=pytest.mark.slow)])
async def test_what_a_discard_leaves_of_a_write_is_charged(size: int) -> None:
    """A write, and a discard of nearly all of it, again and again: each payload lives on in one block."""
    world = World()
    engine, layer = await world.start()
    payloads = Payloads()
    for number in range(4):
        start = number * 40 * MIB
        layer.write(start, payloads.make(size))
        if number % 2:
            await durable(engine, layer)
        layer.zero(start + BLOCK_BYTES, size - BLOCK_BYTES, allocated=False)
        await durable(engine, layer)
        assert payloads.bytes() <= held(engine)
    await world.crash(engine)


async def test_what_is_left_of_an_uploaded_write_reads_as_before() -> None:
    """Its ends are copied, and so is a block that was written again while it was uploaded."""
    world = World()
    engine, layer = await world.start()
    payloads = Payloads()
    model = bytearray(10 * MIB)
    held_up = world.store.hold("create", "compacted/")
    for start, size in ((5 * SECTOR_BYTES, 9 * MIB), (3 * BLOCK_BYTES + SECTOR_BYTES, SECTOR_BYTES)):
        data = payloads.make(size)
        model[start : start + size] = data
        layer.write(start, data)
        if size > MIB:
            layer.queue.want_durable(layer.last_sequence)
            await held_up.someone_waits()
    held_up.release()
    del data
    await durable(engine, layer)
    assert payloads.bytes() <= 3 * BLOCK_BYTES
    assert await read(layer, 0, len(model)) == model
    await engine.flush_memtable()
    assert await read(layer, 0, len(model)) == model
    engine, layer = await world.reopen(engine)
    assert await read(layer, 0, len(model)) == model
    await world.crash(engine)
