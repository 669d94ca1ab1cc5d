"""What can come between the steps of a memtable flush, and must not lose or mix up anything."""

import asyncio
import random
from pathlib import Path

import pytest

from storage.errors import AccessDenied, OutOfSpace
from storage.format.frame import BLOCK_BYTES, SECTOR_BYTES
from storage.lsm.engine import Engine
from storage.lsm.options import EngineOptions
from storage.lsm.recovery.anchor import Anchor, HostState
from storage.lsm.recovery.unsaved import FOLDER_SECONDS, SILENT
from tests.simulation.virtual import virtually
from tests.storage.lsm.recovery.test_unsaved import HangingClock
from tests.storage.lsm.worlds import MIB, World, durable, join, read, record
from tests.support.idle import idle
from tests.support.waiting import soon, until

A = b"a" * SECTOR_BYTES
B = b"b" * SECTOR_BYTES


async def test_closing_waits_for_the_flush_that_is_under_way() -> None:
    """Cancelling it loses its memtable: the closing flush would move the replay point past it."""
    world = World()
    engine, layer = await world.start()
    layer.write(0, A)
    await durable(engine, layer)
    held = world.store.hold("create", "compacted/")
    engine.flush_trigger.pull()
    await held.someone_waits()
    layer.write(SECTOR_BYTES, B)
    closing = asyncio.ensure_future(engine.close())
    await idle()
    held.release()
    await soon(closing)
    engine = await world.open(take_over=False)
    assert await read(engine.layers[1], 0, 2 * SECTOR_BYTES) == A + B
    await world.crash(engine)


async def test_a_flush_whose_caller_goes_away_goes_on() -> None:
    world = World()
    engine, layer = await world.start()
    layer.write(0, A)
    held = world.store.hold("create", "compacted/")
    asked = asyncio.ensure_future(engine.flush_memtable())
    await held.someone_waits()
    asked.cancel()
    await idle()
    layer.write(SECTOR_BYTES, B)
    held.release()
    await soon(asyncio.ensure_future(engine.flush_memtable()))
    engine, layer = await world.reopen(engine)
    assert await read(layer, 0, 2 * SECTOR_BYTES) == A + B
    await world.crash(engine)


async def test_a_flush_that_fails_poisons_whoever_asked_for_it() -> None:
    """Otherwise the next flush moves the replay point past what this one did not write."""
    world = World()
    engine, layer = await world.start()
    layer.write(0, A)
    await durable(engine, layer)
    world.store.fail_once("create", "compacted/", AccessDenied("no"))
    with pytest.raises(AccessDenied):
        await engine.flush_memtable()
    assert isinstance(engine.failed.result(), AccessDenied)
    engine = await world.open()
    assert await read(engine.layers[1], 0, SECTOR_BYTES) == A
    await world.crash(engine)


async def test_the_first_flush_does_not_hide_replayed_frames_from_the_sweep() -> None:
    """The flush that a long log starts at once takes the memtable away before the sweep looks at it."""
    world = World()
    engine, layer = await world.start()
    bulk = bytes(range(256)) * (8 * MIB // 256)
    layer.write(0, bulk)
    layer.write(16 * MIB, A)
    await durable(engine, layer)
    assert world.store.names("compacted/")
    await world.crash(engine)
    world.options = EngineOptions(cache_bytes=MIB, flush_bytes=1)
    engine = await world.open()
    await idle()
    assert await read(engine.layers[1], 0, len(bulk)) == bulk
    engine, layer = await world.reopen(engine)
    assert await read(layer, 0, len(bulk)) == bulk
    await world.crash(engine)


async def test_a_tree_change_that_shares_an_object_with_what_came_after_is_replayed_once() -> None:
    """The object of the log holds the last operations of the flushed memtable and the first ones beyond it."""
    world = World()
    engine, layer = await world.start()
    held = [world.store.hold("create", "wal/") for _ in range(1)]
    for number in range(4):
        layer.write(number * SECTOR_BYTES, A)
        layer.queue.want_durable(layer.last_sequence)
        await held[0].someone_waits(number + 1)
    creating = asyncio.ensure_future(engine.change_tree(record("create", 2)))
    await idle()
    flushing = asyncio.ensure_future(engine.flush_memtable())
    await idle()
    engine.layers[2].write(0, B)
    written = asyncio.ensure_future(durable(engine, engine.layers[2]))
    await idle()
    held[0].release()
    await soon(creating)
    await soon(flushing)
    await soon(written)
    engine, layer = await world.reopen(engine)
    assert await read(layer, 0, 4 * SECTOR_BYTES) == A * 4
    assert await read(engine.layers[2], 0, SECTOR_BYTES) == B
    await world.crash(engine)


async def test_everything_returns_what_it_was_charged() -> None:
    """Pressure is zero after everything was flushed, whatever was written, overwritten, zeroed or uploaded."""
    world = World()
    engine, layer = await world.start()
    for _ in range(3):
        layer.write(0, bytes(range(256)) * (8 * MIB // 256))
        layer.write(100, A)
        await durable(engine, layer)
        layer.zero(BLOCK_BYTES + 5, 12 * BLOCK_BYTES, allocated=False)
        layer.write(3 * MIB + 17, B)
        layer.zero(MIB, 100, allocated=True)
        layer.write(0, bytes(8 * MIB))
        await durable(engine, layer)
        layer.write(5, A)
    await engine.flush_memtable()
    assert engine.writes.unlogged_bytes == 0
    assert engine.writes.memtable_bytes == 0
    assert engine.writes.memtable.bytes == 0
    engine, layer = await world.reopen(engine)
    layer.write(5, A)
    await engine.close()
    assert (engine.writes.unlogged_bytes, engine.writes.memtable_bytes) == (0, 0)


async def test_a_flush_looks_at_a_store_that_was_taken_over_before_it_deletes_the_log() -> None:
    world = World()
    old, layer = await world.start()
    layer.write(0, A)
    await durable(old, layer)
    tree = world.tree
    new = await world.open()
    await new.change_tree(record("create", 2))
    await until(lambda: old.failed.done() or bool(tree), 1)
    with pytest.raises(Exception, match="taken over"):
        await old.flush_memtable()
    assert await read(new.layers[1], 0, SECTOR_BYTES) == A
    new, layer = await world.reopen(new)
    assert await read(layer, 0, SECTOR_BYTES) == A
    await world.crash(new)


async def test_what_was_discarded_counts_until_its_log_is_gone() -> None:
    """Written and discarded over and over, little is left of it; a replay of the log would bring all of it back."""
    world = World()
    engine, layer = await world.start()
    chunk = random.Random(1).randbytes(MIB) + bytes(7 * MIB)
    for number in range(18):
        if number < 7:
            assert engine.writes.memtable.bytes >= number * len(chunk)
        for at in range(0, len(chunk), 64 * 1024):
            layer.write(at * 8, chunk[at : at + 64 * 1024])
        await durable(engine, layer)
        layer.zero(0, 64 * MIB, allocated=False)
    await until(lambda: sum(logged.size for logged in engine.log.position.objects) < 9 * MIB)
    await world.crash(engine)


async def test_sectors_written_in_part_count_as_whole_ones() -> None:
    """A byte over zeros makes a sector of its own; charged as a byte, a million of them would be gigabytes."""
    world = World()
    engine, layer = await world.start()
    layer.zero(0, 64 * MIB, allocated=False)
    before = engine.writes.memtable_bytes
    for number in range(1000):
        layer.write(number * SECTOR_BYTES + 77, b"x")
        layer.zero(32 * MIB + number * SECTOR_BYTES + 5, 9, allocated=True)
    kept = sum(
        len(content)
        for entry in layer.active.blocks.values()
        for content in entry.sectors.values()
        if type(content) is bytes
    )
    assert kept == 2000 * SECTOR_BYTES
    assert engine.writes.memtable_bytes - before > kept
    await engine.flush_memtable()
    assert (engine.writes.unlogged_bytes, engine.writes.memtable_bytes) == (0, 0)
    await world.crash(engine)


async def passes_during_flush(engine: Engine) -> int:
    """How often others came to their turn while a memtable was flushed."""
    passes = 0
    flushing = asyncio.ensure_future(engine.flush_memtable())
    while not flushing.done():
        passes += 1
        await asyncio.sleep(0)
    return passes


async def test_a_flush_of_many_pieces_lets_others_run() -> None:
    world = World()
    engine, layer = await world.start()
    for number in range(2000):
        layer.write(number * SECTOR_BYTES + 100, b"piece")
    assert await passes_during_flush(engine) > 2000 / 64
    for number in range(0, 2000, 100):
        expected = bytes(100) + b"piece" + bytes(SECTOR_BYTES - 105)
        assert await read(layer, number * SECTOR_BYTES, SECTOR_BYTES) == expected
    await world.crash(engine)


@pytest.mark.thorough
async def test_a_flush_of_many_discards_lets_others_run() -> None:
    world = World()
    engine, layer = await world.start()
    for number in range(2000):
        layer.write(number * 3 * BLOCK_BYTES, A)
    await engine.flush_memtable()
    assert engine.cache.bytes > 2000 * SECTOR_BYTES
    for number in range(2000):
        layer.zero(number * 3 * BLOCK_BYTES, 2 * BLOCK_BYTES, allocated=bool(number % 2))
    assert await passes_during_flush(engine) > 2000 / 4
    assert engine.cache.bytes == 0, "what nothing refers to any more is not kept"
    assert join(await layer.read(0, 6000 * BLOCK_BYTES)) == bytes(6000 * BLOCK_BYTES)
    await world.crash(engine)


async def test_a_host_that_cannot_remember_goes_on(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its own disk is full, the store is well."""
    world = World(host=HostState(tmp_path, "memory://"))
    engine, layer = await world.start()

    def full(self: HostState, anchor: Anchor) -> None:
        raise OutOfSpace("no room")

    with monkeypatch.context() as patch:
        patch.setattr(HostState, "save", full)
        layer.write(0, A)
        await engine.flush_memtable()
        layer.write(SECTOR_BYTES, B)
        await durable(engine, layer)
    assert not engine.failed.done()
    await engine.close()
    engine = await world.open(take_over=False)
    assert await read(engine.layers[1], 0, 2 * SECTOR_BYTES) == A + B
    await engine.close()


@virtually
async def test_a_state_folder_that_hangs_is_no_end_of_flushes(tmp_path: Path) -> None:
    """Its disk is gone, the store is well: what is waited for is named, and nothing counts as kept that is not."""
    host = HostState(tmp_path, "memory://")
    world = World(host=host)
    world.env = env = HangingClock()
    env.goes_on.set()
    engine, layer = await world.start()
    known = host.load()
    assert known is not None
    env.goes_on.clear()
    layer.write(0, A)
    flushing = asyncio.ensure_future(engine.flush_memtable())
    await asyncio.sleep(FOLDER_SECONDS / 2)
    assert engine.report().flushing == "the state folder of this host"
    await flushing
    assert engine.report().flushing is None
    assert str(host.unsaved.sentence()).endswith(SILENT)
    calls = env.calls
    for _ in range(3):
        layer.write(SECTOR_BYTES, B)
        await engine.flush_memtable()
    assert env.calls == calls
    remembered = host.load()
    assert remembered is not None
    assert remembered.manifest_number == known.manifest_number < engine.manifests.number
    env.goes_on.set()
    assert not engine.failed.done()
    await engine.close()
    assert host.unsaved.sentence() is None
    engine = await world.open(take_over=False)
    assert await read(engine.layers[1], 0, 2 * SECTOR_BYTES) == A + B
    await engine.close()


async def test_blocks_that_turn_out_to_be_zeros_are_flushed() -> None:
    """Their data weighs nothing any more, but their records are in the log: wiping a disk would fill it for ever."""
    world = World()
    engine, layer = await world.start()
    await engine.flush_memtable()
    for block in range(32):
        layer.write(block * BLOCK_BYTES, bytes(BLOCK_BYTES))
    await durable(engine, layer)
    assert engine.writes.memtable.bytes < MIB
    await engine.flush_memtable()
    assert not engine.log.position.objects
    await world.crash(engine)
