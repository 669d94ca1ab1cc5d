"""A trial of a place for a store: whether it keeps what safety rests on, and how fast each kind of request is.

It needs no password, and no store that is there; it writes objects of its own below `PREFIX` and deletes them again.
What is cut short leaves those, which nothing needs.
"""

import asyncio
import contextlib
import itertools
import statistics
from collections.abc import Awaitable, Callable
from dataclasses import dataclass

from storage.env import Env
from storage.errors import StorageError
from storage.objects.base import ObjectStore
from storage.objects.probe import PREFIX, probe
from storage.units import KIB, MIB

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


async def measure(store: ObjectStore, env: Env, seconds: float, tell: Callable[[Speed], None]) -> None:
    """Time each kind of request for about `seconds`, and tell the figures. Whatever the store raises ends it."""
    trial = _Trial(store, env, seconds)
    try:
        for size, parallel in (
            (FLUSH_BYTES, 1),
            (FLUSH_BYTES, PARALLEL),
            (FRAME_BYTES, PARALLEL),
            (SST_BYTES, 4),
        ):
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
        self._numbers = itertools.count()
        self._names: list[str] = []

    def create(self, size: int) -> Callable[[], Awaitable[None]]:
        """An object that is made only where there is none, as all of a store's are. Of bytes that do not compress."""

        async def create() -> None:
            name = f"{self._root}{next(self._numbers)}"
            self._names.append(name)
            await self._store.create(name, self._env.random_bytes(size))

        return create

    def get(self, size: int) -> Callable[[], Awaitable[None]]:
        """A range out of one of the large objects, which were made last."""
        numbers = itertools.count()

        async def get() -> None:
            number = next(numbers)
            place = number * size % (SST_BYTES - size)
            await self._store.get(self._names[-1 - number % WAVES_MIN], place, size)

        return get

    async def list(self) -> None:
        await self._store.list(self._root, limit=1000)

    async def delete(self) -> None:
        """One of the first, which are small."""
        if self._names:
            await self._store.delete([self._names.pop(0)])

    async def of(self, request: str, size: int, parallel: int, work: Callable[[], Awaitable[None]]) -> Speed:
        """The figures of one kind of request."""
        clock, took = self._env.monotonic, list[float]()
        began = clock()

        async def one_after_the_other() -> None:
            turns = 0
            while turns < WAVES_MIN or clock() - began < self._seconds:
                started = clock()
                await work()
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
            await self._store.delete(self._names)
