"""All data is read once in a period, by a writer that goes on; what is found stays said until it is sound again."""

import asyncio
import logging
import random
from collections.abc import Coroutine
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from storage.check.read_data import DataReader
from storage.check.read_times import ReadTimes, StoredReadTimes
from storage.check.running import reader
from storage.check.scrub import SCRUB_AGAIN_SECONDS, SCRUB_LOOK_SECONDS, Scrub, all_due, scrub_rate
from storage.env import object_id
from storage.errors import Closed
from storage.format.blocks import SstRef
from storage.lsm.engine import Engine
from storage.lsm.options import EngineOptions, MaintenanceOptions
from storage.lsm.recovery.anchor import HostState
from tests.simulation.virtual import in_virtual_time
from tests.storage.lsm.worlds import MIB, InlineEnv, World
from tests.support.waiting import until

BLOCK = 256 * 1024
DAY = 86400.0
PERIOD = 30 * DAY
NOW = 1_700_000_000.0


class Clock(InlineEnv):
    """A host on which it is as late as the event loop says."""

    def monotonic(self) -> float:
        return asyncio.get_running_loop().time()

    def wall_clock(self) -> float:
        return NOW + asyncio.get_running_loop().time()


class Written(InlineEnv):
    """A host on which it is as late as the test says."""

    at = NOW

    def wall_clock(self) -> float:
        return self.at


def sst(written: float, size: int = MIB) -> SstRef:
    env = Written()
    env.at = written
    return SstRef(object_id(env, 1), size + 100, size, bytes(16), 1)


def due(
    listed: list[SstRef], reads: ReadTimes, now: float = NOW, tried: dict[str, float] | None = None
) -> list[SstRef]:
    return at_once(all_due(listed, reads, tried or {}, now=now, period=PERIOD))


def at_once(steps: Coroutine[None, None, list[SstRef]]) -> list[SstRef]:
    """What it gives, without an event loop: it waits for nothing."""
    while True:
        try:
            steps.send(None)
        except StopIteration as ended:
            return ended.value  # type: ignore[no-any-return]


def test_an_sst_is_due_half_a_period_after_it_was_written_or_read_and_the_longest_due_first() -> None:
    old, older, young = sst(NOW - 16 * DAY), sst(NOW - 20 * DAY), sst(NOW - 14 * DAY)
    reads = ReadTimes()
    assert due([old, older, young], reads) == [older, old]
    reads.sound(older.id, NOW - DAY)
    assert due([old, older, young], reads) == [old]
    reads.sound(old.id, NOW)
    assert due([old, older, young], reads) == []
    assert due([old, older, young], reads, now=NOW + 1.1 * DAY) == [young]
    assert due([], reads) == []


def test_one_that_is_damaged_is_due_after_a_day() -> None:
    bad = sst(NOW - DAY)
    reads = ReadTimes()
    reads.sound(bad.id, NOW - DAY)
    reads.wrong(bad.id, "it is damaged")
    assert reads.read == {}, "it does not count as read"
    tried = {bad.id: NOW}
    assert due([bad], reads, now=NOW + SCRUB_AGAIN_SECONDS - 1, tried=tried) == []
    assert due([bad], reads, now=NOW + SCRUB_AGAIN_SECONDS, tried=tried) == [bad]
    assert due([bad], reads) == [bad], "another process has not tried it"


@settings(max_examples=20)
@given(st.lists(st.integers(1, 2**32), min_size=1, max_size=40), st.integers(0, 2**32))
def test_no_sst_goes_unread_for_longer_than_a_period(sizes: list[int], seed: int) -> None:
    """Three periods, at the pace that is kept; all were written long ago, or at random moments before."""
    chance = random.Random(seed)
    listed = [sst(NOW - chance.random() * PERIOD / 2, size) for size in sizes]
    reads, now, rate = ReadTimes(), NOW, scrub_rate(listed, PERIOD)
    seen = dict.fromkeys((ref.id for ref in listed), NOW)
    longest = max(sizes) / rate + SCRUB_LOOK_SECONDS
    while now < NOW + 3 * PERIOD:
        began = now
        for ref in due(listed, reads, now=now):
            now += ref.index_offset / rate
            assert now - seen[ref.id] <= PERIOD + longest + PERIOD / 200
            seen[ref.id] = now
            reads.sound(ref.id, now)
            if now >= began + PERIOD / 200:
                break
        now = max(now, began + PERIOD / 200)
    assert all(now - at <= PERIOD + longest + PERIOD / 200 for at in seen.values())


OPTIONS = EngineOptions(
    watch_seconds=DAY,
    sweep_seconds=DAY,
    flush_seconds=DAY,
    maintenance=MaintenanceOptions(look_seconds=DAY),
)
"""An engine that does little else in all that time."""


async def written(world: World) -> Engine:
    engine, layer = await world.start()
    for number in range(4):
        layer.write(number * BLOCK, bytes([number + 1]) * BLOCK)
        await engine.flush_memtable()
    return engine


def listed(engine: Engine) -> set[str]:
    return {ref.id for ref in engine.manifests.listed()}


def test_what_is_damaged_is_found_within_a_period_and_said_until_it_is_sound(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    async def case() -> None:
        host = HostState(tmp_path, "memory://")
        world = World(host=host, options=OPTIONS)
        world.env = Clock()
        engine = await written(world)
        kept = scrubbed(world, engine)
        await asyncio.sleep(PERIOD * 0.6)
        reads = await kept.load()
        assert reads.read.keys() == listed(engine)
        assert kept.damaged == []
        assert ReadTimes.decode(host.load_memory("reads")).read == reads.read
        asked = world.store.count("get", "compacted/")
        await asyncio.sleep(PERIOD * 0.3)
        assert world.store.count("get", "compacted/") == asked, "what was read is not due yet"
        ref = next(ref for ref in engine.manifests.listed())
        name, sound = f"compacted/{ref.id}.sst", world.store.objects[f"compacted/{ref.id}.sst"]
        world.store.objects[name] = sound[:150] + bytes([sound[150] ^ 1]) + sound[151:]
        await asyncio.sleep(PERIOD * 0.6)
        (sentence,) = kept.damaged
        assert sentence.startswith(f"{name}: ")
        assert "scrub_found" in caplog.messages
        await world.crash(engine)
        kept = StoredReadTimes(host, world.env)
        await kept.load()
        assert kept.damaged == [sentence], "another process of this host knows, without another look"
        engine = await world.open()
        kept = scrubbed(world, engine)
        await asyncio.sleep(1)
        assert kept.damaged == [sentence]
        asked = world.store.count("get", name)
        await asyncio.sleep(SCRUB_AGAIN_SECONDS / 2)
        assert world.store.count("get", name) == asked, "nor is what was just found damaged"
        world.store.objects[name] = sound
        await asyncio.sleep(SCRUB_AGAIN_SECONDS + 2 * SCRUB_LOOK_SECONDS)
        assert kept.damaged == []
        await world.crash(engine)

    with caplog.at_level(logging.ERROR, "nbdserver"):
        in_virtual_time(case())


def test_a_store_that_is_away_is_waited_for_and_is_no_damage() -> None:
    async def case() -> None:
        world = World(options=OPTIONS)
        world.env = Clock()
        engine = await written(world)
        kept = scrubbed(world, engine)
        hold = world.store.hold("get")
        await asyncio.sleep(PERIOD)
        assert kept.damaged == []
        world.store.holds.remove(hold)
        hold.release()
        await asyncio.sleep(SCRUB_LOOK_SECONDS * 10)
        assert (await kept.load()).read.keys() == listed(engine)
        assert kept.damaged == []
        await world.crash(engine)

    in_virtual_time(case())


async def test_what_is_gone_is_forgotten() -> None:
    world = World(options=OPTIONS)
    engine = await written(world)
    kept = StoredReadTimes(None, world.env)
    reads = await kept.load()
    reads.sound("gone", NOW)
    reads.wrong("damaged and gone", "it was damaged")
    assert await scrub_of(world, engine, kept).round() > 0
    assert "gone" not in reads.read
    assert kept.damaged == []
    await engine.close()


@pytest.mark.parametrize("slowdown", [1.0, 16.0])
def test_a_budget_of_requests_slows_it(slowdown: float) -> None:
    async def case() -> None:
        world = World(options=OPTIONS)
        world.env = Clock()
        engine = await written(world)
        scrub = scrub_of(world, engine, StoredReadTimes(None, world.env), slowdown=slowdown)
        await asyncio.sleep(PERIOD)
        began = world.env.monotonic()
        await scrub.round()
        size = sum(ref.index_offset for ref in engine.manifests.listed())
        assert world.env.monotonic() - began == pytest.approx(slowdown * size / MIB)
        await world.crash(engine)

    in_virtual_time(case())


def scrub_of(
    world: World, engine: Engine, kept: StoredReadTimes, *, period_seconds: float = PERIOD, slowdown: float = 1.0
) -> Scrub:
    async def whole() -> None:
        """Nobody else looks."""

    return Scrub(
        period_seconds=period_seconds,
        read_times=kept,
        reader=reader(engine.compactor.context, whole),
        listed=engine.manifests.listed,
        env=world.env,
        slowdown=lambda: slowdown,
    )


def scrubbed(world: World, engine: Engine) -> StoredReadTimes:
    """From now on all is read once in a period; what is known of that."""
    kept = StoredReadTimes(world.host, world.env)
    scrub_of(world, engine, kept).start(engine)
    return kept


async def test_an_answer_that_ends_a_read_ends_no_scrub(monkeypatch: pytest.MonkeyPatch) -> None:
    """It only reads: nothing of it may be the end of a server."""

    async def closed(*_: object) -> None:
        raise Closed("whatever the reader met")

    world = World(options=OPTIONS)
    engine = await written(world)
    monkeypatch.setattr(DataReader, "read", closed)
    kept = StoredReadTimes(None, world.env)
    scrub = scrub_of(world, engine, kept, period_seconds=0.001)
    due = world.env.wall_clock() + 0.001
    await until(lambda: world.env.wall_clock() > due)
    assert await scrub.round() == SCRUB_LOOK_SECONDS
    assert kept.damaged == []
    await engine.close()
