"""Signs and who looks at them, in virtual time: a writer and a standby on two hosts, each with a line of its own."""

import asyncio
import random
from collections.abc import Awaitable, Callable, Coroutine, Iterator
from typing import Any, TypeVar

import msgspec
import pytest

from storage.crypto.keys import DataKey
from storage.errors import NotFound, Unavailable
from storage.format.names import WRITERS, wal_name
from storage.format.sign import Word
from storage.fs.succession.evidence import OUTAGE_SECONDS
from storage.fs.succession.signs_of_life import LEASE_SECONDS_MIN, SignsOfLife
from storage.fs.succession.standby import Standby, Turn
from storage.fs.succession.stored_attachments import StoredAttachments
from storage.lsm.manifest.manifest_store import Manifests
from storage.lsm.options import EngineOptions
from storage.lsm.recovery.derived_ciphers import Ciphers
from storage.objects.memory import MemoryStore
from storage.objects.retry import RetryingStore
from storage.secret import Secret
from tests.simulation.env import SimEnv
from tests.simulation.loop import Process, VirtualLoop

T = TypeVar("T")

SOON = 5.0
"""From the end of a writer to the turn of who stands by."""


class Line(MemoryStore):
    """One host's line to a store in memory: `seconds` there and back, or none."""

    def __init__(self, store: MemoryStore) -> None:
        super().__init__(store.url)
        self._store = store
        self.seconds = 0.02
        self.away = False

    async def _over(self, request: Callable[[], Awaitable[T]]) -> T:
        await asyncio.sleep(self.seconds)
        if self.away:
            raise Unavailable("no line")
        return await request()

    async def create(self, name: str, data: Any) -> None:
        await self._over(lambda: self._store.create(name, data))

    async def put(self, name: str, data: Any) -> None:
        await self._over(lambda: self._store.put(name, data))

    async def get(self, name: str, *rest: Any, **named: Any) -> bytes:
        return await self._over(lambda: self._store.get(name, *rest, **named))

    async def head(self, name: str) -> Any:
        return await self._over(lambda: self._store.head(name))

    async def list(self, *rest: Any) -> Any:
        return await self._over(lambda: self._store.list(*rest))

    async def delete(self, names: Any) -> None:
        await self._over(lambda: self._store.delete(names))


class World:
    """A store with a manifest, its writer and who stands by."""

    def __init__(self) -> None:
        self.loop = VirtualLoop(steps_max=1_000_000)
        self.env = SimEnv(self.loop, random.Random(1), skew=1.0, thread_seconds=0.001)
        self.store = MemoryStore()
        self.key = DataKey(bytes(16), Secret(bytes(32)))
        self.writer, self.other = Process("writer", "a"), Process("standby", "b")
        self.lines = {"a": Line(self.store), "b": Line(self.store)}
        self.signs = SignsOfLife(self.patient("a").once(), self.env)
        self.standby = Standby(self.patient("b"), self.key, self.env, None)
        self.epoch = 0

    def patient(self, host: str) -> RetryingStore:
        return RetryingStore(self.lines[host], self.env, 30.0)

    async def commit(self, **changes: object) -> None:
        """Another manifest."""
        ciphers = Ciphers.derive(self.key)
        manifests = Manifests(
            store=self.store,
            cipher=ciphers.manifest,
            checkpoint_cipher=ciphers.checkpoint,
            store_id=self.key.store_id,
            env=self.env,
            options=EngineOptions(),
        )
        await manifests.read_newest()
        takes = "epoch" in changes
        takeovers = [*manifests.manifest.takeovers, *([manifests.number + 1] if takes else [])]
        await manifests.commit(
            msgspec.structs.replace(manifests.manifest, takeover=takes, takeovers=takeovers, **changes)
        )

    async def begin(self, *, signs: bool = True) -> None:
        """A writer takes the store."""
        self.epoch += 1
        await self.commit(epoch=self.epoch, closed=False)
        if signs:
            self.loop.spawn(self.writer, self._give())

    async def _give(self) -> None:
        self.signs.begin(self.key, self.epoch)

    def wait(self) -> "asyncio.Task[Turn]":
        return self.loop.spawn(self.other, self.standby.wait())

    async def nobody_comes(self, turn: "asyncio.Task[Turn]", seconds: float) -> None:
        await asyncio.sleep(seconds)
        assert not turn.done(), turn.result()


@pytest.fixture
def world() -> Iterator[World]:
    made = World()
    yield made
    for process in (made.writer, made.other):
        made.loop.resume(process)
    made.loop.wind_up()


def play(world: World, scene: Coroutine[Any, Any, None]) -> None:
    async def limited() -> None:
        async with asyncio.timeout(10_000):
            await scene

    world.loop.run(limited())


def test_a_writer_that_lives_is_left_alone_and_one_that_ended_is_not(world: World) -> None:
    async def scene() -> None:
        await world.begin()
        turn = world.wait()
        await world.nobody_comes(turn, 600)
        assert world.standby.status().patience_seconds == LEASE_SECONDS_MIN
        world.writer.kill()
        began = world.loop.time()
        assert (await turn).why == "silent"
        assert LEASE_SECONDS_MIN - 1.0 <= world.loop.time() - began < SOON
        assert turn.result().tag is not None

    play(world, scene())


def test_one_that_stands_still_shorter_than_its_lease_is_left_alone(world: World) -> None:
    async def scene() -> None:
        await world.begin()
        turn = world.wait()
        for _ in range(20):
            await world.nobody_comes(turn, 7)
            world.writer.stalled = True
            await world.nobody_comes(turn, LEASE_SECONDS_MIN - 1.2)
            world.loop.resume(world.writer)
        world.writer.stalled = True
        assert (await turn).why == "silent"

    play(world, scene())


def test_one_on_a_line_that_slows_down_asks_for_more_patience(world: World) -> None:
    async def scene() -> None:
        await world.begin()
        turn = world.wait()
        for seconds in (0.5, 1.2, 1.9):
            world.lines["a"].seconds = seconds
            await world.nobody_comes(turn, 150)
        wanted = world.standby.status().patience_seconds
        assert wanted is not None
        assert wanted > LEASE_SECONDS_MIN
        world.lines["a"].seconds = 0.02
        await world.nobody_comes(turn, 150)
        assert world.standby.status().patience_seconds == LEASE_SECONDS_MIN

    play(world, scene())


@pytest.mark.parametrize("hosts", ["ab", "b"])
def test_a_store_that_is_away_is_no_evidence(world: World, hosts: str) -> None:
    """Also if the writer has its line back later than who stands by."""

    async def scene() -> None:
        await world.begin()
        turn = world.wait()
        for seconds in (1, 5, 60):
            await world.nobody_comes(turn, 20)
            for host in hosts:
                world.lines[host].away = True
            await world.nobody_comes(turn, seconds)
            assert world.standby.status().reason == "no line"
            world.lines["b"].away = False
            await world.nobody_comes(turn, OUTAGE_SECONDS)
            world.lines["a"].away = False
        await world.nobody_comes(turn, 20)
        assert world.standby.status().reason == ""

    play(world, scene())


def test_who_was_stopped_himself_has_not_watched(world: World) -> None:
    async def scene() -> None:
        await world.begin()
        turn = world.wait()
        for _ in range(20):
            await world.nobody_comes(turn, 5)
            world.other.stalled = True
            world.writer.stalled = True
            await asyncio.sleep(60)
            world.loop.resume(world.other)
            await world.nobody_comes(turn, 1.5)
            world.loop.resume(world.writer)

    play(world, scene())


def test_a_log_that_grows_is_a_sign_too(world: World) -> None:
    async def scene() -> None:
        await world.begin()
        turn = world.wait()
        await asyncio.sleep(3)
        world.lines["a"].away = True
        for number in range(30):
            await world.store.create(wal_name(number + 1), b"whatever")
            await world.nobody_comes(turn, 1.5)
        assert (await turn).why == "silent"

    play(world, scene())


def test_one_that_gives_no_signs_is_never_taken_for_ended(world: World) -> None:
    """Nor is one that has taken over from one that gave them."""

    async def scene() -> None:
        await world.begin()
        turn = world.wait()
        await world.nobody_comes(turn, 5)
        world.writer.kill()
        await world.begin(signs=False)
        await world.nobody_comes(turn, 600)
        assert world.standby.status().basis == "nothing"
        await world.commit(closed=True)
        assert (await turn).why == "closed"

    play(world, scene())


@pytest.mark.parametrize(("word", "least", "most"), [(Word.HANDS_OVER, 0.0, 0.3), (Word.COMES_BACK, 29.0, 32.0)])
def test_the_last_word(world: World, word: Word, least: float, most: float) -> None:
    async def scene() -> None:
        await world.begin()
        turn = world.wait()
        await world.nobody_comes(turn, 5)
        await world.loop.spawn(world.writer, world.signs.say(word))
        await world.nobody_comes(turn, 60)
        await world.commit(closed=True)
        await world.signs.stop()
        began = world.loop.time()
        found = await turn
        assert (found.why, found.tag) == ("closed", None)
        assert least <= world.loop.time() - began <= most

    play(world, scene())


def test_a_record_is_never_missing(world: World) -> None:
    """Wherever the writer dies: there is one that names who was attached."""

    async def scene() -> None:
        await StoredAttachments(world.store, world.key, world.env).keep(3, b"one")
        for seconds in range(20):
            dying = Process("dying", "a")
            kept = StoredAttachments(world.patient("a"), world.key, world.env)
            await kept.load()
            world.loop.spawn(dying, kept.keep(3, b"two"))
            await asyncio.sleep(seconds * 0.005)
            dying.kill()
            found = await StoredAttachments(world.store, world.key, world.env).load()
            assert found in ((3, b"one"), (3, b"two"))

    play(world, scene())


def test_earlier_signs_are_deleted(world: World) -> None:
    async def scene() -> None:
        await world.begin()
        await asyncio.sleep(3)
        await world.signs.stop()
        await world.begin()
        await asyncio.sleep(3)
        assert [info.name for info in await world.store.list(WRITERS)] == ["writer/0000000002.sign"]

    play(world, scene())


def test_the_record_of_who_is_attached(world: World) -> None:
    """The newest one counts, and is there before the one before it goes."""

    async def scene() -> None:
        first = StoredAttachments(world.store, world.key, world.env)
        assert await first.load() is None
        for record in (b"one", b"two"):
            await first.keep(3, record)
            assert await StoredAttachments(world.store, world.key, world.env).load() == (3, record)
        second = StoredAttachments(world.store, world.key, world.env)
        assert await second.load() == (3, b"two")
        await second.keep(4, b"three")
        assert len(await world.store.list(WRITERS)) == 1
        await second.keep(2, b"of a store that was set back")
        assert await second.load() == (2, b"of a store that was set back")
        with pytest.raises(NotFound):
            await world.store.get("writer/0000000004-00000000000000000003.attached")

    play(world, scene())
