"""Hedged requests: one that hangs is sent once more, the same on a new connection, and the first answer counts.

The log is acknowledged in the order of its objects, so a single PUT that hangs on a dead connection holds up every
flush of every disk; a GET that hangs holds up who reads, and what waits for the block. Either is sent again after a
second, or after four times what such a request usually takes.

Why that is safe: a GET changes nothing. A create never replaces anything, and both attempts carry the same bytes under
one name. Whichever arrives first makes the object, and the other finds the name taken; "taken" therefore says nothing
once two were sent, and the caller looks whether what is there is its own. The attempt that is given up may still arrive
later, like any request whose answer was lost: it finds the name taken, or, if the object was deleted meanwhile, makes
one again that nothing names, as leftovers of crashes are (numbers below the replay point are never read, and are
swept).
"""

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any, Generic, TypeVar

from storage.env import Env
from storage.errors import AlreadyExists, NotFound, StorageError
from storage.objects.rates import TIMED_BYTES_MIN, Rate
from storage.units import MIB

T = TypeVar("T")

HEDGE_SECONDS_MIN = 1.0
"""No request is sent again sooner."""

HEDGE_FACTOR = 4
"""How much longer than usual a request takes before it is sent again."""

HEDGES_MAX = 4
"""Second attempts under way at a time: as many as there are objects of the log on their way. Each holds a thread."""

HEDGED_BYTES_MAX = 8 * MIB
"""Larger objects are no log objects, and to send them twice would cost more than it saves."""

FIRST_LATENCY_SECONDS = 0.2
"""What a small request is taken to need before any was measured."""

_ANSWERS = (AlreadyExists, NotFound)
"""Errors that are what the store had to say: the other attempt would hear nothing else."""


class Hedge:
    """When a request is sent once more; one for all who share a store, and send that kind of request."""

    def __init__(self, env: Env, seconds_min: float = HEDGE_SECONDS_MIN) -> None:
        self._env = env
        self._seconds_min = seconds_min
        self._rate = Rate()
        self._latency = FIRST_LATENCY_SECONDS
        self._second_attempts = 0
        self._given_up: set[asyncio.Task[Any]] = set()

    def delay(self, size: int) -> float:
        """Seconds after which a request with `size` bytes of body that has no answer is sent again."""
        return max(self._seconds_min, HEDGE_FACTOR * (self._latency + self._rate.expected(size)))

    async def run(
        self, request: Callable[[], Awaitable[T]], size: int, on_second: Callable[[], None] = lambda: None
    ) -> T:
        """`request()`, twice if need be; `on_second` is called before the second. `size`: bytes of body that it sends,
        or that may come. Raises the first error that is an answer, or the last error of those sent.
        """
        delay = self.delay(size)
        attempts = [self._start(request)]
        try:
            done, _ = await asyncio.wait([attempts[0].task], timeout=delay)
            if done:
                first = attempts[0]
            elif size <= HEDGED_BYTES_MAX and self._second_attempts < HEDGES_MAX:
                on_second()
                self._second_attempts += 1
                try:
                    attempts.append(self._start(request))
                    first = await _first_answered(attempts)
                finally:
                    self._second_attempts -= 1
            else:
                first = await _first_answered(attempts)
            result = first.task.result()
            came = len(result) if isinstance(result, bytes) else size  # less than was allowed, often
            self._took(came, self._env.monotonic() - first.started, delay)
            return result
        finally:
            for attempt in attempts:
                self._give_up(attempt.task)

    def _start(self, request: Callable[[], Awaitable[T]]) -> "_Attempt[T]":
        async def attempt() -> T:
            return await request()

        return _Attempt(asyncio.get_running_loop().create_task(attempt()), self._env.monotonic())

    def _give_up(self, attempt: asyncio.Task[T]) -> None:
        """End an attempt whose answer nobody waits for any more; it may still be carried out. What it fails with is
        heard, or it would be logged as an error of this program.
        """
        if attempt.done():
            self._ended(attempt)
            return
        attempt.cancel()
        self._given_up.add(attempt)
        attempt.add_done_callback(self._ended)

    def _ended(self, attempt: asyncio.Task[T]) -> None:
        self._given_up.discard(attempt)
        if not attempt.cancelled():
            attempt.exception()

    def _took(self, size: int, seconds: float, delay: float) -> None:
        """Learn what is usual. A small request that hung says nothing about that; of a large one nobody knows whether
        the way is slow, and a rate is soon learned anew.
        """
        if size >= TIMED_BYTES_MIN:
            self._rate.took(size, seconds)
        elif seconds <= 2 * delay:
            self._latency += 0.2 * (seconds - self._latency)


class _Attempt(Generic[T]):
    """A request that was sent, and when."""

    def __init__(self, task: asyncio.Task[T], started: float) -> None:
        self.task = task
        self.started = started


async def _first_answered(attempts: list[_Attempt[T]]) -> _Attempt[T]:
    """The first that succeeds. Raises the first error that is an answer, or is none of a store; or the last error."""
    while True:
        await asyncio.wait([attempt.task for attempt in attempts], return_when=asyncio.FIRST_COMPLETED)
        waiting = []
        for attempt in attempts:
            if not attempt.task.done():
                waiting.append(attempt)
            elif (failure := attempt.task.exception()) is None:
                return attempt
            elif isinstance(failure, _ANSWERS) or not isinstance(failure, StorageError):
                raise failure
            else:
                last = failure
        if not waiting:
            raise last
        attempts = waiting
