"""Whole blocks on their way into data SSTs; that none is lost or mixed up, `test_engine_model` shows."""

import os

from storage.format.frame import BLOCK_BYTES
from tests.storage.lsm.worlds import World, durable, known_to_be_fast, read

BLOCKS = 16
FAR = 500
"""The second range begins that many blocks behind the first."""


async def test_ranges_written_in_turns_are_read_in_one_piece() -> None:
    """A copying tool writes several ranges at once; each is then one run of frames, and one request brings it."""
    world = World()
    engine, layer = await world.start()
    known_to_be_fast(engine)
    content = [os.urandom(BLOCK_BYTES) for _ in range(2 * BLOCKS)]
    for number in reversed(range(BLOCKS)):
        layer.write(number * BLOCK_BYTES, content[number])
        layer.write((FAR + number) * BLOCK_BYTES, content[BLOCKS + number])
    await durable(engine, layer)
    engine, layer = await world.reopen(engine)
    await engine.flush_memtable()
    for start, want in ((0, content[:BLOCKS]), (FAR, content[BLOCKS:])):
        world.store.calls.clear()
        assert await read(layer, start * BLOCK_BYTES, BLOCKS * BLOCK_BYTES) == b"".join(want)
        assert world.store.count("get", "compacted/") == 1
    await world.crash(engine)
