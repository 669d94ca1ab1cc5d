"""Devices with snapshots, clones of them, some rolled back, and some snapshots gone: whatever is lost or wrong is found
of each layer that shows it, as a look at all that each layer shows would find it.
"""

import random
from collections.abc import Sequence

import pytest

from storage.check.analysis import LayerMaps
from storage.check.findings import Finding
from storage.errors import StorageError
from storage.format.blocks import FrameRef
from storage.format.names import sst_id
from storage.lsm.compaction.plan import WriteCheckpoint
from storage.lsm.engine import Engine
from storage.lsm.index.page import PAGE_MASK, PAGE_SHIFT
from storage.lsm.index.reverse_delta import ReverseDelta
from storage.lsm.options import EngineOptions, MaintenanceOptions
from tests.storage.check.test_survey import at_rest, running
from tests.storage.check.test_survey_of_snapshots import BLOCK, BLOCKS, sectors, write
from tests.storage.lsm.worlds import MIB, World, durable
from tests.support.examples import first_soon
from tests.support.inside import layers_of

STEPS = 14


async def tree(chance: random.Random) -> tuple[World, Engine]:
    """A store after some steps: heads written to, snapshots taken and deleted, cloned and rolled back to."""
    world = World(options=EngineOptions(cache_bytes=16 * MIB, maintenance=MaintenanceOptions(look_seconds=1e9)))
    engine, layer = await world.start()
    for block in range(BLOCKS):
        layer.write(block * BLOCK, bytes([block + 1]) * BLOCK)
    await world.change_trunks(engine, "freeze", 1, 2)
    for _ in range(STEPS):
        trunk = chance.choice(list(world.tree.trunks()))
        snapshots, head = trunk[:-1], engine.layers[trunk[-1]]
        for _ in range(chance.randrange(4)):
            write(head, chance)
        await durable(engine, head)
        if chance.random() < 0.5:
            await engine.flush_memtable()
        match chance.randrange(7 if snapshots else 2):
            case 0 | 1:
                await world.change_trunks(engine, "freeze", trunk[-1], world.tree.next)
            case 2:
                await world.change_trunks(engine, "clone", chance.choice(snapshots), world.tree.next)
            case 3:
                await world.change_trunks(engine, "rollback", chance.choice(snapshots), world.tree.next)
            case 4 if len(snapshots) > 1:
                await world.change_trunks(engine, "delete", chance.choice(snapshots))
            case 5:
                await engine.compactor.do(WriteCheckpoint("the test says so"))
    await engine.flush_memtable()
    return world, engine


async def assert_as_a_look_at_all(world: World, engine: Engine | None, patch: pytest.MonkeyPatch) -> list[Finding]:
    """Look as a check does, and at all that each layer shows: the same is found."""

    async def look() -> list[Finding]:
        return await at_rest(world) if engine is None else await running(world, engine)

    found = await look()
    with patch.context() as each_alone:
        each_alone.setattr(LayerMaps, "goes_on", lambda own, newer: False)
        assert sectors(found) == sectors(await look())
    return found


def blocks_of(found: Sequence[Finding]) -> set[tuple[int, int]]:
    return {
        (span.layer, block)
        for finding in found
        for span in finding.ranges
        for block in range(span.offset // BLOCK, -(-(span.offset + span.length) // BLOCK))
    }


@pytest.mark.parametrize("seed", first_soon(range(6)))
async def test_what_is_lost_is_found_of_each_layer_that_shows_it(seed: int, monkeypatch: pytest.MonkeyPatch) -> None:
    chance = random.Random(f"lost {seed}")
    world, engine = await tree(chance)
    assert await running(world, engine) == []
    if chance.random() < 0.7:
        await engine.compactor.do(WriteCheckpoint("the test says so"))
    assert await at_rest(world) == []
    names = sorted(name for name in world.store.objects if sst_id(name))
    for name in chance.sample(names, min(len(names), 4)):
        sound = world.store.objects[name]
        reader = await world.open(read_only=True)
        if chance.random() < 0.5:
            del world.store.objects[name]
        else:
            world.store.objects[name] = sound[: len(sound) // 2]
        lost = set()
        for number, layer in reader.layers.items():
            for block in reversed(range(BLOCKS)):  # so that nothing is read ahead with it
                try:
                    await layer.read(block * BLOCK, BLOCK)
                except StorageError:
                    lost.add((number, block))
        await reader.close()
        found = await assert_as_a_look_at_all(world, engine, monkeypatch)
        assert lost <= blocks_of(found)
        await assert_as_a_look_at_all(world, None, monkeypatch)
        world.store.objects[name] = sound
    assert await running(world, engine) == []
    await world.crash(engine)


def forget(index: ReverseDelta, block: int) -> None:
    page = index.pages[block >> PAGE_SHIFT]
    row = page.row(block & PAGE_MASK)
    for column in (page.at, page.location, page.length, page.tag, page.head):
        del column[row]


def forgets(engine: Engine, chance: random.Random) -> bool:
    """A snapshot does not know a block any more, and shows of it what is newer. False: none knows any."""
    held = [
        (index, block)
        for index in layers_of(engine).forest.maps().values()
        if isinstance(index, ReverseDelta)
        for block in index.blocks()
    ]
    if not held:
        return False
    index, block = chance.choice(held)
    forget(index, block)
    return True


def confuses(engine: Engine, chance: random.Random) -> None:
    """The map of some layer says of a block it knows that it is what any layer has anywhere."""
    maps = layers_of(engine).forest.maps()
    frames = [
        found.content
        for layer in engine.layers.values()
        for block in range(BLOCKS)
        for found in layer.index.find(block)
        if isinstance(found.content, FrameRef)
    ]
    index = maps[chance.choice(sorted(maps))]
    known = list(index.blocks()) if isinstance(index, ReverseDelta) else list(range(BLOCKS))
    if known:
        frame = chance.choice(frames)
        index.set_base(chance.choice(known), location=frame.location, length=frame.length, tag=frame.tag)


@pytest.mark.parametrize("seed", first_soon(range(6)))
async def test_what_an_index_mistakes_is_found_as_a_look_at_all_finds_it(
    seed: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """In memory; and in a checkpoint, which took it for true, where the SSTs alone know better."""
    chance = random.Random(f"mistaken {seed}")
    world, engine = await tree(chance)
    for _ in range(3):
        if chance.random() < 0.6 or not forgets(engine, chance):
            confuses(engine, chance)
        await assert_as_a_look_at_all(world, engine, monkeypatch)
        if chance.random() < 0.6:
            await engine.compactor.do(WriteCheckpoint("the test says so"))
        await assert_as_a_look_at_all(world, engine, monkeypatch)
        await assert_as_a_look_at_all(world, None, monkeypatch)
    await world.crash(engine)


async def test_a_snapshot_that_shows_what_was_written_after_it_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    """Its index forgot the block, and so did the checkpoint: nothing else tells it from one that was not replaced."""
    world = World()
    engine, layer = await world.start()
    layer.write(0, b"a" * BLOCK)
    await world.change_trunks(engine, "freeze", 1, 2)
    await world.change_trunks(engine, "freeze", 2, 3)
    engine.layers[3].write(0, b"b" * BLOCK)
    await engine.flush_memtable()
    (older, newer) = layers_of(engine).forest.trunk(3).deltas
    assert isinstance(newer, ReverseDelta)
    assert not older.holds(0)
    assert newer.holds(0)
    forgets(engine, random.Random(0))
    await engine.compactor.do(WriteCheckpoint("the test says so"))
    for found in (await running(world, engine), await at_rest(world)):
        assert blocks_of(found) == {(1, 0), (2, 0)}
    await world.crash(engine)


@pytest.mark.parametrize("blocks", [1, 1000])
async def test_what_was_discarded_before_a_snapshot_and_shows_again_is_found(blocks: int) -> None:
    """In the index of the head, from which the snapshot has it too: only that one was discarded, as the SSTs say."""
    world = World()
    engine, layer = await world.start()
    layer.write(0, b"a" * BLOCK)
    await engine.flush_memtable()
    (before,) = layer.index.find(0)
    assert isinstance(before.content, FrameRef)
    await world.change_trunks(engine, "freeze", 1, 2)
    engine.layers[2].zero(0, blocks * BLOCK, allocated=False)
    await engine.flush_memtable()
    await world.change_trunks(engine, "freeze", 2, 3)
    frame = before.content
    layers_of(engine).forest.heads()[3].set_base(0, location=frame.location, length=frame.length, tag=frame.tag)
    delta = layers_of(engine).forest.trunk(3).deltas[1]
    forget(delta, 0)  # which the mistake itself made it keep
    await engine.compactor.do(WriteCheckpoint("the test says so"))
    for found in (await running(world, engine), await at_rest(world)):
        assert blocks_of(found) == {(2, 0)}
    await world.crash(engine)
