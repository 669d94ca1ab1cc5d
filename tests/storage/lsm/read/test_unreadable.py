"""One object that the store withholds while it gives others stops the range that needs it, and nothing else.

In virtual time: the engine is the real one, and a minute of it costs milliseconds.
"""

import asyncio
import random
from collections.abc import Callable, Coroutine
from dataclasses import dataclass
from typing import Any

import pytest

from storage.errors import AccessDenied, StorageError, Unavailable, Unreadable
from storage.format.frame import BLOCK_BYTES, SECTOR_BYTES
from storage.lsm.engine import Engine
from storage.lsm.layer import Layer
from storage.lsm.options import EngineOptions
from storage.lsm.sst.fetch import FLUSH_SECONDS_MAX, OBJECT_GETS_MAX, READ_SECONDS_MAX
from storage.lsm.sst.frame_reader import ATTEMPT_SECONDS_MAX
from storage.objects.rates import Rate
from tests.simulation.virtual import in_virtual_time
from tests.storage.lsm.worlds import MIB, InlineEnv, StageStore, World, durable, join, record
from tests.support.inside import outage_of

BAD = b"bad " * (BLOCK_BYTES // 4)
GOOD = b"good" * (BLOCK_BYTES // 4)
BLOCKS = 8
EIO = Unavailable("cannot read compacted/x: Input/output error")
DENIED = AccessDenied("s3://bucket refused to read (403 AccessDenied)")


class VirtualEnv(InlineEnv):
    def monotonic(self) -> float:
        return asyncio.get_running_loop().time()


def now() -> float:
    return asyncio.get_running_loop().time()


@dataclass
class Withheld:
    """Layer 1 lies in object `bad`, which is withheld; layer 2 in another one. Nothing of them is in memory."""

    world: World
    engine: Engine
    layer: Layer
    other: Layer
    bad: str

    @property
    def store(self) -> StageStore:
        return self.world.store

    async def reopen(self) -> None:
        self.engine = await self.world.open()
        self.layer, self.other = self.engine.layers[1], self.engine.layers[2]


Case = Callable[[Withheld], Coroutine[Any, Any, None]]


def played(case: Case, error: StorageError | None = EIO, **options: int) -> None:
    """Play a case in virtual time; `error` is what GETs of the bad object answer, None: they hang."""

    async def work() -> None:
        world = World(options=EngineOptions(**{"cache_bytes": 2 * MIB, **options}))  # type: ignore[arg-type]
        world.env = VirtualEnv()
        engine, layer = await world.start()
        await engine.change_tree(record("create", 2))
        for block in range(BLOCKS):
            layer.write(block * BLOCK_BYTES, BAD)
        before = set(world.store.names("compacted/"))
        await engine.flush_memtable()
        (bad, *_) = sorted(
            set(world.store.names("compacted/")) - before, key=lambda name: -len(world.store.objects[name])
        )
        for block in range(BLOCKS):
            engine.layers[2].write(block * BLOCK_BYTES, GOOD)
        await engine.flush_memtable()
        await engine.close()
        withheld = Withheld(world, engine, layer, layer, bad)
        await withheld.reopen()
        if error is None:
            world.store.hold("get", bad)
        else:
            world.store.deny("get", bad, error)
        await case(withheld)
        if not withheld.engine.failed.done():
            await world.crash(withheld.engine)

    in_virtual_time(work())


async def fails(layer: Layer, offset: int) -> float:
    """A read that must fail as unreadable; the seconds that took."""
    began = now()
    with pytest.raises(Unreadable, match="compacted/"):
        await layer.read(offset, SECTOR_BYTES)
    return now() - began


@pytest.mark.parametrize("error", [EIO, DENIED, None], ids=["EIO", "denied", "hangs"])
def test_reads_of_other_objects_go_on_and_those_of_the_bad_one_fail_in_time(error: StorageError | None) -> None:
    async def case(there: Withheld) -> None:
        reads = [
            asyncio.ensure_future(fails(there.layer, (i % BLOCKS) * BLOCK_BYTES + i * SECTOR_BYTES)) for i in range(24)
        ]
        await asyncio.sleep(0.5)
        for block in range(BLOCKS):
            began = now()
            assert join(await there.other.read(block * BLOCK_BYTES, BLOCK_BYTES)) == GOOD
            assert now() - began < 0.1
        seconds = await asyncio.gather(*reads)
        least = READ_SECONDS_MAX * (1 if error is not None else 0.9)
        assert least - 1 <= min(seconds) <= max(seconds) <= 2 * ATTEMPT_SECONDS_MAX + 1
        (suspect,) = there.engine.source.suspects.all()
        assert suspect.name == there.bad
        assert {layer for layer, _ in suspect.blocks} == {1}
        if error is not None:
            assert await fails(there.layer, 5 * BLOCK_BYTES) < 5, "what is known to be withheld fails at once"
        assert there.engine.source.loading == 0

    played(case, error)


def test_a_bad_object_is_asked_for_seldom() -> None:
    async def case(there: Withheld) -> None:
        there.store.calls.clear()
        await fails(there.layer, 0)
        assert there.store.count("get", there.bad) < 40
        assert there.store.count("get", "manifest/") < 40

    played(case)


def test_gets_of_one_object_leave_room_for_others() -> None:
    """Also before it is known that this one does not answer."""

    async def case(there: Withheld) -> None:
        reads = []
        for block in range(BLOCKS):
            reads.append(asyncio.ensure_future(fails(there.layer, block * BLOCK_BYTES)))
            await asyncio.sleep(0.01)
        assert there.store.holds[0].waiting <= OBJECT_GETS_MAX
        assert join(await asyncio.wait_for(there.other.read(0, BLOCK_BYTES), 1)) == GOOD
        await asyncio.gather(*reads)

    played(case, None)


def test_a_bad_part_of_an_object_keeps_no_other_part() -> None:
    async def case(there: Withheld) -> None:
        store = there.store
        store.denials.clear()
        real = store.inner.get

        async def get(name: str, offset: int = 0, length: int | None = None, *rest: Any) -> bytes:
            whole = len(store.objects[name]) if length is None else length
            if name == there.bad and offset <= 1000 < offset + whole:
                raise EIO
            return await real(name, offset, length, *rest)

        store.inner.get = get  # type: ignore[method-assign,assignment]
        bad = asyncio.ensure_future(fails(there.layer, 0))
        await asyncio.sleep(1)
        for block in range(1, BLOCKS):
            assert join(await asyncio.wait_for(there.layer.read(block * BLOCK_BYTES, BLOCK_BYTES), 5)) == BAD
        assert READ_SECONDS_MAX - 1 <= await bad <= READ_SECONDS_MAX + 20

    played(case)


def test_an_object_that_is_given_again_is_read() -> None:
    async def case(there: Withheld) -> None:
        await fails(there.layer, 0)
        waiting = asyncio.ensure_future(there.layer.read(BLOCK_BYTES, SECTOR_BYTES))
        there.store.denials.clear()
        assert join(await waiting) == BAD[:SECTOR_BYTES]
        assert join(await there.layer.read(0, BLOCK_BYTES)) == BAD
        assert not there.engine.source.suspects.all()

    played(case)


def test_one_bad_moment_proves_nothing() -> None:
    """One GET fails and the next hangs for a minute: that is one moment without a network, and no bad object."""

    async def case(there: Withheld) -> None:
        there.store.denials.clear()
        there.store.fail_once("get", there.bad, EIO)
        read = asyncio.ensure_future(there.layer.read(0, SECTOR_BYTES))
        await asyncio.sleep(0.01)
        hold = there.store.hold("get", there.bad)
        await hold.someone_waits()
        await asyncio.sleep(READ_SECONDS_MAX / 2)
        there.store.holds.remove(hold)
        assert join(await read) == BAD[:SECTOR_BYTES]

    played(case)


def test_when_the_whole_store_is_away_all_wait_and_nobody_fails() -> None:
    async def case(there: Withheld) -> None:
        there.store.deny("get", "", EIO)
        reads = [
            asyncio.ensure_future(layer.read(block * BLOCK_BYTES, BLOCK_BYTES))
            for layer in (there.layer, there.other)
            for block in range(BLOCKS)
        ]
        await asyncio.sleep(900)
        assert not any(read.done() for read in reads)
        assert not there.engine.source.suspects.all()
        there.store.denials.clear()
        async with asyncio.timeout(15):
            found = [join(pieces) for pieces in await asyncio.gather(*reads)]
        assert found == [BAD] * BLOCKS + [GOOD] * BLOCKS

    played(case)


def test_a_suspect_is_not_fetched_ahead_and_keeps_no_read_ahead_of_others() -> None:
    async def case(there: Withheld) -> None:
        await fails(there.layer, 0)
        there.store.calls.clear()
        there.layer.prefetch(0, BLOCKS * BLOCK_BYTES)
        there.other.prefetch(0, BLOCKS * BLOCK_BYTES)
        await asyncio.sleep(5)
        assert there.store.count("get", there.bad) == 0
        assert there.other.read_cached(0, BLOCK_BYTES) is not None

    played(case, cache_bytes=8 * MIB)


@pytest.mark.parametrize("error", [EIO, DENIED, None], ids=["EIO", "denied", "hangs"])
def test_a_flush_does_without_what_is_withheld(error: StorageError | None) -> None:
    """Pieces over it stay in the log, others are durable, the log does not grow, and the end comes."""

    async def case(there: Withheld) -> None:
        engine = there.engine
        there.layer.write(100, b"piece")
        there.other.write(100, b"fine")
        began = now()
        await engine.flush_memtable()
        assert now() - began <= ATTEMPT_SECONDS_MAX + FLUSH_SECONDS_MAX + 2
        assert there.engine.writes.memtable.kept or engine.flushing
        for _ in range(20):
            there.other.write(8 * SECTOR_BYTES, b"w" * SECTOR_BYTES)
            began = now()
            await engine.flush_memtable()
            assert now() - began <= 3, "a flush waits for no object that is known to be withheld"
            assert len(engine.commit.position.objects) <= 2
        assert len(there.store.names("wal/")) < 15
        assert join(await there.other.read(96, 12)) == GOOD[96:100] + b"fine" + GOOD[104:108]
        began = now()
        await engine.close()
        assert now() - began <= 3
        assert there.store.names("wal/"), "the piece is in the log"
        there.store.denials.clear()
        there.store.holds.clear()
        await there.reopen()
        assert join(await there.layer.read(96, 12)) == BAD[96:100] + b"piece" + BAD[105:108]
        await there.engine.flush_memtable()
        assert not there.engine.writes.memtable
        await there.reopen()
        assert join(await there.layer.read(96, 12)) == BAD[96:100] + b"piece" + BAD[105:108]

    played(case, error)


def test_a_flush_waits_while_the_whole_store_is_away() -> None:
    async def case(there: Withheld) -> None:
        there.layer.write(100, b"piece")
        await durable(there.engine, there.layer)
        there.store.deny("get", "", EIO)
        flushing = asyncio.ensure_future(there.engine.flush_memtable())
        await asyncio.sleep(600)
        assert not flushing.done()
        there.store.denials.clear()
        await asyncio.wait_for(flushing, 15)
        assert not there.engine.writes.memtable.kept

    played(case)


def test_what_waits_ends_with_the_engine() -> None:
    async def case(there: Withheld) -> None:
        reading = asyncio.ensure_future(there.layer.read(0, SECTOR_BYTES))
        await asyncio.sleep(1)
        await there.world.crash(there.engine)
        with pytest.raises(StorageError, match="killed by the test"):
            await reading
        asked = len(there.store.calls)
        await asyncio.sleep(100)
        assert len(there.store.calls) == asked

    played(case)


def test_what_is_kept_over_a_withheld_object_is_bounded() -> None:
    """Beyond that only whole sectors are taken, of that disk; what was taken stays, through flush and restart."""

    async def case(there: Withheld) -> None:
        for sector in range(200):
            there.layer.write(sector * SECTOR_BYTES + 100, b"piece")
        await there.engine.flush_memtable()
        assert there.layer.kept >= 200 * SECTOR_BYTES
        before = there.engine.writes.sequence
        with pytest.raises(Unreadable, match="whole sectors"):
            there.layer.write(300 * SECTOR_BYTES + 1, b"x")
        with pytest.raises(Unreadable, match="whole sectors"):
            there.layer.zero(300 * SECTOR_BYTES + 1, 7, allocated=False)
        assert there.engine.writes.sequence == before
        there.other.write(1, b"x")
        there.layer.write(300 * SECTOR_BYTES, b"w" * SECTOR_BYTES)
        for _ in range(3):
            await there.engine.flush_memtable()
        there.layer.write(0, bytes(BLOCK_BYTES))  # which takes the place of 64 of them
        there.layer.write(BLOCK_BYTES, bytes(BLOCK_BYTES))
        await there.engine.flush_memtable()
        there.layer.write(301 * SECTOR_BYTES + 1, b"x")
        there.store.denials.clear()
        await there.engine.flush_memtable()
        await there.reopen()
        assert join(await there.layer.read(150 * SECTOR_BYTES + 99, 7)) == BAD[3:4] + b"piece" + BAD[1:2]

    played(case, kept_bytes_max=100 * SECTOR_BYTES)


def test_what_is_kept_is_bounded_while_a_flush_looks_at_it_again() -> None:
    """Else each flush would let more in, and none of it counts against the limits of memory."""

    async def case(there: Withheld) -> None:
        for sector in range(200):
            there.layer.write(sector * SECTOR_BYTES + 100, b"piece")
        await there.engine.flush_memtable()
        await there.engine.flush_memtable()
        kept = there.layer.kept
        assert kept >= 200 * SECTOR_BYTES
        flushing = asyncio.ensure_future(there.engine.flush_memtable())
        while not flushing.done():
            with pytest.raises(Unreadable, match="whole sectors"):
                there.layer.write(300 * SECTOR_BYTES + 1, b"x")
            await asyncio.sleep(0.1)
        assert there.layer.kept == kept

    played(case, None, kept_bytes_max=100 * SECTOR_BYTES)


@pytest.mark.parametrize("error", [EIO, None], ids=["EIO", "hangs"])
def test_a_flush_waits_for_a_withheld_object_once_however_much_is_kept_over_it(error: StorageError | None) -> None:
    """Else writers of all disks would stand still meanwhile: two minutes at the most that is kept."""

    async def case(there: Withheld) -> None:
        for sector in range(BLOCKS * BLOCK_BYTES // SECTOR_BYTES):
            there.layer.write(sector * SECTOR_BYTES + 100, b"piece")
        for _ in range(2):
            await there.engine.flush_memtable()
        kept, began = there.layer.kept, now()
        await there.engine.flush_memtable()
        assert now() - began <= 2
        assert there.layer.kept == kept > 0
        there.store.denials.clear()
        for held in there.store.holds:
            held.release()
        await there.engine.flush_memtable()
        await there.engine.flush_memtable()
        assert not there.engine.writes.memtable.kept, "it is asked for once in each flush"

    played(case, error)


def test_a_slow_link_is_no_withheld_object(monkeypatch: pytest.MonkeyPatch) -> None:
    """64 MiB are asked for at once over 512 KiB/s that all GETs share, and the first of them take longer than they may:
    what then waits for its turn is late, and no error."""

    async def work() -> None:
        world = World(options=EngineOptions(cache_bytes=2 * MIB))
        world.env = VirtualEnv()
        engine, layer = await world.start()
        chance = random.Random(1)
        content = [chance.randbytes(BLOCK_BYTES) for _ in range(64 * 4)]
        for block, data in enumerate(content):
            layer.write(block * BLOCK_BYTES, data)
        await engine.flush_memtable()
        await engine.close()
        engine = await world.open()
        layer = engine.layers[1]
        real, down, under_way, late = world.store.inner.get, Rate(), [0], [0]

        async def get(name: str, offset: int = 0, length: int | None = None, *rest: Any) -> bytes:
            data = await real(name, offset, length, *rest)
            left, began, allowed = float(len(data)), now(), down.seconds(len(data))
            under_way[0] += 1
            try:
                while left > 0:
                    await asyncio.sleep(0.25)
                    left -= MIB / 2 * 0.25 / under_way[0]
                    if now() - began > allowed:
                        down.timed_out(len(data))
                        late[0] += 1
                        raise Unavailable("it took too long")
            finally:
                under_way[0] -= 1
            down.took(len(data), now() - began)
            return data

        monkeypatch.setattr(world.store.inner, "get", get)
        reads = [layer.read(number * MIB, MIB) for number in range(64)]
        found = [join(pieces) for pieces in await asyncio.gather(*reads)]
        assert found == [b"".join(content[at : at + 4]) for at in range(0, 256, 4)]
        assert late[0]
        await world.crash(engine)

    in_virtual_time(work())


def test_what_nobody_foresaw_while_a_refusal_is_looked_into_is_told_to_who_waits() -> None:
    async def case(there: Withheld) -> None:
        async def broken(since: float) -> bool:
            raise RuntimeError("unforeseen")

        outage_of(there.engine).gives_others = broken
        async with asyncio.timeout(10 * READ_SECONDS_MAX):
            with pytest.raises(RuntimeError, match="unforeseen"):
                await there.layer.read(0, SECTOR_BYTES)

    played(case)
