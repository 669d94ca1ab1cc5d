"""A layer as a range of bytes: what a write and a read cost, and what a reader is spared."""

import random

import pytest

from storage.format.frame import BLOCK_BYTES, SECTOR_BYTES
from storage.format.wal import Meta
from storage.lsm.engine import Engine
from storage.lsm.layer import Layer
from storage.lsm.options import EngineOptions
from storage.lsm.read.extents import ExtentState
from tests.storage.lsm.worlds import MIB, World, durable, join, read, record
from tests.support.examples import first_soon
from tests.support.idle import idle
from tests.support.inside import layers_of

TIB = 1024 * 1024 * MIB
OPTIONS = EngineOptions()


async def flushed(world: World, blocks: int) -> tuple[Engine, Layer, bytes]:
    """A device of `blocks` blocks of noise in SSTs, and nothing in memory."""
    engine, layer = await world.start()
    data = random.Random(blocks).randbytes(blocks * BLOCK_BYTES)
    for at in range(0, len(data), 8 * MIB):
        layer.write(at, data[at : at + 8 * MIB])
    await engine.flush_memtable()
    await engine.close()
    engine = await world.open(take_over=False)
    world.store.calls.clear()
    return engine, engine.layers[1], data


async def test_a_write_up_to_eight_mebibytes_is_one_operation() -> None:
    world = World()
    engine, layer = await world.start()
    before = engine.writes.sequence
    most = OPTIONS.atomic_bytes_max
    layer.write(12345, bytes(most))
    assert engine.writes.sequence == before + 1
    assert layer.write(100, b"x" * (3 * most + 1)) == engine.writes.sequence
    assert engine.writes.sequence == before + 5, "a larger one is cut at the ends of blocks"
    starts = [op[1] for op in layer.queue.pending if not isinstance(op, Meta)]
    assert starts[:2] == [12345, 100]
    assert all(start % BLOCK_BYTES == 0 for start in starts[2:])
    assert await read(layer, 99, 3 * most + 3) == b"\0" + b"x" * (3 * most + 1) + b"\0"
    await world.crash(engine)


async def test_what_is_in_memory_is_answered_at_once_and_the_rest_is_a_miss() -> None:
    world = World()
    engine, layer, data = await flushed(world, 4)
    assert layer.read_cached(BLOCK_BYTES, SECTOR_BYTES) is None
    assert await read(layer, BLOCK_BYTES, SECTOR_BYTES) == data[BLOCK_BYTES : BLOCK_BYTES + SECTOR_BYTES]
    cached = layer.read_cached(BLOCK_BYTES + 100, BLOCK_BYTES - 100)
    assert cached is not None
    assert join(cached) == data[BLOCK_BYTES + 100 : 2 * BLOCK_BYTES]
    assert world.store.count("get", "compacted/") == 1
    assert layer.read_cached(50 * BLOCK_BYTES, BLOCK_BYTES) == [BLOCK_BYTES], "a hole is a length, and no bytes"
    layer.write(0, b"w" * SECTOR_BYTES)
    assert layer.read_cached(0, SECTOR_BYTES) == [b"w" * SECTOR_BYTES]
    assert layer.read_cached(0, 2 * SECTOR_BYTES) is None
    await engine.close()


async def test_a_sequential_reader_is_read_ahead_and_a_random_one_is_not() -> None:
    world = World(options=EngineOptions(cache_bytes=64 * MIB))
    engine, layer, data = await flushed(world, 100)
    for block in range(100):
        assert await read(layer, block * BLOCK_BYTES, BLOCK_BYTES) == data[block * BLOCK_BYTES :][:BLOCK_BYTES]
        await idle()
    requests = world.store.count("get", "compacted/")
    assert requests < 40
    await engine.close()
    engine = await world.open(take_over=False)
    layer = engine.layers[1]
    world.store.calls.clear()
    for block in (97, 71, 50, 20, 3):
        await read(layer, block * BLOCK_BYTES, SECTOR_BYTES)
        await idle()
    asked = sum(size for verb, name, size in world.store.calls if verb == "get" and name.startswith("compacted/"))
    assert asked < 6 * (BLOCK_BYTES + 100)
    await engine.close()


async def test_a_prefetch_is_bounded_and_answers_at_once() -> None:
    world = World(options=EngineOptions(cache_bytes=64 * MIB))
    engine, layer, _ = await flushed(world, 100)
    for _ in range(50):
        layer.prefetch(0, TIB)
    assert engine.source.loading <= OPTIONS.reads.window_blocks_max
    await idle()
    assert layer.read_cached(5 * BLOCK_BYTES, BLOCK_BYTES) is not None
    await engine.close()


async def test_terabytes_of_discard_are_one_operation_and_little_memory() -> None:
    world = World()
    engine, layer, data = await flushed(world, 8)
    world.store.calls.clear()
    for step in range(2048):  # as mkfs does it on 8 TiB, 4 GiB at a time
        layer.zero(step * 4096 * MIB, 4096 * MIB, allocated=False)
    assert len(layer.active.zeros.spans) == 1
    assert engine.writes.memtable_bytes < MIB
    await durable(engine, layer)
    assert world.store.count("create") <= 2
    assert await read(layer, 0, len(data)) == bytes(len(data))
    await engine.flush_memtable()
    assert world.store.uploaded() < 128 * 1024
    assert layers_of(engine).forest.heads()[1].pages == {}
    assert layer.extents(0, TIB) == [(TIB, ExtentState.HOLE)]
    engine, layer = await world.reopen(engine)
    assert await read(layer, 0, len(data)) == bytes(len(data))
    await engine.close()


@pytest.mark.parametrize("allocated", [False, True])
@pytest.mark.parametrize("blocks", first_soon([2, 0, 1, 5]))
@pytest.mark.parametrize(("head", "tail"), [(0, 0), (1, 1), (512, 0), (0, 512), (SECTOR_BYTES, 77)])
async def test_zeros_reach_exactly_as_far_as_was_asked(allocated: bool, blocks: int, head: int, tail: int) -> None:
    """Bytes before the first and behind the last are somebody's data, also where whole blocks are taken as one."""
    world = World()
    engine, layer = await world.start()
    disk = bytearray(random.Random(blocks).randbytes(8 * BLOCK_BYTES))
    layer.write(0, bytes(disk))
    first, end = BLOCK_BYTES - head, (1 + blocks) * BLOCK_BYTES + tail
    if end > first:
        layer.zero(first, end - first, allocated=allocated)
        disk[first:end] = bytes(end - first)
    assert await read(layer, 0, len(disk)) == disk
    await durable(engine, layer)
    engine, layer = await world.reopen(engine)
    assert await read(layer, 0, len(disk)) == disk
    await engine.flush_memtable()
    engine, layer = await world.reopen(engine)
    assert await read(layer, 0, len(disk)) == disk
    await world.crash(engine)


async def test_zeroes_that_stay_allocated_are_told_from_holes() -> None:
    world = World()
    engine, layer = await world.start()
    layer.zero(0, 3 * BLOCK_BYTES, allocated=True)
    layer.zero(10 * BLOCK_BYTES + SECTOR_BYTES, 2 * SECTOR_BYTES, allocated=True)
    expected = [
        (3 * BLOCK_BYTES, ExtentState.ZERO),
        (7 * BLOCK_BYTES + SECTOR_BYTES, ExtentState.HOLE),
        (2 * SECTOR_BYTES, ExtentState.ZERO),
        (BLOCK_BYTES, ExtentState.HOLE),
    ]
    length = sum(size for size, _ in expected)
    assert layer.extents(0, length) == expected
    await durable(engine, layer)
    engine, layer = await world.reopen(engine)
    assert layer.extents(0, length) == expected, "the log says which is which"
    await engine.flush_memtable()
    assert layer.extents(0, length) == expected
    engine, layer = await world.reopen(engine)
    assert layer.extents(0, length) == expected
    await world.crash(engine)


async def test_a_block_of_many_patches_is_put_together_once_and_kept() -> None:
    world = World(options=EngineOptions(cache_bytes=64 * MIB))
    engine, layer, data = await flushed(world, 2)
    disk = bytearray(data)
    chance = random.Random(4)
    for round_ in range(12):
        for _ in range(4):
            sector = chance.randrange(128)
            piece = chance.randbytes(SECTOR_BYTES)
            layer.write(sector * SECTOR_BYTES, piece)
            disk[sector * SECTOR_BYTES : (sector + 1) * SECTOR_BYTES] = piece
        await engine.flush_memtable()
        for at in (0, BLOCK_BYTES):
            assert await read(layer, at, BLOCK_BYTES) == disk[at : at + BLOCK_BYTES], round_
            again = layer.read_cached(at, BLOCK_BYTES) or []
            assert join(again) == disk[at : at + BLOCK_BYTES]
            assert len(again) <= 2 * 4 * OPTIONS.reads.fragments_max + 1, "four sectors a patch, and what lies between"
    assert layer.index.assembled
    await engine.close()


@pytest.mark.parametrize("seed", [0, *(pytest.param(seed, marks=pytest.mark.slow) for seed in (1, 2))])
async def test_what_blocks_were_charged_never_exceeds_what_the_memtable_was(seed: int) -> None:
    """Otherwise a memtable that holds something weighs nothing, or less, and is neither flushed nor bounded."""
    chance = random.Random(seed)
    # No flush goes on by itself: it would have its part of what is charged.
    world = World(options=EngineOptions(cache_bytes=16 * MIB, flush_uploaded_bytes=1 << 40))
    engine, layer = await world.start()
    writes = engine.writes
    for _ in range(100):
        offset = chance.randrange(8 * MIB) // chance.choice([1, SECTOR_BYTES, BLOCK_BYTES]) * chance.choice([1, 512])
        length = chance.choice([1, 512, SECTOR_BYTES, 5000, 64 * 1024, BLOCK_BYTES, 3 * BLOCK_BYTES, 8 * MIB])
        kind = chance.random()
        if kind < 0.6:
            layer.write(offset, bytes(length) if kind < 0.1 else chance.randbytes(length))
        elif kind < 0.8:
            layer.zero(offset, length, allocated=kind < 0.7)
        elif kind < 0.82:
            await engine.change_tree(record("zero", 1, offset, length))
        elif kind < 0.9:
            await durable(engine, layer)
        elif kind < 0.92:
            await engine.flush_memtable()
        charged = sum(entry.charged for table in writes.memtable.layers.values() for entry in table.blocks.values())
        assert 0 <= charged <= writes.memtable.bytes == writes.memtable_bytes
    await engine.flush_memtable()
    assert not writes.memtable
    assert writes.memtable_bytes == writes.unlogged_bytes == 0
    assert not engine.log.position.objects
    await world.crash(engine)


@pytest.mark.parametrize("length", [SECTOR_BYTES, 512])
@pytest.mark.parametrize("cached", [False, True])
async def test_what_was_just_zeroed_is_read_at_once_as_zeros(cached: bool, length: int) -> None:
    """Many blocks are one span, and no entry of the memtable says so of each: it is looked for, whatever is below."""
    world = World()
    engine, layer, data = await flushed(world, 4)
    if cached:
        assert await read(layer, BLOCK_BYTES, length) == data[BLOCK_BYTES : BLOCK_BYTES + length]
    layer.zero(BLOCK_BYTES, 3 * BLOCK_BYTES, allocated=False)
    assert layer.read_cached(BLOCK_BYTES, length) == [length]
    layer.write(2 * BLOCK_BYTES + SECTOR_BYTES, b"w" * length)
    assert join(layer.read_cached(2 * BLOCK_BYTES + SECTOR_BYTES, length) or []) == b"w" * length
    assert layer.read_cached(2 * BLOCK_BYTES, length) == [length]
    await world.crash(engine)
