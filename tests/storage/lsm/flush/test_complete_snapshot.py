"""Sectors that were written in part before a snapshot, over what could not be read: both layers show what was written,
whenever that is to be had again.
"""

import asyncio
import random
from collections.abc import AsyncIterator
from contextlib import suppress
from dataclasses import dataclass

import pytest

from storage.errors import Closed, Corrupt, Unreadable
from storage.format.blocks import FrameRef
from storage.format.frame import BLOCK_BYTES, SECTOR_BYTES
from storage.lsm.engine import Engine
from storage.lsm.layer import Layer
from tests.storage.lsm.worlds import World, durable, read
from tests.support.waiting import soon

BASE = bytes(range(256)) * (BLOCK_BYTES // 256)
SECTOR = SECTOR_BYTES
PIECED = BASE[:100] + b"piece" + BASE[105:SECTOR]
"""The first sector, with what was written to it before the snapshot."""


@dataclass
class Snapshot:
    """A store whose layer 1 became a snapshot; layer 2 goes on. Parts of its first sector lie over what is damaged."""

    world: World
    engine: Engine
    sound: dict[str, bytes]
    """What was damaged, as it was."""

    @property
    def frozen(self) -> Layer:
        return self.engine.layers[1]

    @property
    def head(self) -> Layer:
        return self.engine.layers[2]

    async def heal(self) -> None:
        """What was damaged can be read again, and all that was written is in SSTs."""
        self.world.store.objects.update(self.sound)
        await self.reopen()
        await self.engine.flush_memtable()
        assert not self.engine.writes.memtable

    async def reopen(self) -> None:
        """A crash, and a start."""
        self.engine, _ = await self.world.reopen(self.engine)


async def damaged() -> tuple[World, Engine, Layer, dict[str, bytes]]:
    """A store whose layer 1 has block 0 in a damaged object, and nothing of it in memory."""
    world = World()
    engine, layer = await world.start()
    layer.write(0, BASE)
    await engine.flush_memtable()
    table = max(world.store.names("compacted/"), key=lambda name: len(world.store.objects[name]))
    content = world.store.objects[table]
    world.store.objects[table] = content[:200] + bytes([content[200] ^ 1]) + content[201:]
    engine, layer = await world.reopen(engine)
    with pytest.raises(Corrupt):
        await layer.read(0, SECTOR)
    return world, engine, layer, {table: content}


@pytest.fixture
async def snapshot() -> AsyncIterator[Snapshot]:
    world, engine, layer, sound = await damaged()
    layer.write(100, b"piece")
    await world.change_trunks(engine, "freeze", 1, 2)
    pieced = Snapshot(world, engine, sound)
    yield pieced
    await world.crash(pieced.engine)


async def check(pieced: Snapshot, head: bytes) -> None:
    for again in (False, True):
        assert await read(pieced.frozen, 0, SECTOR) == PIECED
        assert await read(pieced.head, 0, SECTOR) == head
        if not again:
            await pieced.reopen()


async def test_both_show_it(snapshot: Snapshot) -> None:
    await snapshot.heal()
    await check(snapshot, PIECED)


@pytest.mark.parametrize("times", [1, 3])
@pytest.mark.parametrize("reopened", [False, True])
async def test_the_head_shows_it_after_another_sector_was_written(
    snapshot: Snapshot, times: int, reopened: bool
) -> None:
    for _ in range(times):
        snapshot.head.write(5 * SECTOR, b"w" * SECTOR)
        await snapshot.engine.flush_memtable()
        if reopened:
            await snapshot.reopen()
    await snapshot.heal()
    await check(snapshot, PIECED)
    assert await read(snapshot.head, 5 * SECTOR, SECTOR) == b"w" * SECTOR


async def test_a_part_that_was_written_since_lies_over_it(snapshot: Snapshot) -> None:
    snapshot.head.write(102, b"XX")
    await snapshot.engine.flush_memtable()
    snapshot.head.write(5 * SECTOR, b"w" * SECTOR)
    await snapshot.engine.flush_memtable()
    await snapshot.heal()
    await check(snapshot, PIECED[:102] + b"XX" + PIECED[104:])


async def test_the_sector_that_was_written_since_is_all_that_the_head_shows(snapshot: Snapshot) -> None:
    snapshot.head.write(0, b"w" * SECTOR)
    await snapshot.engine.flush_memtable()
    assert await read(snapshot.head, 0, SECTOR) == b"w" * SECTOR
    await snapshot.heal()
    await check(snapshot, b"w" * SECTOR)


@pytest.mark.parametrize("written", [False, True])
async def test_what_the_head_has_anew_in_the_same_flush_lies_over_no_part_of_it(written: bool) -> None:
    """The block is zeroed, or is an uploaded frame with a part over it, before the pieces were handed on."""
    world, engine, layer, sound = await damaged()
    layer.write(100, b"piece")
    reading = world.store.hold("get", "compacted/")
    taking = asyncio.ensure_future(world.change_trunks(engine, "freeze", 1, 2))
    await reading.someone_waits()
    head = engine.layers[2]
    want = bytes(SECTOR)
    if written:
        data = random.Random(1).randbytes(16 * BLOCK_BYTES)
        head.write(0, data)
        await durable(engine, head)
        assert isinstance(head.active.blocks[0].base, FrameRef), "it is uploaded"
        head.write(103, b"XX")
        want = data[:103] + b"XX" + data[105:SECTOR]
    else:
        head.zero(0, 3 * BLOCK_BYTES, allocated=False)
    await durable(engine, head)
    await world.crash(engine)
    with suppress(Closed):
        await taking
    engine, _ = await world.reopen(engine)  # all of it is in one memtable now
    head = engine.layers[2]
    held = world.store.hold("create", "compacted/")
    flushing = asyncio.ensure_future(engine.flush_memtable())
    await held.someone_waits()
    assert await read(head, 0, SECTOR) == want
    held.release()
    await soon(flushing)
    pieced = Snapshot(world, engine, sound)
    assert await read(pieced.head, 0, SECTOR) == want
    await pieced.heal()
    await check(pieced, want)
    await world.crash(pieced.engine)


@pytest.mark.parametrize("meanwhile", ["nothing", "a part", "the sector", "the block zeroed", "many zeroed"])
@pytest.mark.parametrize("fails", [False, True])
async def test_a_crash_in_the_flush_of_a_snapshot(meanwhile: str, fails: bool) -> None:
    """What was to be written again is in the log, and the snapshot in no manifest: a start does all of it."""
    world, engine, layer, sound = await damaged()
    layer.write(100, b"piece")
    manifests = world.store.hold("create", "manifest/")
    gets = world.store.hold("get", "compacted/")
    taking = asyncio.ensure_future(world.change_trunks(engine, "freeze", 1, 2))
    await gets.someone_waits()
    head = engine.layers[2]
    want = PIECED
    if meanwhile == "a part":
        head.write(102, b"XX")
        want = PIECED[:102] + b"XX" + PIECED[104:]
    elif meanwhile == "the sector":
        head.write(0, b"w" * SECTOR)
        want = b"w" * SECTOR
    elif meanwhile != "nothing":
        head.zero(0, BLOCK_BYTES * (3 if meanwhile == "many zeroed" else 1), allocated=False)
        want = bytes(SECTOR)
    gets.release()
    await manifests.someone_waits()
    await durable(engine, head)
    await world.crash(engine)
    with pytest.raises(Closed):
        await taking
    if not fails:
        world.store.objects.update(sound)
    pieced = Snapshot(world, await world.open(), sound)
    await pieced.engine.flush_memtable()
    if fails:
        pieced.head.write(5 * SECTOR, b"w" * SECTOR)
        await pieced.engine.flush_memtable()
        await pieced.heal()
    await check(pieced, want)
    await world.crash(pieced.engine)


@pytest.mark.parametrize(("verb", "number"), [("freeze", 2), ("clone", 1), ("rollback", 1), ("delete", 1)])
async def test_what_is_done_to_the_trunk_has_to_wait(snapshot: Snapshot, verb: str, number: int) -> None:
    with pytest.raises(Unreadable, match="wait until"):
        await snapshot.world.change_trunks(snapshot.engine, verb, number, 3)
    await snapshot.heal()
    await snapshot.world.change_trunks(snapshot.engine, verb, number, 3)
    if verb != "delete":
        assert await read(snapshot.engine.layers[3], 0, SECTOR) == PIECED


@pytest.mark.parametrize("reopened", [False, True])
@pytest.mark.parametrize(("verb", "number"), [("freeze", 2), ("clone", 1), ("rollback", 1), ("delete", 1)])
async def test_what_is_done_to_the_trunk_waits_no_longer_than_that(
    snapshot: Snapshot, verb: str, number: int, reopened: bool
) -> None:
    """What can be read again is put together first, whoever asks: nobody has to know of memtable flushes."""
    snapshot.world.store.objects.update(snapshot.sound)
    if reopened:
        await snapshot.reopen()
    await snapshot.world.change_trunks(snapshot.engine, verb, number, 3)
    if verb != "delete":
        assert await read(snapshot.engine.layers[3], 0, SECTOR) == PIECED


async def test_who_has_the_block_put_together_meanwhile_sees_it_when_it_is_in_an_sst() -> None:
    """What was put together of a snapshot's index goes when a flush puts into that what was kept over it."""
    world, engine, layer, sound = await damaged()
    for sector in range(1, 13, 2):
        layer.write(sector * SECTOR, b"w" * SECTOR)
        await engine.flush_memtable()
    layer.write(100, b"piece")
    await world.change_trunks(engine, "freeze", 1, 2)
    await engine.flush_memtable()
    world.store.objects.update(sound)
    snapshot, head = engine.layers[1], engine.layers[2]
    for shown in (snapshot, head):
        assert await read(shown, 0, BLOCK_BYTES) == await read(shown, 0, BLOCK_BYTES)
    assert 0 in snapshot.index.assembled, "it was put together"
    assert any(snapshot.own_memtables), "and a part of a sector lies over it"
    await engine.flush_memtable()
    assert not any(snapshot.own_memtables)
    for shown in (snapshot, head):
        assert await read(shown, 0, SECTOR) == PIECED
    await world.crash(engine)


async def test_a_part_lies_over_what_its_snapshot_has_in_the_same_flush() -> None:
    """As a start makes it of a log that was not flushed: one memtable with all of it."""
    world = World()
    engine, layer = await world.start()
    layer.write(0, BASE)
    await engine.flush_memtable()
    layer.write(0, b"s" * SECTOR)
    manifests = world.store.hold("create", "manifest/")
    taking = asyncio.ensure_future(world.change_trunks(engine, "freeze", 1, 2))
    await manifests.someone_waits()
    engine.layers[2].write(100, b"piece")
    await durable(engine, engine.layers[2])
    await world.crash(engine)
    with suppress(Closed):
        await taking
    engine, _ = await world.reopen(engine)
    want = b"s" * 100 + b"piece" + b"s" * (SECTOR - 105)
    for _ in range(2):
        assert await read(engine.layers[2], 0, SECTOR) == want
        assert await read(engine.layers[1], 0, SECTOR) == b"s" * SECTOR
        await engine.flush_memtable()
        assert not engine.writes.memtable
    await world.crash(engine)
