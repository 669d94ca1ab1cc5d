"""Runs that read all data: each by itself, whatever else reads or the clock does; no thread of one gives numbers."""

import asyncio
import threading

import pytest

from storage.check.read_run import CheckProgress, ReadRun
from storage.check.read_times import StoredReadTimes
from storage.check.running import held, reader
from storage.check.survey import survey
from storage.lsm.engine import Engine
from storage.lsm.index.sst_numbers import SstNumbers
from tests.simulation.virtual import in_virtual_time
from tests.storage.check.test_clock_set_back import BLOCK, DAY, OPTIONS, SetClock, damage
from tests.storage.check.test_survey import subject
from tests.storage.lsm.worlds import World

SSTS = 6
SLOW = BLOCK / 4
"""Bytes a second: a run at this rate takes some seconds."""


async def _whole() -> None:
    """Nobody else looks."""


async def written(world: World) -> Engine:
    engine, layer = await world.start()
    for number in range(SSTS):
        layer.write(number * BLOCK, world.env.random_bytes(BLOCK))
        await engine.flush_memtable()
    return engine


async def found(engine: Engine, kept: StoredReadTimes, *, rate: float) -> list[str]:
    """What a run says is wrong: names of objects."""
    context = engine.compactor.context
    run = ReadRun(reader(context, _whole), await kept.load(), context.env, rate=rate, save=kept.save)
    findings = await run.run(engine.manifests.listed(), CheckProgress(), resume=False)
    return [finding.object for finding in findings]


@pytest.fixture
def given_in(monkeypatch: pytest.MonkeyPatch) -> list[threading.Thread]:
    """The threads in which numbers of SSTs were asked for by who may give them."""
    threads: list[threading.Thread] = []
    number, numbers = SstNumbers.number, SstNumbers.numbers

    def one(self: SstNumbers, *args: str) -> int:
        threads.append(threading.current_thread())
        return number(self, *args)

    def many(self: SstNumbers, ids: object) -> object:
        threads.append(threading.current_thread())
        return numbers(self, ids)  # type: ignore[arg-type]

    monkeypatch.setattr(SstNumbers, "number", one)
    monkeypatch.setattr(SstNumbers, "numbers", many)
    return threads


async def zeros_only(world: World) -> Engine:
    """A writer that never had to know where something lies in its only SST."""
    engine, layer = await world.start()
    layer.zero(0, 4 * BLOCK, allocated=True)
    await engine.flush_memtable()
    return engine


async def test_only_the_event_loop_numbers_an_sst_that_is_read(given_in: list[threading.Thread]) -> None:
    """Two threads would give one number to two SSTs, and reads of one of them would ask the other."""
    world = World(options=OPTIONS, threads=True)
    engine = await zeros_only(world)
    (ref,) = engine.manifests.listed()
    assert engine.compactor.context.sst_numbers.given(ref.id) is None
    assert await found(engine, StoredReadTimes(None, world.env), rate=0) == []
    assert set(given_in) == {threading.current_thread()}
    await engine.close()


async def test_only_the_event_loop_numbers_an_sst_that_is_checked(given_in: list[threading.Thread]) -> None:
    world = World(options=OPTIONS, threads=True)
    engine = await zeros_only(world)
    async with held(engine.compactor.context) as moment:
        assert (await survey(subject(world, moment=moment))).findings.all == []
    assert set(given_in) == {threading.current_thread()}
    await engine.close()


def test_a_run_that_ends_keeps_no_other_from_reading() -> None:
    async def case() -> None:
        world = World(options=OPTIONS)
        world.env = SetClock()
        engine = await written(world)
        name = damage(world, engine)
        kept = StoredReadTimes(None, world.env)
        slow = asyncio.create_task(found(engine, kept, rate=SLOW))
        await asyncio.sleep(6)
        assert await found(engine, kept, rate=0) == [name]
        assert not slow.done()
        assert (await kept.load()).began == 0.0, "the last that began has ended"
        assert await slow == [name]
        # The other way round: the one that began last goes on, and is known to.
        first = asyncio.create_task(found(engine, kept, rate=2 * SLOW))
        await asyncio.sleep(6)
        last = asyncio.create_task(found(engine, kept, rate=SLOW / 4))
        assert await first == [name]
        assert not last.done()
        assert (await kept.load()).began > 0.0
        assert await last == [name]
        assert (await kept.load()).began == 0.0
        await world.crash(engine)

    in_virtual_time(case())


def test_a_clock_that_is_set_back_keeps_no_run_from_reading() -> None:
    async def case() -> None:
        world = World(options=OPTIONS)
        world.env = env = SetClock()
        engine = await written(world)
        name = damage(world, engine)
        kept = StoredReadTimes(None, env)
        slow = asyncio.create_task(found(engine, kept, rate=SLOW))
        await asyncio.sleep(6)
        env.ahead = -DAY
        await kept.load()  # as a scrub does, or a report
        assert await slow == [name]
        await world.crash(engine)

    in_virtual_time(case())
