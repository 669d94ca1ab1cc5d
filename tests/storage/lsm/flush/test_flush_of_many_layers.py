"""A flush waits for the log of those layers alone of which the log lacks anything, however many others there are."""

from collections import Counter

import pytest

from storage.lsm.engine import Engine
from storage.lsm.wal.queue import LayerQueue
from tests.storage.lsm.worlds import World, durable, read, record

SECTOR = 4096


@pytest.fixture
def waits(monkeypatch: pytest.MonkeyPatch) -> Counter[int]:
    """How often the log of each layer was waited for."""
    counts: Counter[int] = Counter()
    inner = Engine.durable

    async def counted(self: Engine, queue: LayerQueue, sequence: int) -> None:
        counts[queue.layer] += 1
        await inner(self, queue, sequence)

    monkeypatch.setattr(Engine, "durable", counted)
    return counts


async def test_layers_that_the_log_has_all_of_are_not_waited_for(waits: Counter[int]) -> None:
    world = World()
    engine = await world.open()
    for number in range(1, 21):
        await engine.change_tree(record("create", number))
        engine.layers[number].write(0, bytes([number]) * SECTOR)
        await durable(engine, engine.layers[number])
    for written in (3, 4):
        engine.layers[written].write(SECTOR, bytes([written]) * SECTOR)
    waits.clear()
    await engine.flush_memtable()
    assert waits == {3: 1, 4: 1}
    engine.layers[5].write(SECTOR, bytes([5]) * SECTOR)
    waits.clear()
    await engine.flush()
    assert waits == {5: 1}
    await world.crash(engine)
    engine = await world.open()
    for number in range(1, 21):
        own = bytes([number]) * SECTOR
        assert await read(engine.layers[number], 0, 2 * SECTOR) == own + (own if number in (3, 4, 5) else bytes(SECTOR))
    await world.crash(engine)
