"""A clock that was ahead once, and was set right: what was read then says nothing, and is read again."""

import asyncio

from storage.check.read_run import CheckProgress, ReadRun
from storage.check.read_times import ReadTimes, StoredReadTimes
from storage.check.running import reader
from storage.check.scrub import Scrub, all_due
from storage.env import object_id
from storage.format.blocks import SstRef
from storage.fs.maintenance import Maintenance
from storage.fs.name_tree import NameTree
from storage.lsm.engine import Engine
from storage.lsm.options import EngineOptions, MaintenanceOptions
from tests.simulation.virtual import in_virtual_time
from tests.storage.check.test_scrub import at_once
from tests.storage.lsm.worlds import MIB, InlineEnv, World

BLOCK = 256 * 1024
DAY = 86400.0
YEAR = 365 * DAY
NOW = 1_700_000_000.0
PERIOD = 30 * DAY
OPTIONS = EngineOptions(
    watch_seconds=DAY,
    sweep_seconds=DAY,
    flush_seconds=DAY,
    maintenance=MaintenanceOptions(look_seconds=DAY),
)


class SetClock(InlineEnv):
    """A host whose clock is so far ahead as the test says."""

    ahead = 0.0

    def monotonic(self) -> float:
        return asyncio.get_running_loop().time()

    def wall_clock(self) -> float:
        return NOW + self.ahead + self.monotonic()


async def _whole() -> None:
    """Nobody else looks."""


async def written(world: World) -> Engine:
    engine, layer = await world.start()
    layer.write(0, bytes([1]) * BLOCK)
    await engine.flush_memtable()
    return engine


def damage(world: World, engine: Engine) -> str:
    """One byte of a frame of the newest SST is another one now; gives the name of the SST."""
    (ref,) = (ref for ref in engine.manifests.listed() if ref.id == max(r.id for r in engine.manifests.listed()))
    name = f"compacted/{ref.id}.sst"
    sound = world.store.objects[name]
    world.store.objects[name] = sound[:150] + bytes([sound[150] ^ 1]) + sound[151:]
    return name


def test_a_check_reads_what_was_read_at_a_time_that_is_yet_to_come() -> None:
    async def case() -> None:
        world = World(options=OPTIONS)
        world.env = env = SetClock()
        engine = await written(world)
        kept = StoredReadTimes(None, env)

        async def found(*, resume: bool = False) -> list[str]:
            run = ReadRun(reader(engine.compactor.context, _whole), await kept.load(), env, rate=0, save=kept.save)
            findings = await run.run(engine.manifests.listed(), CheckProgress(), resume=resume)
            return [finding.object for finding in findings]

        env.ahead = YEAR
        assert await found() == []
        env.ahead = 0.0
        (ref,) = engine.manifests.listed()
        assert (await kept.load()).read_by(ref.id, env.wall_clock()) is None, "nor does any report count it as read"
        name = damage(world, engine)
        assert await found() == [name]
        # One that was cut short, begun by the clock that was ahead: all of it is read.
        reads = await kept.load()
        reads.began = env.wall_clock() + YEAR
        reads.sound(name.removeprefix("compacted/").removesuffix(".sst"), env.wall_clock() + YEAR + DAY)
        assert await found(resume=True) == [name]
        # Set back behind the last look at what was read, and before the run began.
        reads = await kept.load()
        reads.sound(name.removeprefix("compacted/").removesuffix(".sst"), env.wall_clock())
        run = ReadRun(reader(engine.compactor.context, _whole), reads, env, rate=0, save=kept.save)
        env.ahead = -DAY
        findings = await run.run(engine.manifests.listed(), CheckProgress(), resume=False)
        assert [finding.object for finding in findings] == [name]
        await world.crash(engine)

    in_virtual_time(case())


def test_a_run_that_goes_on_does_not_read_what_the_one_before_it_read() -> None:
    """Which was later than it began: that is no time that is yet to come."""

    async def case() -> None:
        world = World(options=OPTIONS)
        world.env = env = SetClock()
        engine = await written(world)
        kept = StoredReadTimes(None, env)
        reads = await kept.load()
        reads.began = env.wall_clock()
        await asyncio.sleep(60)
        name = damage(world, engine)
        reads.sound(name.removeprefix("compacted/").removesuffix(".sst"), env.wall_clock())
        await asyncio.sleep(60)
        found = []
        for resume in (True, False):
            run = ReadRun(reader(engine.compactor.context, _whole), await kept.load(), env, rate=0, save=kept.save)
            found.append(await run.run(engine.manifests.listed(), CheckProgress(), resume=resume))
        assert found[0] == []
        assert [finding.object for finding in found[1]] == [name]
        await world.crash(engine)

    in_virtual_time(case())


def test_a_scrub_reads_within_a_period_what_was_read_or_written_by_a_clock_that_was_ahead() -> None:
    async def case() -> None:
        world = World(options=OPTIONS)
        world.env = env = SetClock()
        env.ahead = YEAR
        engine = await written(world)
        kept = StoredReadTimes(None, env)
        scrub = Scrub(
            period_seconds=PERIOD,
            read_times=kept,
            reader=reader(engine.compactor.context, _whole),
            listed=engine.manifests.listed,
            env=env,
        )
        scrub.start(engine)
        await asyncio.sleep(PERIOD)
        assert (await kept.load()).read.keys() == {ref.id for ref in engine.manifests.listed()}
        env.ahead = 0.0
        name = damage(world, engine)
        await asyncio.sleep(PERIOD)
        (sentence,) = kept.damaged
        assert sentence.startswith(f"{name}: ")
        await world.crash(engine)

    in_virtual_time(case())


def test_what_is_due_by_a_clock_that_was_set_back() -> None:
    def ref(written_at: float) -> SstRef:
        env = SetClock()
        env.monotonic = lambda: 0.0  # type: ignore[method-assign]
        env.ahead = written_at - NOW
        return SstRef(object_id(env, 1), MIB + 100, MIB, bytes(16), 1)

    young, ahead, damaged = ref(NOW - DAY), ref(NOW + YEAR), ref(NOW - YEAR)
    reads = ReadTimes()
    reads.wrong(damaged.id, "it was damaged")
    tried = {damaged.id: NOW + YEAR}
    due = at_once(all_due([young, ahead, damaged], reads, tried, now=NOW, period=PERIOD))
    assert due == sorted([ahead, damaged], key=lambda each: each.id)


def test_what_was_read_at_a_time_that_is_yet_to_come_does_not_count_but_is_kept() -> None:
    """It may be this clock that is wrong: what was read still counts once it was set right."""

    async def case() -> None:
        world = World(options=OPTIONS)
        world.env = env = SetClock()
        engine = await written(world)
        kept = StoredReadTimes(None, env)
        (ref,) = engine.manifests.listed()
        reads = await kept.load()
        reads.began = env.wall_clock()
        reads.sound(ref.id, env.wall_clock())
        maintenance = Maintenance(engine, NameTree(), kept, env)

        async def ages() -> list[str]:
            return [age.since for age in (await maintenance.read_report()).last_read if age.ssts]

        async def is_due() -> bool:
            return bool(await all_due([ref], await kept.load(), {}, now=env.wall_clock(), period=PERIOD))

        assert (await ages(), await is_due()) == (["within a day"], False)
        env.ahead = -YEAR
        assert (await ages(), await is_due()) == (["never"], True)
        env.ahead = 0.0
        assert (await ages(), await is_due()) == (["within a day"], False)
        # The check that was cut short goes on from there.
        damage(world, engine)
        run = ReadRun(reader(engine.compactor.context, _whole), await kept.load(), env, rate=0, save=kept.save)
        assert await run.run(engine.manifests.listed(), CheckProgress(), resume=True) == []
        await world.crash(engine)

    in_virtual_time(case())


def test_what_a_run_forgets() -> None:
    reads = ReadTimes()
    reads.sound("before", NOW - DAY)
    reads.sound("behind", NOW + 1)
    reads.began = NOW - 2 * DAY
    reads.forget_later_than(NOW)
    assert (reads.read, reads.began) == ({"before": NOW - DAY}, NOW - 2 * DAY)
    reads.began = NOW + DAY
    reads.forget_later_than(NOW)
    assert (reads.read, reads.began) == ({"before": NOW - DAY}, 0.0)
