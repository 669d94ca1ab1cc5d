"""Whether a store answers, as a whole and object by object. Time is virtual."""

import asyncio
from collections.abc import Callable
from dataclasses import replace

import pytest

from storage.buffers import Buffer
from storage.env import RealEnv
from storage.errors import NotFound, Unavailable
from storage.objects.base import ANSWER_BYTES_MAX, Capabilities
from storage.objects.health import ALONE_SECONDS, HUNG_SECONDS
from storage.objects.health import Failing as Failure
from storage.objects.memory import MemoryStore
from storage.objects.retry import RetryingStore
from tests.storage.objects.stubs import Wrapped

Run = Callable[..., float]


class LoopEnv(RealEnv):
    def monotonic(self) -> float:
        return asyncio.get_event_loop().time()

    def jitter(self) -> float:
        return 1.0


class Failing(Wrapped):
    """Fails to read the objects in `bad`, and everything while `away`."""

    def __init__(self) -> None:
        super().__init__(MemoryStore())
        self.bad: set[str] = set()
        self.away = False
        self.silent = False
        self.answers = asyncio.Event()

    async def get(self, name: str, offset: int = 0, length: int | None = None, limit: int = ANSWER_BYTES_MAX) -> bytes:
        if self.silent:
            await self.answers.wait()
        if self.away or name in self.bad:
            raise Unavailable(f"{name} is out of reach")
        return await super().get(name, offset, length, limit)


def failing(store: RetryingStore) -> Failure | None:
    """What fails now; asked for by a call, since it changes behind the back of whoever narrows its type."""
    return store.health.failing


def events(caplog: pytest.LogCaptureFixture) -> list[str]:
    return [record.message for record in caplog.records if record.name == "nbdserver"]


def test_one_bad_object_is_not_the_store(virtual_time: Run, caplog: pytest.LogCaptureFixture) -> None:
    async def main() -> None:
        inner = Failing()
        await inner.put("good", b"x")
        await inner.put("bad", b"x")
        inner.bad.add("bad")
        store = RetryingStore(inner, LoopEnv(), None)
        waiting = asyncio.ensure_future(store.get("bad"))
        await asyncio.sleep(0.05)
        assert failing(store) is not None, "until another request is answered nobody can know"
        for _ in range(100):
            await asyncio.sleep(1)
            await store.get("good")
            assert failing(store) is None
            if not (found := store.health.failing_alone()):
                assert asyncio.get_running_loop().time() < ALONE_SECONDS
                continue
            (alone,) = found
            assert asyncio.get_running_loop().time() >= ALONE_SECONDS
            assert (alone.name, alone.request, alone.since) == ("bad", "get", 0.0)
        inner.away = True
        other = asyncio.ensure_future(store.get("good"))
        await asyncio.sleep(1)
        assert failing(store) is not None
        assert (failing(store) or alone).since == pytest.approx(100.05)
        assert [it.name for it in store.health.failing_alone()] == ["bad"]
        inner.away = False
        inner.bad.clear()
        await asyncio.gather(waiting, other)
        assert failing(store) is None
        assert store.health.failing_alone() == []

    virtual_time(main())
    assert sorted(events(caplog)) == sorted(
        ["store_failing", "store_recovered", "object_failing", "store_failing", "store_recovered", "object_recovered"]
    )


def test_absent_is_an_answer(virtual_time: Run) -> None:
    async def main() -> None:
        inner = Failing()
        store = RetryingStore(inner, LoopEnv(), None)
        inner.away = True
        waiting = asyncio.ensure_future(store.get("x"))
        await asyncio.sleep(0.05)
        assert failing(store) is not None
        with pytest.raises(NotFound):
            await store.head("nothing")
        assert failing(store) is None
        waiting.cancel()
        await asyncio.wait([waiting])
        assert store.health.failing_alone() == [], "nobody asks any more"

    virtual_time(main())


def test_a_store_that_is_silent_at_opening_is_said_to_be(virtual_time: Run, caplog: pytest.LogCaptureFixture) -> None:
    async def main() -> None:
        inner = Failing()
        inner.silent = True
        store = RetryingStore(inner, LoopEnv(), 30)
        waiting = asyncio.ensure_future(store.get("x"))
        await asyncio.sleep(1.9)
        assert failing(store) is None
        await asyncio.sleep(0.2)
        assert failing(store) is not None
        assert "has not answered for 2 s" in str(failing(store))
        with pytest.raises(Unavailable):
            await waiting

    assert virtual_time(main()) == pytest.approx(30.0)
    assert events(caplog) == ["store_failing"]


def test_a_folder_that_hangs_is_said_to_while_it_serves(virtual_time: Run, caplog: pytest.LogCaptureFixture) -> None:
    """Also where something was answered behind the request that hangs, and nothing is asked any more."""

    async def main() -> None:
        inner = Failing()
        await inner.put("x", b"x")
        inner.silent = True
        store = RetryingStore(inner, LoopEnv(), None)
        waiting = asyncio.ensure_future(store.get("x"))
        await asyncio.sleep(4)
        await store.head("x")
        await asyncio.sleep(HUNG_SECONDS - 0.1)
        assert failing(store) is None
        await asyncio.sleep(0.2)
        assert f"has not answered for {HUNG_SECONDS:g} s" in str(failing(store))
        assert (failing(store) or Failure(0, "", "", "")).since == pytest.approx(4.0), "the last answer"
        inner.answers.set()
        assert await waiting == b"x"
        assert failing(store) is None
        await asyncio.sleep(10 * HUNG_SECONDS)

    virtual_time(main())
    assert events(caplog) == ["store_failing", "store_recovered"]


def test_one_object_that_hangs_beside_answers_is_not_the_store(
    virtual_time: Run, caplog: pytest.LogCaptureFixture
) -> None:
    async def main() -> None:
        inner = Failing()
        await inner.put("x", b"x")
        inner.silent = True
        store = RetryingStore(inner, LoopEnv(), None)
        waiting = asyncio.ensure_future(store.get("x"))
        for _ in range(100):
            await asyncio.sleep(1)
            await store.head("x")
        waiting.cancel()
        await asyncio.wait([waiting])
        await asyncio.sleep(10 * HUNG_SECONDS)

    virtual_time(main())
    assert events(caplog) == []


def test_a_large_body_on_a_slow_way_is_no_silence(virtual_time: Run, caplog: pytest.LogCaptureFixture) -> None:
    """What is remote has time-outs of its own, which are longer where there is more to send."""

    class Remote(Failing):
        @property
        def capabilities(self) -> Capabilities:
            return replace(super().capabilities, remote=True)

        async def create(self, name: str, data: Buffer) -> None:
            await asyncio.sleep(5 * HUNG_SECONDS)

    async def main() -> None:
        await RetryingStore(Remote(), LoopEnv(), None, hedge_seconds_min=1e9).create("x", b"x")

    virtual_time(main())
    assert events(caplog) == []
