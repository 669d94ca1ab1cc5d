"""Windows of neighbouring blocks where objects are small: what is written anew lies in several of them."""

import random

import pytest

from storage.bucket.pace import ObjectSizes
from storage.format.frame import BLOCK_BYTES
from storage.lsm.compaction.plan import WINDOW_BLOCKS, Window
from storage.lsm.index.block_map import BlockMap
from storage.lsm.index.trunk import Trunk
from storage.lsm.options import EngineOptions, MaintenanceOptions
from storage.units import KIB, MIB
from tests.storage.lsm.compaction.test_fragments import flushed, found_in, pieces_of
from tests.storage.lsm.worlds import World, read

pytestmark = pytest.mark.fast

WINDOW_BYTES = WINDOW_BLOCKS * BLOCK_BYTES


@pytest.mark.parametrize(
    ("pieces", "blocks", "object_bytes", "worth"),
    [
        (6, 16, MIB, True),
        (5, 16, MIB, False),
        (16, 16, BLOCK_BYTES, False),
        (3, 16, 4 * MIB, True),
        (3, 4, MIB, True),
        (3, 6, MIB, False),
    ],
)
def test_it_must_be_worth_it(pieces: int, blocks: int, object_bytes: int, worth: bool) -> None:
    """What is written anew would be found again, for ever."""
    index = BlockMap()
    for block in range(blocks):
        place = min(block + 1, pieces) << 32 | block * BLOCK_BYTES
        index.set_base(block, location=place, length=BLOCK_BYTES, tag=0)
    found = found_in(Trunk([1], index), pieces=2, object_bytes=object_bytes)
    assert found == ([Window(1, 0, blocks, blocks * BLOCK_BYTES, pieces)] if worth else [])


async def test_what_is_not_worth_it_does_not_hide_the_rest() -> None:
    """More windows than a job may have lie as well as they can, and all of them come before the one that does not."""
    maintenance = MaintenanceOptions(look_seconds=3600.0, job_bytes_max=WINDOW_BYTES + MIB)
    sizes = ObjectSizes(sst_bytes_min=512 * KIB, sst_bytes_max=512 * KIB)
    world = World(options=EngineOptions(maintenance=maintenance, sizes=sizes))
    engine, layer = await world.start()
    chance, last = random.Random(7), 4
    content = bytearray(chance.randbytes((last + 1) * WINDOW_BYTES))
    layer.write(0, bytes(content))
    await flushed(engine, layer)
    for block in chance.sample(range(last * WINDOW_BLOCKS, (last + 1) * WINDOW_BLOCKS), WINDOW_BLOCKS):
        place, data = block * BLOCK_BYTES, chance.randbytes(BLOCK_BYTES)
        layer.write(place, data)
        content[place : place + BLOCK_BYTES] = data
        await flushed(engine, layer)
    before = [pieces_of(layer, window) for window in range(last + 1)]
    assert min(before) >= engine.compactor.thorough.window_pieces_max, "each of them has many pieces"
    assert before[last] > 12
    done = []
    while (job := await engine.compactor.thorough_step(None)) is not None:
        done.append(type(job).__name__)
        assert len(done) < 20
    assert done.count("Defragment") == 1
    assert [pieces_of(layer, window) for window in range(last)] == before[:last]
    assert pieces_of(layer, last) <= 9
    assert await read(layer, 0, len(content)) == content
    await engine.close()
