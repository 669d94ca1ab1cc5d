"""A crash at each moment of short histories: what the next writer finds is what had been acknowledged, or was written
since. Exhaustive where the simulation draws: each request of each history, each part of those that are on their way.
"""

import asyncio
import itertools
from collections.abc import Awaitable, Callable

import pytest

from storage.lsm.compaction.plan import Consolidate, Drop, Repack
from tests.simulation.virtual import virtually
from tests.storage.lsm.recovery.moments import BLOCK, SECTOR, History, digest, recovered, unfit
from tests.support.idle import turns

Script = Callable[[History], Awaitable[None]]


async def overwrites(history: History) -> None:
    """Blocks, patches, zeros, checkpoints, and every job."""
    for letter in (b"a", b"b"):
        history.write(1, 0, letter, BLOCK)
        history.write(1, BLOCK + 5 * SECTOR, letter)
        await history.flush_memtable()
    for number in range(3):
        history.write(1, (3 + number) * SECTOR, bytes([number + 1]))
        history.write(1, BLOCK + number * 100, b"piece", 5)
        await history.flush()
        await history.flush_memtable()
    await history.checkpoint()
    await history.jobs(Consolidate, Repack)
    history.zero(1, 7 * SECTOR, 3 * SECTOR)
    history.write(1, 0, b"c", BLOCK)
    await history.flush()
    history.write(1, 9 * SECTOR, b"d")
    await history.flush_memtable()
    await history.jobs(Drop, Consolidate)
    await history.checkpoint()
    await history.jobs(Drop)
    history.write(1, SECTOR, b"e")


async def snapshots(history: History) -> None:
    """Taken over what is in the log and in SSTs, cloned, rolled back to, and deleted, with writes in between."""
    history.write(1, 0, b"a", BLOCK)
    history.write(1, BLOCK, b"a")
    await history.flush_memtable()
    history.write(1, SECTOR, b"b")
    await history.change("freeze", 1, 2)
    history.write(2, 0, b"c", BLOCK)
    history.write(2, BLOCK + SECTOR, b"c")
    await history.flush()
    history.write(2, 5 * SECTOR, b"d")
    await history.change("clone", 1, 3)
    history.write(3, 2 * SECTOR, b"e")
    history.write(2, 2 * SECTOR, b"f")
    await history.flush()
    await history.change("rollback", 1, 4)
    history.write(4, 3 * SECTOR, b"g")
    await history.flush_memtable()
    await history.jobs(Consolidate, Repack)
    await history.change("delete", 1)
    history.write(4, 4 * SECTOR, b"h")
    await history.flush()


async def deletions(history: History) -> None:
    """Snapshots go one after the other, with checkpoints and jobs between."""
    for number in (1, 2, 3):
        history.write(number, 0, bytes([64 + number]), BLOCK)
        history.write(number, BLOCK + number * SECTOR, bytes([64 + number]))
        await history.flush_memtable()
        history.write(number, number * 2 * SECTOR, bytes([96 + number]))
        await history.change("freeze", number, number + 1)
    await history.checkpoint()
    await history.change("delete", 2)
    await history.jobs(Consolidate, Drop, Repack)
    await history.checkpoint()
    history.write(4, 0, b"z", BLOCK)
    await history.flush_memtable()
    await history.change("delete", 1)
    await history.jobs(Drop, Repack)
    await history.change("delete", 3)
    await history.checkpoint()
    await history.jobs(Drop, Repack)


async def two_devices(history: History) -> None:
    """Two clients at once, over two memtables: a flush of one is on its way while others begin, objects of the log land
    out of order, and a device is made while a memtable flush writes the tree.
    """
    commit = history.engine.commit
    commit.pacing.usual = 0.0  # as in a store that answers at once: no PUT waits for another
    commit.pace.bulk_bytes_min = BLOCK  # a block goes past the log
    passes = itertools.cycle([60, 5, 25, 5])
    history.store.passes = lambda: next(passes)
    await history.create(2)
    for number in range(2):
        under_way = []
        for device in (1, 2):
            history.write(device, number * SECTOR, bytes([65 + number]))
            under_way.append(asyncio.ensure_future(history.flush_one(device)))
            await turns(2)
        history.write(1, BLOCK, b"xz"[number : number + 1], BLOCK)
        sealing = asyncio.ensure_future(history.engine.flush_memtable(always=True))
        for sector in range(9, 13):
            # One of them comes between the seal and the cut for it.
            await turns(1)
            history.write(1, BLOCK + sector * SECTOR, bytes([97 + number]))
        under_way.append(asyncio.ensure_future(history.flush_one(1)))
        if not number:
            under_way.append(asyncio.ensure_future(history.create(3)))
        await turns(3)
        history.write(2, BLOCK, bytes([105 + number]))
        under_way.append(asyncio.ensure_future(history.flush_one(2)))
        await asyncio.gather(sealing, *under_way)
        history.note()
    history.write(2, 9 * SECTOR, b"y")
    await history.flush_one(2)


SCRIPTS = (overwrites, snapshots, deletions)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("script", "passes"),
    [(script, passes) for script in SCRIPTS for passes in (1, 7)] + [(two_devices, 1)],
)
@virtually
async def test_a_crash_at_each_moment(script: Script, passes: int) -> None:
    history = await History.begin(passes)
    await script(history)
    await history.world.crash(history.engine)
    seen: set[bytes] = set()
    for moment in history.moments:
        for objects, late in moment.left():
            key = digest(objects, late, moment)
            if key in seen:
                continue
            seen.add(key)
            found = await recovered(objects, late)
            assert (why := unfit(moment, history.states, found)) is None, why
    assert len(seen) > 30
