"""A store that is found full of what writers hold makes room by itself: no share of the gate stays at its limit."""

from collections.abc import Awaitable, Callable

import msgspec
import pytest

from storage.lsm.engine import Engine
from storage.lsm.layer import Layer
from storage.lsm.options import EngineOptions
from tests.storage.lsm.worlds import MIB, World, durable, read, record
from tests.support.idle import idle
from tests.support.waiting import until

NEVER = EngineOptions(cache_bytes=MIB, flush_objects=1 << 20, flush_seconds=1e6)
OBJECTS = 12

Fill = Callable[[World, Engine, Layer], Awaitable[None]]


async def written(world: World, engine: Engine, layer: Layer) -> None:
    for number in range(OBJECTS):
        layer.write(number * MIB, bytes([number]) * MIB)
        await durable(engine, layer)


async def only_changes_of_the_tree(world: World, engine: Engine, layer: Layer) -> None:
    for number in range(2, OBJECTS + 2):
        await engine.change_tree(record("create", number))


async def of_a_device_that_is_gone(world: World, engine: Engine, layer: Layer) -> None:
    await engine.change_tree(record("create", 2))
    gone = engine.layers[2]
    for number in range(OBJECTS):
        gone.write(number * MIB, bytes([number]) * MIB)
        await durable(engine, gone)
    await engine.change_tree(record("drop", 2))


async def discarded_again(world: World, engine: Engine, layer: Layer) -> None:
    await written(world, engine, layer)
    layer.zero(0, OBJECTS * MIB, allocated=False)
    await durable(engine, layer)


ALL = [written, only_changes_of_the_tree, of_a_device_that_is_gone, discarded_again]


@pytest.mark.parametrize(
    ("limit", "fill"), [*((limit, fill) for limit in ("objects", "bytes") for fill in ALL), ("memtable", written)]
)
async def test_there_is_room_again(limit: str, fill: Fill) -> None:
    """The limits are lower than they were, so that what the log holds is beyond them. The first write shows it."""
    world = World(options=NEVER)
    engine, layer = await world.start()
    await fill(world, engine, layer)
    await world.crash(engine)
    if limit == "objects":
        # As the defaults have it: flushes begin at a quarter of what closes the gate.
        world.options = msgspec.structs.replace(NEVER, log_objects_max=OBJECTS // 2, flush_objects=OBJECTS // 8)
    elif limit == "bytes":
        size = sum(len(world.store.objects[name]) for name in world.store.names("wal/"))
        world.options = msgspec.structs.replace(NEVER, log_bytes_max=size // 2)
    else:
        world.options = msgspec.structs.replace(NEVER, memtable_bytes_max=MIB, flush_bytes=MIB // 4)
    engine = await world.open()
    held = world.store.hold("create", "manifest/")
    engine.layers[1].write(0, b"x" * 4096)
    await durable(engine, engine.layers[1])
    await until(lambda: engine.writes.gate.closed)
    held.release()
    await until(lambda: not engine.writes.gate.closed)
    engine.layers[1].write(4096, b"y" * 4096)
    await durable(engine, engine.layers[1])
    await idle()
    assert not engine.writes.gate.closed
    assert await read(engine.layers[1], 0, 8192) == b"x" * 4096 + b"y" * 4096
    await engine.close()
