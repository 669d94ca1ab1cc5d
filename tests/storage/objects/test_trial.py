"""A trial of a place: faults are found, figures are those of what was asked, and nothing is left behind."""

import asyncio

import pytest

from storage.buffers import Buffer
from storage.env import RealEnv
from storage.errors import AlreadyExists, OutOfSpace, Unsupported
from storage.objects.base import ObjectStore
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
