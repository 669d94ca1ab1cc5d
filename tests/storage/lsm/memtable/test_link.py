"""Linking: what is written between two ranges of zeros stays above the first one, whatever kind of write it is."""

from collections.abc import Callable

import pytest

from storage.format.blocks import HOLE, FrameRef
from storage.format.frame import BLOCK_BYTES, SECTOR_BYTES
from storage.lsm.memtable.link import Links
from storage.lsm.memtable.memtable import LayerTable, Memtable, Span
from tests.simulation.virtual import virtually
from tests.storage.lsm.worlds import World, durable

WRITES: dict[str, Callable[[Links], None]] = {
    "a sector": lambda links: links.sector(1, 0, bytes(SECTOR_BYTES), 2),
    "a whole block": lambda links: links.write(BLOCK_BYTES, bytes(BLOCK_BYTES), 2),
    "a part of a sector": lambda links: links.write(BLOCK_BYTES + 7, b"part", 2),
    "zeros in a part of a block": lambda links: links.zero(BLOCK_BYTES, SECTOR_BYTES, allocated=True, sequence=2),
    "an uploaded frame": lambda links: links.locate(1, FrameRef(1 << 32, 100, 0, 1, full=True), 2),
}


@pytest.mark.fast
@pytest.mark.parametrize("write", WRITES.values(), ids=WRITES)
def test_ranges_of_zeros_with_a_write_between_them_are_not_joined(write: Callable[[Links], None]) -> None:
    """One range has one sequence: that of the later one would be above the write's, and a start goes by sequences."""
    links = Links(1, Memtable(), sequence=0)
    links.zero(0, 4 * BLOCK_BYTES, allocated=False, sequence=1)
    write(links)
    links.zero(4 * BLOCK_BYTES, 4 * BLOCK_BYTES, allocated=False, sequence=3)
    assert links.table.zeros.spans == [Span(0, 4, 1, HOLE), Span(4, 8, 3, HOLE)]
    links.zero(8 * BLOCK_BYTES, 4 * BLOCK_BYTES, allocated=False, sequence=4)
    assert links.table.zeros.spans == [Span(0, 4, 1, HOLE), Span(4, 12, 4, HOLE)], "nothing came between"


@pytest.mark.parametrize("data", [b"s" * SECTOR_BYTES, b"part of a sector"])
@virtually
async def test_what_is_written_between_two_ranges_of_zeros_is_there_after_a_start(data: bytes) -> None:
    world = World()
    engine, layer = await world.start()
    layer.zero(0, 4 * BLOCK_BYTES, allocated=False)
    layer.write(BLOCK_BYTES, data)
    layer.zero(4 * BLOCK_BYTES, 4 * BLOCK_BYTES, allocated=False)
    await durable(engine, layer)
    await engine.flush_memtable()
    engine, layer = await world.reopen(engine)
    assert b"".join(bytes(piece) for piece in await layer.read(BLOCK_BYTES, len(data))) == data
    await world.crash(engine)


@pytest.mark.fast
@pytest.mark.parametrize("entries", [3, 300])
def test_a_range_is_dropped_to_its_end_and_no_further(entries: int) -> None:
    """Where there are fewer entries than blocks, and where there are more."""
    table = LayerTable(1)
    blocks = [*range(9, 9 + entries), 120, 121]
    for block in blocks:
        table.entry(block)
    table.drop(10, 120)
    assert sorted(table.blocks) == sorted(block for block in {*blocks} if not 10 <= block < 120)
