"""How long writers wait behind a link to the store of a certain rate, in virtual time: whatever it is, and whoever
floods, nobody waits more than `WAIT_SECONDS_MAX` for a reply while the store answers.
"""

import asyncio
import itertools
import random
from collections import deque

import pytest

from storage.lsm.engine import Engine
from storage.lsm.layer import Layer
from storage.lsm.memtable.gate import RateLimiter
from storage.objects.memory import MemoryStore
from storage.units import KIB, MIB
from tests.simulation.virtual import in_virtual_time
from tests.storage.lsm.read.withheld import VirtualEnv, now
from tests.storage.lsm.worlds import StageStore, World, record

WAIT_SECONDS_MAX = 5.0
ROUND_TRIP_SECONDS = 0.05
SECONDS = 20.0
DEPTH = 128
AREA = 1 << 30


class Uplink(StageStore):
    """A store behind a link of `rate` bytes a second, which all uploads share."""

    def __init__(self, rate: float) -> None:
        super().__init__(MemoryStore())
        self._rate = rate
        self._free_at = 0.0

    async def _asked(self, verb: str, name: str, size: int = 0) -> None:
        await super()._asked(verb, name, size)
        if verb == "create":
            self._free_at = max(self._free_at, now()) + size / self._rate
        await asyncio.sleep(max(self._free_at - now(), 0.0) * (verb == "create") + ROUND_TRIP_SECONDS)


class Writer:
    """A client that writes `size` bytes at a time, with `depth` requests in flight, as a session carries them out."""

    def __init__(self, engine: Engine, layer: Layer, size: int, depth: int, seed: int) -> None:
        self.waits: list[float] = []
        """From a request to its reply."""
        self.gaps: list[float] = []
        """From a reply, or the first request, to the next reply."""
        self._gate = engine.writes.gate
        self._limiter: RateLimiter = self._gate.rate_limiter(now)
        self._layer = layer
        self._size = size
        self._chance = random.Random(seed)
        self._data = self._chance.randbytes(size)
        self._offsets = itertools.count()
        self._requests: deque[float] = deque()
        self._depth = depth
        self._turn = asyncio.Event()

    async def run(self) -> None:
        """Until it is cancelled. Requests are carried out, and answered, in order."""
        self._requests.extend([now()] * self._depth)
        last = now()
        while True:
            if self._gate.closed:
                self._turn.clear()
                self._gate.when_open(self._turn.set, self._size)
                await self._turn.wait()
            offset = next(self._offsets) * self._size % AREA
            self._layer.write(offset, self._data)
            if self._gate.slows:
                await asyncio.sleep(self._limiter.delay(self._size))
            else:
                await asyncio.sleep(0.0002)
            self.gaps.append(now() - last)
            last = now()
            self.waits.append(last - self._requests.popleft())
            self._requests.append(last)


@pytest.mark.parametrize(("rate", "size"), [(1e6, MIB), (4e6, MIB), (10e6, MIB), (20e6, MIB), (1e6, 4 * KIB)])
@pytest.mark.thorough
def test_nobody_waits_long_for_a_reply(rate: float, size: int) -> None:
    """Who floods gets a reply now and then, and who writes one at a time beside it its own."""

    async def work() -> tuple[Writer, Writer]:
        world = World()
        world.env, world.store = VirtualEnv(), Uplink(rate)
        engine, layer = await world.start()
        await engine.change_tree(record("create", 2))
        flood = Writer(engine, layer, size, DEPTH, 1)
        single = Writer(engine, engine.layers[2], 4 * KIB, 1, 2)
        tasks = [asyncio.ensure_future(each.run()) for each in (flood, single)]
        await asyncio.sleep(SECONDS)
        for task in tasks:
            task.cancel()
        await world.crash(engine)
        return flood, single

    flood, single = in_virtual_time(work())
    assert len(flood.gaps) * size > rate * 10, "it floods"
    assert max(flood.gaps) < WAIT_SECONDS_MAX
    assert max(single.waits) < WAIT_SECONDS_MAX
