"""A writer and a standby on two hosts, in virtual time, each with a line of its own to one store in memory."""

import asyncio
import random
from collections.abc import Awaitable, Callable, Coroutine
from typing import Any, TypeVar

import msgspec

from storage.crypto.data_key import DataKey
from storage.errors import AccessDenied, Unavailable
from storage.fs.succession.signs_of_life import SignsOfLife
from storage.fs.succession.standby import Standby, Turn
from storage.lsm.manifest.manifest_store import Manifests
from storage.lsm.options import EngineOptions
from storage.lsm.recovery.derived_ciphers import Ciphers
from storage.objects.memory import MemoryStore
from storage.objects.retry import RetryingStore
from storage.secret import Secret
from tests.simulation.env import SimEnv
from tests.simulation.loop import Process, VirtualLoop

T = TypeVar("T")


class Line(MemoryStore):
    """One host's line to a store in memory: `seconds` there and back, or none."""

    def __init__(self, store: MemoryStore) -> None:
        super().__init__(store.url)
        self._store = store
        self.seconds = 0.02
        self.away = False
        self.keeps_all = False
        """Deletions are refused."""
        self.hides_all = False
        """What is listed cannot be got."""
        self.refuses = 0
        """So many of the next puts are refused."""

    async def _over(self, request: Callable[[], Awaitable[T]]) -> T:
        await asyncio.sleep(self.seconds)
        if self.away:
            raise Unavailable("no line")
        return await request()

    async def create(self, name: str, data: Any) -> None:
        await self._over(lambda: self._store.create(name, data))

    async def put(self, name: str, data: Any) -> None:
        if self.refuses:
            self.refuses -= 1
            raise Unavailable("429")
        await self._over(lambda: self._store.put(name, data))

    async def get(self, name: str, *rest: Any, **named: Any) -> bytes:
        if self.hides_all:
            await self._over(lambda: self._store.get("nothing"))
        return await self._over(lambda: self._store.get(name, *rest, **named))

    async def head(self, name: str) -> Any:
        return await self._over(lambda: self._store.head(name))

    async def list(self, *rest: Any) -> Any:
        return await self._over(lambda: self._store.list(*rest))

    async def delete(self, names: Any) -> None:
        if self.keeps_all:
            raise AccessDenied("nothing may be deleted")
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
        self.manifests: Manifests | None = None
        """Those of the writer that gives signs."""

    def patient(self, host: str) -> RetryingStore:
        return RetryingStore(self.lines[host], self.env, 30.0)

    async def newest(self) -> Manifests:
        """The newest manifest, as a writer knows it."""
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
        return manifests

    async def commit(self, **changes: object) -> None:
        """Another manifest."""
        manifests = await self.newest()
        takes = "epoch" in changes
        takeovers = [*manifests.manifest.takeovers, *([manifests.number + 1] if takes else [])]
        await manifests.commit(
            msgspec.structs.replace(manifests.manifest, takeover=takes, takeovers=takeovers, **changes)
        )
        if self.manifests is not None:
            await self.manifests.read_newest()  # the writer's own

    async def begin(self, *, signs: bool = True) -> None:
        """A writer takes the store."""
        self.epoch += 1
        await self.commit(epoch=self.epoch, closed=False)
        if signs:
            self.manifests = await self.newest()
            self.loop.spawn(self.writer, self._give(self.manifests))

    async def _give(self, manifests: Manifests) -> None:
        self.signs.begin(self.key, manifests)

    def wait(self) -> "asyncio.Task[Turn]":
        return self.loop.spawn(self.other, self.standby.wait())

    def end(self) -> None:
        """All tasks end properly."""
        for process in (self.writer, self.other):
            self.loop.resume(process)
        self.loop.wind_up()

    async def nobody_comes(self, turn: "asyncio.Task[Turn]", seconds: float) -> None:
        await asyncio.sleep(seconds)
        assert not turn.done(), turn.result()


def play(world: World, scene: Coroutine[Any, Any, None]) -> None:
    """Have a scene happen."""

    async def limited() -> None:
        async with asyncio.timeout(10_000):
            await scene

    world.loop.run(limited())
