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
from tests.storage.lsm.worlds import MIB, World, durable, join, read, record, soon, until
from tests.support.examples import first_soon
from tests.support.idle import idle, turns

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


async def test_a_layer_dropped_under_a_flush_is_waited_for_no_more() -> None:
    world = World()
    engine, layer = await world.start()
    await engine.change_tree(record("create", 2))
    held = world.store.hold("create", "wal/")
    engine.layers[1].write(0, A)
    engine.layers[2].write(0, B)
    flushing = asyncio.ensure_future(engine.flush_memtable())
    covered = asyncio.ensure_future(engine.flush())
    await asyncio.sleep(0)
    await asyncio.sleep(0)
    dropping = asyncio.ensure_future(engine.change_tree(record("drop", 2)))
    await idle()
    held.release()
    await soon(flushing)
    await soon(covered)
    await soon(dropping)
    engine, layer = await world.reopen(engine)
    assert list(engine.layers) == [1]
    assert await read(layer, 0, SECTOR_BYTES) == A
    await world.crash(engine)


async def test_bulk_of_a_dropped_layer_lands_behind_the_flush_without_harm() -> None:
    """Its object of the log is in flight when the replay point passes it: the chain must not break there."""
    world = World()
    engine, layer = await world.start()
    await engine.change_tree(record("create", 2))
    uploads = world.store.hold("create", "compacted/")
    engine.layers[2].write(0, bytes(range(256)) * (8 * MIB // 256))
    gone = engine.layers[2]
    gone.queue.want_durable(gone.last_sequence)
    await uploads.someone_waits()
    await engine.change_tree(record("drop", 2))
    logs = world.store.hold("create", "wal/")
    uploads.release()
    await idle()
    layer.write(0, A)
    flushing = asyncio.ensure_future(engine.flush_memtable())
    await idle()
    logs.release()
    await soon(flushing)
    layer.write(SECTOR_BYTES, B)
    await durable(engine, layer)
    engine, layer = await world.reopen(engine)
    assert await read(layer, 0, 2 * SECTOR_BYTES) == A + B
    await world.crash(engine)


async def test_a_flush_does_not_pass_what_a_dropped_layer_has_on_its_way() -> None:
    """Its object is not acknowledged yet, so its tag, which the next one is linked to, would not be in the manifest."""
    world = World()
    engine, layer = await world.start()
    await engine.change_tree(record("create", 2))
    layer.write(0, A)
    await durable(engine, layer)
    uploads = world.store.hold("create", "compacted/")
    gone = engine.layers[2]
    gone.write(0, random.Random(1).randbytes(8 * MIB))
    gone.queue.want_durable(gone.last_sequence)
    await uploads.someone_waits()
    await engine.change_tree(record("drop", 2))
    logs = world.store.hold("create", "wal/")
    uploads.release()
    await logs.someone_waits()
    flushing = asyncio.ensure_future(engine.flush_memtable())
    await idle()
    assert not flushing.done()
    logs.release()
    await soon(flushing)
    layer.write(SECTOR_BYTES, B)
    await durable(engine, layer)
    engine, layer = await world.reopen(engine)
    assert await read(layer, 0, 2 * SECTOR_BYTES) == A + B
    await world.crash(engine)


@pytest.mark.parametrize("first", first_soon(range(6)))
async def test_a_layer_may_be_dropped_at_every_step_of_a_flush(first: int) -> None:
    for steps in range(first, 60, 6):
        world = World()
        engine, layer = await world.start()
        await engine.change_tree(record("create", 2))
        engine.layers[1].write(100, A)
        engine.layers[2].write(100, B)
        engine.layers[2].zero(0, 100 * BLOCK_BYTES, allocated=True)
        flushing = asyncio.ensure_future(engine.flush_memtable())
        await turns(steps)
        dropping = asyncio.ensure_future(engine.change_tree(record("drop", 2)))
        await soon(flushing)
        await soon(dropping)
        engine.layers[1].write(0, A)
        await durable(engine, engine.layers[1])
        engine, layer = await world.reopen(engine)
        assert list(engine.layers) == [1]
        assert await read(layer, 0, 2 * SECTOR_BYTES) == A + A[:100] + bytes(SECTOR_BYTES - 100)
        await engine.close()
        assert (engine.writes.unlogged_bytes, engine.writes.memtable_bytes) == (0, 0)


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
    await until(lambda: sum(logged.size for logged in engine.commit.position.objects) < 9 * MIB)
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


@pytest.mark.parametrize("first", first_soon(range(0, 60, 3)))
@pytest.mark.parametrize("change", ["shrink", "write", "discard", "bulk"])
async def test_a_layer_may_change_at_every_step_of_a_flush(change: str, first: int) -> None:
    """What comes while a memtable is being flushed lies above it, in memory, after the flush and after a crash."""
    size = 20 * BLOCK_BYTES
    for steps in range(first, 120, 60):
        world = World()
        engine, layer = await world.start()
        disk = bytearray(random.Random(steps).randbytes(size))
        layer.write(0, bytes(disk))
        await engine.flush_memtable()
        layer.write(5000, A)
        layer.write(2 * BLOCK_BYTES, B * 64)
        layer.zero(6 * BLOCK_BYTES, 3 * BLOCK_BYTES, allocated=True)
        disk[5000 : 5000 + SECTOR_BYTES] = A
        disk[2 * BLOCK_BYTES : 3 * BLOCK_BYTES] = B * 64
        disk[6 * BLOCK_BYTES : 9 * BLOCK_BYTES] = bytes(3 * BLOCK_BYTES)
        flushing = asyncio.ensure_future(engine.flush_memtable())
        await turns(steps)
        if change == "shrink":
            disk[5500:] = bytes(size - 5500)
            await soon(asyncio.ensure_future(engine.change_tree(record("zero", 1, 5500, size - 5500))))
        elif change == "write":
            disk[5100:5200] = bytes(range(100))
            layer.write(5100, bytes(range(100)))
        elif change == "discard":
            disk[BLOCK_BYTES + 77 : 12 * BLOCK_BYTES + 5] = bytes(11 * BLOCK_BYTES - 72)
            layer.zero(BLOCK_BYTES + 77, 11 * BLOCK_BYTES - 72, allocated=False)
        else:
            disk[BLOCK_BYTES : 19 * BLOCK_BYTES] = bytes(range(256)) * (18 * BLOCK_BYTES // 256)
            layer.write(BLOCK_BYTES, bytes(disk[BLOCK_BYTES : 19 * BLOCK_BYTES]))
        assert await read(layer, 0, size) == disk
        await durable(engine, layer)
        await soon(flushing)
        assert await read(layer, 0, size) == disk
        engine, layer = await world.reopen(engine)
        assert await read(layer, 0, size) == disk
        await engine.close()
        assert (engine.writes.unlogged_bytes, engine.writes.memtable_bytes) == (0, 0)
        engine = await world.open(take_over=False)
        assert await read(engine.layers[1], 0, size) == disk
        await world.crash(engine)


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
    assert not engine.commit.position.objects
    await world.crash(engine)
