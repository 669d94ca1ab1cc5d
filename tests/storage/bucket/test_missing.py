"""What is named and said to be missing is asked for again before it is called lost."""

import asyncio

import pytest

from storage.bucket.create_once import pauses
from storage.bucket.missing import LOST_TRIES, get_despite_missing
from storage.errors import Corrupt, Fenced, NotFound
from storage.format.names import TABLES, WALS
from storage.objects.base import ANSWER_BYTES_MAX, Capabilities, ObjectInfo
from storage.objects.memory import MemoryStore
from tests.simulation.virtual import virtually
from tests.storage.lsm.worlds import StageStore, World, durable, read

SECTOR = b"\1" * 4096


class Forgetful(StageStore):
    """A bucket that says of what begins with `prefix` that it is not there, so many times."""

    def __init__(self, inner: MemoryStore | None = None) -> None:
        super().__init__(inner)
        self.prefix = TABLES
        self.times = 0
        self.denied = 0

    @property
    def capabilities(self) -> Capabilities:
        return Capabilities(conditional_create=True, remote=True)

    def _forget(self, name: str) -> None:
        if name.startswith(self.prefix) and self.times:
            self.times -= 1
            self.denied += 1
            raise NotFound(f"there is no {name}")

    async def get(self, name: str, offset: int = 0, length: int | None = None, limit: int = ANSWER_BYTES_MAX) -> bytes:
        self._forget(name)
        return await super().get(name, offset, length, limit)

    async def head(self, name: str) -> ObjectInfo:
        self._forget(name)
        return await super().head(name)


def test_it_takes_more_than_ten_seconds() -> None:
    assert 10 < sum(pauses(LOST_TRIES)) < 15


@virtually
async def test_an_object_that_comes_back_was_never_lost() -> None:
    store = Forgetful()
    await store.create("compacted/x", b"data")
    looked = 0

    async def look() -> None:
        nonlocal looked
        looked += 1

    store.times = LOST_TRIES - 1
    assert await get_despite_missing(store, lambda: store.get("compacted/x"), on_missing=look) == b"data"
    assert looked == LOST_TRIES - 1, "a newer writer would explain it: look for one each time"
    store.times = LOST_TRIES
    with pytest.raises(NotFound):
        await get_despite_missing(store, lambda: store.get("compacted/x"), on_missing=look)

    async def superseded() -> None:
        raise Fenced("another server has it")

    store.times = 1
    with pytest.raises(Fenced):
        await get_despite_missing(store, lambda: store.get("compacted/x"), on_missing=superseded)


@virtually
async def test_a_folder_is_believed_at_once() -> None:
    store = StageStore()
    asked = 0

    async def ask() -> bytes:
        nonlocal asked
        asked += 1
        return await store.get("compacted/x")

    with pytest.raises(NotFound):
        await get_despite_missing(store, ask, on_missing=lambda: asyncio.sleep(0))
    assert asked == 1


@virtually
async def test_a_read_and_an_opening_survive_a_plain_not_found() -> None:
    """One such answer was an I/O error for the client at once, and damage in the log."""
    world = World()
    world.store = store = Forgetful(world.store.inner)
    engine, layer = await world.start()
    layer.write(0, SECTOR)
    await durable(engine, layer)
    await engine.flush_memtable()
    for times in (1, 3):
        store.times, store.denied = times, 0
        engine, layer = await world.reopen(engine)
        assert store.denied == times
        store.times, store.denied = times, 0
        assert await read(layer, 0, 4096) == SECTOR
        assert store.denied == times
    store.times = 100 * LOST_TRIES  # whatever else is asked for at the same time
    await world.crash(engine)
    with pytest.raises(Corrupt, match="missing"):
        await world.open()
    store.times, store.prefix = 0, WALS
    await world.open()
