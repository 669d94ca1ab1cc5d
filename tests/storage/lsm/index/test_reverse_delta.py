"""What a reverse delta is given many blocks at a time is what it is given one by one."""

import random

import numpy as np
import pytest

from storage.lsm.index.block_map import BlockMap
from storage.lsm.index.page import PAGE_BLOCKS
from storage.lsm.index.reverse_delta import ReverseDelta

PAGE = 3
FIRST = PAGE * PAGE_BLOCKS
SPAN = 40
"""Blocks that are looked at."""


def changing(chance: random.Random) -> BlockMap:
    """Some blocks of a page, with patches and without."""
    index = BlockMap()
    for number in range(3 * SPAN):
        block, place = FIRST + chance.randrange(SPAN), (number + 1) << 32
        if chance.random() < 0.5:
            index.set_base(block, location=place, length=number, tag=number)
        else:
            index.add_patch(block, mask=1 << chance.randrange(64), location=place, length=number, tag=number)
    return index


def held(delta: ReverseDelta) -> dict[int, list[object]]:
    return {block: list(delta.find(block)) for block in delta.blocks()}


@pytest.mark.parametrize("seed", range(20))
def test_many_rows_are_kept_as_each_would_be(seed: int) -> None:
    chance = random.Random(seed)
    one, many = ReverseDelta(), ReverseDelta()
    for _ in range(3):
        index = changing(chance)
        some = np.array(sorted(chance.sample(range(SPAN), chance.randrange(SPAN))), np.uint16)
        for at in some.tolist():
            one.record(FIRST + at, index)
        many.record_rows(PAGE, index.rows(PAGE, some), index.patches)
        assert held(many) == held(one)
        assert many.patches.rows == one.patches.rows


def test_what_is_frozen_stays_as_it_was() -> None:
    index, delta = changing(random.Random(1)), ReverseDelta()
    delta.record_rows(PAGE, index.rows(PAGE, np.arange(5)), index.patches)
    frozen = delta.freeze()
    delta.record_rows(PAGE, index.rows(PAGE, np.arange(10)), index.patches)
    assert (len(frozen.pages[PAGE].location), len(delta)) == (5, 10)


def test_a_block_that_is_not_held_is_no_place_for_what_a_checkpoint_says() -> None:
    delta = ReverseDelta()
    delta.keep(np.array([FIRST, FIRST + 2], np.uint32))
    for blocks in ([FIRST + 1], [FIRST, FIRST + 3], [0]):
        with pytest.raises(KeyError):
            delta.load_zeros(np.array(blocks, np.uint32))
    assert list(delta.blocks()) == [FIRST, FIRST + 2]
