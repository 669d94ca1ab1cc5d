"""Cutting a queue: all of it, in order, charged once; whole blocks leave the log and nothing else does."""

import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from storage.bucket.pace import BULK_BYTES_MIN, INLINE_BYTES_MAX
from storage.format.frame import BLOCK_BYTES, SECTOR_BYTES
from storage.format.wal import Meta, Op
from storage.lsm.engine import Engine
from storage.lsm.layer import Layer
from storage.lsm.sst.bulk import contiguous
from storage.lsm.wal.queue import Cut, without_blocks
from tests.storage.lsm.worlds import MIB, World
from tests.support.idle import idle

SIZE = 6 * BLOCK_BYTES


@given(
    st.lists(st.tuples(st.integers(0, SIZE - 1), st.integers(1, 3 * BLOCK_BYTES)), max_size=12),
    st.sets(st.integers(0, 6)),
)
def test_only_the_named_blocks_leave_the_operations(ranges: list[tuple[int, int]], blocks: set[int]) -> None:
    ops: list[Op | Meta] = []
    expected = bytearray(SIZE + 3 * BLOCK_BYTES)
    for sequence, (offset, length) in enumerate(ranges, start=1):
        data = bytes([sequence]) * length
        ops += [(sequence, offset, data), (sequence, 0, 5, True), Meta(sequence, b"tree")]
        expected[offset : offset + length] = data
    for block in blocks:
        expected[block * BLOCK_BYTES : (block + 1) * BLOCK_BYTES] = bytes(BLOCK_BYTES)
    found = bytearray(len(expected))
    rest = without_blocks(ops, blocks)
    for op in rest:
        if not isinstance(op, Meta) and len(op) == 3:
            assert len(op[2]) > 0
            assert blocks.isdisjoint(range(op[1] // BLOCK_BYTES, (op[1] + len(op[2]) - 1) // BLOCK_BYTES + 1))
            found[op[1] : op[1] + len(op[2])] = op[2]
    assert found == expected
    assert [op for op in rest if isinstance(op, Meta) or len(op) == 4] == [
        op for op in ops if isinstance(op, Meta) or len(op) == 4
    ]
    order = [op.sequence if isinstance(op, Meta) else op[0] for op in rest]
    assert order == sorted(order)


async def stopped() -> tuple[World, Engine, Layer]:
    """An engine that sends nothing by itself, so that the test cuts."""
    world = World()
    engine, layer = await world.start()
    await idle()
    engine.commit.stop()
    return world, engine, layer


def cut_all(engine: Engine, layer: Layer) -> list[Cut]:
    cuts = []
    while layer.queue.pending:
        cuts.append(layer.queue.cut(engine.writes.memtable))
    return cuts


async def test_a_long_queue_is_cut_into_whole_operations_in_order() -> None:
    world, engine, layer = await stopped()
    chance = random.Random(1)
    sequences = []
    before = engine.writes.unlogged_bytes
    for number in range(400):
        length = chance.choice([1, 700, SECTOR_BYTES, 100_000])
        sequences.append(layer.write(number * 2 * BLOCK_BYTES + chance.randrange(9999), bytes([number % 251]) * length))
        if number % 7 == 0:
            sequences.append(layer.zero(number * BLOCK_BYTES + 5, 9999, allocated=False))
    charged = engine.writes.unlogged_bytes - before
    cuts = cut_all(engine, layer)
    assert len(cuts) > 2
    assert [op[0] for cut in cuts for op in cut.records.ops] == sequences
    assert sum(cut.charge for cut in cuts) == charged
    assert layer.queue.pending_bytes == 0
    assert [cut.last_sequence for cut in cuts] == [cut.records.ops[-1][0] for cut in cuts]
    assert layer.queue.cut_sequence == sequences[-1]
    assert all(cut.ready and not cut.blocks for cut in cuts)
    assert all(cut.charge < INLINE_BYTES_MAX + 110_000 for cut in cuts)
    await world.crash(engine)


async def test_whole_blocks_are_taken_as_they_are_at_the_cut() -> None:
    world, engine, layer = await stopped()
    data = random.Random(2).randbytes(BULK_BYTES_MIN + 2 * BLOCK_BYTES)
    layer.write(100, data)
    layer.write(BLOCK_BYTES + 7, b"newer than the block")
    layer.zero(3 * BLOCK_BYTES, SECTOR_BYTES, allocated=False)
    disk = bytearray(b"\0" * 100 + data)
    disk[BLOCK_BYTES + 7 : BLOCK_BYTES + 27] = b"newer than the block"
    (cut,) = cut_all(engine, layer)
    layer.write(BLOCK_BYTES, b"after the cut")
    layer.write(4 * BLOCK_BYTES, b"z" * BLOCK_BYTES)
    assert not cut.ready
    blocks = {block.block: block for block in cut.blocks}
    assert sorted(blocks) == [n for n in range(1, len(data) // BLOCK_BYTES) if n != 3], "one was zeroed in part since"
    for number, block in blocks.items():
        assert contiguous(block) == disk[number * BLOCK_BYTES : (number + 1) * BLOCK_BYTES]
    assert blocks[1].sequence > blocks[2].sequence
    writes = [op for op in cut.records.ops if len(op) == 3]
    assert sum(len(op[2]) for op in writes) == len(data) - len(blocks) * BLOCK_BYTES
    await world.crash(engine)


async def test_a_few_whole_blocks_go_inline() -> None:
    world, engine, layer = await stopped()
    layer.write(0, bytes(BULK_BYTES_MIN - BLOCK_BYTES))
    (cut,) = cut_all(engine, layer)
    assert cut.ready
    assert not cut.blocks
    await world.crash(engine)


@pytest.mark.parametrize("again", [False, True])
async def test_a_block_is_whole_by_what_was_written_since_the_last_cut(again: bool) -> None:
    """Else the log would name a frame whose older half it never held."""
    world, engine, layer = await stopped()
    count = BULK_BYTES_MIN // BLOCK_BYTES
    for block in range(count):
        layer.write(block * BLOCK_BYTES, b"a" * (BLOCK_BYTES // 2))
    cut_all(engine, layer)
    for block in range(count):
        layer.write(block * BLOCK_BYTES + BLOCK_BYTES // 2, b"b" * (BLOCK_BYTES // 2))
        if again:
            layer.write(block * BLOCK_BYTES, b"c" * (BLOCK_BYTES // 2))
    cuts = cut_all(engine, layer)
    assert bool(cuts[0].blocks) == again
    await world.crash(engine)


async def test_a_discard_of_many_blocks_ends_their_being_whole() -> None:
    world, engine, layer = await stopped()
    layer.write(0, b"x" * (8 * MIB))
    layer.zero(0, 8 * MIB, allocated=False)
    cuts = cut_all(engine, layer)
    assert all(not cut.blocks for cut in cuts)
    assert [len(op) for cut in cuts for op in cut.records.ops] == [3, 4]
    await world.crash(engine)


@pytest.mark.parametrize("length", [100, SECTOR_BYTES, 5 * SECTOR_BYTES, BLOCK_BYTES])
async def test_a_block_that_was_trimmed_since_is_whole_no_more(length: int) -> None:
    """Else the log would name a frame of zeros that nobody wrote, with the sequence of the trim."""
    world, engine, layer = await stopped()
    count = BULK_BYTES_MIN // BLOCK_BYTES + 1
    layer.write(0, b"x" * (count * BLOCK_BYTES))
    layer.zero(BLOCK_BYTES, length, allocated=False)
    (cut,) = cut_all(engine, layer)
    assert [whole.block for whole in cut.blocks] == [block for block in range(count) if block != 1]
    await world.crash(engine)
