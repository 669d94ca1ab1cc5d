"""A crash at each moment of a rotation of the data key, from its first request to its last, each part of what is on its
way there or not: whoever opens the store then finds everything, with the keys that are there then.
"""

import pytest

from storage.crypto import key_rotation
from storage.fs.key_retirement import KeyRetirement, left_of_rotation
from storage.lsm.compaction.plan import Drop, Repack
from storage.objects.retry import RetryingStore
from tests.simulation.keyring import COST, PASSWORD, first_keys, keys_in
from tests.simulation.virtual import virtually
from tests.storage.lsm.recovery.moments import BLOCK, SECTOR, History, digest, recovered, unfit

STEPS_MAX = 20


async def begun(passes: int) -> History:
    """With a snapshot and a clone of it, in SSTs and in the log."""
    history = await History.begin(passes)
    history.store.objects.update(first_keys())
    history.write(1, 0, b"a", BLOCK)
    history.write(1, BLOCK, b"a")
    await history.flush_memtable()
    await history.change("freeze", 1, 2)
    history.write(2, SECTOR, b"b")
    await history.change("clone", 1, 3)
    await history.checkpoint()
    history.write(3, 3 * SECTOR, b"c", 2 * SECTOR)
    await history.flush()
    return history


async def rotated(history: History) -> None:
    """The key is rotated under a server, which writes on; that crashes, and the next one comes to the end of it."""
    world, store = history.world, history.store
    rotated = await key_rotation.rotate(store, PASSWORD, [], world.env, COST)
    history.engine.keys_are(rotated.number)
    history.write(2, 5 * SECTOR, b"d")
    await history.flush()
    history.note()
    await world.crash(history.engine)
    await on(history)


async def on(history: History) -> None:
    """The next server, which seals everything anew."""
    world, store = history.world, history.store
    key, number = keys_in(store.objects)
    engine = history.engine = await world.open(key=key, keys_number=number)
    retirement = KeyRetirement(engine, RetryingStore(store, world.env, None), world.env, COST, lambda: None)
    history.write(3, 4 * SECTOR, b"e")
    for _ in range(STEPS_MAX):
        if await retirement.step() is None:
            break
        await history.checkpoint()
        await history.jobs(Repack, Drop)
    else:
        raise AssertionError(f"it has no end: {left_of_rotation(engine)}, {retirement.status()}")
    history.write(2, 6 * SECTOR, b"f")
    await history.flush()
    history.note()
    await world.crash(engine)


@pytest.mark.slow
@virtually
async def test_a_crash_at_each_moment_of_a_rotation() -> None:
    history = await begun(passes=1)
    del history.moments[:]
    await rotated(history)
    seen: set[bytes] = set()
    keys: set[tuple[int, int]] = set()
    for moment in history.moments:
        for objects, late in moment.left():
            what = digest(objects, late, moment)
            if what in seen:
                continue
            seen.add(what)
            key, _ = keys_in(objects)
            keys.add((key.key_id, len(key.older)))
            found = await recovered(objects, late)
            assert (why := unfit(moment, history.states, found)) is None, why
    assert keys == {(1, 0), (2, 1), (2, 0)}, "before, during and after"
    assert len(seen) > 30
