"""Install: however a flush is cut into SSTs, no step points more than a slice of entries elsewhere."""

from storage.cache.frame_cache import FrameCache
from storage.format.blocks import EntryKind, SstEntry, SstRef
from storage.format.frame import FULL_MASK
from storage.lsm.index.block_map import BlockMap
from storage.lsm.index.install import FlushedEntries, Installer, Written
from storage.lsm.memtable.memtable import Memtable
from storage.lsm.options import IndexOptions
from storage.units import MIB

IN_STEP = IndexOptions().entries_in_step
SSTS = 40
ENTRIES = 10
"""In each: fewer than a slice, as where each holds large blocks."""


def written() -> list[Written]:
    ssts = []
    for number in range(SSTS):
        entries = [
            SstEntry(1, number * ENTRIES + at, EntryKind.FULL, FULL_MASK, 1, 64 + at * 100, 100, at)
            for at in range(ENTRIES)
        ]
        ssts.append(Written(SstRef(f"{number:026d}", 2000, 1100, bytes(16), ENTRIES), entries, [b"data"] * ENTRIES))
    return ssts


def test_a_step_is_a_slice_of_entries_whatever_ssts_they_are_in() -> None:
    index, cache = BlockMap(), FrameCache(MIB)
    pointed = 0
    for _ in Installer(cache, lambda sst, offset: int(sst) + 1 << 32 | offset, IN_STEP).steps(
        FlushedEntries(Memtable(), [], written()), {1: index}
    ):
        now = sum(index.standing(block).location != 0 for block in range(SSTS * ENTRIES))
        assert 0 < now - pointed <= IN_STEP
        pointed = now
    now = sum(index.standing(block).location != 0 for block in range(SSTS * ENTRIES))
    assert now == SSTS * ENTRIES == len(cache.entries)
    assert now - pointed <= IN_STEP
