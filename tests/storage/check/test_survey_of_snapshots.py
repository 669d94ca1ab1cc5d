"""A device with many snapshots: a check looks at what each holds, and finds what a look at all of each would find."""

import random
from collections.abc import Sequence

import pytest

from storage.check import analysis
from storage.check.analysis import LayerMaps
from storage.check.findings import Finding
from storage.check.visible import Blocks, Pages, PartRows, Visible, visible
from storage.format.blocks import FrameRef
from storage.lsm.engine import Engine
from storage.lsm.index.reverse_delta import ReverseDelta
from storage.lsm.layer import Layer
from storage.lsm.options import EngineOptions, MaintenanceOptions
from tests.storage.check.test_survey import at_rest, running
from tests.storage.lsm.worlds import MIB, World, durable
from tests.support.examples import first_soon
from tests.support.inside import layers_of

BLOCK, SECTOR = 256 * 1024, 4096
BLOCKS = 12
FEW, MANY = BLOCKS, 5 * BLOCKS
"""Blocks of a device, of which only the first are written to between snapshots."""


async def snapshots(count: int, chance: random.Random, blocks: int = BLOCKS) -> tuple[World, Engine]:
    """A store whose device got so many snapshots, and was written to between them."""
    world = World(options=EngineOptions(cache_bytes=16 * MIB, maintenance=MaintenanceOptions(look_seconds=1e9)))
    engine, layer = await world.start()
    for block in range(blocks):
        layer.write(block * BLOCK, bytes([block + 1]) * BLOCK)
    for number in range(1, count + 1):
        for _ in range(2):
            write(layer, chance)
        await durable(engine, layer)
        await world.change_trunks(engine, "freeze", number, number + 1)
        await engine.flush_memtable()
    write(layer, chance)
    await engine.flush_memtable()
    return world, engine


def write(layer: Layer, chance: random.Random) -> None:
    block = chance.randrange(BLOCKS)
    match chance.randrange(4):
        case 0:
            layer.write(block * BLOCK, chance.randbytes(SECTOR) * 64)
        case 1:
            layer.zero(block * BLOCK, 2 * BLOCK, allocated=chance.random() < 0.5)
        case _:
            layer.write(block * BLOCK + chance.randrange(64) * SECTOR, chance.randbytes(SECTOR))


def mistake(engine: Engine, chance: random.Random) -> None:
    """The map of one of the layers says of a block that it holds what some other one holds, or is somewhat wrong."""
    forest = layers_of(engine).forest
    (trunk,) = forest.trunks()
    at = chance.randrange(len(trunk.layers))
    index, block = trunk.maps()[at], chance.randrange(BLOCKS)
    if isinstance(index, ReverseDelta) and not index.holds(block):
        index.record(block, trunk.holder(at, block))
    frames = [
        found.content
        for layer in engine.layers.values()
        for some in range(BLOCKS)
        for found in layer.index.find(some)
        if isinstance(found.content, FrameRef)
    ]
    frame = chance.choice(frames)
    tag = chance.choice([frame.tag, frame.tag, 1])
    with trunk.changing_alone():  # no snapshot keeps what stood there
        index.set_base(block, location=frame.location, length=frame.length, tag=tag)


def sectors(findings: list[Finding]) -> set[tuple[str, str, int, int]]:
    return {
        (finding.kind.value, finding.object, span.layer, at)
        for finding in findings
        for span in finding.ranges
        for at in range(span.offset, span.offset + span.length, SECTOR)
    }


@pytest.mark.parametrize("seed", first_soon(range(8)))
async def test_what_is_wrong_is_found_of_each_layer_that_shows_it(seed: int, monkeypatch: pytest.MonkeyPatch) -> None:
    chance = random.Random(f"snapshots {seed}")
    world, engine = await snapshots(8, chance)
    assert await running(world, engine) == []
    assert await at_rest(world) == []
    for _ in range(4):
        mistake(engine, chance)
        found = await running(world, engine)
        with monkeypatch.context() as each_alone:
            each_alone.setattr(LayerMaps, "goes_on", lambda own, newer: False)
            assert sectors(found) == sectors(await running(world, engine))
    await world.crash(engine)


async def test_it_costs_what_was_written_and_not_what_each_snapshot_shows(monkeypatch: pytest.MonkeyPatch) -> None:
    looked = 0

    def counted(parts: Sequence[PartRows], pages: Pages, wanted: Blocks) -> Visible:
        nonlocal looked
        found = visible(parts, pages, wanted)
        looked += len(found.bases["block"])
        return found

    monkeypatch.setattr(analysis, "visible", counted)
    costs = {}
    for blocks in (FEW, MANY):
        world, engine = await snapshots(8, random.Random(1), blocks)
        looked = 0
        assert await running(world, engine) == []
        costs[blocks] = looked
        await world.crash(engine)
    # What is written to no more is looked at in the head and in the layer that it was written to, and not in the seven
    # between them: each in memory, and as it was made again.
    assert costs[MANY] <= costs[FEW] + 2 * 2 * (MANY - FEW), costs
