"""Group commit: what is sent when, how much of it at once, and who is told in which order."""

import asyncio
import random

import pytest

from storage.bucket.pace import ObjectSizes
from storage.format.frame import BLOCK_BYTES, SECTOR_BYTES
from storage.format.names import WALS, wal_name, wal_number
from storage.format.wal import WINDOW
from storage.lsm.engine import Engine
from storage.lsm.layer import Layer
from storage.lsm.options import EngineOptions, LogOptions
from storage.lsm.wal.pacing import BULK_CUTS_MAX
from tests.simulation.virtual import virtually
from tests.storage.lsm.read.withheld import VirtualEnv
from tests.storage.lsm.worlds import (
    MIB,
    World,
    durable,
    known_to_be_fast,
    read,
    record,
    when_durable,
)
from tests.support.idle import idle
from tests.support.inside import each_pass
from tests.support.waiting import soon, until

IN_FLIGHT_MAX = LogOptions().in_flight_max
SECTOR = b"s" * SECTOR_BYTES


def noise(count: int) -> bytes:
    return random.Random(count).randbytes(count)


async def two_disks(world: World) -> tuple[Engine, Layer, Layer]:
    engine, first = await world.start()
    await engine.change_tree(record("create", 2))
    return engine, first, engine.layers[2]


async def test_a_small_write_and_its_flush_are_one_request() -> None:
    world = World()
    engine, layer = await world.start()
    world.store.calls.clear()
    for number in range(10):
        layer.write(number * SECTOR_BYTES, noise(SECTOR_BYTES))
        await durable(engine, layer)
    assert [verb for verb, _, _ in world.store.calls] == ["create"] * 10
    assert world.store.uploaded() < 10 * SECTOR_BYTES * 1.1
    await world.crash(engine)


async def test_a_flush_of_nothing_asks_for_nothing() -> None:
    world = World()
    engine, layer = await world.start()
    world.store.calls.clear()
    await durable(engine, layer)
    await engine.flush()
    assert world.store.calls == []
    await world.crash(engine)


async def test_a_write_over_flushed_data_reads_nothing() -> None:
    world = World()
    engine, layer = await world.start()
    layer.write(0, noise(4 * BLOCK_BYTES))
    await engine.flush_memtable()
    await engine.copies.settled()
    await engine.garbage.delete_now()
    world.store.calls.clear()
    for number in range(8):
        layer.write(number * 64 * 1024 + number * 512, noise(512 * (number + 1)))
        await durable(engine, layer)
    assert {verb for verb, _, _ in world.store.calls} == {"create"}
    assert world.store.uploaded() < 64 * 1024
    await world.crash(engine)


async def test_writers_who_flush_at_once_share_an_object() -> None:
    world = World()
    engine, layer = await world.start()
    first = world.store.hold("create", WALS)
    layer.write(0, SECTOR)
    told: list[int] = []
    when_durable(layer, layer.last_sequence, lambda: told.append(0))
    await first.someone_waits()
    for number in range(1, 50):
        layer.write(number * SECTOR_BYTES, SECTOR)
        when_durable(layer, layer.last_sequence, lambda number=number: told.append(number))  # type: ignore[misc]
    first.release()
    await until(lambda: len(told) == 50)
    assert told == list(range(50))
    assert world.store.count("create", WALS) <= 1 + 1 + 2
    await world.crash(engine)


async def test_a_flush_has_little_before_it_of_what_others_write() -> None:
    """A second after the last one: there is a PUT left for it, and the objects on their way are small."""
    world = World()
    engine, first, second = await two_disks(world)
    known_to_be_fast(engine)
    second.write(0, SECTOR)
    await durable(engine, second)
    engine.commit.pacing.usual = 0.0
    world.store.calls.clear()
    log = world.store.hold("create", WALS)
    data = noise(4 * MIB)
    for at in range(0, len(data), SECTOR_BYTES):
        first.write(2 * at, data[at : at + SECTOR_BYTES])
    await log.someone_waits(IN_FLIGHT_MAX - 1)
    await idle()
    assert log.waiting == IN_FLIGHT_MAX - 1
    second.write(0, SECTOR)
    second.queue.want_durable(second.last_sequence)
    await log.someone_waits(IN_FLIGHT_MAX)
    *before, own = [size for _, _, size in world.store.calls]
    assert sum(before) < 2 * MIB
    assert own < 2 * SECTOR_BYTES, "what others wrote does not come along"
    log.release()
    await engine.flush()
    await world.crash(engine)


async def test_objects_count_in_the_order_of_their_numbers() -> None:
    """Whatever lands first: an answer needs every lower number too."""
    world = World()
    engine, layer = await world.start()
    engine.commit.pacing.usual = 0.0
    told: list[int] = []
    holds = []
    first = engine.log.position.next_number
    for number in range(IN_FLIGHT_MAX):
        held = world.store.hold("create", wal_name(first + number))
        holds.append(held)
        layer.write(number * SECTOR_BYTES, SECTOR)
        when_durable(layer, layer.last_sequence, lambda number=number: told.append(number))  # type: ignore[misc]
        await held.someone_waits()
    for held in reversed(holds[1:]):
        held.release()
        await idle()
        assert told == []
        assert engine.log.position.acknowledged < first
    holds[0].release()
    await until(lambda: len(told) == IN_FLIGHT_MAX)
    assert told == list(range(IN_FLIGHT_MAX))
    assert engine.log.position.acknowledged == first + IN_FLIGHT_MAX - 1
    await world.crash(engine)


async def test_no_more_than_four_are_in_flight_and_none_beyond_the_window() -> None:
    world = World()
    engine, layer = await world.start()
    engine.commit.pacing.usual = 0.0
    first = engine.log.position.next_number
    stuck = world.store.hold("create", wal_name(first))
    sent: list[int] = []
    for number in range(3 * WINDOW):
        layer.write(number * SECTOR_BYTES, noise(SECTOR_BYTES))
        layer.queue.want_durable(layer.last_sequence)
        await idle()
        sent = [
            wal_number(name) or 0 for verb, name, _ in world.store.calls if verb == "create" and name.startswith(WALS)
        ]
        assert max(sent) < first + WINDOW
        assert len([n for n in sent if n >= first]) <= IN_FLIGHT_MAX
    assert stuck.waiting == 1
    assert layer.queue.pending, "what cannot be sent waits, in one batch"
    stuck.release()
    await soon(asyncio.ensure_future(durable(engine, layer)))
    assert engine.log.position.next_number <= first + IN_FLIGHT_MAX + 3
    engine, layer = await world.reopen(engine)
    assert await read(layer, 40 * SECTOR_BYTES, SECTOR_BYTES) == noise(SECTOR_BYTES)
    await world.crash(engine)


async def test_a_flush_of_one_disk_does_not_wait_for_bulk_of_another() -> None:
    world = World()
    engine, small, large = await two_disks(world)
    uploads = world.store.hold("create", "compacted/")
    large.write(0, noise(8 * MIB))
    when_durable(large, large.last_sequence, lambda: pytest.fail("its frames are not there yet"))
    await uploads.someone_waits()
    for number in range(3):
        small.write(number * SECTOR_BYTES, SECTOR)
        await soon(asyncio.ensure_future(durable(engine, small)), 5)
    assert uploads.waiting
    await world.crash(engine)
    engine = await world.open()
    assert await read(engine.layers[1], 0, 3 * SECTOR_BYTES) == SECTOR * 3
    assert await read(engine.layers[2], 0, BLOCK_BYTES) == bytes(BLOCK_BYTES)
    await world.crash(engine)


async def test_a_busy_disk_does_not_keep_another_from_the_log() -> None:
    """However much one disk has waiting, the next object but one has room for the others."""
    world = World()
    engine, small, busy = await two_disks(world)
    stuck = world.store.hold("create", WALS)
    busy.write(0, SECTOR)
    busy.queue.want_durable(busy.last_sequence)
    await stuck.someone_waits()
    for at in range(6000):  # 24 MiB of sectors of as many blocks: no bulk
        busy.write(at * BLOCK_BYTES, noise(SECTOR_BYTES))
    small.write(0, SECTOR)
    told: list[int] = []
    when_durable(small, small.last_sequence, lambda: told.append(world.store.count("create", WALS)))
    before = world.store.count("create", WALS)
    for at in range(6000, 12000):
        busy.write(at * BLOCK_BYTES, noise(SECTOR_BYTES))
    stuck.release()
    await until(lambda: bool(told))
    assert told[0] - before <= IN_FLIGHT_MAX + 2
    await world.crash(engine)


async def test_what_nobody_flushes_goes_by_itself() -> None:
    world = World(options=EngineOptions(push_seconds=0.02))
    engine, layer = await world.start()
    layer.write(0, SECTOR)
    before = world.store.count("create", WALS)
    await until(lambda: world.store.count("create", WALS) > before)
    await until(lambda: engine.writes.unlogged_bytes == 0)
    await world.crash(engine)


@virtually
async def test_a_commit_that_waits_does_not_spin() -> None:
    """Bulk that waits for the uploads before it wakes nobody every half millisecond."""
    world = World(options=EngineOptions(push_seconds=0.01, sizes=ObjectSizes(bulk_bytes_min=BLOCK_BYTES)))
    world.env = VirtualEnv()
    engine, layer = await world.start()
    known_to_be_fast(engine)
    uploads = world.store.hold("create", "compacted/")
    for number in range(BULK_CUTS_MAX + 4):
        layer.write(number * BLOCK_BYTES, noise(BLOCK_BYTES))
        await asyncio.sleep(0.02)
    assert layer.queue.pending, "more than may be on its way"
    passes = 0

    def count() -> None:
        nonlocal passes
        passes += 1

    each_pass(engine.commit, count)
    await asyncio.sleep(10)
    assert passes == 0
    uploads.release()
    await durable(engine, layer)
    await world.crash(engine)


async def test_bulk_goes_up_once() -> None:
    # What is pushed before it is asked for, on a machine that stalls, may be logged first.
    world = World(options=EngineOptions(push_seconds=3600.0, flush_seconds=3600.0))
    engine, layer = await world.start()
    known_to_be_fast(engine)
    world.store.calls.clear()
    total = 32 * MIB
    data = noise(MIB)
    for offset in range(0, total, MIB):
        layer.write(offset, data)
        await asyncio.sleep(0)
    await durable(engine, layer)
    await engine.flush_memtable()
    assert world.store.uploaded() < total * 1.03
    assert world.store.uploaded(WALS) < total * 0.01
    tables = [size for verb, name, size in world.store.calls if verb == "create" and name.startswith("compacted/")]
    assert sum(size > 3 * MIB for size in tables) >= len(tables) - 1, "large objects, and the tree"
    assert world.store.count("get") == 0
    engine, layer = await world.reopen(engine)
    assert await read(layer, total - MIB - 5, MIB) == (data + data)[MIB - 5 : 2 * MIB - 5]
    await world.crash(engine)


async def test_a_block_written_again_under_its_upload_keeps_the_newer_bytes() -> None:
    world = World()
    engine, layer = await world.start()
    uploads = world.store.hold("create", "compacted/")
    data = noise(4 * MIB)
    layer.write(0, data)
    waiting = asyncio.ensure_future(durable(engine, layer))
    await uploads.someone_waits()
    layer.write(5, b"newer")
    layer.zero(BLOCK_BYTES, BLOCK_BYTES, allocated=False)
    layer.zero(3 * BLOCK_BYTES, 5 * BLOCK_BYTES, allocated=False)
    uploads.release()
    await soon(waiting)
    expected = bytearray(data)
    expected[5:10] = b"newer"
    expected[BLOCK_BYTES : 2 * BLOCK_BYTES] = bytes(BLOCK_BYTES)
    expected[3 * BLOCK_BYTES : 8 * BLOCK_BYTES] = bytes(5 * BLOCK_BYTES)
    assert await read(layer, 0, len(data)) == expected
    await durable(engine, layer)
    engine, layer = await world.reopen(engine)
    assert await read(layer, 0, len(data)) == expected
    await engine.flush_memtable()
    assert await read(layer, 0, len(data)) == expected
    engine, layer = await world.reopen(engine)
    assert await read(layer, 0, len(data)) == expected
    await world.crash(engine)


async def test_whole_blocks_of_zeros_are_stored_nowhere() -> None:
    world = World()
    engine, layer = await world.start()
    layer.write(0, noise(BLOCK_BYTES))
    await durable(engine, layer)
    world.store.calls.clear()
    layer.write(0, bytes(8 * MIB))
    await durable(engine, layer)
    assert world.store.uploaded() < 64 * 1024
    for _ in range(2):
        assert await read(layer, 0, 8 * MIB) == bytes(8 * MIB)
        engine, layer = await world.reopen(engine)
    await world.crash(engine)
