"""What a listed SST takes: bytes of memory in all that is kept of it while a server runs, counted by the allocator."""

import gc
import tracemalloc

from ulid import ULID

from storage.bucket.named_ssts import NamedSsts
from storage.format.blocks import SstRef
from storage.format.sst_list import SstList
from storage.lsm.compaction.sst_table import SstTable
from storage.lsm.index.sst_numbers import SstNumbers

SSTS = 16384

SST_BYTES_MAX = 159.0
"""Of an SST of 64 blocks: 66 in the list, 34 for its number, 34 for what the sweep may not delete, and 17 for what
maintenance counts beside; and room. As objects and in dictionaries these were 500."""


def kept_of(count: int) -> tuple[object, ...]:
    listed = SstList.of(
        SstRef(str(ULID.from_bytes(number.to_bytes(16))), 1 << 24, (1 << 24) - 8192, bytes(16), 64)
        for number in range(count)
    )
    numbers = SstNumbers()
    numbers.numbers(listed.ids)
    return numbers, NamedSsts.of(listed), SstTable.listed(listed, numbers, merged=True, newest_key=1)


def test_an_sst_takes_what_its_columns_hold() -> None:
    kept_of(2)  # what is imported when it is first used
    tracemalloc.start()
    try:
        before, _ = tracemalloc.get_traced_memory()
        kept = kept_of(SSTS)
        gc.collect()
        taken = tracemalloc.get_traced_memory()[0] - before
    finally:
        tracemalloc.stop()
    assert kept
    assert taken / SSTS <= SST_BYTES_MAX
