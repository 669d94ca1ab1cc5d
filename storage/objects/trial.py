"""A trial of a place for a store: whether it keeps what safety rests on, and how fast each kind of request is.

It needs no password, and no store that is there; it writes objects of its own below `PREFIX`, of `BYTES_MAX` at most
in all, and deletes them again. What is cut short leaves those, which nothing needs.
"""

import asyncio
import contextlib
import itertools
import statistics
from collections import deque
from collections.abc import Awaitable, Callable
from dataclasses import dataclass

from storage.env import Env
from storage.errors import StorageError
from storage.objects.base import ObjectStore
from storage.objects.probe import PREFIX, probe
from storage.units import GIB, KIB, MIB

PROBES = 10
"""Times that safety is looked at: each has three races, and a store that loses one in two is let through once in a
thousand million."""

PARALLEL = 16
"""Requests at a time, as many as reads and uploads of a server have."""

FLUSH_BYTES = 4 * KIB
"""About what a flush of little puts into the log."""

FRAME_BYTES = 256 * KIB
"""What a read of one whole block asks for."""

SST_BYTES = 8 * MIB

WAVES_MIN = 3
"""Of each kind of request, however slow they are."""

BYTES_MAX = 2 * GIB
"""Of all objects: however long it may take, it does not fill the disk on which somebody's store lies."""

DRAWN_BYTES = SST_BYTES + 64 * KIB
"""Of which each object is another stretch."""

DELETED_AT_ONCE = 100
"""In the end: a folder needs milliseconds for each, and is not to look as if it did not answer."""


@dataclass(frozen=True, slots=True)
class Speed:
    """How one kind of request did: `parallel` at a time, of `size` bytes each; times in seconds, of one request."""

    request: str
    size: int
    parallel: int
    count: int
    median: float
    slowest: float
    """Of a hundred the second slowest, or of fewer the slowest."""
    bytes_per_second: float


async def look_for_faults(store: ObjectStore, env: Env, done: Callable[[int], None]) -> None:
    """Raise Unsupported where the place must not hold a store; `done` is told how many of PROBES are over."""
    for number in range(PROBES):
        await probe(store, env)
        done(number + 1)


async def measure(
    store: ObjectStore, env: Env, seconds: float, tell: Callable[[Speed], None], *, bytes_max: int = BYTES_MAX
) -> None:
    """Time each kind of request for about `seconds`, and tell the figures. Whatever the store raises ends it.

    A kind ends sooner where it has written its part of `bytes_max`, or deleted all there is.
    """
    trial = _Trial(store, env, seconds)
    creates = ((FLUSH_BYTES, 1), (FLUSH_BYTES, PARALLEL), (FRAME_BYTES, PARALLEL), (SST_BYTES, 4))
    try:
        for done, (size, parallel) in enumerate(creates):
            trial.room = (bytes_max - trial.written) // (len(creates) - done)
            tell(await trial.of("create", size, parallel, trial.create(size)))
        for size, parallel in ((FLUSH_BYTES, 1), (FLUSH_BYTES, PARALLEL), (FRAME_BYTES, PARALLEL)):
            tell(await trial.of("get", size, parallel, trial.get(size)))
        tell(await trial.of("list", 0, 1, trial.list))
        tell(await trial.of("delete", 0, 1, trial.delete))
    finally:
        await trial.tidy()


class _Trial:
    """The objects that were made, by size, and how requests about them are timed."""

    def __init__(self, store: ObjectStore, env: Env, seconds: float) -> None:
        self._store, self._env, self._seconds = store, env, seconds
        self._root = f"{PREFIX}trial-{env.random_bytes(8).hex()}-"
        self._drawn = memoryview(env.random_bytes(DRAWN_BYTES))
        """Once: to draw anew for each object would take longer than a fast store does."""
        self._numbers = itertools.count()
        self._names: deque[str] = deque()
        self.room = 0
        """Bytes that creates may still write."""
        self.written = 0

    def create(self, size: int) -> Callable[[], Awaitable[bool]]:
        """An object that is made only where there is none, as all of a store's are. Of bytes that do not compress."""

        async def create() -> bool:
            if size > self.room:
                return False
            self.room -= size
            self.written += size
            number = next(self._numbers)
            name, place = f"{self._root}{number}", number % (DRAWN_BYTES - SST_BYTES)
            self._names.append(name)
            await self._store.create(name, self._drawn[place : place + size])
            return True

        return create

    def get(self, size: int) -> Callable[[], Awaitable[bool]]:
        """A range out of one of the large objects, which were made last."""
        numbers = itertools.count()

        async def get() -> bool:
            number = next(numbers)
            place = number * size % (SST_BYTES - size)
            await self._store.get(self._names[-1 - number % WAVES_MIN], place, size)
            return True

        return get

    async def list(self) -> bool:
        await self._store.list(self._root, limit=1000)
        return True

    async def delete(self) -> bool:
        """One of the first, which are small."""
        if not self._names:
            return False
        await self._store.delete([self._names.popleft()])
        return True

    async def of(self, request: str, size: int, parallel: int, work: Callable[[], Awaitable[bool]]) -> Speed:
        """The figures of one kind of request, of which `work` does one; False: nothing is left to ask for."""
        clock, took = self._env.monotonic, list[float]()
        began = clock()

        async def one_after_the_other() -> None:
            turns = 0
            while turns < WAVES_MIN or clock() - began < self._seconds:
                started = clock()
                if not await work():
                    return
                took.append(clock() - started)
                turns += 1

        await asyncio.gather(*(one_after_the_other() for _ in range(parallel)))
        elapsed = max(clock() - began, 1e-9)
        took.sort()
        slowest = took[-1 - len(took) // 100]
        return Speed(request, size, parallel, len(took), statistics.median(took), slowest, size * len(took) / elapsed)

    async def tidy(self) -> None:
        """Leave nothing behind, unless the store does not let us delete."""
        with contextlib.suppress(StorageError):
            names = list(self._names)
            for start in range(0, len(names), DELETED_AT_ONCE):
                await self._store.delete(names[start : start + DELETED_AT_ONCE])
