"""The chains of patches of an index: short, whole, and in rows that are used again."""

import random
from collections.abc import Callable

import pytest

from storage.format.blocks import HOLE, FrameRef
from storage.lsm.index.block_map import BlockMap
from storage.lsm.index.page import PAGE_BLOCKS
from storage.lsm.options import PRUNE_AFTER


def test_a_chain_stays_short_however_often_a_block_is_written() -> None:
    index = BlockMap()
    chance = random.Random(1)
    index.set_base(5, location=1 << 32, length=9, tag=9)
    longest = 0
    for number in range(20_000):
        index.add_patch(5, mask=1 << chance.randrange(64), location=(2 << 32) + number, length=1, tag=1)
        longest = max(longest, len(list(index.find(5))))
    assert longest <= 64 + PRUNE_AFTER + 2
    assert len(index.patches) <= 64 + PRUNE_AFTER
    assert index.patches.rows < 200, "rows are used again"


@pytest.mark.parametrize("leads_to", ["itself", "another block", "a row that is not in use"])
def test_a_chain_that_leads_nowhere_is_an_error_and_no_endless_loop(leads_to: str) -> None:
    """It can only come from a mistake in here; then nothing it says may be served, and nobody may hang in it."""

    def broken() -> BlockMap:
        index = BlockMap()
        index.add_patch(6, mask=1, location=2 << 32, length=1, tag=1)
        index.add_patch(7, mask=1, location=3 << 32, length=1, tag=1)
        index.add_patch(5, mask=1, location=4 << 32, length=1, tag=1)
        other, unused, own = 1, 2, 3
        index.set_base(7, location=5 << 32, length=1, tag=1)
        index.patches.next[own] = {"itself": own, "another block": other, "a row that is not in use": unused}[leads_to]
        return index

    uses: list[Callable[[BlockMap], object]] = [
        lambda index: list(index.find(5)),
        lambda index: index.locate(5, 1),
        lambda index: index.prune(5),
        lambda index: index.set_base(5, location=6 << 32, length=1, tag=1),
        lambda index: index.zero_range(0, PAGE_BLOCKS, HOLE),
    ]
    for use in uses:
        with pytest.raises(RuntimeError, match="chain of block 5"):
            use(broken())
    assert next(iter(broken().find(6))).content == FrameRef(2 << 32, 1, 1, 6, full=False)


def test_rows_of_forgotten_patches_are_used_again() -> None:
    index = BlockMap()
    for number in range(1000):
        for patch in range(10):
            index.add_patch(number % 7, mask=1 << patch, location=(2 << 32) + number * 10 + patch, length=1, tag=1)
        if number % 2:
            index.set_base(number % 7, location=(3 << 32) + number, length=1, tag=1)
        else:
            index.zero_range(0, PAGE_BLOCKS, HOLE)
    assert index.patches.rows < 100
    index.zero_range(0, PAGE_BLOCKS, HOLE)
    assert len(index.patches) == 0
    assert index.pages == {}
