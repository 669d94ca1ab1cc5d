"""What the blocks of a memtable become in an SST; that nothing is lost on the way, `test_engine_model` shows."""

import pytest

from storage.format.blocks import ALLOCATED, HOLE, EntryKind, FrameRef, RangeZero
from storage.format.frame import BLOCK_BYTES, FULL_MASK, SECTOR_BYTES
from storage.lsm.flush.flush_plan import FlushPlan, chunks, frame_data, plan
from storage.lsm.memtable.memtable import BlockEntry, Memtable, Span
from storage.lsm.options import FlushOptions

FULL_SECTORS = FlushOptions().full_sectors_min
SECTOR = b"s" * SECTOR_BYTES
FRAME = FrameRef(1 << 32, 100, 0, 0, full=True)


def planned(entry: BlockEntry) -> FlushPlan | None:
    memtable = Memtable()
    entry.sequence = 7
    memtable.layer(1).blocks[5] = entry
    blocks, ranges = plan(memtable, full_sectors_min=FULL_SECTORS)
    assert not ranges
    assert len(blocks) <= 1
    if blocks:
        assert (blocks[0].layer, blocks[0].block, blocks[0].sequence) == (1, 5, 7)
        assert blocks[0].full == (blocks[0].data_mask == FULL_MASK and blocks[0].full)
    return blocks[0] if blocks else None


def entry(sectors: dict[int, bytes | int], base: bytes | int | FrameRef | None = None) -> BlockEntry:
    made = BlockEntry()
    if base is not None:
        made.link_block(base)
    for sector, content in sectors.items():
        made.link_sector(sector, content)
    return made


def test_the_memtable_is_only_read() -> None:
    """It is planned in a thread, while the event loop answers reads from the same entries."""
    zeros = bytes(SECTOR_BYTES)
    made = entry({3: SECTOR, 9: zeros, 10: HOLE})
    before = dict(made.sectors)
    found = planned(made)
    assert found is not None
    assert (found.data_mask, found.zero_mask) == (1 << 3, 1 << 9 | 1 << 10)
    assert frame_data(found) == SECTOR
    assert made.sectors == before
    assert made.sectors[9] is zeros


def test_some_sectors_are_a_patch() -> None:
    found = planned(entry({3: SECTOR, 9: SECTOR}))
    assert found is not None
    assert (found.full, found.data_mask, found.zero_mask) == (False, 0b1000001000, 0)
    assert frame_data(found) == SECTOR * 2


def test_a_whole_buffer_is_a_full_frame_without_a_copy() -> None:
    block = b"b" * BLOCK_BYTES
    found = planned(entry({}, block))
    assert found is not None
    assert (found.full, found.data_mask, found.zero_mask) == (True, FULL_MASK, 0)
    assert frame_data(found) is block


def test_sectors_lie_over_the_buffer() -> None:
    found = planned(entry({0: SECTOR, 63: HOLE}, b"b" * BLOCK_BYTES))
    assert found is not None
    assert found.full
    assert frame_data(found) == SECTOR + b"b" * (62 * SECTOR_BYTES) + bytes(SECTOR_BYTES)


@pytest.mark.parametrize("count", [1, FULL_SECTORS - 1, FULL_SECTORS, 64])
def test_a_block_known_wholly_is_full_from_half_of_its_sectors_on(count: int) -> None:
    """Below that, its zeros are an entry and its data a patch above them."""
    found = planned(entry(dict.fromkeys(range(count), SECTOR), HOLE))
    assert found is not None
    full = count >= FULL_SECTORS
    assert found.full == full
    assert found.zero_mask == (0 if full else FULL_MASK)
    assert found.data_mask == (FULL_MASK if full else (1 << count) - 1)
    assert frame_data(found) == SECTOR * count + bytes((64 - count) * SECTOR_BYTES if full else 0)


def test_a_block_not_known_wholly_is_a_patch_however_much_it_has() -> None:
    found = planned(entry(dict.fromkeys(range(63), SECTOR)))
    assert found is not None
    assert (found.full, found.zero_mask, found.data_mask) == (False, 0, FULL_MASK >> 1)


def test_what_was_written_over_an_uploaded_frame_is_a_patch() -> None:
    assert planned(entry({}, FRAME)) is None, "nothing was"
    found = planned(entry(dict.fromkeys(range(64), SECTOR), FRAME))
    assert found is not None
    assert not found.full
    found = planned(entry({2: HOLE}, FRAME))
    assert found is not None
    assert (found.data_mask, found.zero_mask, found.zero_kind) == (0, 0b100, EntryKind.ZERO)


@pytest.mark.parametrize("zeros", [bytes(BLOCK_BYTES), HOLE])
def test_zeros_are_stored_nowhere(zeros: bytes | int) -> None:
    found = planned(entry({}, zeros))
    assert found is not None
    assert (found.data_mask, found.zero_mask, found.zero_kind) == (0, FULL_MASK, EntryKind.ZERO)
    found = planned(entry({4: bytes(SECTOR_BYTES), 5: SECTOR}))
    assert found is not None
    assert (found.data_mask, found.zero_mask) == (0b100000, 0b10000)


def test_allocated_zeros_stay_allocated() -> None:
    for made in (entry({}, ALLOCATED), entry({1: ALLOCATED}), entry({1: ALLOCATED, 2: HOLE})):
        found = planned(made)
        assert found is not None
        assert found.zero_kind is EntryKind.ZERO_ALLOCATED


def test_spans_become_ranges() -> None:
    memtable = Memtable()
    memtable.layer(2).zeros.add(Span(5, 2**32 - 1, 9, ALLOCATED), newest_write=0)
    memtable.layer(1).zeros.add(Span(1, 3, 8, HOLE), newest_write=0)
    blocks, ranges = plan(memtable, full_sectors_min=FULL_SECTORS)
    assert (blocks, ranges) == ([], [RangeZero(1, 1, 3, 8, False), RangeZero(2, 5, 2**32 - 1, 9, True)])


def test_the_order_is_by_layer_and_block() -> None:
    memtable = Memtable()
    for layer, block in ((2, 1), (1, 9), (1, 3)):
        memtable.layer(layer).blocks[block] = entry({0: SECTOR})
    assert [(p.layer, p.block) for p in plan(memtable, full_sectors_min=FULL_SECTORS)[0]] == [(1, 3), (1, 9), (2, 1)]


def test_full_frames_and_the_rest_go_to_tables_of_their_own_and_none_is_too_large() -> None:
    memtable = Memtable()
    for block in range(40):
        memtable.layer(1).blocks[block] = entry({0: SECTOR}) if block % 2 else entry({}, b"b" * BLOCK_BYTES)
    memtable.layer(1).blocks[99] = entry({}, HOLE)
    blocks, _ = plan(memtable, full_sectors_min=FULL_SECTORS)
    groups = list(chunks(blocks, 4 * BLOCK_BYTES))
    assert sorted(p.block for group in groups for p in group) == [*range(40), 99]
    assert all(len({p.full for p in group}) == 1 for group in groups)
    assert [len(group) for group in groups] == [4, 4, 4, 4, 4, 21]
