"""The probe where a store answers only some of what comes at once: it is asked again, and is no less strict. Time is
virtual.
"""

import asyncio
from collections.abc import Callable, Coroutine
from typing import ClassVar

import pytest

from storage.buffers import Buffer
from storage.env import RealEnv
from storage.errors import AccessDenied, AlreadyExists, Unavailable, Unsupported
from storage.objects.base import ObjectStore
from storage.objects.memory import MemoryStore
from storage.objects.probe import RACERS, probe
from storage.objects.retry import RetryingStore
from tests.storage.objects.stubs import Wrapped

DEADLINE = 30.0

Run = Callable[[Coroutine[None, None, None]], float]


class OneWriteASecond(Wrapped):
    """One write a second to a name, and 429 for others, as Cloudflare documents for R2. `counts_refused`: whether one
    that found the name taken was a write."""

    def __init__(self, inner: ObjectStore, counts_refused: bool) -> None:
        super().__init__(inner)
        self.counts_refused = counts_refused
        self.written: dict[str, float] = {}
        self.creates = 0

    async def create(self, name: str, data: Buffer) -> None:
        self.creates += 1
        await asyncio.sleep(0.02)
        now = asyncio.get_running_loop().time()
        if now < self.written.get(name, -1.0) + 1.0:
            raise Unavailable("429: at most one write a second to an object")
        try:
            await self.write(name, data)
        except AlreadyExists:
            if self.counts_refused:
                self.written[name] = now
            raise
        self.written[name] = now

    async def write(self, name: str, data: Buffer) -> None:
        await self.inner.create(name, data)


class AndIgnoresTheCondition(OneWriteASecond):
    async def write(self, name: str, data: Buffer) -> None:
        await self.inner.put(name, data)


class AndLosesTheFirst(OneWriteASecond):
    """Who was refused has replaced what the winner made."""

    async def create(self, name: str, data: Buffer) -> None:
        try:
            await super().create(name, data)
        except Unavailable:
            await self.inner.put(name, data)
            raise


def tried(store: ObjectStore, run: Run) -> float:
    """How long the probe takes, as at an opening."""
    env = RealEnv()
    try:
        return run(probe(RetryingStore(store, env, DEADLINE), env))
    finally:
        env.close()


@pytest.mark.parametrize("counts_refused", [False, True])
def test_a_store_that_takes_one_write_a_second_to_a_name_is_passed(counts_refused: bool, virtual_time: Run) -> None:
    inner = MemoryStore()
    store = OneWriteASecond(inner, counts_refused)
    assert tried(store, virtual_time) < 10
    assert store.creates < 5 * 3 * RACERS
    assert virtual_time(_is_empty(inner)) == 0


@pytest.mark.parametrize("kind", [AndIgnoresTheCondition, AndLosesTheFirst])
def test_a_store_that_answers_few_is_refused_all_the_same(kind: type[OneWriteASecond], virtual_time: Run) -> None:
    with pytest.raises(Unsupported, match=r"racing|already|not the one"):
        tried(kind(MemoryStore(), counts_refused=True), virtual_time)


def test_two_winners_of_whom_one_had_no_answer_are_two(virtual_time: Run) -> None:
    """The answer of one is lost, and another, who was told that the name was his, finds other bytes there."""

    class Loses(Wrapped):
        first = True

        async def create(self, name: str, data: Buffer) -> None:
            try:
                await self.inner.create(name, data)
            except AlreadyExists:
                if not self.first:
                    raise
                self.first = False
                await self.inner.put(name, data)
                raise Unavailable("the connection was reset") from None

    with pytest.raises(Unsupported, match="not the one that was created"):
        tried(Loses(MemoryStore()), virtual_time)


def test_a_trial_that_finds_one_thing_wrong_leaves_nothing_that_goes_on(virtual_time: Run) -> None:
    """The races of other names would create theirs behind the deletion."""

    class RefusesOne(OneWriteASecond):
        async def create(self, name: str, data: Buffer) -> None:
            if name.endswith("race-0"):
                raise Unsupported("it knows no such header")
            await super().create(name, data)

    inner = MemoryStore()

    async def trial() -> None:
        env = RealEnv()
        try:
            with pytest.raises(Unsupported, match="no such header"):
                await probe(RetryingStore(RefusesOne(inner, counts_refused=True), env, DEADLINE), env)
            await asyncio.sleep(60)
        finally:
            env.close()

    virtual_time(trial())
    assert virtual_time(_is_empty(inner)) == 0


def test_answers_that_are_enough_count_when_the_time_is_over(virtual_time: Run) -> None:
    """Two of a name are answered, and others are told to wait for ten seconds each time."""

    class Patient(Wrapped):
        answered: ClassVar[dict[str, int]] = {}

        async def create(self, name: str, data: Buffer) -> None:
            self.answered[name] = self.answered.get(name, 0) + 1
            if (
                "race" in name
                and self.answered[name] > 2
                and len(data)
                and asyncio.get_running_loop().time() < DEADLINE
            ):
                raise Unavailable("503 slow down", retry_after=10.0)
            await self.inner.create(name, data)

    tried(Patient(MemoryStore()), virtual_time)


def test_a_winner_whose_answer_was_lost_has_won(virtual_time: Run) -> None:
    class Loses(Wrapped):
        async def create(self, name: str, data: Buffer) -> None:
            await self.inner.create(name, data)
            if "race" in name:
                raise Unavailable("the connection was reset")

    tried(Loses(MemoryStore()), virtual_time)


def test_an_object_of_who_was_told_that_the_name_is_taken_is_nobodys(virtual_time: Run) -> None:
    """Nobody was told of a success: the one there must belong to somebody who had no answer."""

    class Mixes(Wrapped):
        seen: ClassVar[set[str]] = set()

        async def create(self, name: str, data: Buffer) -> None:
            if "race" not in name:
                await self.inner.create(name, data)
                return
            if name not in self.seen:
                self.seen.add(name)
                raise Unavailable("503")
            await self.inner.put(name, data)
            raise AlreadyExists(name)

    with pytest.raises(Unsupported, match="not the one that was created"):
        tried(Mixes(MemoryStore()), virtual_time)


def test_an_outage_of_seconds_is_waited_out(virtual_time: Run) -> None:
    class Away(Wrapped):
        async def create(self, name: str, data: Buffer) -> None:
            if asyncio.get_running_loop().time() < 20:
                raise Unavailable("503")
            await self.inner.create(name, data)

    assert 20 < tried(Away(MemoryStore()), virtual_time) < DEADLINE


@pytest.mark.parametrize("answered", [0, 1])
def test_a_store_that_answers_nobody_or_one_is_not_known(answered: int, virtual_time: Run) -> None:
    """One answer is no race."""

    class Few(Wrapped):
        async def create(self, name: str, data: Buffer) -> None:
            if answered and not await self.inner.list(name):
                await self.inner.create(name, data)
                return
            raise Unavailable("503 SlowDown")

    with pytest.raises(Unavailable, match="503 SlowDown"):
        tried(Few(MemoryStore()), virtual_time)


def test_where_one_was_answered_the_others_are_asked_again(virtual_time: Run) -> None:
    class AwayAfterTheFirst(Wrapped):
        taken = 0

        async def create(self, name: str, data: Buffer) -> None:
            if asyncio.get_running_loop().time() < 20 and await self.inner.list(name):
                raise Unavailable("503")
            try:
                await self.inner.create(name, data)
            except AlreadyExists:
                self.taken += 1
                raise

    store = AwayAfterTheFirst(MemoryStore())
    tried(store, virtual_time)
    assert store.taken == 3 * RACERS, "of each name all but one racer, and who comes late"


def test_silence_ends_with_the_deadline(virtual_time: Run) -> None:
    class Silent(Wrapped):
        async def create(self, name: str, data: Buffer) -> None:
            await asyncio.Event().wait()

    async def within() -> None:
        with pytest.raises(Unavailable, match="did not answer within 30 s"):
            await probe(RetryingStore(Silent(MemoryStore()), env, DEADLINE), env)

    env = RealEnv()
    try:
        assert virtual_time(within()) < 2 * DEADLINE
    finally:
        env.close()


def test_what_a_person_can_mend_ends_it_at_once(virtual_time: Run) -> None:
    class Denies(Wrapped):
        creates = 0

        async def create(self, name: str, data: Buffer) -> None:
            self.creates += 1
            raise AccessDenied("403")

    store = Denies(MemoryStore())
    with pytest.raises(AccessDenied):
        tried(store, virtual_time)
    assert store.creates <= 3 * RACERS


async def _is_empty(store: ObjectStore) -> None:
    assert await store.list("") == []
