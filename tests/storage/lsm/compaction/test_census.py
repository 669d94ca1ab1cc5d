"""The census: what patches cover, beside a count of every sector one by one."""

import asyncio
import random
from collections.abc import Awaitable, Callable

import pytest

from storage.format.blocks import ALLOCATED, HOLE, FrameRef
from storage.format.frame import FULL_MASK, SECTORS
from storage.lsm.compaction.census import Patched, count_patches
from storage.lsm.index.block_map import BlockMap
from storage.lsm.index.page import PAGE_BLOCKS
from storage.lsm.index.trunk import Trunk


def census(index: BlockMap, *, patches: int = 2, sectors: int = 32) -> Patched:
    async def run(work: Callable[[], Patched]) -> Patched:
        return work()

    def counted() -> Awaitable[Patched]:
        return count_patches([Trunk([7], index)], patches=patches, sectors=sectors, often={7: {3}}, run=run)

    return asyncio.run(counted())  # type: ignore[arg-type]


def covered(index: BlockMap, block: int) -> float:
    """Of bases what any patch covers; of patches what they hold more than once, all of them of one size a sector."""
    chain = list(index.find(block))
    patches = chain[:-1]
    union = 0
    for one in patches:
        union |= one.mask
    base = chain[-1].content
    total = base.length * union.bit_count() / SECTORS if isinstance(base, FrameRef) else 0.0
    held = sum(one.mask.bit_count() for one in patches)
    size = sum(one.content.length for one in patches if isinstance(one.content, FrameRef))
    return total + (size * (1 - union.bit_count() / held) if held else 0.0)


@pytest.mark.fast
@pytest.mark.parametrize("seed", range(20))
def test_the_census_counts_what_each_block_says(seed: int) -> None:
    chance = random.Random(seed)
    index = BlockMap()
    blocks = [0, 1, 3, PAGE_BLOCKS - 1, PAGE_BLOCKS, 5 * PAGE_BLOCKS + 9]
    for step in range(chance.randint(0, 60)):
        block, place = chance.choice(blocks), 3 << 32 | (step + 1) * 1000
        kind = chance.random()
        if kind < 0.2:
            index.set_base(
                block, location=chance.choice([HOLE, ALLOCATED, place]), length=chance.randint(1, 9999), tag=1
            )
        elif kind < 0.3:
            index.zero_range(block, block + chance.choice([1, PAGE_BLOCKS]), chance.choice([HOLE, ALLOCATED]))
        else:
            mask = chance.choice([1, 3 << 40, (1 << 31) - 1, FULL_MASK >> 1, chance.getrandbits(64) | 1])
            content = chance.choice([HOLE, ALLOCATED, place, place])
            length = chance.randint(1, 9999) if content == place else 0
            index.add_patch(block, mask=mask, location=content, length=length, tag=1)
    found = census(index)
    assert found.covered == pytest.approx(sum(covered(index, block) for block in blocks), abs=1)
    expected = []
    for block in blocks:
        frames = [one for one in list(index.find(block))[:-1] if isinstance(one.content, FrameRef)]
        union = 0
        for one in frames:
            union |= one.mask
        if len(frames) >= 2 or union.bit_count() >= 32:
            expected.append((7, block, len(frames), union.bit_count(), block == 3))
    worth = [(one.layer, one.block, one.patches, one.sectors, one.often_gathered) for one in found.worth]
    assert sorted(worth) == sorted(expected)
