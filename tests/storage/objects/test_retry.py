"""Retries: how long and how often, what is settled by reading back, and what the log is told. Time is virtual."""

import asyncio
import logging
from collections.abc import Awaitable, Callable
from typing import Any

import pytest

from storage.buffers import Buffer
from storage.env import RealEnv
from storage.errors import AccessDenied, AlreadyExists, Corrupt, NotFound, OutOfSpace, StorageError, Unavailable
from storage.objects.base import ANSWER_BYTES_MAX, ObjectInfo
from storage.objects.memory import MemoryStore
from storage.objects.retry import RetryingStore
from tests.storage.objects.stubs import Wrapped

Run = Callable[..., float]


class FullJitterEnv(RealEnv):
    """Draws the same jitter always."""

    def __init__(self, jitter: float = 1.0) -> None:
        super().__init__()
        self._jitter = jitter

    def jitter(self) -> float:
        return self._jitter


class Faulty(Wrapped):
    """Raises the `faults` in turn, before each call, or after it where `late`; then works."""

    def __init__(self, *faults: StorageError, late: bool = False) -> None:
        super().__init__(MemoryStore())
        self.faults = list(faults)
        self.late = late
        self.calls: list[str] = []

    async def _faulty(self, verb: str, call: Callable[[], Any]) -> Any:
        self.calls.append(verb)
        if self.faults and not self.late:
            raise self.faults.pop(0)
        result = await call()
        if self.faults:
            raise self.faults.pop(0)
        return result

    async def create(self, name: str, data: Buffer) -> None:
        await self._faulty("create", lambda: super(Faulty, self).create(name, data))

    async def put(self, name: str, data: Buffer) -> None:
        await self._faulty("put", lambda: super(Faulty, self).put(name, data))

    async def get(self, name: str, offset: int = 0, length: int | None = None, limit: int = ANSWER_BYTES_MAX) -> Any:
        return await self._faulty("get", lambda: super(Faulty, self).get(name, offset, length, limit))

    async def head(self, name: str) -> Any:
        return await self._faulty("head", lambda: super(Faulty, self).head(name))

    async def delete(self, names: Any) -> None:
        await self._faulty("delete", lambda: super(Faulty, self).delete(names))

    async def list(self, prefix: str, start_after: str = "", limit: int | None = None) -> Any:
        return await self._faulty("list", lambda: super(Faulty, self).list(prefix, start_after, limit))


def down(count: int, **more: Any) -> list[Unavailable]:
    return [Unavailable(f"fault {number}", **more) for number in range(count)]


def test_every_call_is_tried_again(virtual_time: Run) -> None:
    async def main() -> None:
        inner = Faulty()
        store = RetryingStore(inner, FullJitterEnv(), None)
        calls: dict[str, Callable[[], Awaitable[object]]] = {
            "create": lambda: store.create("a", b"data"),
            "put": lambda: store.put("b", b"data"),
            "get": lambda: store.get("a", 1, 2),
            "head": lambda: store.head("a"),
            "list": lambda: store.list("", "a", 1),
            "delete": lambda: store.delete(["a"]),
        }
        for verb, call in calls.items():
            inner.faults, inner.calls = list(down(2)), []
            expected = {"get": b"at", "head": ObjectInfo("a", 4), "list": [ObjectInfo("b", 4)]}.get(verb)
            assert await call() == expected
            assert inner.calls == [verb] * 3

    virtual_time(main())


def test_the_pause_doubles_to_its_ceiling(virtual_time: Run) -> None:
    async def main() -> None:
        await RetryingStore(Faulty(*down(10)), FullJitterEnv(), None).put("a", b"")

    pauses = [0.1, 0.2, 0.4, 0.8, 1.6, 3.2, 6.4, 10, 10, 10]
    assert virtual_time(main()) == pytest.approx(sum(pauses))


def test_the_pause_is_drawn_from_nothing_on(virtual_time: Run) -> None:
    async def main() -> None:
        await RetryingStore(Faulty(*down(50)), FullJitterEnv(0.0), None).put("a", b"")

    assert virtual_time(main()) == 0


@pytest.mark.parametrize(("asked", "waited"), [(7.0, 7.0), (0.01, 0.1), (86400.0, 60.0)])
def test_the_pause_the_store_asks_for_is_kept(virtual_time: Run, asked: float, waited: float) -> None:
    async def main() -> None:
        await RetryingStore(Faulty(*down(1, retry_after=asked)), FullJitterEnv(), None).put("a", b"")

    assert virtual_time(main()) == pytest.approx(waited)


def test_at_the_deadline_the_last_fault_is_raised(virtual_time: Run) -> None:
    async def main() -> None:
        inner = Faulty(*down(1000))
        with pytest.raises(Unavailable, match=r"fault 3$"):
            await RetryingStore(inner, FullJitterEnv(), 1.0).put("a", b"")
        assert len(inner.calls) == 4  # at 0, 0.1, 0.3 and 0.7 s

    assert virtual_time(main()) == pytest.approx(1.0)


def test_at_the_deadline_a_call_under_way_is_given_up(virtual_time: Run) -> None:
    class Silent(Wrapped):
        async def head(self, name: str) -> ObjectInfo:
            await asyncio.sleep(1e9)
            raise NotFound(name)

    async def main() -> None:
        with pytest.raises(Unavailable, match="memory:// did not answer within 30 s"):
            await RetryingStore(Silent(MemoryStore()), FullJitterEnv(), 30).head("a")

    assert virtual_time(main()) == pytest.approx(30)


def test_a_time_out_of_the_caller_stays_his(virtual_time: Run) -> None:
    async def main() -> None:
        store = RetryingStore(Faulty(*down(1000)), FullJitterEnv(), 30)
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(5):
                await store.put("a", b"")

    assert virtual_time(main()) == pytest.approx(5)


def test_a_time_out_that_is_no_answer_of_a_store_stays_what_it_is(virtual_time: Run) -> None:
    class Broken(Wrapped):
        async def head(self, name: str) -> ObjectInfo:
            raise TimeoutError("a mistake in the program")

    async def main() -> None:
        with pytest.raises(TimeoutError, match="mistake"):
            await RetryingStore(Broken(MemoryStore()), FullJitterEnv(), 30).head("a")

    virtual_time(main())


@pytest.mark.parametrize("fault", [NotFound("x"), Corrupt("x", "y")])
@pytest.mark.parametrize("deadline", [None, 30.0])
def test_other_errors_are_not_tried_again(virtual_time: Run, fault: StorageError, deadline: float | None) -> None:
    async def main() -> None:
        inner = Faulty(fault)
        with pytest.raises(type(fault)):
            await RetryingStore(inner, FullJitterEnv(), deadline).get("a")
        assert inner.calls == ["get"]

    assert virtual_time(main()) == 0


@pytest.mark.parametrize("fault", [OutOfSpace("full"), AccessDenied("the clock is off")])
def test_a_person_is_waited_for_only_by_those_who_wait_for_ever(virtual_time: Run, fault: StorageError) -> None:
    async def main() -> None:
        inner = Faulty(fault, fault)
        store = RetryingStore(inner, FullJitterEnv(), 30)
        with pytest.raises(type(fault)):
            await store.create("a", b"")
        await store.with_deadline(None).create("a", b"")
        assert inner.calls == ["create"] * 3

    virtual_time(main())


HEADER = b"our nonce" + bytes(119)


def create_beside(virtual_time: Run, there: bytes | None, ours: Buffer) -> list[str]:
    """A create whose first attempt's answer is lost, with `there` in place at the second; the calls it made."""
    inner = Faulty(*down(1), late=there is None)

    async def main() -> None:
        if there is not None:
            await inner.inner.create("a", there)
        await RetryingStore(inner, FullJitterEnv(), None).create("a", ours)

    virtual_time(main())
    return inner.calls


def test_a_lost_answer_is_settled_by_reading_back(virtual_time: Run) -> None:
    for body in (b"", b"short", HEADER, HEADER + bytes(5000)):
        calls = create_beside(virtual_time, None, body)
        assert calls == ["create", "create", "head", "get"]


def test_what_was_written_though_it_was_refused_is_settled_too(virtual_time: Run) -> None:
    """By a gateway that passed it on, and lost the store's answer: it is no other writer's."""

    async def main() -> None:
        for fault in (AccessDenied("refused"), OutOfSpace("full")):
            inner = Faulty(fault, late=True)
            await RetryingStore(inner, FullJitterEnv(), None).create("a", HEADER)
            assert inner.calls == ["create", "create", "head", "get"]

    virtual_time(main())


def test_what_is_large_is_looked_for_before_it_is_sent_again(virtual_time: Run) -> None:
    """Seen: what stands between refuses to send on what the store has already, and answers nothing, for ever."""

    class Proxied(Faulty):
        async def create(self, name: str, data: Buffer) -> None:
            try:
                await super().create(name, data)
            finally:
                raise Unavailable("the connection ended")

    async def main() -> None:
        for data, looks in ((b"head of its writer" * 100_000, True), (b"small" * 1000, False)):
            inner = Proxied()
            store = RetryingStore(inner, FullJitterEnv(), 60.0)
            if looks:
                await store.create("a", data)
                assert inner.calls == ["create", "head", "get"]
            else:
                with pytest.raises(Unavailable):
                    await store.create("a", data)
                assert set(inner.calls) == {"create"}
            await inner.put("b", b"another writer's" * 100_000)
            with pytest.raises(Unavailable):
                await store.create("b", data)

    virtual_time(main())


def test_any_buffer_is_settled(virtual_time: Run) -> None:
    for kind in (bytearray, memoryview):
        create_beside(virtual_time, None, kind(HEADER + bytes(5000)))


@pytest.mark.parametrize(
    "there", [HEADER + bytes(4999), HEADER + bytes(5001), b"another" + bytes(128 - 7) + bytes(5000), b"", HEADER]
)
def test_another_writers_object_is_not_taken_for_ours(virtual_time: Run, there: bytes) -> None:
    with pytest.raises(AlreadyExists):
        create_beside(virtual_time, there, HEADER + bytes(5000))


def test_of_a_small_object_every_byte_is_compared(virtual_time: Run) -> None:
    # Two changes of one store's passwords begin alike: what differs is behind the first slot.
    with pytest.raises(AlreadyExists):
        create_beside(virtual_time, b"h" * 128 + b"theirs", b"h" * 128 + b"of-own")


def test_a_taken_name_is_believed_at_once_when_nothing_was_lost(virtual_time: Run) -> None:
    """Even with our own bytes there: somebody else, or an earlier call, has made them."""

    async def main() -> None:
        inner = Faulty()
        await inner.inner.create("a", HEADER)
        with pytest.raises(AlreadyExists):
            await RetryingStore(inner, FullJitterEnv(), None).create("a", HEADER)
        assert inner.calls == ["create"]

    virtual_time(main())


def test_what_is_gone_again_is_left_to_the_caller(virtual_time: Run) -> None:
    class Vanishing(Faulty):
        async def head(self, name: str) -> ObjectInfo:
            raise NotFound(name)

    async def main() -> None:
        with pytest.raises(AlreadyExists):
            await RetryingStore(Vanishing(*down(1), late=True), FullJitterEnv(), None).create("a", HEADER)

    virtual_time(main())


def test_faults_while_it_is_read_back_change_nothing(virtual_time: Run) -> None:
    class LateFaults(Faulty):
        async def create(self, name: str, data: Buffer) -> None:
            self.late = len(self.calls) == 0
            await super().create(name, data)
            self.late = False

    async def main() -> None:
        inner = LateFaults(*down(1), late=True)
        original = inner.head
        remaining = down(3)

        async def head(name: str) -> Any:
            if remaining:
                raise remaining.pop(0)
            return await original(name)

        inner.head = head  # type: ignore[method-assign]
        await RetryingStore(inner, FullJitterEnv(), None).create("a", HEADER)
        assert inner.calls.count("create") == 5

    virtual_time(main())


def test_the_log_is_told_once_that_it_fails_and_once_that_it_works(
    virtual_time: Run, caplog: pytest.LogCaptureFixture
) -> None:
    async def main() -> None:
        inner = Faulty(*down(5))
        store = RetryingStore(inner, FullJitterEnv(), None)
        await asyncio.gather(store.put("a", b""), store.with_deadline(60).put("b", b""))
        await store.get("a")
        inner.faults = [OutOfSpace("full")]
        await store.put("a", b"")

    virtual_time(main())
    events = [(record.levelno, record.message) for record in caplog.records if record.name == "nbdserver"]
    assert events == [(logging.WARNING, "store_failing"), (logging.WARNING, "store_recovered")] * 2
    assert vars(caplog.records[0])["error"] == "fault 0"
    assert vars(caplog.records[0])["url"] == "memory://"


def test_what_the_store_is_stays_known() -> None:
    store = RetryingStore(MemoryStore("memory://x"), FullJitterEnv(), None)
    assert store.url == "memory://x"
    assert store.capabilities.conditional_create
