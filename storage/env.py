"""The only place clocks, randomness, identifiers and threads come from.

The engine takes an `Env` and asks nothing else, so a simulation can own time and chance: one seed is one world.
Sleeping and deadlines go through asyncio itself (`asyncio.sleep`, `asyncio.timeout`), because a simulation brings its
own event loop whose clock is virtual; `run` is the one seam where real work leaves the loop.
"""

import asyncio
import os
import random
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Protocol, TypeVar

from ulid import ULID

from storage.errors import Conflict

T = TypeVar("T")

STORE_THREADS = 32
"""Requests to the store under way at once: at 25 ms a request this is 1,280 requests a second."""

CODEC_THREADS = 2
"""Compression and sealing: as much as two cores do."""

LOG_THREADS = 1
"""The same of objects of the log, which are sealed one after the other: somebody may wait for one, and nobody for the
SSTs that the others are busy with."""


class Env(Protocol):
    """What the outside world gives to the engine."""

    def monotonic(self) -> float:
        """Seconds on a clock that never jumps, and stands still while the machine is suspended."""

    def suspended(self) -> float:
        """Seconds for which the machine was suspended so far, from some moment on: what an age has to count as well
        that is told to people.
        """

    def wall_clock(self) -> float:
        """Seconds since 1970, for humans and for times of inodes; no decision between processes may rest on it."""

    def random_bytes(self, count: int) -> bytes:
        """Unpredictable bytes: keys and nonces come from here."""

    def jitter(self) -> float:
        """A number in [0, 1) that spreads retries."""

    async def run(self, pool: str, function: Callable[..., T], *args: object) -> T:
        """Run `function(*args)` in the pool named "store", "codec" or "log" and return its result."""

    def close(self) -> None:
        """Stop the threads."""


class _Threads(ThreadPoolExecutor):
    """Threads, as many as the system gives: where it gives no further one, work waits for those that there are."""

    def _adjust_thread_count(self) -> None:
        try:
            super()._adjust_thread_count()
        except RuntimeError:
            if not self._threads:
                raise


class RealEnv:
    """The operating system's clocks, randomness and threads.

    From the first `run` on each pool has a thread, so that what the system gives later (a limit of threads, which
    others take too) makes things slower at worst.
    """

    def __init__(self) -> None:
        self._pools = {
            "store": _Threads(STORE_THREADS, thread_name_prefix="store"),
            "codec": _Threads(CODEC_THREADS, thread_name_prefix="codec"),
            "log": _Threads(LOG_THREADS, thread_name_prefix="log"),
        }
        self._begun = False

    def monotonic(self) -> float:
        return time.monotonic()

    def suspended(self) -> float:
        return time.clock_gettime(time.CLOCK_BOOTTIME) - time.monotonic()

    def wall_clock(self) -> float:
        return time.time()

    def random_bytes(self, count: int) -> bytes:
        return os.urandom(count)

    def jitter(self) -> float:
        return random.random()

    async def run(self, pool: str, function: Callable[..., T], *args: object) -> T:
        if not self._begun:
            self._begin()
        return await asyncio.get_running_loop().run_in_executor(self._pools[pool], function, *args)

    def _begin(self) -> None:
        """Start a thread of each pool. Conflict: there is none to be had."""
        try:
            for pool in self._pools.values():
                pool.submit(_nothing)
        except RuntimeError as error:
            raise Conflict(
                "this process may start no threads: raise what limits them (TasksMax= of its unit, the limit of its "
                f"container, ulimit -u), or end others ({error})"
            ) from error
        self._begun = True

    def close(self) -> None:
        for pool in self._pools.values():
            pool.shutdown(wait=False, cancel_futures=True)


def _nothing() -> None:
    """What a thread begins with."""


def object_id(env: Env, epoch: int) -> str:
    """A new ULID for a data object: 48 bits of time, then the writer's epoch in 32 bits, then 48 random bits.

    The epoch inside the name is what lets a later writer sweep orphans of earlier ones without trusting any clock
    (docs/durability.md).
    """
    milliseconds = int(env.wall_clock() * 1000)
    raw = milliseconds.to_bytes(6, "big") + epoch.to_bytes(4, "big") + env.random_bytes(6)
    return str(ULID.from_bytes(raw))


def first_id_at(moment: float) -> str:
    """A name below all that `object_id` makes at that moment or later, in seconds since 1970, by any writer's clock."""
    return str(ULID.from_bytes(int(max(moment, 0.0) * 1000).to_bytes(6, "big") + bytes(10)))


def written_at(object_ulid: str) -> float:
    """When a name was made by `object_id`, in seconds since 1970 by its writer's clock; ValueError: it is no ULID."""
    return int.from_bytes(ULID.from_str(object_ulid).bytes[:6], "big") / 1000


def epoch_of(object_ulid: str) -> int:
    """The writer's epoch inside a name made by `object_id`; raises ValueError for a text that is no ULID."""
    return int.from_bytes(ULID.from_str(object_ulid).bytes[6:10], "big")
