"""Snapshots beside memtable flushes: what one waits for, and what it does not. Counted in requests, not in time."""

import asyncio

import pytest

from storage.bucket.pace import ObjectSizes
from storage.errors import Conflict
from storage.format.names import wal_name
from storage.lsm.engine import Engine
from storage.lsm.layer import Layer
from storage.lsm.memtable.memtable import OPERATION_OVERHEAD
from storage.lsm.options import EngineOptions
from storage.units import KIB
from tests.storage.lsm.worlds import Hold, World, read, record
from tests.support.idle import idle
from tests.support.waiting import soon, until

PENDING_SECTORS = 400
OBJECTS = 7
"""Of the log, that they fill."""
SECTOR = 4096
A, B, C, D = (letter * SECTOR for letter in (b"a", b"b", b"c", b"d"))


async def flushing() -> tuple[World, Engine, Layer, asyncio.Future[None]]:
    """A store whose layer 1, of A and B, is being flushed: its SST is not uploaded yet."""
    world = World()
    engine, layer = await world.start()
    layer.write(0, A + B)
    uploads = world.store.hold("create", "compacted/")
    under_way = asyncio.ensure_future(engine.flush_memtable())
    await uploads.someone_waits()
    return world, engine, layer, under_way


def taking(world: World, engine: Engine, verb: str, number: int, new: int = 0) -> asyncio.Future[None]:
    """Something that is done to trunks, up to where it is durable."""
    return asyncio.ensure_future(engine.change_trunks(lambda: world.plan(verb, number, new)))


async def shows(engine: Engine, **contents: bytes) -> None:
    """What layers hold."""
    for name, content in contents.items():
        assert await read(engine.layers[int(name[1:])], 0, len(content)) == content, name


async def test_a_snapshot_does_not_wait_for_the_flush_under_way_nor_for_its_own() -> None:
    world, engine, device, under_way = await flushing()
    device.write(SECTOR, C)
    await soon(taking(world, engine, "freeze", 1, 2))
    device.write(0, D)
    held = {"l1": A + C, "l2": D + C}
    await shows(engine, **held)
    assert not under_way.done()
    await engine.flush()
    await world.crash(engine)
    engine = await world.open()
    await shows(engine, **held)
    await world.crash(engine)


async def test_it_shows_what_it_held_when_that_flush_and_its_own_are_done() -> None:
    world, engine, device, under_way = await flushing()
    device.write(SECTOR, C)
    device.write(2 * SECTOR, C)
    await soon(taking(world, engine, "freeze", 1, 2))
    device.write(0, D)
    manifest = engine.manifests.number
    manifests = world.store.hold("create", "manifest/")
    world.store.holds[0].release()
    held = {"l1": A + C + C, "l2": D + C + C}
    for number in (1, 2):
        await manifests.someone_waits()
        await shows(engine, **held)
        manifests.release()
        manifests = world.store.hold("create", "manifest/")
        await until(lambda: engine.manifests.number == manifest + number)  # noqa: B023
        await idle()
        await shows(engine, **held)
    assert under_way.done()
    assert engine.forest.trunk(2).layers == [1, 2], "nobody asked for that flush"
    await world.crash(engine)
    engine = await world.open()
    await shows(engine, **held)
    await world.crash(engine)


@pytest.mark.parametrize("sealed", [False, True])
@pytest.mark.parametrize(("verb", "number", "new"), [("delete", 1, 0), ("freeze", 3, 4), ("rollback", 1, 4)])
async def test_the_next_operation_waits_until_the_indexes_have_the_last_one(
    verb: str, number: int, new: int, sealed: bool
) -> None:
    """Also where nothing of the snapshot is in memory, and whether the memtable that the last one came in is being
    flushed yet or not."""
    world = World()
    engine, layer = await world.start()
    layer.write(0, A)
    await engine.change_tree(record("create", 2))
    await engine.flush_memtable()
    uploads = world.store.hold("create", "compacted/")
    if not sealed:
        engine.layers[2].write(0, A)
        flush = asyncio.ensure_future(engine.flush_memtable())
        await uploads.someone_waits()
    await soon(taking(world, engine, "freeze", 1, 3))
    if sealed:
        await uploads.someone_waits()
    second = taking(world, engine, verb, number, new)
    await idle()
    assert sorted(engine.layers) == [1, 2, 3]
    uploads.release()
    await soon(second)
    assert sorted(engine.layers) == {"delete": [2, 3], "freeze": [1, 2, 3, 4], "rollback": [1, 2, 4]}[verb]
    if not sealed:
        await soon(flush)
    await world.crash(engine)


async def behind(others: bool) -> tuple[World, Engine, Hold, asyncio.Future[None]]:
    """A snapshot of a device, and objects of the log, the last of which is held back: all that is in them was
    written to it, or to another device.
    """
    world = World(options=EngineOptions(sizes=ObjectSizes(inline_bytes_max=256 * KIB)))
    engine, layer = await world.start()
    await engine.change_tree(record("create", 2))
    last = world.store.hold("create", wal_name(engine.log.position.next_number + OBJECTS - 1))
    for sector in range(PENDING_SECTORS):
        layer.write(2 * sector * SECTOR, A)
    snapshot = taking(world, engine, "freeze", 2 if others else 1, 3)
    await last.someone_waits()
    await idle()
    return world, engine, last, snapshot


async def test_it_is_not_durable_before_all_that_it_holds_is() -> None:
    """Its record is in an earlier object; a crash would leave a snapshot that lacks what is in the others."""
    world, engine, last, snapshot = await behind(others=False)
    assert not snapshot.done()
    last.release()
    await soon(snapshot)
    await world.crash(engine)
    engine = await world.open()
    await shows(engine, l1=(A + bytes(SECTOR)) * (PENDING_SECTORS - 1) + A)
    await world.crash(engine)


async def test_it_does_not_wait_for_what_was_written_to_other_devices() -> None:
    world, engine, _, snapshot = await behind(others=True)
    assert snapshot.done()
    await world.crash(engine)


async def test_it_waits_for_parts_of_sectors_that_are_being_completed() -> None:
    """Until then nobody knows which layer keeps them."""
    world = World()
    engine, layer = await world.start()
    layer.write(0, A)
    await engine.flush_memtable()
    engine, layer = await world.reopen(engine)
    layer.write(100, b"piece")
    gets = world.store.hold("get", "compacted/")
    under_way = asyncio.ensure_future(engine.flush_memtable())
    await gets.someone_waits()
    uploads = world.store.hold("create", "compacted/")
    snapshot = taking(world, engine, "freeze", 1, 2)
    await idle()
    assert sorted(engine.layers) == [1]
    gets.release()
    uploads.release()
    await soon(snapshot)
    await under_way
    await shows(engine, l1=A[:100] + b"piece" + A[105:])
    await world.crash(engine)


async def test_one_that_is_refused_flushes_nothing() -> None:
    """Whoever asks for it again and again would make an SST each time."""
    world = World()
    engine, layer = await world.start()
    await engine.flush_memtable()
    layer.write(0, A)
    await engine.flush()
    calls = len(world.store.calls)

    def plan() -> tuple[bytes, list[int]]:
        raise Conflict("it is in use")

    with pytest.raises(Conflict):
        await soon(asyncio.ensure_future(engine.change_trunks(plan)))
    await idle()
    assert world.store.calls[calls:] == []
    await world.crash(engine)


async def test_one_that_nobody_waits_for_any_more_comes_into_the_indexes_too() -> None:
    """It was asked for by a command that was interrupted."""
    world, engine, _, under_way = await flushing()
    await soon(taking(world, engine, "freeze", 1, 2))
    second = taking(world, engine, "freeze", 2, 3)
    await idle()
    second.cancel()
    world.store.holds[0].release()
    await until(lambda: 3 in engine.forest)
    await soon(under_way)
    await world.crash(engine)


async def test_what_is_written_after_it_is_never_in_the_log_before_it() -> None:
    """However much of the tree goes before it, and whoever waits for what is written."""
    world = World(options=EngineOptions(sizes=ObjectSizes(inline_bytes_max=256 * KIB)))
    engine, device = await world.start()
    await engine.flush()
    beyond = world.store.hold("create", wal_name(engine.log.position.next_number + 1))
    size, new = 0, 2
    while (size := size + len(record("create", new)) + OPERATION_OVERHEAD) < 256 * KIB:
        engine.change_tree(record("create", new))
        new += 1

    def write() -> None:
        device.queue.want_durable(device.write(0, A))

    await soon(asyncio.ensure_future(engine.change_trunks(lambda: world.plan("freeze", 1, new), write)))
    await beyond.someone_waits()
    await idle()
    answered = device.queue.want_durable(device.last_sequence)
    await world.crash(engine)
    engine = await world.open()
    assert not answered or await read(engine.layers[new], 0, SECTOR) == A
    await world.crash(engine)


async def test_nothing_is_in_the_log_before_the_device_that_it_was_written_to() -> None:
    """Whoever made it does not wait for that any more; who writes to it does."""
    world = World()
    engine, _ = await world.start()
    await engine.flush()
    world.store.hold("create", wal_name(engine.log.position.next_number + 1))
    engine.change_tree(record("create", 2))
    layer = engine.layers[2]
    layer.queue.want_durable(layer.write(0, A))
    await until(lambda: layer.queue.is_durable)
    await world.crash(engine)
    engine = await world.open()
    await shows(engine, l2=A)
    await world.crash(engine)
