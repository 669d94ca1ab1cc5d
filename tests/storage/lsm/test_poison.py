"""What ends an engine although nobody foresaw it: after that nothing is acknowledged, and nothing goes on half."""

import asyncio
from types import ModuleType

import pytest

from storage.errors import Closed, Unavailable
from storage.format.frame import BLOCK_BYTES, SECTOR_BYTES
from storage.lsm.options import EngineOptions
from storage.lsm.wal import log_writer as writer_module
from storage.lsm.wal import queue as log_module
from tests.storage.lsm.worlds import World, durable, read, record
from tests.support.inside import flush_of, layers_of
from tests.support.waiting import soon

SECTOR = b"s" * SECTOR_BYTES


async def cancelled(*_: object, **__: object) -> None:
    raise asyncio.CancelledError


async def test_a_memtable_flush_that_is_cancelled_by_nobody_is_no_success(monkeypatch: pytest.MonkeyPatch) -> None:
    world = World()
    engine, layer = await world.start()
    layer.write(0, SECTOR)
    monkeypatch.setattr(flush_of(engine), "run", cancelled)
    with pytest.raises(Closed, match="CancelledError"):
        await soon(asyncio.ensure_future(engine.flush_memtable()))
    engine, layer = await world.reopen(engine)
    await world.crash(engine)


async def test_a_task_that_is_cancelled_by_nobody_ends_the_engine(monkeypatch: pytest.MonkeyPatch) -> None:
    """One that went missing would be noticed when the log is full."""
    world = World(options=EngineOptions(watch_seconds=0.0))
    engine, _ = await world.start()
    monkeypatch.setattr(engine.manifests, "probe_newer", cancelled)
    error = await soon(engine.failed)
    assert isinstance(error, Closed)
    await world.crash(engine)


async def test_a_tree_that_knows_more_than_the_log_takes_no_further_record(monkeypatch: pytest.MonkeyPatch) -> None:
    """A record that rests on one which is not in the log could not be replayed: the store would stay shut."""
    world = World()
    engine, layer = await world.start()
    layer.write(0, SECTOR)
    await durable(engine, layer)

    def broken(*_: object) -> None:
        raise RuntimeError("a bug")

    monkeypatch.setattr(layers_of(engine), "_take_effect", broken)
    with pytest.raises(RuntimeError):
        await engine.change_tree(record("create", 2))
    monkeypatch.undo()
    with pytest.raises(Closed):
        await engine.change_tree(record("create", 3))
    engine, layer = await world.reopen(engine)
    assert await read(layer, 0, SECTOR_BYTES) == SECTOR
    await engine.change_tree(record("create", 2))
    await world.crash(engine)


@pytest.mark.parametrize(("module", "name"), [(log_module, "Cut"), (writer_module, "Batch")])
async def test_what_was_taken_off_a_queue_and_not_sent_is_never_overtaken(
    module: ModuleType, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Memory runs out while a queue is cut: a later flush must not be answered, its acknowledgement covers the cut."""
    world = World()
    engine, layer = await world.start()

    def exhausted(*_: object, **__: object) -> None:
        raise MemoryError

    layer.write(0, SECTOR)
    flushing = asyncio.ensure_future(durable(engine, layer))
    monkeypatch.setattr(module, name, exhausted)
    with pytest.raises(Closed, match="MemoryError"):
        await soon(flushing)
    monkeypatch.undo()
    layer.write(SECTOR_BYTES, SECTOR)
    with pytest.raises(Closed):
        await soon(asyncio.ensure_future(durable(engine, layer)))
    await engine.close()


async def test_a_change_of_trunks_that_cannot_be_planned_fails_alone() -> None:
    """Nothing has changed by then, so what others have is not at stake."""
    world = World()
    engine, layer = await world.start()
    layer.write(0, SECTOR)

    def plan() -> tuple[bytes, list[int]]:
        raise OverflowError("a bug")

    with pytest.raises(OverflowError, match="a bug"):
        await engine.change_trunks(plan)
    await durable(engine, layer)
    await engine.change_trunks(lambda: (record("freeze", 1, 2), [1]))
    engine, layer = await world.reopen(engine)
    assert await read(layer, 0, SECTOR_BYTES) == SECTOR
    await world.crash(engine)


async def test_a_change_of_trunks_that_was_begun_ends_the_engine() -> None:
    world = World()
    engine, _ = await world.start()

    def applied() -> None:
        raise OverflowError("a bug")

    with pytest.raises(Closed, match="OverflowError"):
        await engine.change_trunks(lambda: (record("freeze", 1, 2), [1]), applied)
    await world.crash(engine)


@pytest.mark.parametrize(("prefix", "blocks"), [("wal/", 0), ("compacted/", 20)])
async def test_an_upload_that_is_cancelled_by_nobody_ends_the_engine(prefix: str, blocks: int) -> None:
    world = World()
    engine, layer = await world.start()
    world.store.fail_once("create", prefix, asyncio.CancelledError())
    layer.write(0, SECTOR)
    for block in range(blocks):
        layer.write(block * BLOCK_BYTES, bytes([block + 1]) * BLOCK_BYTES)
    with pytest.raises(Closed, match="CancelledError"):
        await soon(asyncio.ensure_future(durable(engine, layer)))
    await engine.close()


async def test_a_get_that_is_cancelled_by_nobody_is_an_error_of_that_read() -> None:
    world = World()
    engine, layer = await world.start()
    layer.write(0, SECTOR)
    await durable(engine, layer)
    engine, layer = await world.reopen(engine)
    await engine.flush_memtable()
    engine, layer = await world.reopen(engine)
    world.store.fail_once("get", "compacted/", asyncio.CancelledError())
    with pytest.raises(Unavailable, match="given up"):
        await soon(asyncio.ensure_future(layer.read(0, SECTOR_BYTES)))
    assert await read(layer, 0, SECTOR_BYTES) == SECTOR
    await world.crash(engine)


async def test_what_ended_an_engine_does_not_grow_by_being_said() -> None:
    """Every client of a failed store is told, for as long as the process lives."""
    world = World()
    engine, _ = await world.start()
    await world.crash(engine)
    depths = []
    for _ in range(5):
        with pytest.raises(Closed) as raised:
            engine.check_alive()
        depths.append(len(raised.traceback))
    assert len(set(depths)) == 1
