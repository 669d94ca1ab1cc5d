"""What the counters count."""

import pytest

from storage.buffers import Buffer
from storage.errors import AlreadyExists, NotFound, Unavailable
from storage.objects.base import ObjectInfo
from storage.objects.counting import CountingStore, RequestStats
from storage.objects.memory import MemoryStore
from tests.storage.objects.stubs import Wrapped


async def test_requests_and_bytes_are_counted() -> None:
    stats = RequestStats()
    store = CountingStore(MemoryStore(), stats, lambda: 0.0)
    assert stats.requests == {"create": 0, "put": 0, "get": 0, "head": 0, "list": 0, "delete": 0}
    await store.create("a", bytes(1000))
    await store.put("b", memoryview(bytes(24)).cast("Q"))
    await store.get("a", 100, 50)
    await store.get("a")
    await store.head("a")
    await store.list("")
    await store.delete(["a"])
    assert stats.requests == {"create": 1, "put": 1, "get": 2, "head": 1, "list": 1, "delete": 1}
    assert (stats.errors, stats.bytes_up, stats.bytes_down) == (0, 1024, 1050)


async def test_an_answer_that_says_no_is_no_error() -> None:
    stats = RequestStats()
    store = CountingStore(MemoryStore(), stats, lambda: 0.0)
    await store.create("a", b"12")
    with pytest.raises(AlreadyExists):
        await store.create("a", b"1234")
    with pytest.raises(NotFound):
        await store.head("b")
    assert stats.requests["create"] == 2
    assert (stats.errors, stats.bytes_up) == (0, 2)


async def test_failures_are_errors_and_bring_no_bytes() -> None:
    class Down(Wrapped):
        async def create(self, name: str, data: Buffer) -> None:
            raise Unavailable("down")

    stats = RequestStats()
    with pytest.raises(Unavailable):
        await CountingStore(Down(MemoryStore()), stats, lambda: 0.0).create("a", b"1234")
    assert (stats.requests["create"], stats.errors, stats.failed["create"], stats.bytes_up) == (1, 1, 1, 0)


async def test_all_attempts_are_timed_those_that_fail_too() -> None:
    times = iter([0.0, 0.02, 1.0, 9.0])
    stats = RequestStats()
    store = CountingStore(MemoryStore(), stats, lambda: next(times))
    await store.create("a", b"1")
    with pytest.raises(NotFound):
        await store.get("b")
    assert stats.seconds["create"].count == stats.seconds["get"].count == 1
    assert stats.seconds["create"].seconds == pytest.approx(0.02)
    assert stats.seconds["get"].seconds == pytest.approx(8)


async def test_the_last_answer_has_its_time_and_a_failure_none() -> None:
    class Down(Wrapped):
        async def head(self, name: str) -> ObjectInfo:
            raise Unavailable("down")

    times = iter([0.0, 1.0, 2.0, 3.0, 4.0, 5.0])
    stats = RequestStats()
    store = CountingStore(Down(MemoryStore()), stats, lambda: next(times))
    await store.create("a", b"1")
    with pytest.raises(NotFound):
        await store.get("b")
    with pytest.raises(Unavailable):
        await store.head("a")
    assert stats.answered == {"create": 1.0, "get": 3.0}


@pytest.mark.parametrize(("objects", "requests"), [(0, 1), (1000, 1), (1001, 2), (2500, 3)])
async def test_pages_of_a_listing_are_requests(objects: int, requests: int) -> None:
    inner, stats = MemoryStore(), RequestStats()
    for number in range(objects):
        await inner.create(str(number), b"")
    await CountingStore(inner, stats, lambda: 0.0).list("")
    assert stats.requests["list"] == requests


@pytest.mark.parametrize(("names", "requests"), [(0, 0), (1, 1), (1000, 1), (1001, 2)])
async def test_batches_of_a_deletion_are_requests(names: int, requests: int) -> None:
    stats = RequestStats()
    await CountingStore(MemoryStore(), stats, lambda: 0.0).delete([str(number) for number in range(names)])
    assert stats.requests["delete"] == requests
