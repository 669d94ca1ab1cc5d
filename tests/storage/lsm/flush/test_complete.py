"""Sectors written in part, over what is sound and over what is damaged: nothing else pays, and no piece is lost."""

import asyncio
from dataclasses import dataclass

import pytest

from storage.errors import Corrupt
from storage.format.frame import BLOCK_BYTES, SECTOR_BYTES
from storage.lsm.engine import Engine
from storage.lsm.layer import Layer
from storage.lsm.options import EngineOptions
from tests.storage.lsm.worlds import MIB, World, durable, read, record
from tests.support.idle import idle
from tests.support.waiting import soon, until

BASE = bytes(range(256)) * (BLOCK_BYTES // 256)
SECTOR = SECTOR_BYTES


@dataclass
class Damaged:
    """A store whose layer 1 has block 0 in a damaged object, and nothing of it in memory."""

    world: World
    engine: Engine
    layer: Layer


@pytest.fixture
async def damaged() -> Damaged:
    world = World()
    engine, layer = await world.start()
    layer.write(0, BASE)
    await engine.flush_memtable()
    table = max(world.store.names("compacted/"), key=lambda name: len(world.store.objects[name]))
    content = bytearray(world.store.objects[table])
    content[200] ^= 1
    world.store.objects[table] = bytes(content)
    engine, layer = await world.reopen(engine)
    with pytest.raises(Corrupt):
        await layer.read(0, SECTOR)
    return Damaged(world, engine, layer)


async def test_a_piece_over_a_damaged_sector_stops_nothing(damaged: Damaged, caplog: pytest.LogCaptureFixture) -> None:
    world, engine, layer = damaged.world, damaged.engine, damaged.layer
    layer.write(100, b"piece")
    layer.write(2 * SECTOR, b"w" * SECTOR)
    layer.write(BLOCK_BYTES + 7, b"elsewhere")
    await engine.flush_memtable()
    assert "pieces_over_unreadable_kept" in caplog.messages
    assert not engine.failed.done()
    with pytest.raises(Corrupt):
        await layer.read(0, SECTOR)
    assert await read(layer, 2 * SECTOR, SECTOR) == b"w" * SECTOR
    assert await read(layer, BLOCK_BYTES, 20) == bytes(7) + b"elsewhere" + bytes(4)
    await world.crash(engine)


async def test_pieces_that_are_kept_at_every_flush_are_said_once(
    damaged: Damaged, caplog: pytest.LogCaptureFixture
) -> None:
    world, engine, layer = damaged.world, damaged.engine, damaged.layer

    def times() -> int:
        return caplog.messages.count("pieces_over_unreadable_kept")

    for _ in range(3):
        layer.write(100, b"piece")
        await engine.flush_memtable()
    assert times() == 1
    layer.write(0, b"w" * SECTOR)
    await engine.flush_memtable()
    layer.write(SECTOR + 100, b"piece")
    await engine.flush_memtable()
    assert times() == 2, "it had ended, and began anew"
    await world.crash(engine)


@pytest.mark.parametrize("ends", ["crash", "close"])
async def test_the_piece_outlives_flushes_and_restarts(damaged: Damaged, ends: str) -> None:
    """The log before the flush is gone, so the piece must be in it again."""
    world, engine, layer = damaged.world, damaged.engine, damaged.layer
    layer.write(100, b"piece")
    layer.write(104, b"es")
    layer.write(101, b"ie")  # within another one
    layer.write(300, b"more")
    for _ in range(3):
        await engine.flush_memtable()
        await until(lambda: world.store.count("delete", "wal/") > 0)
        if ends == "crash":
            await world.crash(engine)
        else:
            await engine.close()
        engine = await world.open()
        layer = engine.layers[1]
    # What was damaged is written over; the pieces are all that is left of the old sector.
    layer.write(0, b"a" * 100)
    layer.write(106, b"b" * (300 - 106))
    layer.write(304, b"c" * (SECTOR - 304))
    assert (await read(layer, 0, SECTOR))[95:310] == b"a" * 5 + b"pieces" + b"b" * 194 + b"more" + b"c" * 6
    await engine.flush_memtable()
    engine, layer = await world.reopen(engine)
    assert (await read(layer, 0, SECTOR))[98:108] == b"aapiecesbb"
    assert not engine.writes.memtable
    await world.crash(engine)


@pytest.mark.parametrize(
    ("offset", "data", "want"),
    [
        pytest.param(102, b"XY", b"piXYe", id="over a part of it"),
        pytest.param(90, b"-" * 20, b"-----", id="over all of it"),
        pytest.param(105, b"XY", b"piece", id="beside it"),
        pytest.param(0, b"s" * SECTOR, b"sssss", id="the whole sector"),
        pytest.param(0, b"t" * BLOCK_BYTES, b"ttttt", id="the whole block"),
        pytest.param(0, None, bytes(5), id="the sector zeroed"),
        pytest.param(0, 3 * BLOCK_BYTES, bytes(5), id="many blocks zeroed"),
    ],
)
async def test_what_is_written_meanwhile_wins(
    damaged: Damaged, offset: int, data: bytes | int | None, want: bytes
) -> None:
    """The piece moves on while newer operations are in memory already; a replay must see the same order."""
    world, engine, layer = damaged.world, damaged.engine, damaged.layer
    layer.write(100, b"piece")
    held = world.store.hold("get", "compacted/")
    flushing = asyncio.ensure_future(engine.flush_memtable())
    await held.someone_waits()
    if isinstance(data, bytes):
        layer.write(offset, data)
    else:
        layer.zero(offset, data or SECTOR, allocated=False)
    held.release()
    await soon(flushing)
    await durable(engine, layer)
    for _ in range(2):
        layer.write(0, b"0" * 90)
        layer.write(110, b"1" * (SECTOR - 110))
        layer.write(90, b"2" * 10)
        layer.write(107, b"3" * 3)
        layer.write(105, b"4" * 2)
        assert await read(layer, 100, 5) == want
        engine, layer = await world.reopen(engine)
    await world.crash(engine)


async def test_a_missing_object_is_damage_too(damaged: Damaged) -> None:
    world, engine, layer = damaged.world, damaged.engine, damaged.layer
    for name in world.store.names("compacted/"):
        del world.store.objects[name]
    layer.write(SECTOR - 1, b"over two sectors")
    await engine.flush_memtable()
    assert not engine.failed.done()
    await world.crash(engine)


async def test_a_layer_that_is_dropped_meanwhile_loses_nothing_if_the_drop_does_not_last(damaged: Damaged) -> None:
    world, engine, layer = damaged.world, damaged.engine, damaged.layer
    layer.write(100, b"piece")
    await durable(engine, layer)
    gets = world.store.hold("get", "compacted/")
    flushing = asyncio.ensure_future(engine.flush_memtable())
    await gets.someone_waits()
    logs = world.store.hold("create", "wal/")
    dropping = asyncio.ensure_future(engine.change_tree(record("drop", 1)))
    await idle()
    gets.release()
    await idle()
    await world.crash(engine)
    for task in (flushing, dropping):
        with pytest.raises(Exception, match="killed"):
            await soon(task)
    assert logs.waiting == 0
    engine = await world.open()
    layer = engine.layers[1]
    layer.write(0, b"0" * 100)
    layer.write(105, b"1" * (SECTOR - 105))
    assert await read(layer, 99, 7) == b"0piece1"
    await world.crash(engine)


async def test_a_sector_is_completed_with_what_was_there_when_its_memtable_was_sealed() -> None:
    """What is written meanwhile belongs to the next one: it is not durable yet, and a crash must be able to undo it."""
    world = World()
    engine, layer = await world.start()
    layer.write(0, BASE)
    await engine.flush_memtable()
    engine, layer = await world.reopen(engine)
    layer.write(100, b"sealed")
    await durable(engine, layer)
    gets = world.store.hold("get", "compacted/")
    flushing = asyncio.ensure_future(engine.flush_memtable())
    await gets.someone_waits()
    world.store.hold("create", "wal/")
    layer.write(103, b"later")
    layer.write(200, b"later")
    gets.release()
    await soon(flushing)
    engine, layer = await world.reopen(engine)
    assert await read(layer, 0, SECTOR) == BASE[:100] + b"sealed" + BASE[106:SECTOR]
    await world.crash(engine)


async def test_pieces_that_no_flush_can_take_neither_ask_for_one_nor_stop_writers() -> None:
    world = World(options=EngineOptions(cache_bytes=MIB, flush_bytes=64 * 1024, memtable_bytes_max=100 * 1024))
    engine, layer = await world.start()
    layer.write(0, BASE)
    await engine.flush_memtable()
    table = max(world.store.names("compacted/"), key=lambda name: len(world.store.objects[name]))
    content = bytearray(world.store.objects[table])
    content[200] ^= 1
    world.store.objects[table] = bytes(content)
    engine, layer = await world.reopen(engine)
    for sector in range(30):
        layer.write(sector * SECTOR + 100, b"piece")
    await engine.flush_memtable()
    await idle()
    before = engine.manifests.number
    await idle()
    assert engine.manifests.number == before
    assert not engine.writes.gate.closed
    layer.write(0, b"w" * BLOCK_BYTES)
    await engine.flush_memtable()
    assert not engine.writes.memtable
    assert engine.writes.memtable_bytes == 0
    await world.crash(engine)
