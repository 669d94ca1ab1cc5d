"""A thread that looks at the index as it was at one moment, and somebody who gives up waiting for it: what was written
to snapshots meanwhile went into the pages that it read, which ended the writer.
"""

import asyncio
import threading
from collections.abc import Awaitable, Callable
from typing import TypeVar

import pytest

from storage.check.analysis import Analysis
from storage.check.running import held
from storage.check.survey import survey
from storage.env import RealEnv
from storage.format.frame import BLOCK_BYTES
from storage.lsm.compaction.plan import WriteCheckpoint
from storage.lsm.engine import Engine
from storage.lsm.index.block_map import BlockMap
from storage.lsm.index.sharing import bytes_once, exclusive_bytes
from storage.lsm.options import EngineOptions, MaintenanceOptions
from tests.storage.check.test_survey import subject
from tests.storage.lsm.worlds import InlineEnv, World, durable
from tests.support.waiting import SECONDS_MAX, until

pytestmark = pytest.mark.fast

T = TypeVar("T")


class SlowThreads(InlineEnv):
    """What looks at the index in a thread ends only when it may."""

    def __init__(self) -> None:
        super().__init__()
        self.began, self.may_end = threading.Event(), threading.Event()

    async def run(self, pool: str, function: Callable[..., T], *args: object) -> T:
        if getattr(function, "func", function).__name__ not in LOOKING:
            return await super().run(pool, function, *args)

        def late() -> T:
            self.began.set()
            if not self.may_end.wait(SECONDS_MAX):
                raise TimeoutError
            return function(*args)

        return await RealEnv.run(self, pool, late)


LOOKING = {exclusive_bytes.__name__, bytes_once.__name__, "_build", Analysis.look_at_trunk.__name__}


async def check(world: World, engine: Engine) -> None:
    async with held(engine.compactor.context) as moment:
        await survey(subject(world, moment=moment))


WORK: dict[str, Callable[[World, Engine], Awaitable[object]]] = {
    "what snapshots take": lambda _, engine: engine.meter.exclusive(),
    "what is used": lambda _, engine: engine.meter.count(),
    "a checkpoint": lambda _, engine: engine.compactor.do(WriteCheckpoint("for the test")),
    "a check": check,
}


@pytest.mark.parametrize("work", WORK)
async def test_what_was_frozen_is_not_written_to_before_the_thread_has_ended(work: str) -> None:
    world, env = World(options=EngineOptions(maintenance=MaintenanceOptions(look_seconds=1e9))), SlowThreads()
    world.env = env
    engine, layer = await world.start()
    layer.write(0, b"1" * BLOCK_BYTES)
    await durable(engine, layer)
    await world.change_trunks(engine, "freeze", 1, 2)
    layer.write(0, b"2" * BLOCK_BYTES)
    await durable(engine, layer)
    await engine.flush_memtable()
    flat = engine.compactor.context.heads()[2]
    assert isinstance(flat, BlockMap)
    waiting = asyncio.ensure_future(WORK[work](world, engine))
    await until(env.began.is_set)
    assert flat.pages[0].freezes
    for _ in range(3):
        waiting.cancel()
        await asyncio.sleep(0)
        assert flat.pages[0].freezes
    env.may_end.set()
    with pytest.raises(asyncio.CancelledError):
        await waiting
    assert not flat.pages[0].freezes
    await engine.close()
