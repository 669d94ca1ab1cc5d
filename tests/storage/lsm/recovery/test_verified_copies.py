"""The newest manifest of a store that nobody changes, and its copy, are read now and then by its writer: what is not as
it was written is said, and there are two sound ones again before the other one is lost.
"""

import asyncio
import logging
from collections.abc import Callable

import pytest

from storage.errors import AccessDenied
from storage.format.names import SPARES, manifest_name, spare_manifest_name
from storage.lsm.engine import Engine
from storage.lsm.manifest.spare_copies import VERIFY_SECONDS
from storage.lsm.options import EngineOptions, MaintenanceOptions
from tests.simulation.virtual import virtually
from tests.storage.lsm.recovery.test_spare_manifest import flip
from tests.storage.lsm.worlds import World, read
from tests.support.waiting import until

DAY = 24 * 3600.0
QUIET = EngineOptions(
    watch_seconds=DAY, sweep_seconds=DAY, flush_seconds=DAY * 9, maintenance=MaintenanceOptions(look_seconds=DAY)
)
"""An engine that does little else in all that time."""

DATA = b"acknowledged" * 100


async def written(world: World) -> Engine:
    engine, layer = await world.start()
    layer.write(0, DATA)
    await engine.flush_memtable()
    await engine.copies.settled()
    return engine


def both(engine: Engine) -> tuple[str, str]:
    return manifest_name(engine.manifests.number), spare_manifest_name(engine.manifests.number)


WAYS: dict[str, Callable[[bytes], bytes | None]] = {
    "flipped": flip,
    "cut": lambda content: content[:-1],
    "empty": lambda _: b"",
    "deleted": lambda _: None,
}


@virtually
async def test_a_copy_that_is_not_what_was_written_is_written_again(caplog: pytest.LogCaptureFixture) -> None:
    world = World(options=QUIET)
    engine = await written(world)
    name, copy = both(engine)
    for way, damage in WAYS.items():
        caplog.clear()
        spoil(world, copy, damage)
        await asyncio.sleep(VERIFY_SECONDS * 1.1)
        assert world.store.objects[copy] == world.store.objects[name], way
        assert "spare_copy_damaged" in caplog.messages
        assert both(engine) == (name, copy), "no other manifest was needed"
    await world.crash(engine)


@virtually
async def test_where_the_manifest_itself_is_damaged_another_one_follows(caplog: pytest.LogCaptureFixture) -> None:
    """Also where its copy is damaged too: what it says is in this process's memory."""
    for copies_too in (False, True):
        for way, damage in WAYS.items():
            caplog.clear()
            world = World(options=QUIET)
            engine = await written(world)
            before = both(engine)
            for name in before if copies_too else before[:1]:
                spoil(world, name, damage)
            await asyncio.sleep(VERIFY_SECONDS * 1.1)
            name, copy = both(engine)
            assert name > before[0], way
            assert world.store.objects[copy] == world.store.objects[name]
            assert "manifest_found_damaged" in caplog.messages
            await world.crash(engine)
            engine = await world.open()
            assert await read(engine.layers[1], 0, len(DATA)) == DATA
            await world.crash(engine)


@virtually
async def test_what_is_sound_is_left_alone(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.WARNING)
    world = World(options=QUIET)
    engine = await written(world)
    await asyncio.sleep(60)
    before = dict(world.store.objects)
    asked = world.store.count("get", SPARES)
    await asyncio.sleep(VERIFY_SECONDS * 3.5)
    assert world.store.objects == before
    assert 3 <= world.store.count("get", SPARES) - asked <= 6
    assert not caplog.messages
    await world.crash(engine)


@virtually
async def test_a_copy_that_cannot_be_written_again_is_said() -> None:
    world = World(options=QUIET)
    engine = await written(world)
    _, copy = both(engine)
    del world.store.objects[copy]
    world.store.deny("create", SPARES, AccessDenied("no"))
    await asyncio.sleep(VERIFY_SECONDS * 1.1)
    assert why(engine) == "no"
    assert engine.copies.failing_since > 0
    world.store.denials.clear()
    await asyncio.sleep(600)
    assert why(engine) is None
    assert copy in world.store.objects
    await world.crash(engine)


def why(engine: Engine) -> str | None:
    """Why the newest manifest has no copy."""
    return engine.copies.failing


def spoil(world: World, name: str, damage: Callable[[bytes], bytes | None]) -> None:
    content = damage(world.store.objects.pop(name))
    if content is not None:
        world.store.objects[name] = content


@virtually
async def test_another_sound_manifest_of_its_number_is_not_it(caplog: pytest.LogCaptureFixture) -> None:
    """Such as one that somebody put back from a backup of another history."""
    world, elsewhere = World(options=QUIET), World(options=QUIET)
    engine, other = await written(world), await written(elsewhere)
    name, copy = both(engine)
    assert both(other) == (name, copy)
    world.store.objects[name] = elsewhere.store.objects[name]
    await asyncio.sleep(VERIFY_SECONDS * 1.1)
    assert "manifest_found_damaged" in caplog.messages
    assert both(engine) > (name, copy), "another one follows"
    await world.crash(other)
    engine, layer = await world.reopen(engine)
    assert await read(layer, 0, len(DATA)) == DATA
    await world.crash(engine)


async def test_a_manifest_that_came_while_the_one_before_was_copied_is_copied_too() -> None:
    """Else there would be no copy of the newest one, and nothing would say so."""
    world = World(options=QUIET)
    engine = await written(world)
    held = world.store.hold("create", SPARES)
    layer = engine.layers[1]
    layer.write(0, DATA)
    await engine.flush_memtable()
    await held.someone_waits()
    layer.write(0, DATA)
    await engine.flush_memtable()
    held.release()
    name, copy = both(engine)
    await until(lambda: copy in world.store.objects)
    assert world.store.objects[copy] == world.store.objects[name]
    await world.crash(engine)
