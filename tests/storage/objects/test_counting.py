"""What the counters count."""

import pytest

from storage.buffers import Buffer
from storage.errors import AlreadyExists, NotFound, Unavailable
from storage.objects.counting import CountingStore, RequestStats
from storage.objects.memory import MemoryStore
from tests.storage.objects.stubs import Wrapped


async def test_requests_and_bytes_are_counted() -> None:
    stats = RequestStats()
    store = CountingStore(MemoryStore(), stats)
    assert stats.requests == {"create": 0, "put": 0, "get": 0, "head": 0, "list": 0, "delete": 0}
    await store.create("a", bytes(1000))
    await store.put("b", memoryview(bytes(24)).cast("Q"))
    await store.get("a", 100, 50)
    await store.get("a")
    await store.head("a")
    await store.list("")
    await store.delete(["a"])
    assert stats == RequestStats(
        {"create": 1, "put": 1, "get": 2, "head": 1, "list": 1, "delete": 1},
        errors=0,
        bytes_up=1024,
        bytes_down=1050,
    )


async def test_an_answer_that_says_no_is_no_error() -> None:
    stats = RequestStats()
    store = CountingStore(MemoryStore(), stats)
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
        await CountingStore(Down(MemoryStore()), stats).create("a", b"1234")
    assert (stats.requests["create"], stats.errors, stats.bytes_up) == (1, 1, 0)


@pytest.mark.parametrize(("objects", "requests"), [(0, 1), (1000, 1), (1001, 2), (2500, 3)])
async def test_pages_of_a_listing_are_requests(objects: int, requests: int) -> None:
    inner, stats = MemoryStore(), RequestStats()
    for number in range(objects):
        await inner.create(str(number), b"")
    await CountingStore(inner, stats).list("")
    assert stats.requests["list"] == requests


@pytest.mark.parametrize(("names", "requests"), [(0, 0), (1, 1), (1000, 1), (1001, 2)])
async def test_batches_of_a_deletion_are_requests(names: int, requests: int) -> None:
    stats = RequestStats()
    await CountingStore(MemoryStore(), stats).delete([str(number) for number in range(names)])
    assert stats.requests["delete"] == requests
