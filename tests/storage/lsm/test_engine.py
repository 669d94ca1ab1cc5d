"""The running engine: tree changes, the watch for a newer writer, failures inside, and the end."""

import asyncio
import logging
from collections.abc import Callable
from typing import TypeVar

import pytest

from storage.buffers import Buffer
from storage.errors import Closed, Corrupt, Fenced, StorageError, Unavailable
from storage.format.frame import SECTOR_BYTES
from storage.format.manifest import Manifest, encode
from storage.format.names import MANIFESTS, WALS, sst_name
from storage.lsm.options import EngineOptions
from tests.storage.lsm.worlds import InlineEnv, World, durable, read, record
from tests.support.idle import idle
from tests.support.waiting import soon, until

A = b"a" * SECTOR_BYTES
T = TypeVar("T")


async def test_a_tree_change_is_durable_when_it_returns() -> None:
    world = World()
    engine, _ = await world.start()
    await engine.change_tree(record("create", 2))
    await world.crash(engine)
    engine = await world.open()
    assert list(engine.layers) == [1, 2]
    await world.crash(engine)


async def test_a_tree_change_that_does_not_fit_changes_nothing() -> None:
    world = World()
    engine, layer = await world.start()
    with pytest.raises(Corrupt):
        await engine.change_tree(record("create", 7))
    assert list(engine.layers) == [1]
    layer.write(0, A)
    await durable(engine, layer)
    engine, layer = await world.reopen(engine)
    assert await read(layer, 0, SECTOR_BYTES) == A
    await world.crash(engine)


async def test_zeroes_of_a_tree_change_stand_and_fall_with_it() -> None:
    world = World()
    engine, layer = await world.start()
    layer.write(0, A * 3)
    await durable(engine, layer)
    await engine.change_tree(record("zero", 1, SECTOR_BYTES, 2 * SECTOR_BYTES))
    assert await read(layer, 0, 3 * SECTOR_BYTES) == A + bytes(2 * SECTOR_BYTES)
    for _ in range(2):
        engine, layer = await world.reopen(engine)
        assert await read(layer, 0, 3 * SECTOR_BYTES) == A + bytes(2 * SECTOR_BYTES)
        await engine.flush_memtable()
    await world.crash(engine)


async def test_an_idle_writer_notices_that_it_was_superseded() -> None:
    world = World(options=EngineOptions(watch_seconds=0.01))
    old, _ = await world.start()
    new = await world.open()
    await until(old.failed.done)
    assert isinstance(old.failed.result(), Fenced)
    assert not new.failed.done()
    await world.crash(new)


async def test_the_watch_asks_for_one_name_and_bears_an_outage() -> None:
    world = World(options=EngineOptions(watch_seconds=0.005))
    engine, _ = await world.start()
    await idle()
    world.store.calls.clear()
    world.store.fail_once("head", MANIFESTS, Unavailable("no answer"))
    await until(lambda: world.store.count("head") > 5)
    assert {verb for verb, _, _ in world.store.calls} == {"head"}
    assert not engine.failed.done()
    await world.crash(engine)


async def test_the_watch_does_not_take_our_own_commit_for_a_newer_writer() -> None:
    world = World(options=EngineOptions(watch_seconds=0.0))
    engine, layer = await world.start()
    for number in range(30):
        world.store.passes = lambda number=number: number % 5  # type: ignore[misc]
        layer.write(0, A)
        await engine.flush_memtable()
    assert not engine.failed.done()
    await world.crash(engine)


async def test_an_idle_engine_asks_for_nothing_else(monkeypatch: pytest.MonkeyPatch) -> None:
    """A memtable flush of nothing must not write a manifest a minute."""
    world = World(options=EngineOptions(flush_seconds=0.005))
    engine, layer = await world.start()
    layer.write(0, A)
    await until(lambda: len(engine.log.position.objects) == 0 and not engine.writes.memtable)
    right, flushes = engine.flush_trigger.wait, []

    async def wait() -> None:
        flushes.append(len(world.store.calls))
        await right()

    monkeypatch.setattr(engine.flush_trigger, "wait", wait)
    await until(lambda: len(flushes) >= 10)
    assert flushes[-1] == flushes[2], "what came before it was idle may still end with the first"
    await world.crash(engine)


async def test_a_bug_in_a_task_ends_everything_and_is_reported(caplog: pytest.LogCaptureFixture) -> None:
    world = World(options=EngineOptions(watch_seconds=0.01))
    engine, layer = await world.start()
    world.store.fail_once("head", MANIFESTS, ZeroDivisionError("a bug"))
    with caplog.at_level(logging.ERROR):
        await until(engine.failed.done)
    assert "ZeroDivisionError" in str(engine.failed.result())
    assert any(entry.exc_info and entry.exc_info[0] is ZeroDivisionError for entry in caplog.records)
    layer.write(0, A)
    with pytest.raises(Closed):
        await durable(engine, layer)
    await engine.close()
    await idle()
    assert not [task for task in asyncio.all_tasks() if task is not asyncio.current_task()], "no task outlives it"


async def test_a_failure_while_opening_leaves_no_task_behind() -> None:
    world = World()
    engine, _ = await world.start()
    await world.crash(engine)
    name = world.store.names(WALS)[-1]
    world.store.objects[name] = world.store.objects[name][:-1]
    before = asyncio.all_tasks()
    with pytest.raises(Corrupt):
        await world.open()
    await idle()
    assert asyncio.all_tasks() == before


async def test_a_waiter_of_a_store_that_fails_hears_of_it() -> None:
    world = World()
    engine, layer = await world.start()
    held = world.store.hold("create", WALS)
    layer.write(0, A)
    waiting = [asyncio.ensure_future(durable(engine, layer)) for _ in range(3)]
    waiting.append(asyncio.ensure_future(engine.flush_memtable()))
    waiting.append(asyncio.ensure_future(engine.change_tree(record("create", 2))))
    await held.someone_waits()
    engine.fail(Fenced("taken over"))
    for waiter in waiting:
        with pytest.raises(Fenced):
            await soon(waiter, 5)
    await idle()
    await engine.close()
    await idle()
    assert not [task for task in asyncio.all_tasks() if task is not asyncio.current_task()]


async def test_what_is_written_while_it_closes_is_in_the_log_or_not_acknowledged() -> None:
    world = World()
    engine, layer = await world.start()
    layer.write(0, A)
    held = world.store.hold("create", MANIFESTS)
    closing = asyncio.ensure_future(engine.close())
    await held.someone_waits()
    layer.write(SECTOR_BYTES, A)
    late = asyncio.ensure_future(durable(engine, layer))
    await soon(late)
    layer.write(2 * SECTOR_BYTES, A)
    lost = asyncio.ensure_future(durable(engine, layer))
    held.release()
    await soon(closing)
    outcome = (await asyncio.gather(lost, return_exceptions=True))[0]
    engine = await world.open(take_over=False)
    data = await read(engine.layers[1], 0, 3 * SECTOR_BYTES)
    assert data[: 2 * SECTOR_BYTES] == A * 2
    if outcome is None:
        assert data[2 * SECTOR_BYTES :] == A
    else:
        assert isinstance(outcome, StorageError)
    await world.crash(engine)


async def test_closing_twice_is_closing_once() -> None:
    world = World()
    engine, _ = await world.start()
    await engine.close()
    manifests = world.store.names(MANIFESTS)
    await engine.close()
    assert world.store.names(MANIFESTS) == manifests
    assert engine.manifests.manifest.closed
    engine = await world.open(take_over=False)
    assert not engine.manifests.manifest.closed
    await world.crash(engine)


async def test_a_closed_store_needs_no_replay() -> None:
    world = World()
    engine, layer = await world.start()
    for number in range(20):
        layer.write(number * SECTOR_BYTES, A)
        await durable(engine, layer)
    await engine.close()
    assert len(world.store.names(WALS)) == 1, "only the fence"
    world.store.calls.clear()
    engine = await world.open(take_over=False)
    assert world.store.count("get", WALS) <= 2, "its end is asked for before the take-over, and behind it"
    assert len(engine.log.position.objects) == 0
    await world.crash(engine)


async def test_a_store_is_opened_with_one_get_for_each_sst() -> None:
    world = World()
    engine, layer = await world.start()
    for number in range(5):
        layer.write(number * SECTOR_BYTES, A)
        await engine.flush_memtable()
    await engine.close()
    listed = [sst_name(sst.id) for sst in engine.manifests.manifest.ssts]
    assert len(listed) == 5
    world.store.calls.clear()
    engine = await world.open()
    assert [world.store.count("get", name) for name in listed] == [1] * 5
    await world.crash(engine)


class NotingEnv(InlineEnv):
    """It knows whether what is running now would run in a thread."""

    in_thread = False

    async def run(self, pool: str, function: Callable[..., T], *args: object) -> T:
        def noted() -> T:
            self.in_thread = True
            try:
                return function(*args)
            finally:
                self.in_thread = False

        return await super().run(pool, noted)


async def test_a_manifest_is_made_in_a_thread(monkeypatch: pytest.MonkeyPatch) -> None:
    """Of 86,400 SSTs it took 217 ms, in which nobody else was answered."""
    world = World()
    world.env = env = NotingEnv()
    engine, layer = await world.start()
    in_thread: list[bool] = []

    def noted(manifest: Manifest) -> bytes:
        in_thread.append(env.in_thread)
        return encode(manifest)

    monkeypatch.setattr("storage.lsm.manifest.manifest_store.encode", noted)
    layer.write(0, A)
    await engine.flush_memtable()
    assert in_thread
    assert all(in_thread)
    await world.crash(engine)


async def test_a_commit_of_our_own_is_no_newer_writer(monkeypatch: pytest.MonkeyPatch) -> None:
    """Seen in the simulation: who looked for a newer manifest while ours had landed, unanswered, found that one."""
    world = World()
    engine, layer = await world.start()
    layer.write(0, b"x" * 4096)
    landed, reply = asyncio.Event(), asyncio.Event()
    create = world.store.inner.create

    async def slowly(name: str, data: Buffer) -> None:
        await create(name, data)
        if name.startswith(MANIFESTS):
            landed.set()
            await reply.wait()

    monkeypatch.setattr(world.store.inner, "create", slowly)
    flush = asyncio.create_task(engine.flush_memtable())
    await landed.wait()
    look = asyncio.create_task(engine.manifests.look_for_newer())
    done, _ = await asyncio.wait({look}, timeout=0.05)
    assert not done, "it did not wait for the commit"
    reply.set()
    await flush
    await look
    engine.check_alive()
    await engine.close()
