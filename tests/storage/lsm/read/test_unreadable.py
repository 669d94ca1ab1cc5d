"""One object that the store withholds while it gives others stops the range that needs it, and nothing else.

In virtual time: the engine is the real one, and a minute of it costs milliseconds.
"""

import asyncio
import random
from collections import Counter
from typing import Any

import pytest

from storage.errors import StorageError, Unavailable
from storage.format.frame import BLOCK_BYTES, SECTOR_BYTES
from storage.format.names import sst_id
from storage.lsm.options import EngineOptions
from storage.lsm.sst.fetch import READ_SECONDS_MAX
from storage.lsm.sst.frame_reader import ATTEMPT_SECONDS_MAX
from storage.lsm.sst.get_slots import OBJECT_GETS_MAX
from storage.objects.rates import Rate
from tests.simulation.virtual import in_virtual_time
from tests.storage.lsm.read.withheld import BAD, BLOCKS, DENIED, EIO, GOOD, VirtualEnv, Withheld, fails, now, played
from tests.storage.lsm.worlds import MIB, World, join
from tests.support.inside import outage_of


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


def test_what_nobody_waits_for_makes_no_suspect() -> None:
    """Nobody would ask for it again, so that nothing could clear it."""

    async def case(there: Withheld) -> None:
        there.layer.prefetch(0, BLOCKS * BLOCK_BYTES)
        await asyncio.sleep(5)
        assert there.store.count("get", there.bad) > 0
        assert not there.engine.source.suspects.all()
        assert there.engine.source.loading == 0

    played(case, cache_bytes=8 * MIB)


def test_an_object_that_is_deleted_is_no_suspect_any_more() -> None:
    """It was written over, as one does with what cannot be read."""

    async def case(there: Withheld) -> None:
        await fails(there.layer, 0)
        assert [suspect.name for suspect in there.engine.source.suspects.all()] == [there.bad]
        context = there.engine.compactor.context
        context.awaiting_deletion.add(str(sst_id(there.bad)))
        context.delete_replaced()
        assert not there.engine.source.suspects.all()

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


@pytest.mark.thorough
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
        real, down, under_way, late = world.store.inner.get, Rate(), [0], Counter[str]()

        async def get(name: str, offset: int = 0, length: int | None = None, *rest: Any) -> bytes:
            data = await real(name, offset, length, *rest)
            left, began, allowed = float(len(data)), now(), down.seconds(len(data), late[name])
            under_way[0] += 1
            try:
                while left > 0:
                    await asyncio.sleep(0.25)
                    left -= MIB / 2 * 0.25 / under_way[0]
                    if now() - began > allowed:
                        late[name] += 1
                        raise Unavailable("it took too long")
            finally:
                under_way[0] -= 1
            down.took(len(data), now() - began)
            return data

        monkeypatch.setattr(world.store.inner, "get", get)
        reads = [layer.read(number * MIB, MIB) for number in range(64)]
        found = [join(pieces) for pieces in await asyncio.gather(*reads)]
        assert found == [b"".join(content[at : at + 4]) for at in range(0, 256, 4)]
        assert late.total()
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
