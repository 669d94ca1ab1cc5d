"""Copies of the newest manifest where the store takes long, refuses them, or does not answer: what waits for one waits
for a while only, nobody ends for it, and it is never the copy of an older manifest that is left.
"""

import asyncio
from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from storage.errors import AccessDenied, StorageError, Unavailable
from storage.format.names import SPARES, WALS, manifest_name, spare_manifest_name
from storage.lsm.engine import Engine
from storage.lsm.manifest.spare_copies import (
    COPY_PAUSE_SECONDS_MAX,
    FINISH_SECONDS_MAX,
    HOLD_SECONDS_MAX,
    VERIFY_SECONDS,
    SpareCopies,
)
from tests.simulation.virtual import virtually
from tests.storage.lsm.recovery.test_verified_copies import DATA, QUIET, both, written
from tests.storage.lsm.worlds import World


async def deletes(world: World, engine: Engine, *, within: float) -> bool:
    """Whether what the next manifest gives up is gone so soon."""
    engine.layers[1].write(0, DATA)
    await engine.durable(engine.layers[1].queue, engine.layers[1].queue.last_sequence)
    before = world.store.count("delete", WALS)
    await engine.flush_memtable()
    await asyncio.sleep(within)
    return world.store.count("delete", WALS) > before


@virtually
async def test_a_copy_that_hangs_keeps_what_was_given_up_for_a_while_only() -> None:
    world = World(options=QUIET)
    engine = await written(world)
    held = world.store.hold("create", SPARES)
    assert not await deletes(world, engine, within=HOLD_SECONDS_MAX / 2)
    before = world.store.count("delete", WALS)
    await asyncio.sleep(HOLD_SECONDS_MAX)
    assert world.store.count("delete", WALS) > before
    held.release()
    await engine.copies.settled()
    await world.crash(engine)


@virtually
async def test_one_that_is_won_while_another_is_copied_waits_for_its_own_copy() -> None:
    """What it gave up is not deleted because an older manifest has a copy."""
    world = World(options=QUIET)
    engine = await written(world)
    newest = engine.manifests.number
    older, newer = (world.store.hold("create", spare_manifest_name(newest + step)) for step in (1, 2))
    assert not await deletes(world, engine, within=1)
    assert not await deletes(world, engine, within=1)
    before = world.store.count("delete", WALS)
    older.release()
    await newer.someone_waits()
    await asyncio.sleep(1)
    assert world.store.count("delete", WALS) == before
    newer.release()
    await engine.copies.settled()
    await asyncio.sleep(1)
    assert world.store.count("delete", WALS) > before
    await world.crash(engine)


@virtually
async def test_one_that_is_won_while_another_hangs_keeps_what_it_gave_up_no_longer() -> None:
    world = World(options=QUIET)
    engine = await written(world)
    world.store.hold("create", SPARES)
    for _ in range(3):
        assert not await deletes(world, engine, within=HOLD_SECONDS_MAX * 0.9)
        before = world.store.count("delete", WALS)
        await asyncio.sleep(HOLD_SECONDS_MAX * 0.2)
        assert world.store.count("delete", WALS) > before
    await world.crash(engine)


@virtually
async def test_who_commits_without_a_pause_keeps_garbage_for_a_while_only() -> None:
    world = World(options=QUIET)
    engine = await written(world)
    world.store.hold("create", SPARES)
    deleted = [await deletes(world, engine, within=HOLD_SECONDS_MAX / 2) for _ in range(6)]
    assert True in deleted[2:]
    await world.crash(engine)


@virtually
async def test_one_that_waited_long_for_somebody_to_copy_it_keeps_what_it_gave_up_meanwhile() -> None:
    """That of a take-over is won before the log is read, which may take as long as the hold lasts."""
    world = World(options=QUIET)
    engine = await written(world)
    held = world.store.hold("create", SPARES)
    holds = 0

    @contextmanager
    def keep() -> Iterator[None]:
        nonlocal holds
        holds += 1
        yield
        holds -= 1

    await engine.flush_memtable(always=True)
    manifests, context = engine.manifests, engine.compactor.context
    copies = SpareCopies(
        world.store, manifests, context.env, keep=keep, discard=lambda names: None, renew=engine.copies.settled
    )
    assert holds == 1
    await asyncio.sleep(2 * HOLD_SECONDS_MAX)
    assert holds == 0
    copying = asyncio.ensure_future(copies.run())
    await asyncio.sleep(1)
    assert holds == 1
    copying.cancel()
    await asyncio.wait({copying})
    held.release()
    await world.crash(engine)


@virtually
async def test_copies_that_are_refused_keep_nothing() -> None:
    """Nor for as long as it takes until the next one is tried."""
    world = World(options=QUIET)
    engine = await written(world)
    world.store.deny("create", SPARES, AccessDenied("no"))
    await engine.flush_memtable(always=True)
    await asyncio.sleep(10 * COPY_PAUSE_SECONDS_MAX)
    for _ in range(3):
        assert await deletes(world, engine, within=2.0)
    await world.crash(engine)


@virtually
async def test_a_copy_that_hangs_holds_up_no_end() -> None:
    world = World(options=QUIET)
    engine = await written(world)
    world.store.hold("create", SPARES)
    engine.layers[1].write(0, DATA)
    began = asyncio.get_running_loop().time()
    await engine.close()
    assert FINISH_SECONDS_MAX <= asyncio.get_running_loop().time() - began < 3 * FINISH_SECONDS_MAX
    engine, _ = await world.reopen(engine)
    await world.crash(engine)


@pytest.mark.parametrize("error", [Unavailable("away"), AccessDenied("no"), None])
@virtually
async def test_a_store_that_is_not_well_when_it_is_looked_at_is_looked_at_again(error: StorageError | None) -> None:
    """It refuses, or does not answer: that is no damage, and ends nobody."""
    world = World(options=QUIET)
    engine = await written(world)
    name, copy = both(engine)
    held = None
    if error is None:
        held = world.store.hold("get", SPARES)
    else:
        world.store.deny("get", SPARES, error)
    await asyncio.sleep(VERIFY_SECONDS * 2.5)
    assert not engine.failed.done()
    assert both(engine) == (name, copy)
    world.store.denials.clear()
    if held is not None:
        held.release()
    del world.store.objects[copy]
    await asyncio.sleep(VERIFY_SECONDS * 1.1)
    assert world.store.objects[copy] == world.store.objects[name]
    await world.crash(engine)


@virtually
async def test_what_comes_while_an_older_one_is_looked_at_is_copied() -> None:
    """The copy of the older one is found to be missing, and is not put into the place of that of the newer one."""
    world = World(options=QUIET)
    engine = await written(world)
    number = engine.manifests.number
    del world.store.objects[spare_manifest_name(number)]
    held = world.store.hold("get", manifest_name(number))
    await asyncio.sleep(VERIFY_SECONDS - 5)
    await held.someone_waits()
    await engine.flush_memtable(always=True)
    held.release()
    await asyncio.sleep(60)
    assert engine.manifests.number == number + 1
    assert world.store.names(SPARES) == [spare_manifest_name(number + 1)]
    await world.crash(engine)
