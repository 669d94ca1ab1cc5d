"""Hedged creates: one that hangs is sent once more, the same bytes on a new connection, and the first answer counts.

The log is acknowledged in the order of its objects, so a single PUT that hangs on a dead connection holds up every
flush of every disk. It is sent again after a second, or after four times what such a create usually takes.

Why that is safe: a create never replaces anything, and both attempts carry the same bytes under one name. Whichever
arrives first makes the object, and the other finds the name taken; "taken" therefore says nothing once two were sent,
and the caller looks whether what is there is its own. The attempt that is given up may still arrive later, like any
request whose answer was lost: it finds the name taken, or, if the object was deleted meanwhile, makes one again that
nothing names, as leftovers of crashes are (numbers below the replay point are never read, and are swept).
"""

import asyncio
from collections.abc import Awaitable, Callable

from storage.env import Env
from storage.errors import AlreadyExists, StorageError
from storage.objects.rates import TIMED_BYTES_MIN, Rate
from storage.units import MIB

HEDGE_SECONDS_MIN = 1.0
"""No create is sent again sooner."""

HEDGE_FACTOR = 4
"""How much longer than usual a create takes before it is sent again."""

HEDGES_MAX = 4
"""Second attempts under way at a time: as many as there are objects of the log on their way. Each holds a thread."""

HEDGED_BYTES_MAX = 8 * MIB
"""Larger objects are no log objects, and to send them twice would cost more than it saves."""

FIRST_LATENCY_SECONDS = 0.2
"""What a small create is taken to need before any was measured."""


class Hedge:
    """When a create is sent once more; one for all who share a store."""

    def __init__(self, env: Env, seconds_min: float = HEDGE_SECONDS_MIN) -> None:
        self._env = env
        self._seconds_min = seconds_min
        self._rate = Rate()
        self._latency = FIRST_LATENCY_SECONDS
        self._second_attempts = 0
        self._given_up: set[asyncio.Task[None]] = set()

    def delay(self, size: int) -> float:
        """Seconds after which a create of `size` bytes that has no answer is sent again."""
        return max(self._seconds_min, HEDGE_FACTOR * (self._latency + self._rate.expected(size)))

    async def run(self, create: Callable[[], Awaitable[None]], size: int, on_second: Callable[[], None]) -> None:
        """`create()`, twice if need be; `on_second` is called before the second. Raises the first AlreadyExists, or
        the last error of those sent.
        """
        delay, started = self.delay(size), self._env.monotonic()
        attempts = {self._start(create)}
        try:
            done, _ = await asyncio.wait(attempts, timeout=delay)
            if not done and size <= HEDGED_BYTES_MAX and self._second_attempts < HEDGES_MAX:
                on_second()
                self._second_attempts += 1
                try:
                    attempts.add(self._start(create))
                    await self._first_answer(attempts)
                finally:
                    self._second_attempts -= 1
            else:
                await self._first_answer(attempts)
            self._took(size, self._env.monotonic() - started, delay)
        finally:
            for attempt in attempts:
                self._give_up(attempt)

    async def _first_answer(self, attempts: set[asyncio.Task[None]]) -> None:
        waiting = attempts
        while True:
            done, waiting = await asyncio.wait(waiting, return_when=asyncio.FIRST_COMPLETED)
            failures = [attempt.exception() for attempt in done]
            if None in failures:
                return
            for failure in filter(None, failures):
                if not waiting or isinstance(failure, AlreadyExists) or not isinstance(failure, StorageError):
                    raise failure

    def _start(self, create: Callable[[], Awaitable[None]]) -> asyncio.Task[None]:
        async def attempt() -> None:
            await create()

        return asyncio.get_running_loop().create_task(attempt())

    def _give_up(self, attempt: asyncio.Task[None]) -> None:
        """End an attempt whose answer nobody waits for any more; it may still be carried out."""
        if not attempt.done():
            attempt.cancel()
            self._given_up.add(attempt)
            attempt.add_done_callback(self._ended)

    def _ended(self, attempt: asyncio.Task[None]) -> None:
        self._given_up.discard(attempt)
        if not attempt.cancelled():
            attempt.exception()

    def _took(self, size: int, seconds: float, delay: float) -> None:
        """Learn what is usual; what hung says nothing about that."""
        if seconds > 2 * delay:
            return
        if size >= TIMED_BYTES_MIN:
            self._rate.took(size, seconds)
        else:
            self._latency += 0.2 * (seconds - self._latency)
