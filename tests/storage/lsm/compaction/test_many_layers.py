"""A job asks the maps that may refer to what it moves, and not every layer of the store for each frame or block."""

from collections import Counter
from collections.abc import Callable
from typing import Any

import pytest

from storage.lsm.compaction.plan import Consolidate, Job, PatchedBlock, Repack, WriteCheckpoint
from storage.lsm.engine import Engine
from storage.lsm.index.block_map import BlockMap
from storage.lsm.index.forest import Forest
from storage.lsm.index.page import PAGE_BLOCKS
from storage.lsm.index.reverse_delta import ReverseDelta
from storage.lsm.options import EngineOptions
from tests.storage.lsm.worlds import World, durable, read, record

BLOCK = 256 * 1024
SECTOR = 4096
BLOCKS = 3
PATCHES = 2


@pytest.fixture
def calls(monkeypatch: pytest.MonkeyPatch) -> Counter[str]:
    """How often maps were asked for a frame, and all heads looked at."""
    counts: Counter[str] = Counter()

    def count(cls: type, name: str) -> None:
        inner: Callable[..., Any] = getattr(cls, name)

        def counted(self: object, *args: object) -> object:
            counts[name] += 1
            return inner(self, *args)

        monkeypatch.setattr(cls, name, counted)

    count(BlockMap, "move")
    count(ReverseDelta, "move")
    count(Forest, "heads")
    return counts


def content(number: int, block: int) -> bytes:
    return bytes([number * BLOCKS + block + 1]) * SECTOR


async def disks(world: World, count: int) -> Engine:
    """Each has some blocks on a page that it alone has, which are patched."""
    engine = await world.open()
    for number in range(1, count + 1):
        await engine.change_tree(record("create", number))
    for _ in range(PATCHES):
        for number in range(1, count + 1):
            layer = engine.layers[number]
            for block in range(BLOCKS):
                at = (number * PAGE_BLOCKS + block) * BLOCK
                layer.write(at, content(number, block))
            await durable(engine, layer)
        await engine.flush_memtable()
    return engine


async def right(world: World, engine: Engine, count: int) -> None:
    """What is shown, and by a fresh start too, is what was written."""
    for one in (engine, await world.open(read_only=True)):
        for number in range(1, count + 1):
            for block in range(BLOCKS):
                at = (number * PAGE_BLOCKS + block) * BLOCK
                assert await read(one.layers[number], at, SECTOR) == content(number, block)


async def job_of(engine: Engine, kind: type[Job]) -> Job:
    if kind is Repack:
        await engine.compactor.do(WriteCheckpoint("for the test"))
        seen = await engine.compactor.look()
        return Repack(tuple(sst for sst in seen.ssts if sst.live), "for the test")
    return Consolidate(tuple(PatchedBlock(number, number * PAGE_BLOCKS, 1, 1) for number in sorted(engine.layers)))


async def done(kind: type[Job], count: int, calls: Counter[str]) -> Counter[str]:
    """What a job of so many disks asked."""
    world = World()
    engine = await disks(world, count)
    async with engine.compactor.working:
        job = await job_of(engine, kind)
        calls.clear()
        await engine.compactor.do(job)
    asked = calls.copy()
    await right(world, engine, count)
    await engine.close()
    return asked


async def test_a_repack_asks_the_maps_that_have_the_page_of_a_frame(calls: Counter[str]) -> None:
    frames = 8 * BLOCKS * PATCHES
    assert (await done(Repack, 8, calls))["move"] == frames


async def test_a_consolidation_looks_at_all_heads_no_more_often_with_more_blocks(calls: Counter[str]) -> None:
    few = await done(Consolidate, 2, calls)
    assert (await done(Consolidate, 12, calls))["heads"] == few["heads"]


async def test_every_map_that_has_the_page_is_pointed_to_the_copies() -> None:
    """A snapshot, a head and a clone: what was repacked is gone, and none of them misses it."""
    world = World(options=EngineOptions(cache_bytes=0))
    engine, layer = await world.start()
    layer.write(0, b"a" * SECTOR)
    await engine.flush_memtable()
    await world.change_trunks(engine, "freeze", 1, 2)
    engine.layers[2].write(0, b"b" * SECTOR)
    await engine.flush_memtable()
    await world.change_trunks(engine, "clone", 1, 3)
    before = set(world.store.names("compacted/"))
    async with engine.compactor.working:
        job = await job_of(engine, Repack)
        await engine.compactor.do(job)
    engine.compactor.delete_replaced()
    await engine.garbage.delete_now()
    assert before - set(world.store.names("compacted/")) > set()
    for one in (engine, await world.open(read_only=True)):
        shown = [await read(one.layers[number], 0, SECTOR) for number in (1, 2, 3)]
        assert shown == [b"a" * SECTOR, b"b" * SECTOR, b"a" * SECTOR]
    await engine.close()
