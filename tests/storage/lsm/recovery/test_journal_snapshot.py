"""A journal with a snapshot in it, of which the log has a part: whatever part that is, what was answered is there."""

import asyncio
from collections.abc import Iterable
from functools import partial
from pathlib import Path

import pytest

from storage.errors import Closed
from storage.format.frame import BLOCK_BYTES, SECTOR_BYTES
from storage.journal.files import FolderFiles
from storage.lsm.recovery.anchor import HostState
from tests.simulation.virtual import virtually
from tests.storage.lsm.worlds import Layers, World, read, record
from tests.support.idle import idle

URL = "memory://"
BLOCKS = 48
"""Enough of them to travel as bulk."""

OLD, NEW, PART, LATER = b"o" * BLOCK_BYTES, b"n" * BLOCK_BYTES, b"part", b"l" * SECTOR_BYTES


@pytest.fixture
def world(tmp_path: Path, memory: Path) -> World:
    made = World(host=HostState(tmp_path / "here", URL))
    made.journals = partial(FolderFiles, memory / "journals", URL)
    return made


@pytest.mark.parametrize("held", ["wal/", "compacted/", "manifest/"])
@pytest.mark.parametrize("flushed", [False, True])
@pytest.mark.parametrize("verb", ["freeze", "rollback"])
async def test_the_log_has_a_snapshot_and_not_what_was_written_before(
    world: World, held: str, flushed: bool, verb: str
) -> None:
    """A block travels as an SST of its own, so the change of the tree may overtake it on its way to the log."""
    engine, layer = await world.start()
    layer.write(0, OLD)
    if verb == "rollback":
        await world.change_trunks(engine, "freeze", 1, 2)
    await engine.flush_memtable()
    layer.write(0, NEW)
    layer.write(5 * SECTOR_BYTES + 7, PART)
    want = bytearray(NEW)
    want[5 * SECTOR_BYTES + 7 : 5 * SECTOR_BYTES + 7 + len(PART)] = PART
    for number in range(1, BLOCKS):
        layer.write(number * BLOCK_BYTES, NEW)
    gate = world.store.hold("create", held)
    numbers = ("freeze", 1, 2) if verb == "freeze" else ("rollback", 1, 3)
    changing = asyncio.ensure_future(world.change_trunks(engine, *numbers))
    await gate.someone_waits()
    await idle()
    head = engine.layers[numbers[2]]
    head.write(BLOCKS * BLOCK_BYTES, b"later")
    engine.journal.keep()
    await world.crash(engine)
    await engine.close()
    with pytest.raises(Closed):
        await changing

    engine = await world.open(take_over=False)
    head = engine.layers[numbers[2]]
    if flushed:
        await engine.flush_memtable()
    shown = [bytes(want), NEW] if verb == "freeze" else [OLD, bytes(BLOCK_BYTES)]
    assert [await read(head, at, BLOCK_BYTES) for at in (0, BLOCK_BYTES)] == shown
    assert await read(head, BLOCKS * BLOCK_BYTES, 5) == b"later"
    if verb == "freeze":
        assert await read(engine.layers[1], 0, BLOCK_BYTES) == want
    await world.crash(engine)


@virtually
async def test_what_came_after_a_snapshot_is_not_in_the_log_before_what_came_earlier(world: World) -> None:
    """Where the log has the snapshot already, and a start does both again: another host has the log alone."""
    engine, layer = await world.start()
    layer.write(0, OLD)
    await engine.flush_memtable()
    for number in range(BLOCKS):
        layer.write(number * BLOCK_BYTES, NEW)
    gate = world.store.hold("create", "compacted/")
    changing = asyncio.ensure_future(world.change_trunks(engine, "freeze", 1, 2))
    await gate.someone_waits()
    await idle()
    engine.layers[2].write(0, LATER)
    engine.journal.keep()
    await world.crash(engine)
    await engine.close()
    with pytest.raises(Closed):
        await changing
    gate = world.store.hold("create", "compacted/")
    opening = asyncio.ensure_future(world.open(take_over=False))
    await gate.someone_waits()
    await asyncio.sleep(60)  # by the virtual clock: nobody has to ask for a push
    elsewhere = World()
    for name, content in world.store.objects.items():
        await elsewhere.store.inner.put(name, content)
    found = await elsewhere.open()
    assert sorted(found.layers) == [1, 2], "the log has no snapshot"
    shown = [await read(found.layers[2], at, SECTOR_BYTES) for at in (0, BLOCK_BYTES)]
    assert shown == [OLD[:SECTOR_BYTES], bytes(SECTOR_BYTES)]
    await elsewhere.crash(found)
    gate.release()
    world.store.holds.clear()
    engine = await opening
    assert await read(engine.layers[2], 0, 2 * BLOCK_BYTES) == LATER + NEW[SECTOR_BYTES:] + NEW
    await world.crash(engine)


async def test_a_device_that_writes_nothing_behind_its_snapshot_keeps_no_journal(world: World) -> None:
    """It acknowledges nothing; and where segments take all the room that they may, it cannot write."""
    engine, layer = await world.start()
    for number in range(BLOCKS):
        layer.write(number * BLOCK_BYTES, NEW)
    gate = world.store.hold("create", "compacted/")
    changing = asyncio.ensure_future(world.change_trunks(engine, "freeze", 1, 2))
    await gate.someone_waits()
    await idle()
    engine.journal.keep()
    await world.crash(engine)
    await engine.close()
    with pytest.raises(Closed):
        await changing
    gate.release()
    world.store.holds.clear()

    engine = await world.open(take_over=False)
    await engine.flush_memtable()
    assert not engine.journal.bytes
    await world.crash(engine)


async def test_a_start_looks_at_all_layers_no_more_often_with_a_longer_journal(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of which there may be tens of thousands, and as many operations in a journal."""
    looks = 0
    trunks = Layers.trunks

    def counted(self: Layers) -> Iterable[list[int]]:
        nonlocal looks
        looks += 1
        return trunks(self)

    async def looked(operations: int) -> int:
        nonlocal looks
        engine = await world.open(take_over=False)
        if 1 not in engine.layers:
            await engine.change_tree(record("create", 1))
        gate = world.store.hold("create", "wal/")
        for number in range(operations):
            engine.layers[1].write(number * SECTOR_BYTES, LATER)
        engine.journal.keep()
        await world.crash(engine)
        await engine.close()
        gate.release()
        looks = 0
        engine = await world.open(take_over=False)
        found = looks
        assert engine.opening.restored == operations
        await engine.flush_memtable()
        await world.crash(engine)
        await engine.close()
        return found

    monkeypatch.setattr(Layers, "trunks", counted)
    few = await looked(3)
    assert await looked(60) == few
