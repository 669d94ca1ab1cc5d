"""What the index of a disk takes: bytes of memory for each block and each patch, counted by what the allocator gave."""

import tracemalloc

import numpy as np
from numpy.typing import NDArray

from storage.format.checkpoint import PartKind
from storage.format.columns import Columns
from storage.lsm.index.block_map import BlockMap
from storage.lsm.index.image import PlaceReader, load_part
from storage.lsm.index.page import PAGE_BLOCKS

BLOCKS = 64 * PAGE_BLOCKS
BLOCKS_PER_SST = 64

BASE_BYTES_MAX = 20.2
"""Of a block: three columns, and a little for each page of 4096."""

PATCH_BYTES_MAX = 44.0
"""Of a patch: seven columns, which have room to grow, and where the chain of a block begins."""


def test_a_block_and_a_patch_take_what_their_columns_hold() -> None:
    blocks = np.arange(BLOCKS, dtype=np.uint32)
    places = PlaceReader(range(1, BLOCKS // BLOCKS_PER_SST + 2), {})
    index = BlockMap()

    def load(kind: PartKind, some: NDArray[np.uint32]) -> int:
        before, _ = tracemalloc.get_traced_memory()
        rows: Columns = {
            "block": some,
            "mask": np.ones(len(some), np.uint64),
            "sst": some // np.uint32(BLOCKS_PER_SST) + np.uint32(1),
            "offset": some % np.uint32(BLOCKS_PER_SST) * np.uint32(1 << 18),
            "length": np.full(len(some), 1 << 18, np.uint32),
            "tag": some.astype(np.uint64) << np.uint64(31),
        }
        if kind is PartKind.BASES:
            del rows["mask"]
        load_part(index, kind, rows, places)
        del rows
        return tracemalloc.get_traced_memory()[0] - before

    tracemalloc.start()
    try:
        bases = load(PartKind.BASES, blocks)
        patches = load(PartKind.PATCHES, blocks[::20].copy())
    finally:
        tracemalloc.stop()
    assert bases / BLOCKS <= BASE_BYTES_MAX
    assert patches / len(blocks[::20]) <= PATCH_BYTES_MAX
