"""What changed since a snapshot, while one is being taken: never less, also of what no index shows yet."""

import asyncio

import pytest

from storage.errors import NotFound
from storage.fs.devices.changes import CHANGED, Changes
from storage.lsm.engine import Engine
from tests.storage.lsm.worlds import World
from tests.support.waiting import soon

SECTOR = 4096
RANGE = 3 * SECTOR


def said(engine: Engine, snapshot: int, layer: int) -> list[tuple[int, int]]:
    return Changes(engine.layers, engine.forest, snapshot, engine.layers[layer]).extents(0, RANGE)


async def test_while_a_newer_snapshot_is_taken() -> None:
    world = World()
    engine, layer = await world.start()
    layer.write(0, b"a" * RANGE)
    await world.change_trunks(engine, "freeze", 1, 2)
    head = engine.layers[2]
    head.write(SECTOR, b"b" * SECTOR)
    manifests = world.store.hold("create", "manifest/")
    taking = asyncio.ensure_future(world.change_trunks(engine, "freeze", 2, 3))
    await manifests.someone_waits()
    changed = [(SECTOR, 0), (SECTOR, CHANGED), (SECTOR, 0)]
    assert said(engine, 1, 2) == changed, "the new snapshot since the old one"
    assert said(engine, 2, 1) == changed, "and the other way round"
    assert said(engine, 1, 3) == changed, "the head since the old one"
    head.write(0, b"c" * SECTOR)
    assert said(engine, 2, 3)[0][1] == CHANGED, "the head since the new one: more may be said, while it is being taken"
    manifests.release()
    await soon(taking)
    assert said(engine, 1, 2) == said(engine, 2, 1) == changed
    assert said(engine, 2, 3) == [(SECTOR, CHANGED), (2 * SECTOR, 0)]
    since = Changes(engine.layers, engine.forest, 2, engine.layers[3])
    await world.change_trunks(engine, "delete", 2)
    with pytest.raises(NotFound, match="was deleted"):
        since.extents(0, RANGE)
    await world.crash(engine)
