"""The seam to the outside world, simulated: the clock of the loop, chance from a seed, threads that take their time."""

import asyncio
import random
from collections.abc import Callable
from typing import TypeVar

from tests.simulation.loop import VirtualLoop

T = TypeVar("T")


class SimEnv:
    """One process's environment.

    `run` computes on the spot but is done only after a random delay, in which the event loop goes on: the function
    sees its inputs either as they were when it was started or as they are when it ends, and both must do.
    """

    def __init__(self, loop: VirtualLoop, chance: random.Random, *, skew: float, thread_seconds: float) -> None:
        self._loop = loop
        self._chance = chance
        self._skew = skew
        self._thread_seconds = thread_seconds

    def monotonic(self) -> float:
        return self._loop.time()

    def suspended(self) -> float:
        return 0.0

    def wall_clock(self) -> float:
        """This process's clock is off, and it jumps: no decision may rest on it."""
        return 1.7e9 + self._loop.time() + self._skew * self._chance.random()

    def random_bytes(self, count: int) -> bytes:
        return self._chance.randbytes(count)

    def jitter(self) -> float:
        return self._chance.random()

    async def run(self, pool: str, function: Callable[..., T], *args: object) -> T:
        late = self._chance.random() < 0.5
        result = None if late else function(*args)
        kind = self._chance.random()
        await asyncio.sleep(
            0 if kind < 0.3 else self._thread_seconds * self._chance.expovariate(1.0) * (20 if kind > 0.97 else 1)
        )
        return function(*args) if late else result  # type: ignore[return-value]

    def close(self) -> None:
        pass
