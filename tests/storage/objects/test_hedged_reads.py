"""Reads that hang are asked for again: when, what counts as an answer, and on slow ways. Time is virtual."""

import asyncio
import gc
from collections.abc import Callable
from typing import Any

import pytest

from storage.errors import NotFound, Unavailable
from storage.objects.base import ANSWER_BYTES_MAX, Capabilities
from storage.objects.hedge import HEDGED_BYTES_MAX, Hedge
from storage.objects.memory import MemoryStore
from storage.objects.retry import RetryingStore
from storage.units import MIB
from tests.storage.objects.stubs import Wrapped
from tests.storage.objects.test_hedge import NEVER, LoopEnv

Run = Callable[..., float]


class Slow(Wrapped):
    """Answers its reads after the `delays` in turn, then at once."""

    def __init__(self, *delays: float, remote: bool = True) -> None:
        super().__init__(MemoryStore())
        self.delays = list(delays)
        self.remote = remote
        self.sent: list[float] = []
        self.given_up = 0

    @property
    def capabilities(self) -> Capabilities:
        return Capabilities(conditional_create=True, remote=self.remote)

    async def get(self, name: str, offset: int = 0, length: int | None = None, limit: int = ANSWER_BYTES_MAX) -> bytes:
        self.sent.append(asyncio.get_running_loop().time())
        try:
            await asyncio.sleep(self.delays.pop(0) if self.delays else 0.0)
        except asyncio.CancelledError:
            self.given_up += 1
            raise
        return await super().get(name, offset, length, limit)


def test_a_read_that_hangs_is_asked_for_once_more(virtual_time: Run) -> None:
    inner = Slow(NEVER)

    async def main() -> None:
        await inner.create("compacted/1", b"0123456789")
        assert await RetryingStore(inner, LoopEnv(), None).get("compacted/1", 2, 4) == b"2345"
        await asyncio.sleep(0)
        assert inner.given_up == 1, "its thread hangs on"

    assert virtual_time(main()) == pytest.approx(1.0)
    assert inner.sent == [0.0, pytest.approx(1.0)]


def test_what_is_answered_in_time_is_asked_for_once(virtual_time: Run) -> None:
    inner = Slow(0.9)

    async def main() -> None:
        await inner.create("compacted/1", b"0123456789")
        await RetryingStore(inner, LoopEnv(), None).get("compacted/1", 2, 4)
        await asyncio.sleep(5)

    virtual_time(main())
    assert len(inner.sent) == 1


def test_that_it_is_missing_is_an_answer(virtual_time: Run) -> None:
    inner = Slow(NEVER)

    async def main() -> None:
        with pytest.raises(NotFound):
            await RetryingStore(inner, LoopEnv(), None).get("compacted/1", 0, 4)

    assert virtual_time(main()) == pytest.approx(1.0)


@pytest.mark.parametrize("leaves", [False, True], ids=["both hear it", "who asked leaves"])
def test_what_nobody_hears_is_not_logged(leaves: bool, virtual_time: Run) -> None:
    """Both attempts fail at one moment, as behind a silence; or the caller is gone at that very moment."""
    said: list[dict[str, Any]] = []

    async def main() -> None:
        asyncio.get_running_loop().set_exception_handler(lambda _, context: said.append(context))
        answered = asyncio.Event()

        async def fail() -> None:
            await answered.wait()
            raise Unavailable("the connection was reset") if leaves else NotFound("compacted/1")

        caller = asyncio.ensure_future(Hedge(LoopEnv()).run(fail, 4))
        await asyncio.sleep(5)
        answered.set()
        if leaves:
            await asyncio.sleep(0)
            caller.cancel()
        await asyncio.wait([caller])
        assert caller.cancelled() if leaves else isinstance(caller.exception(), NotFound)

    virtual_time(main())
    gc.collect()
    assert not said


def test_a_large_one_or_one_of_no_known_size_or_in_a_folder_is_asked_for_once(virtual_time: Run) -> None:
    cases = [
        (Slow(300.0), HEDGED_BYTES_MAX + 1),
        (Slow(300.0), None),
        (Slow(300.0, remote=False), 4),
    ]
    for inner, length in cases:

        async def main(inner: Slow = inner, length: int | None = length) -> None:
            await inner.create("compacted/1", bytes(HEDGED_BYTES_MAX + 1))
            await RetryingStore(inner, LoopEnv(), None).get("compacted/1", 0, length)

        virtual_time(main())
        assert len(inner.sent) == 1


def test_the_rate_of_a_way_is_learned_from_what_came(virtual_time: Run) -> None:
    """Not from how much might have: many a small object is asked for with a bound far above its size."""

    async def main() -> None:
        inner = Slow()
        await inner.create("keys/1", b"small")
        await inner.create("compacted/1", bytes(MIB))
        store = RetryingStore(inner, LoopEnv(), None)
        for _ in range(40):
            inner.delays = [16.0, 16.0]
            await store.get("compacted/1", 0, MIB)
        inner.delays = [0.02]
        await store.get("keys/1")
        inner.delays, before = [16.0, 16.0], len(inner.sent)
        await store.get("compacted/1", 0, MIB)
        assert len(inner.sent) == before + 1

    virtual_time(main())


def test_a_slow_way_is_learned(virtual_time: Run) -> None:
    """64 KiB a second: the first of them are asked for twice, and then none is."""
    inner = Slow(*[16.0] * 40)

    async def main() -> None:
        await inner.create("compacted/1", bytes(MIB))
        store = RetryingStore(inner, LoopEnv(), None)
        for _ in range(10):
            await store.get("compacted/1", 0, MIB)
        before = len(inner.sent)
        for _ in range(10):
            await store.get("compacted/1", 0, MIB)
        assert len(inner.sent) == before + 10

    virtual_time(main())
