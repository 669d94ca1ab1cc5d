"""When a writer knew last that it is the only one: by a look that would have found another one's manifest."""

import asyncio
import time

import pytest

from storage.errors import Fenced, Unavailable
from storage.format.names import MANIFESTS
from storage.lsm.options import EngineOptions
from storage.objects.base import ObjectInfo
from tests.storage.lsm.worlds import World, durable
from tests.support.waiting import soon


def quiet() -> World:
    """One in which nobody looks by itself."""
    return World(options=EngineOptions(watch_seconds=3600.0))


async def test_it_is_known_since_the_look_began_and_not_since_its_answer() -> None:
    world = quiet()
    engine, layer = await world.start()
    opened = engine.manifests.sole_at
    assert opened is not None
    layer.write(0, b"a" * 4096)
    await durable(engine, layer)
    assert engine.manifests.sole_at == opened, "an object of the log tells nothing of manifests"
    for look in (engine.manifests.probe_newer, engine.manifests.look_for_newer):
        before = engine.manifests.sole_at
        asked = world.store.hold("head" if look == engine.manifests.probe_newer else "list", MANIFESTS)
        looking = asyncio.ensure_future(look())
        await asked.someone_waits()
        assert engine.manifests.sole_at == before
        on_its_way = time.monotonic()
        asked.release()
        await soon(looking)
        assert engine.manifests.sole_at is not None
        assert before is not None
        assert before < engine.manifests.sole_at <= on_its_way
    await world.crash(engine)


async def test_a_look_that_finds_another_one_or_gets_no_answer_is_none() -> None:
    world = quiet()
    engine, _ = await world.start()
    known = engine.manifests.sole_at
    world.store.fail_once("head", MANIFESTS, Unavailable("it does not answer"))
    with pytest.raises(Unavailable):
        await engine.manifests.probe_newer()
    newer = await world.open()
    for look in (engine.manifests.probe_newer, engine.manifests.look_for_newer):
        with pytest.raises(Fenced):
            await look()
    assert engine.manifests.sole_at == known
    await newer.close()
    await world.crash(engine)


async def test_an_answer_to_any_name_ends_no_writer(monkeypatch: pytest.MonkeyPatch) -> None:
    """A server of pages, in the store's place for a moment, has something under every name; a listing it has not."""
    world = quiet()
    engine, _ = await world.start()
    known = engine.manifests.sole_at
    with monkeypatch.context() as patch:
        patch.setattr(world.store, "head", lambda name: asyncio.sleep(0, ObjectInfo(name, 612)))
        await engine.manifests.probe_newer()
    assert engine.manifests.sole_at == known, "it does not say that nobody is there, either"
    await world.crash(engine)
