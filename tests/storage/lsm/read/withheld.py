"""A store that withholds some objects, and a story played over it in virtual time."""

import asyncio
from collections.abc import Callable, Coroutine
from dataclasses import dataclass
from typing import Any

import pytest

from storage.errors import AccessDenied, StorageError, Unavailable, Unreadable
from storage.format.frame import BLOCK_BYTES, SECTOR_BYTES
from storage.lsm.engine import Engine
from storage.lsm.layer import Layer
from storage.lsm.options import EngineOptions
from tests.simulation.virtual import in_virtual_time
from tests.storage.lsm.worlds import MIB, InlineEnv, StageStore, World, record

BAD = b"bad " * (BLOCK_BYTES // 4)
GOOD = b"good" * (BLOCK_BYTES // 4)
BLOCKS = 8
EIO = Unavailable("cannot read compacted/x: Input/output error")
DENIED = AccessDenied("s3://bucket refused to read (403 AccessDenied)")


class VirtualEnv(InlineEnv):
    def monotonic(self) -> float:
        return asyncio.get_running_loop().time()


def now() -> float:
    return asyncio.get_running_loop().time()


@dataclass
class Withheld:
    """Layer 1 lies in object `bad`, which is withheld; layer 2 in another one. Nothing of them is in memory."""

    world: World
    engine: Engine
    layer: Layer
    other: Layer
    bad: str

    @property
    def store(self) -> StageStore:
        return self.world.store

    async def reopen(self) -> None:
        self.engine = await self.world.open()
        self.layer, self.other = self.engine.layers[1], self.engine.layers[2]


Case = Callable[[Withheld], Coroutine[Any, Any, None]]


def played(case: Case, error: StorageError | None = EIO, **options: int) -> None:
    """Play a case in virtual time; `error` is what GETs of the bad object answer, None: they hang."""

    async def work() -> None:
        world = World(options=EngineOptions(**{"cache_bytes": 2 * MIB, **options}))  # type: ignore[arg-type]
        world.env = VirtualEnv()
        engine, layer = await world.start()
        await engine.change_tree(record("create", 2))
        for block in range(BLOCKS):
            layer.write(block * BLOCK_BYTES, BAD)
        before = set(world.store.names("compacted/"))
        await engine.flush_memtable()
        (bad, *_) = sorted(
            set(world.store.names("compacted/")) - before, key=lambda name: -len(world.store.objects[name])
        )
        for block in range(BLOCKS):
            engine.layers[2].write(block * BLOCK_BYTES, GOOD)
        await engine.flush_memtable()
        await engine.close()
        withheld = Withheld(world, engine, layer, layer, bad)
        await withheld.reopen()
        if error is None:
            world.store.hold("get", bad)
        else:
            world.store.deny("get", bad, error)
        await case(withheld)
        if not withheld.engine.failed.done():
            await world.crash(withheld.engine)

    in_virtual_time(work())


async def fails(layer: Layer, offset: int) -> float:
    """A read that must fail as unreadable; the seconds that took."""
    began = now()
    with pytest.raises(Unreadable, match="compacted/"):
        await layer.read(offset, SECTOR_BYTES)
    return now() - began
