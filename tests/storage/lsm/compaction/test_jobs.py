"""Every job on random histories: after each step memory and a fresh start on the same store say what was written."""

import asyncio
import random
from collections.abc import Callable

import pytest

from storage.format.names import sst_name
from storage.lsm.compaction.plan import (
    Consolidate,
    Drop,
    Job,
    PatchedBlock,
    Repack,
    StoreFacts,
    WriteCheckpoint,
    next_job,
)
from storage.lsm.engine import Engine
from storage.lsm.layer import Layer
from storage.lsm.options import MaintenanceOptions
from storage.lsm.read.gathered import PIECES_MIN
from tests.storage.lsm.worlds import World, durable, read, record
from tests.support.examples import first_soon
from tests.support.idle import idle

BLOCK = 256 * 1024
SECTOR = 4096
BLOCKS = 3
SIZE = BLOCKS * BLOCK


class Disk:
    """A layer, what it must hold, and the chance that decides what happens."""

    def __init__(self, world: World, engine: Engine, layer: Layer, seed: int) -> None:
        self.world = world
        self.engine = engine
        self.layer = layer
        self.content = bytearray(SIZE)
        self.chance = random.Random(seed)
        self.done: dict[str, int] = {}

    async def write(self) -> None:
        chance = self.chance
        for _ in range(chance.randrange(1, 12)):
            kind = chance.random()
            if kind < 0.7:
                length = SECTOR * chance.choice([1, 1, 1, 2, 7])
                offset = SECTOR * chance.randrange(SIZE // SECTOR - 7)
            elif kind < 0.85:
                length, offset = BLOCK, BLOCK * chance.randrange(BLOCKS)
            else:
                length, offset = chance.randrange(1, 3000), chance.randrange(SIZE - 3000)
            if chance.random() < 0.2:
                self.layer.zero(offset, length, allocated=chance.random() < 0.3)
                self.content[offset : offset + length] = bytes(length)
            else:
                data = bytes([chance.randrange(1, 256)]) * length
                self.layer.write(offset, data)
                self.content[offset : offset + length] = data

    async def flush(self) -> None:
        await self.write()
        await durable(self.engine, self.layer)
        await self.engine.flush_memtable(always=True)

    async def crash(self) -> None:
        await durable(self.engine, self.layer)
        self.engine, self.layer = await self.world.reopen(self.engine)

    async def job(self) -> None:
        # One at a time: the writer itself looks for one as soon as it begins.
        async with self.engine.compactor.working:
            jobs = await possible(self.engine)
            job = self.chance.choice(jobs) if jobs else None
            if job is not None:
                await self.engine.compactor.do(job)
        if job is not None:
            self.engine.compactor.delete_replaced()
            name = type(job).__name__
            self.done[name] = self.done.get(name, 0) + 1

    async def check(self) -> None:
        assert await read(self.layer, 0, SIZE) == self.content
        await durable(self.engine, self.layer)
        reader = await self.world.open(read_only=True)
        try:
            assert await read(reader.layers[1], 0, SIZE) == self.content
        finally:
            await reader.close()


async def possible(engine: Engine) -> list[Job]:
    """Every job that would be right to do now, worth it or not."""
    seen: StoreFacts = await engine.compactor.look()
    jobs: list[Job] = [WriteCheckpoint("the test says so")]
    merged = [sst for sst in seen.ssts if sst.merged]
    dead = tuple(sst for sst in merged if not sst.live)
    if dead:
        jobs += [Drop(dead), Drop(dead[:1])]
    live = [sst for sst in merged if sst.live]
    jobs += [Repack((sst,), "one") for sst in live[:3]]
    if len(live) > 1:
        jobs.append(Repack(tuple(live[-4:]), "several"))
    blocks = tuple(
        PatchedBlock(number, block, 1, 1)
        for number, layer in engine.layers.items()
        for block in range(BLOCKS)
        if layer.index.is_patched(block)
    )
    jobs += [Consolidate(blocks[:1]), Consolidate(blocks)] if blocks else []
    return jobs


@pytest.mark.parametrize("seed", first_soon(range(12)))
async def test_no_job_changes_what_a_disk_holds(seed: int) -> None:
    world = World()
    engine, layer = await world.start()
    disk = Disk(world, engine, layer, seed)
    steps: list[Callable[[], object]] = [disk.write, disk.flush, disk.flush, disk.job, disk.job, disk.job, disk.crash]
    for _ in range(60):
        await disk.chance.choice(steps)()  # type: ignore[misc]
        await disk.check()
    await disk.engine.close()
    assert {"Consolidate", "Repack", "WriteCheckpoint"} <= disk.done.keys()


@pytest.mark.fast
async def test_a_block_that_readers_gather_often_is_consolidated_though_the_disk_is_written_to() -> None:
    world = World()
    engine, layer = await world.start()
    layer.write(0, b"a" * BLOCK)
    await engine.flush_memtable()
    for sector in range(PIECES_MIN):
        layer.write(sector * SECTOR, b"b" * SECTOR)
        await engine.flush_memtable()
    assert next_job(await engine.compactor.look(), MaintenanceOptions()) is None
    for _ in range(2):
        for location in list(engine.source.cache.entries):
            engine.source.cache.discard(location)
        await read(layer, 0, BLOCK)
    job = next_job(await engine.compactor.look(), MaintenanceOptions())
    assert job == Consolidate((PatchedBlock(1, 0, PIECES_MIN, PIECES_MIN, often_gathered=True),))
    assert await engine.compactor.step()
    assert not layer.gathered.often
    assert not layer.index.is_patched(0)
    assert await read(layer, 0, BLOCK) == b"b" * SECTOR * PIECES_MIN + b"a" * (BLOCK - SECTOR * PIECES_MIN)
    await engine.close()


@pytest.mark.fast
async def test_everything_that_is_dead_goes() -> None:
    world = World()
    engine, layer = await world.start()
    disk = Disk(world, engine, layer, 5)
    for _ in range(20):
        await disk.flush()
    layer.zero(0, SIZE, allocated=False)
    await engine.flush_memtable()
    await engine.compactor.do(WriteCheckpoint("all is dead"))
    dead = [job for job in await possible(engine) if isinstance(job, Drop)]
    await engine.compactor.do(dead[0])
    engine.compactor.delete_replaced()
    await engine.close()
    assert [name for name in world.store.names("compacted/") if name not in named(engine)] == []
    assert not len(engine.manifests.listed())


def named(engine: Engine) -> set[str]:
    manifest = engine.manifests.manifest
    return {sst_name(ref.id) for ref in (manifest.tree, manifest.checkpoint) if ref is not None}


@pytest.mark.fast
async def test_a_device_that_is_gone_takes_its_ssts_with_it_only_once_that_is_durable() -> None:
    world = World()
    engine, layer = await world.start()
    disk = Disk(world, engine, layer, 5)
    await disk.flush()
    await engine.compactor.do(WriteCheckpoint("for the test"))
    held = world.store.hold("create", "wal/")
    engine.change_tree(record("drop", 1))
    facts = tuple((await engine.compactor.look()).ssts)
    assert all(not sst.live for sst in facts)
    numbers = engine.manifests.number
    task = asyncio.ensure_future(engine.compactor.do(Drop(facts)))
    await held.someone_waits()
    await idle()
    assert engine.manifests.number == numbers, "the SSTs left before the record that lets them go"
    task.cancel()
    engine, layer = await world.reopen(engine)
    assert await read(layer, 0, SIZE) == disk.content
    await engine.close()


@pytest.mark.fast
async def test_a_frame_that_does_not_open_is_not_copied() -> None:
    world = World()
    engine, layer = await world.start()
    disk = Disk(world, engine, layer, 7)
    await disk.flush()
    await disk.flush()
    await engine.compactor.do(WriteCheckpoint("for the test"))
    victim = next(sst for sst in (await engine.compactor.look()).ssts if sst.live)
    name = sst_name(victim.id)
    raw = bytearray(world.store.objects[name])
    raw[96 + 30] ^= 1
    world.store.objects[name] = bytes(raw)
    before = engine.manifests.number
    await engine.compactor.do(Repack((victim,), "for the test"))
    assert engine.manifests.number == before
    assert victim.id in (await engine.compactor.look()).skipped
    assert name in world.store.objects
    assert not engine.failed.done()
    await engine.close()


@pytest.mark.fast
@pytest.mark.parametrize("kind", [WriteCheckpoint, Repack])
async def test_no_job_is_committed_before_the_tree_that_it_shows_is_durable(kind: type[Job]) -> None:
    """What a layer holds that is gone in memory only is neither in the checkpoint nor copied."""
    world = World()
    engine, layer = await world.start()
    await engine.change_tree(record("create", 2))
    disk = Disk(world, engine, layer, 5)
    engine.layers[2].write(0, b"2" * SECTOR)
    await disk.flush()
    await engine.compactor.do(WriteCheckpoint("for the test"))
    victims = tuple(sst for sst in (await engine.compactor.look()).ssts if sst.live)
    held = world.store.hold("create", "wal/")
    engine.change_tree(record("drop", 1))
    before = engine.manifests.number
    job = Repack(victims, "for the test") if kind is Repack else WriteCheckpoint("for the test")
    task = asyncio.ensure_future(engine.compactor.do(job))
    await held.someone_waits()
    await idle()
    assert engine.manifests.number == before, "a crash now would bring the layer back without its content"
    task.cancel()
    engine, layer = await world.reopen(engine)
    assert await read(layer, 0, SIZE) == disk.content
    await engine.close()


@pytest.mark.parametrize("allocated", [True, False])
async def test_a_block_that_was_zeroed_since_it_was_chosen_is_as_allocated_as_before(allocated: bool) -> None:
    """The zeros count from the same moment as what the job would write of them: a start took the zeros, memory that."""
    world = World()
    engine, layer = await world.start()
    layer.write(0, b"a" * SECTOR)
    await engine.flush_memtable()
    layer.zero(0, BLOCK, allocated=allocated)
    await engine.flush_memtable()
    before = layer.extents(0, BLOCK)
    await engine.compactor.do(Consolidate((PatchedBlock(1, 0, 1, 1),)))
    assert layer.extents(0, BLOCK) == before
    _, layer = await world.reopen(engine)
    assert layer.extents(0, BLOCK) == before
