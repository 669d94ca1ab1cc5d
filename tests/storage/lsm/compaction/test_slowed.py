"""A budget of requests slows jobs that can wait, and none that keeps a store from growing."""

import asyncio
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import TypeVar

from storage.lsm.compaction.plan import Consolidate, Decision, Defragment, Drop, Repack, WriteCheckpoint
from storage.lsm.compaction.slowing import can_wait
from storage.lsm.options import EngineOptions, MaintenanceOptions
from tests.simulation.virtual import in_virtual_time
from tests.storage.lsm.worlds import InlineEnv, World

T = TypeVar("T")

BLOCK = 256 * 1024
SECTOR = 4096
HOUR = 3600.0


class Busy(InlineEnv):
    """A host on which all that is not done on the event loop takes a second."""

    def monotonic(self) -> float:
        return asyncio.get_running_loop().time()

    async def run(self, pool: str, function: Callable[..., T], *args: object) -> T:
        await asyncio.sleep(1.0)
        return function(*args)


@dataclass
class Seen:
    jobs: Counter[str] = field(default_factory=Counter)
    unmerged: int = 0
    stored: int = 0


def an_hour_of(write: int, slowdown: float, maintenance: MaintenanceOptions) -> Seen:
    """A writer that writes a little in each half minute, `write` sectors; the most of what was there to be seen."""

    async def case() -> Seen:
        world = World(options=EngineOptions(maintenance=maintenance, watch_seconds=HOUR, flush_seconds=HOUR))
        world.env = Busy()
        engine, layer = await world.start()
        engine.compactor.slowdown = slowdown
        seen = Seen()
        for turn in range(int(HOUR / 30)):
            for sector in range(write):
                layer.write((turn % 4 * 64 + sector) * SECTOR, turn.to_bytes(2, "big") * (SECTOR // 2))
            await engine.flush_memtable()
            await asyncio.sleep(30)
            now = engine.report().numbers
            seen.unmerged, seen.stored = max(seen.unmerged, now.unmerged_ssts), max(seen.stored, now.stored_bytes)
        seen.jobs.update(engine.compactor.progress.jobs)
        await world.crash(engine)
        return seen

    return in_virtual_time(case())


def test_what_can_wait_is_slowed_and_checkpoints_are_not() -> None:
    maintenance = MaintenanceOptions(pack_count=2, unmerged_ssts_max=3, rest_seconds=HOUR, patches_max=2)
    usual, slowed = (an_hour_of(8, slowdown, maintenance) for slowdown in (1.0, 16.0))
    can_wait = [sum(seen.jobs[name] for name in ("Repack", "Consolidate")) for seen in (usual, slowed)]
    assert can_wait[1] * 2 < can_wait[0], "it takes many times as long"
    assert can_wait[1], "and goes on"
    assert slowed.unmerged <= usual.unmerged + 1
    assert slowed.jobs["WriteCheckpoint"] >= usual.jobs["WriteCheckpoint"] // 2
    assert slowed.jobs["Drop"]


def test_beyond_the_space_target_nothing_is_slowed() -> None:
    maintenance = MaintenanceOptions(
        space_slack_bytes=0, space_factor=1.1, unmerged_ssts_max=2, rest_seconds=HOUR, repack_share=0.3
    )
    usual, slowed = (an_hour_of(60, slowdown, maintenance) for slowdown in (1.0, 16.0))
    assert slowed.stored <= usual.stored


def test_which_jobs_can_wait() -> None:
    others = (Repack((), "little is live"), Consolidate(()), Defragment(()))
    assert all(can_wait(Decision(job, over_target=False, debt=0.0)) for job in others)
    for job in (None, Drop(()), WriteCheckpoint("due")):
        assert not can_wait(Decision(job, over_target=False, debt=0.0))
    assert not any(can_wait(Decision(job, over_target=True, debt=0.1)) for job in others)
