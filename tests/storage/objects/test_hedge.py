"""Creates that hang are sent again: when, how often, and whose the object is in the end. Time is virtual."""

import asyncio
from collections.abc import Callable

import pytest

from storage.buffers import Buffer
from storage.env import RealEnv
from storage.errors import AlreadyExists, Unavailable
from storage.objects.base import Capabilities
from storage.objects.hedge import HEDGED_BYTES_MAX, HEDGES_MAX, Hedge
from storage.objects.memory import MemoryStore
from storage.objects.retry import RetryingStore
from tests.storage.objects.stubs import Wrapped

Run = Callable[..., float]

HEADER = b"our nonce" + bytes(119)
NEVER = 1e9


class LoopEnv(RealEnv):
    """Time is that of the loop."""

    def monotonic(self) -> float:
        return asyncio.get_event_loop().time()

    def jitter(self) -> float:
        return 1.0


class Hanging(Wrapped):
    """Answers the creates after the `delays` in turn, which land before or after that wait; then at once."""

    def __init__(self, *delays: float, lands_first: bool = True) -> None:
        super().__init__(MemoryStore())
        self.delays = list(delays)
        self.lands_first = lands_first
        self.sent: list[float] = []
        self.given_up = 0

    @property
    def capabilities(self) -> Capabilities:
        return Capabilities(conditional_create=True, remote=True)

    async def create(self, name: str, data: Buffer) -> None:
        self.sent.append(asyncio.get_running_loop().time())
        delay = self.delays.pop(0) if self.delays else 0.0
        if self.lands_first:
            await super().create(name, data)
        try:
            await asyncio.sleep(delay)
        except asyncio.CancelledError:
            self.given_up += 1
            raise
        if not self.lands_first:
            await super().create(name, data)


def test_a_create_that_hangs_is_sent_once_more_and_settled(virtual_time: Run) -> None:
    for landed in (True, False):
        inner = Hanging(NEVER, lands_first=landed)

        async def main(inner: Hanging = inner) -> None:
            await RetryingStore(inner, LoopEnv(), None).create("wal/1", HEADER)
            await asyncio.sleep(0)
            assert await inner.get("wal/1") == HEADER
            assert inner.given_up == 1

        assert virtual_time(main()) == pytest.approx(1.0)
        assert inner.sent == [0.0, pytest.approx(1.0)]


def test_a_create_that_is_answered_in_time_is_sent_once(virtual_time: Run) -> None:
    inner = Hanging(0.9)

    async def main() -> None:
        await RetryingStore(inner, LoopEnv(), None).create("wal/1", HEADER)
        await asyncio.sleep(5)

    virtual_time(main())
    assert len(inner.sent) == 1
    assert inner.given_up == 0


def test_another_writers_object_is_not_taken_for_ours(virtual_time: Run) -> None:
    class Slow(Hanging):
        async def create(self, name: str, data: Buffer) -> None:
            if not self.sent:
                await self.inner.create(name, b"another writer's")
            await super().create(name, data)

    async def main() -> None:
        with pytest.raises(AlreadyExists):
            await RetryingStore(Slow(NEVER, lands_first=False), LoopEnv(), None).create("wal/1", HEADER)

    virtual_time(main())


def test_what_was_given_up_may_still_arrive_and_changes_nothing(virtual_time: Run) -> None:
    """It is the same object; and one that was deleted meanwhile comes back as a leftover, whole."""

    class Stubborn(Hanging):
        async def create(self, name: str, data: Buffer) -> None:
            if not self.sent:
                asyncio.get_running_loop().call_later(60, lambda: late.append(asyncio.ensure_future(land(name, data))))
            await super().create(name, data)

    late: list[asyncio.Future[None]] = []
    inner = Stubborn(NEVER, lands_first=False)

    async def land(name: str, data: Buffer) -> None:
        await inner.inner.create(name, data)

    async def main() -> None:
        await RetryingStore(inner, LoopEnv(), None).create("wal/1", HEADER)
        await asyncio.sleep(100)
        assert isinstance(late[0].exception(), AlreadyExists)
        assert await inner.get("wal/1") == HEADER

    virtual_time(main())


def test_the_error_of_one_is_not_the_end_of_the_other(virtual_time: Run) -> None:
    class Broken(Hanging):
        async def create(self, name: str, data: Buffer) -> None:
            first = not self.sent
            await super().create(name, data)
            if first:
                raise Unavailable("the connection was reset")

    inner = Broken(1.5, 3.0, lands_first=False)

    async def main() -> None:
        await RetryingStore(inner, LoopEnv(), None).create("wal/1", HEADER)

    assert virtual_time(main()) == pytest.approx(4.0), "when the second was answered"
    assert inner.sent == [0.0, pytest.approx(1.0)]


def test_when_all_hang_the_caller_hears_of_the_last(virtual_time: Run) -> None:
    """What the transport does to a request after ten seconds."""

    class Away(Hanging):
        async def create(self, name: str, data: Buffer) -> None:
            self.sent.append(asyncio.get_running_loop().time())
            await asyncio.sleep(10)
            raise Unavailable("it took too long")

    inner = Away()

    async def main() -> None:
        with pytest.raises(Unavailable, match="it took too long"):
            await RetryingStore(inner, LoopEnv(), 11.05).create("wal/1", HEADER)

    assert virtual_time(main()) == pytest.approx(11.05)
    assert inner.sent == [0.0, pytest.approx(1.0)], "the pause after both reaches beyond the deadline"


def test_second_attempts_are_bounded(virtual_time: Run) -> None:
    inner = Hanging(*[30.0] * 100, lands_first=False)

    async def main() -> None:
        store = RetryingStore(inner, LoopEnv(), None)
        stores = store, store.with_deadline(None)  # of all who share it: each holds a thread
        tasks = [asyncio.ensure_future(stores[number % 2].create(f"wal/{number}", HEADER)) for number in range(20)]
        await asyncio.sleep(29)
        assert len(inner.sent) == 20 + HEDGES_MAX
        await asyncio.gather(*tasks)
        await store.create("wal/20", HEADER)
        assert len(inner.sent) == 20 + HEDGES_MAX + 2, "those that ended count"

    virtual_time(main())


def test_the_large_are_sent_once(virtual_time: Run) -> None:
    inner = Hanging(3000.0)

    async def main() -> None:
        await RetryingStore(inner, LoopEnv(), None).create("compacted/1", bytes(HEDGED_BYTES_MAX + 1))

    virtual_time(main())
    assert len(inner.sent) == 1


def test_a_caller_that_goes_away_takes_both_along(virtual_time: Run) -> None:
    inner = Hanging(NEVER, NEVER, lands_first=False)

    async def main() -> None:
        task = asyncio.ensure_future(RetryingStore(inner, LoopEnv(), None).create("wal/1", HEADER))
        await asyncio.sleep(5)
        task.cancel()
        await asyncio.wait([task])
        await asyncio.sleep(0)
        assert inner.given_up == 2

    virtual_time(main())


def test_a_store_without_connections_is_asked_once(virtual_time: Run) -> None:
    class Folder(Hanging):
        @property
        def capabilities(self) -> Capabilities:
            return Capabilities(conditional_create=True)

    inner = Folder(100.0)

    async def main() -> None:
        await RetryingStore(inner, LoopEnv(), None).create("wal/1", HEADER)

    virtual_time(main())
    assert len(inner.sent) == 1


def test_the_delay_follows_what_is_usual(virtual_time: Run) -> None:
    async def main() -> None:
        hedge = Hedge(LoopEnv())
        assert hedge.delay(200) == 1.0
        assert hedge.delay(4 << 20) == pytest.approx(4 * (0.2 + 4))

        async def create() -> None:
            await asyncio.sleep(1.5)

        for _ in range(50):
            await hedge.run(create, 200, lambda: None)
        assert hedge.delay(200) == pytest.approx(6.0, rel=0.01), "a store that is slow always is not asked twice always"

        async def hang() -> None:
            await asyncio.sleep(100)

        await hedge.run(hang, 200, lambda: None)
        assert hedge.delay(200) == pytest.approx(6.0, rel=0.01), "a silence counts as usual"

    virtual_time(main())
