"""However many SSTs a store lists, who asks what is due or what was read lets others run in between."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest

from storage.check.read_times import StoredReadTimes
from storage.check.scrub import DUE_AT_ONCE
from storage.env import object_id
from storage.format.blocks import SstRef
from storage.format.sst_list import SstList
from storage.fs.maintenance import REPORTED_AT_ONCE, Maintenance
from storage.fs.name_tree import NameTree
from storage.lsm.manifest.manifest_store import Manifests
from tests.storage.check.test_scrub import OPTIONS, scrub_of
from tests.storage.lsm.worlds import MIB, World

STEPS = 6


@asynccontextmanager
async def counted_turns() -> AsyncIterator[list[None]]:
    """As long as it lasts: one more for each turn that somebody else has."""
    turns: list[None] = []

    async def count() -> None:
        while True:
            await asyncio.sleep(0)
            turns.append(None)

    task = asyncio.create_task(count())
    try:
        yield turns
    finally:
        task.cancel()


def listed(world: World, count: int) -> SstList:
    """SSTs that were written now."""
    return SstList.of(SstRef(object_id(world.env, 1), MIB + 100, MIB, bytes(16), 1) for _ in range(count))


async def test_what_is_due_is_looked_up_in_steps(monkeypatch: pytest.MonkeyPatch) -> None:
    world = World(options=OPTIONS)
    engine, _ = await world.start()
    many = listed(world, STEPS * DUE_AT_ONCE)
    with monkeypatch.context() as patch:
        patch.setattr(Manifests, "listed", lambda _: many)
        scrub = scrub_of(world, engine, StoredReadTimes(None, world.env))
        async with counted_turns() as turns:
            await scrub.round()
    assert len(turns) >= STEPS - 1
    await engine.close()


async def test_what_was_read_is_reported_in_steps(monkeypatch: pytest.MonkeyPatch) -> None:
    world = World(options=OPTIONS)
    engine, _ = await world.start()
    many = listed(world, STEPS * REPORTED_AT_ONCE)
    maintenance = Maintenance(engine, NameTree(), StoredReadTimes(None, world.env), world.env)
    with monkeypatch.context() as patch:
        patch.setattr(Manifests, "listed", lambda _: many)
        async with counted_turns() as turns:
            report = await maintenance.read_report()
    assert len(turns) >= STEPS - 1
    assert [(age.since, age.ssts) for age in report.last_read if age.ssts] == [("never", len(many))]
    await engine.close()
