"""Reads that are put together from several generations: what was written last lies on top, byte for byte."""

import itertools

import pytest

from storage.format.frame import BLOCK_BYTES, SECTOR_BYTES
from tests.storage.lsm.worlds import World, durable, read
from tests.support.inside import layers_of

BASE = bytes(range(256)) * (BLOCK_BYTES // 256)


@pytest.mark.parametrize("order", list(itertools.permutations(range(3))))
async def test_pieces_of_two_generations_lie_over_each_other_as_they_were_written(order: tuple[int, ...]) -> None:
    """A sector written in part before and after its memtable was sealed, over a frame."""
    pieces = [(100, b"A" * 300), (200, b"B" * 300), (350, b"C" * 100)]
    world = World()
    engine, layer = await world.start()
    layer.write(0, BASE)
    await engine.flush_memtable()
    expected = bytearray(BASE[: 2 * SECTOR_BYTES])
    for count, piece in enumerate(order):
        if count == 2:
            # The generation below stays sealed: its flush cannot end.
            layers_of(engine).seal()
        start, data = pieces[piece]
        layer.write(start, data)
        expected[start : start + len(data)] = data
        assert await read(layer, 0, 2 * SECTOR_BYTES) == expected
    await durable(engine, layer)
    engine, layer = await world.reopen(engine)
    assert await read(layer, 0, 2 * SECTOR_BYTES) == expected
    await world.crash(engine)
