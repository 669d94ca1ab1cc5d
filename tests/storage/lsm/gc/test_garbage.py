"""Objects that nothing needs: deleted in the background, and in nobody's way where they cannot be."""

import asyncio
from collections.abc import Sequence

import pytest

from storage.errors import AccessDenied, Unavailable
from storage.format.frame import SECTOR_BYTES
from storage.format.names import wal_name
from storage.lsm.gc.garbage import CLOSE_SECONDS_MAX, DELETE_PAUSE_SECONDS_MAX, Garbage
from storage.objects.base import DELETE_BATCH_MAX
from storage.objects.memory import MemoryStore
from tests.simulation.virtual import in_virtual_time
from tests.storage.lsm.worlds import InlineEnv, World, durable, read
from tests.support.inside import contents
from tests.support.waiting import soon, until

DENIED = AccessDenied("s3://bucket refused to delete (403 AccessDenied)")


class Keeper(MemoryStore):
    """A store that does not delete the objects in `kept`, and may hang."""

    def __init__(self, names: Sequence[str] = ()) -> None:
        super().__init__()
        self._objects = dict.fromkeys(names, b"")
        self.kept: set[str] = set()
        self.asked: list[tuple[float, int]] = []
        """(when, names) of each request."""
        self.hangs = False

    async def delete(self, names: Sequence[str]) -> None:
        self.asked.append((asyncio.get_running_loop().time(), len(names)))
        if self.hangs:
            await asyncio.get_running_loop().create_future()
        for name in names:
            if name not in self.kept:
                self._objects.pop(name, None)
        if self.kept & set(names):
            raise DENIED


NAMES = [wal_name(number) for number in range(1, 2501)]


def test_all_of_it_is_deleted_in_large_requests() -> None:
    store = Keeper(NAMES)

    async def work() -> None:
        garbage = Garbage(store, InlineEnv())
        collecting = asyncio.ensure_future(garbage.collect())
        garbage.add(NAMES)
        while contents(store):  # noqa: ASYNC110
            await asyncio.sleep(1)
        assert len(garbage) == 0
        collecting.cancel()

    in_virtual_time(work())
    assert [count for _, count in store.asked] == [DELETE_BATCH_MAX, DELETE_BATCH_MAX, 500]


def test_an_object_that_stays_keeps_no_other_and_is_asked_for_seldom() -> None:
    store = Keeper(NAMES)
    store.kept = {NAMES[3]}

    async def work() -> None:
        garbage = Garbage(store, InlineEnv())
        collecting = asyncio.ensure_future(garbage.collect())
        garbage.add(NAMES)
        await asyncio.sleep(600)
        assert set(contents(store)) == store.kept
        assert len(garbage) == 1
        assert "403" in str(garbage.failing)
        before = len(store.asked)
        await asyncio.sleep(86400)
        assert len(store.asked) - before < 2 * 86400 / DELETE_PAUSE_SECONDS_MAX + 10
        store.kept = set()
        await asyncio.sleep(DELETE_PAUSE_SECONDS_MAX + 1)
        assert not contents(store)
        assert len(garbage) == 0
        assert garbage.failing is None
        collecting.cancel()

    in_virtual_time(work())


def test_what_several_want_to_stay_stays_until_the_last_lets_it_go() -> None:
    """Also when somebody asks for all to be deleted now."""
    store = Keeper(NAMES[:10])

    async def work() -> None:
        garbage = Garbage(store, InlineEnv())
        collecting = asyncio.ensure_future(garbage.collect())
        with garbage.held():
            with garbage.held():
                garbage.add(NAMES[:10])
                await garbage.delete_now()
            await asyncio.sleep(600)
            await garbage.delete_now()
            assert not store.asked
        await asyncio.sleep(1)
        assert not contents(store)
        collecting.cancel()

    in_virtual_time(work())


class SlowKeeper(Keeper):
    """One that takes its time, and notes how many requests it has at a time."""

    now = most = 0

    async def delete(self, names: Sequence[str]) -> None:
        self.now += 1
        self.most = max(self.most, self.now)
        await asyncio.sleep(5)
        self.now -= 1
        await super().delete(names)


def test_one_request_is_under_way_at_a_time_whoever_asks() -> None:
    store = SlowKeeper(NAMES)
    store.kept = {NAMES[3]}

    async def work() -> None:
        garbage = Garbage(store, InlineEnv())
        garbage.add(NAMES)
        collecting = asyncio.ensure_future(garbage.collect())
        await asyncio.gather(garbage.delete_now(), garbage.delete_now())
        await asyncio.sleep(3600)
        assert not collecting.done()
        assert garbage.deleted == len(NAMES) - 1
        await garbage.finish()
        assert len(garbage) == 1
        collecting.cancel()

    in_virtual_time(work())
    assert store.most == 1


def test_what_is_remembered_is_bounded() -> None:
    garbage = Garbage(Keeper(), InlineEnv(), names_max=100)
    for name in NAMES:
        garbage.add([name])
    assert len(garbage) - garbage.forgotten == 100
    assert len(garbage) == len(NAMES), "what was forgotten is there all the same"


def test_what_is_forgotten_while_it_is_refused_stays_so() -> None:
    """A deletion that is under way is of the oldest names, which are those that go first where there is no room."""
    store = Keeper(NAMES)
    store.kept = set(NAMES)

    async def work() -> None:
        garbage = Garbage(store, InlineEnv(), names_max=1)
        refuses = store.delete

        async def delete(names: Sequence[str]) -> None:
            garbage.add([NAMES[len(store.asked)]])
            await refuses(names)

        store.delete = delete  # type: ignore[method-assign]
        collecting = asyncio.ensure_future(garbage.collect())
        garbage.add(NAMES[-1:])
        await asyncio.sleep(60)
        assert not collecting.done()
        assert len(garbage) - garbage.forgotten == 1
        collecting.cancel()

    in_virtual_time(work())
    assert len(store.asked) > 2


@pytest.mark.parametrize("how", ["denies", "hangs"])
def test_an_end_is_not_held_up(how: str) -> None:
    store = Keeper(NAMES)
    store.kept = set(NAMES)
    store.hangs = how == "hangs"

    async def work() -> float:
        garbage = Garbage(store, InlineEnv())
        garbage.add(NAMES)
        began = asyncio.get_running_loop().time()
        await garbage.finish()
        return asyncio.get_running_loop().time() - began

    assert in_virtual_time(work()) <= CLOSE_SECONDS_MAX
    assert len(store.asked) == 1


@pytest.mark.parametrize("error", [DENIED, Unavailable("no answer")])
async def test_a_store_that_deletes_nothing_is_usable(error: AccessDenied | Unavailable) -> None:
    """Writes, flushes, the close and the next opening go on; the log is replayed no further back for it."""
    world = World()
    engine, layer = await world.start()
    world.store.deny("delete", "", error)
    for number in range(20):
        layer.write(number * SECTOR_BYTES, bytes([number + 1]) * SECTOR_BYTES)
        await soon(asyncio.ensure_future(engine.flush_memtable()))
    await until(lambda: engine.garbage.failing is not None)
    assert len(engine.garbage) >= 20
    assert not engine.log.position.objects, "what is garbage is not what a replay reads"
    assert engine.log.position.logged_bytes == 0
    assert not engine.writes.gate.closed
    await soon(asyncio.ensure_future(engine.close()))
    logged = world.store.names("wal/")
    assert len(logged) > 20
    world.store.calls.clear()
    engine = await world.open(take_over=False)
    layer = engine.layers[1]
    for number in range(20):
        assert await read(layer, number * SECTOR_BYTES, SECTOR_BYTES) == bytes([number + 1]) * SECTOR_BYTES
    gotten = world.store.count("get", "wal/")
    assert gotten <= 2, "the log is read from its replay point on"
    layer.write(0, b"n" * SECTOR_BYTES)
    await soon(asyncio.ensure_future(durable(engine, layer)))
    await soon(asyncio.ensure_future(engine.close()))
