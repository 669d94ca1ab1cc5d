"""A trial of a place: faults are found, figures are those of what was asked, and nothing is left behind."""

import asyncio
from collections.abc import Sequence

import pytest

from storage.buffers import Buffer
from storage.env import RealEnv
from storage.errors import AlreadyExists, OutOfSpace, Unsupported
from storage.objects.base import ANSWER_BYTES_MAX, Listing, ObjectStore
from storage.objects.memory import MemoryStore
from storage.objects.trial import PROBES, Speed, look_for_faults, measure
from tests.storage.objects.stubs import Wrapped


class FailsLater(Wrapped):
    """Keeps the condition for a while."""

    creates = 0

    async def create(self, name: str, data: Buffer) -> None:
        self.creates += 1
        try:
            await self.inner.create(name, data)
        except AlreadyExists:
            if self.creates < 300:
                raise


class Waits(Wrapped):
    """Takes a turn of the loop for each object, as a store over a network does, and says when one came."""

    def __init__(self, inner: ObjectStore) -> None:
        super().__init__(inner)
        self.asked = asyncio.Event()

    async def create(self, name: str, data: Buffer) -> None:
        self.asked.set()
        await asyncio.sleep(0)
        await self.inner.create(name, data)


class Fills(Wrapped):
    """Has no room for large objects."""

    async def create(self, name: str, data: Buffer) -> None:
        if len(memoryview(data)) > 1 << 20:
            raise OutOfSpace("no room")
        await self.inner.create(name, data)


class Clocked(RealEnv):
    """A clock that moves with what is asked for, and a little with each look at it; what is drawn is counted."""

    def __init__(self) -> None:
        super().__init__()
        self.now = 0.0
        self.drawn: list[int] = []

    def monotonic(self) -> float:
        self.now += 1e-6
        return self.now

    def random_bytes(self, count: int) -> bytes:
        self.drawn.append(count)
        return super().random_bytes(count)


class Takes(Wrapped):
    """Each request takes seconds by the clock of `env`; what is written is remembered by its head alone, and given back
    as nothing.
    """

    def __init__(self, inner: ObjectStore, env: Clocked, *, create: float, others: float) -> None:
        super().__init__(inner)
        self.env, self.seconds, self.others = env, create, others
        self.heads: list[bytes] = []
        self.written = 0
        self.deleted: list[int] = []

    async def create(self, name: str, data: Buffer) -> None:
        self.env.now += self.seconds
        self.heads.append(bytes(data[:128]))
        self.written += len(data)
        assert self.written < 500 << 20, "it has no bound"
        await self.inner.create(name, b"")
        await asyncio.sleep(0)

    async def get(self, name: str, offset: int = 0, length: int | None = None, limit: int = ANSWER_BYTES_MAX) -> bytes:
        self.env.now += self.others
        await asyncio.sleep(0)
        return b""

    async def list(self, prefix: str, start_after: str = "", limit: int | None = None) -> Listing:
        self.env.now += self.others
        return await self.inner.list(prefix, start_after, limit)

    async def delete(self, names: Sequence[str]) -> None:
        self.env.now += self.others
        self.deleted.append(len(names))
        await self.inner.delete(names)


@pytest.fixture
def memory() -> MemoryStore:
    return MemoryStore("memory:trial", lambda: 0.0)


async def test_a_fault_that_shows_once_in_a_while_is_found(memory: MemoryStore) -> None:
    env, done = RealEnv(), list[int]()
    try:
        with pytest.raises(Unsupported, match=r"racing|already"):
            await look_for_faults(FailsLater(memory), env, done.append)
        assert 0 < len(done) < PROBES, "the first look alone would not have found it"
    finally:
        env.close()


async def test_each_kind_of_request_has_figures_and_nothing_is_left(memory: MemoryStore) -> None:
    env, speeds = RealEnv(), list[Speed]()
    try:
        await look_for_faults(memory, env, lambda _: None)
        await measure(memory, env, 0.01, speeds.append)
    finally:
        env.close()
    assert [(each.request, each.size, each.parallel) for each in speeds] == [
        ("create", 4096, 1),
        ("create", 4096, 16),
        ("create", 262144, 16),
        ("create", 8388608, 4),
        ("get", 4096, 1),
        ("get", 4096, 16),
        ("get", 262144, 16),
        ("list", 0, 1),
        ("delete", 0, 1),
    ]
    for each in speeds:
        assert 0 <= each.median <= each.slowest
        assert each.count >= 3 * each.parallel
        assert (each.bytes_per_second > 0) == bool(each.size)
    assert await memory.list("") == []


async def test_what_ends_it_leaves_nothing_either(memory: MemoryStore) -> None:
    env, speeds = RealEnv(), list[Speed]()
    try:
        with pytest.raises(OutOfSpace):
            await measure(Fills(memory), env, 0.01, speeds.append)
        assert len(speeds) == 3
        assert await memory.list("") == []
        waits = Waits(memory)
        task = asyncio.create_task(measure(waits, env, 3600, speeds.append))
        await waits.asked.wait()
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        assert await memory.list("") == []
    finally:
        env.close()


async def test_bytes_are_drawn_once_and_no_two_objects_have_the_same(memory: MemoryStore) -> None:
    env, speeds = Clocked(), list[Speed]()
    store = Takes(memory, env, create=0.1, others=0.1)
    await measure(store, env, 1.0, speeds.append)
    env.close()
    assert len(env.drawn) == 2, "to draw takes longer than a fast store does: a name, and what objects are made of"
    assert len(set(store.heads)) == len(store.heads) > 100


async def test_deletes_end_when_nothing_is_left(memory: MemoryStore) -> None:
    env, speeds = Clocked(), list[Speed]()
    store = Takes(memory, env, create=0.1, others=0.001)
    await measure(store, env, 1.0, speeds.append)
    env.close()
    assert speeds[-1].request == "delete"
    assert speeds[-1].count == len(store.heads)
    assert speeds[-1].median >= 0.001
    assert set(store.deleted) == {1}


async def test_however_long_it_may_take_what_it_writes_is_bounded(memory: MemoryStore) -> None:
    env, speeds = Clocked(), list[Speed]()
    store = Takes(memory, env, create=0.0, others=1.0)
    await measure(store, env, 2.0, speeds.append, bytes_max=400 << 20)
    env.close()
    assert store.written <= 400 << 20
    creates = [each for each in speeds if each.request == "create"]
    assert all(each.count >= 3 * each.parallel for each in creates), "a kind has its part"
    assert max(store.deleted) <= 100, "a folder that deletes them all at once seems not to answer"
    assert await memory.list("") == []
