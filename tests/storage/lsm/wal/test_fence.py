"""Where the log ends: what never landed, what lands late, and the fence that keeps two writers apart."""

import asyncio

import pytest

from storage.errors import Fenced
from storage.format.envelope import Header, ObjectKind, seal_object
from storage.format.frame import SECTOR_BYTES
from storage.format.names import WALS, wal_name
from storage.format.wal import WINDOW, LayerLogRecords, encode
from storage.lsm.options import LEFTOVER_SECONDS_MIN
from storage.lsm.recovery.derived_ciphers import Ciphers
from tests.storage.lsm.wal.test_reader import contents, sector, written
from tests.storage.lsm.worlds import KEY, World, durable, read, when_durable
from tests.support.idle import idle
from tests.support.waiting import soon, until


async def test_an_object_that_never_landed_ends_the_log() -> None:
    """Its successors may have landed: nobody was told of them."""
    world = World()
    engine, layer = await world.start()
    layer.write(0, sector(1))
    await durable(engine, layer)
    stuck = world.store.hold("create", wal_name(engine.log.position.next_number))
    asked = world.store.count("create", WALS)
    for number in (2, 3, 4):
        layer.write(number * SECTOR_BYTES, sector(number))
        assert not when_durable(layer, layer.last_sequence, lambda: pytest.fail("acknowledged above a gap"))
        await until(lambda count=asked + number - 1: world.store.count("create", WALS) == count)  # type: ignore[misc]
    await idle()
    assert stuck.waiting == 1
    beyond = world.store.names(WALS)[-2:]
    await world.crash(engine)
    engine = await world.open()
    layer = engine.layers[1]
    assert await read(layer, 0, SECTOR_BYTES) == sector(1)
    assert await contents(layer, 4) == [0, 0, 0, 0]
    layer.write(5 * SECTOR_BYTES, sector(5))
    await durable(engine, layer)
    engine, layer = await world.reopen(engine)
    assert await contents(layer, 5) == [0, 0, 0, 0, 5]
    await engine.flush_memtable()
    world.now += LEFTOVER_SECONDS_MIN
    engine, layer = await world.reopen(engine)
    await idle()
    assert not set(beyond) & set(world.store.names(WALS))
    assert await contents(layer, 5) == [0, 0, 0, 0, 5]
    await world.crash(engine)


async def test_what_lands_late_lands_in_nobodys_log() -> None:
    world = World()
    engine, layer = await world.start()
    stuck = world.store.hold("create", WALS)
    layer.write(0, sector(1))
    acknowledged = asyncio.ensure_future(durable(engine, layer))
    await stuck.someone_waits()
    number = engine.log.position.next_number - 1
    world.store.holds.clear()
    new = await world.open()
    new.layers[1].write(0, sector(2))
    await durable(new, new.layers[1])
    stuck.release()
    with pytest.raises(Fenced):
        await soon(acknowledged)
    assert world.store.names(WALS)[0] <= wal_name(number)
    new, layer = await world.reopen(new)
    assert await read(layer, 0, SECTOR_BYTES) == sector(2)
    await world.crash(new)


async def test_late_objects_of_the_old_window_are_passed_over() -> None:
    """Every number up to the window's end may still land behind the fence, in any order."""
    world = World()
    engine, layer = await world.start()
    layer.write(0, sector(1))
    await durable(engine, layer)
    first = engine.log.position.next_number
    tail = engine.log.position.tail_tag
    await world.crash(engine)
    new = await world.open()
    assert new.log.position.fences[-1] == first
    for number in range(first + 1, first + WINDOW):
        header = Header(
            kind=ObjectKind.WAL,
            epoch=engine.epoch,
            store_id=KEY.store_id,
            nonce=number.to_bytes(16, "big"),
            number=number,
            link=tail,
            acknowledged=first - 1,
        )
        body = encode([LayerLogRecords(1, [(1000 + number, 0, sector(9))])], [])
        content, tail = seal_object(Ciphers.derive(KEY).wal, header, body)
        await world.store.create(wal_name(number), content)
    new.layers[1].write(SECTOR_BYTES, sector(2))
    await durable(new, new.layers[1])
    for _ in range(2):
        new, layer = await world.reopen(new)
        assert await read(layer, 0, 2 * SECTOR_BYTES) == sector(1) + sector(2)
    await world.crash(new)


async def test_the_fence_goes_behind_what_landed_first() -> None:
    """An object of the old writer that lands between the reading and the fence counts."""
    world = World()
    engine, layer = await world.start()
    await engine.flush_memtable()
    stuck = world.store.hold("create", WALS)
    layer.write(0, sector(1))
    told = []
    when_durable(layer, layer.last_sequence, lambda: told.append(1))
    await stuck.someone_waits()
    world.store.holds.clear()
    fencing = world.store.hold("create", WALS)
    opening = asyncio.ensure_future(world.open())
    await fencing.someone_waits()
    world.store.holds.clear()
    stuck.release()
    await idle()
    fencing.release()
    new = await soon(opening)
    assert told
    assert await read(new.layers[1], 0, SECTOR_BYTES) == sector(1)
    await world.crash(engine)
    await world.crash(new)


async def test_two_openers_at_once_end_with_one_writer() -> None:
    world = World()
    await written(world, 2)
    results = await asyncio.gather(world.open(), world.open(), world.open(), return_exceptions=True)
    engines = [result for result in results if not isinstance(result, BaseException)]
    assert engines
    for engine in engines:
        engine.layers[1].write(0, sector(engine.epoch))
    told = await asyncio.gather(*(durable(e, e.layers[1]) for e in engines), return_exceptions=True)
    alive = [e for e, outcome in zip(engines, told, strict=True) if outcome is None]
    assert [e.epoch for e in alive] == [max(e.epoch for e in engines)]
    assert all(isinstance(r, Fenced) for r in results if isinstance(r, BaseException))
    engine, layer = await world.reopen(alive[0])
    assert await read(layer, 0, SECTOR_BYTES) == sector(alive[0].epoch)
    await world.crash(engine)
    for other in engines:
        await world.crash(other)


async def test_an_opener_that_was_overtaken_stops() -> None:
    """A fence of a higher epoch in the log: whatever this one read of the manifest is old."""
    world = World()
    await written(world, 2)
    held = world.store.hold("create", WALS)
    slow = asyncio.ensure_future(world.open())
    await held.someone_waits()
    world.store.holds.clear()
    new = await world.open()
    held.release()
    with pytest.raises(Fenced):
        await soon(slow)
    new.layers[1].write(0, sector(7))
    await durable(new, new.layers[1])
    await world.crash(new)
