"""The rows of a checkpoint: what a map was when it was frozen, whatever is written to it meanwhile."""

import random

import pytest

from storage.format.blocks import ALLOCATED, HOLE, FrameRef
from storage.format.frame import FULL_MASK
from storage.lsm.index.block_map import BlockMap
from storage.lsm.index.image import PlaceReader, load_part, parts_of
from storage.lsm.index.page import PAGE_BLOCKS
from storage.lsm.index.reverse_delta import ReverseDelta

BLOCKS = [0, 1, 2, PAGE_BLOCKS - 1, PAGE_BLOCKS, PAGE_BLOCKS + 5, 5 * PAGE_BLOCKS]
SSTS = 4
SECTORS = [0, 1, 2, 63]


class Writes:
    """Random changes of a map, each of them by one of all its writers."""

    def __init__(self, found: BlockMap, seed: int) -> None:
        self.found = found
        self.chance = random.Random(seed)
        self.offset = 100

    def place(self, ssts: int) -> int:
        """A new location, or zeros."""
        self.offset += 100
        zeros = self.chance.random()
        return HOLE if zeros < 0.1 else ALLOCATED if zeros < 0.2 else self.chance.randint(1, ssts) << 32 | self.offset

    def some(self, count: int, ssts: int) -> None:
        for _ in range(count):
            self.one(ssts)

    def one(self, ssts: int) -> None:
        found, chance = self.found, self.chance
        block = chance.choice(BLOCKS)
        verb = chance.choice(["base", "patch", "patch", "patch", "zero", "move", "rebase", "prune"])
        if verb == "base":
            found.set_base(block, location=self.place(ssts), length=80, tag=self.offset)
        elif verb == "patch":
            mask = chance.choice([1, 2, 3, 1 << 63, FULL_MASK >> 1])
            found.add_patch(block, mask=mask, location=self.place(ssts), length=80, tag=self.offset)
        elif verb == "zero":
            end = block + chance.choice([1, 3, PAGE_BLOCKS, 2 * PAGE_BLOCKS])
            found.zero_range(block, end, chance.choice([HOLE, ALLOCATED]))
        elif verb == "prune":
            found.prune(block)
        else:
            chain = list(found.find(block))
            frames = [one.content for one in chain if isinstance(one.content, FrameRef)]
            if verb == "move" and frames:
                new = chance.randint(1, ssts) << 32 | self.offset + 50
                found.move(block, chance.choice(frames).location, new, self.offset + 50)
                self.offset += 100
            elif frames:
                chain = found.take(block)
                found.rebase(block, chain, location=ssts << 32 | self.offset + 50, length=80, tag=self.offset)
                self.offset += 100


def seen(found: BlockMap) -> list[object]:
    """What the map says of every sector: the content of its newest entry."""
    return [
        next(one.content for one in found.find(block) if one.mask >> sector & 1)
        for block in [*BLOCKS, 3, 2 * PAGE_BLOCKS, 3 * PAGE_BLOCKS - 1]
        for sector in SECTORS
    ]


@pytest.mark.fast
@pytest.mark.parametrize("seed", range(30))
@pytest.mark.parametrize("rows", [1, 3, 256 * 1024])
def test_a_checkpoint_is_the_map_of_the_moment_of_its_freeze(seed: int, rows: int) -> None:
    found = BlockMap()
    writes = Writes(found, seed)
    writes.some(60, SSTS)
    before = seen(found)
    frozen = found.freeze()
    # All that comes from here on lies in SSTs that the checkpoint does not know.
    writes.some(60, SSTS + 3)
    parts = list(parts_of(frozen, range(SSTS, 0, -1), rows))
    frozen.thaw()
    loaded = BlockMap()
    places = PlaceReader(range(SSTS, 0, -1), {})
    for kind, columns in sorted(parts, key=lambda part: part[0]):
        load_part(loaded, kind, columns, places)
    assert seen(loaded) == before


OLD, NEW = 1 << 32 | 100, 2 << 32 | 100
"""Where a frame lies, and where it is moved to."""


def of_one_block(kind: type[BlockMap] | type[ReverseDelta]) -> BlockMap | ReverseDelta:
    index = BlockMap()
    index.set_base(0, location=OLD, length=80, tag=1)
    if kind is BlockMap:
        return index
    delta = ReverseDelta()
    delta.record(0, index)
    return delta


@pytest.mark.parametrize("kind", [BlockMap, ReverseDelta])
def test_what_two_look_at_is_let_be_until_both_are_done(kind: type[BlockMap] | type[ReverseDelta]) -> None:
    """As a check and a checkpoint: a frame that moves when one of them is done has not moved for the other."""
    found = of_one_block(kind)
    frozen = [found.freeze(), found.freeze()]
    frozen[0].thaw()
    assert found.move(0, OLD, NEW, 2)
    assert found.standing(0).location == NEW
    assert [each.pages[0].location[0] for each in frozen] == [OLD, OLD]


def test_a_copy_of_what_is_looked_at_lets_it_be_too() -> None:
    """As of a head that is cloned meanwhile."""
    found = of_one_block(BlockMap)
    frozen = found.freeze()
    assert isinstance(found, BlockMap)
    other = found.copy()
    assert other.move(0, OLD, NEW, 2)
    assert (other.locate(0, 0), frozen.pages[0].location[0]) == (NEW, OLD)


def test_what_is_looked_at_is_let_be_by_a_copy_that_was_looked_at_too() -> None:
    """As by a check, while the head is cloned and a checkpoint of both has come and gone."""
    found = of_one_block(BlockMap)
    frozen = found.freeze()
    assert isinstance(found, BlockMap)
    other = found.copy()
    for each in (found.freeze(), other.freeze()):
        each.thaw()
    assert other.move(0, OLD, NEW, 2)
    assert (other.locate(0, 0), frozen.pages[0].location[0]) == (NEW, OLD)
    frozen.thaw()
    assert found.move(0, OLD, NEW, 2)
    assert frozen.pages[0].location[0] == NEW, "it is looked at no more, and is not copied"


@pytest.mark.fast
def test_a_chain_that_was_loaded_is_pruned_as_any_other() -> None:
    """Whatever age it had: else it would grow until it counts as damaged."""
    found = BlockMap()
    for sector in range(20):
        found.add_patch(0, mask=1 << sector, location=1 << 32 | 100, length=80, tag=1)
    for _ in range(10):
        parts = list(parts_of(found.freeze(), [1]))
        found = BlockMap()
        for kind, columns in parts:
            load_part(found, kind, columns, PlaceReader([1], {}))
        for _ in range(12):
            found.add_patch(0, mask=1, location=1 << 32 | 100, length=80, tag=1)
        assert len(found.patches) <= 20 + 16


@pytest.mark.fast
@pytest.mark.parametrize("zeros", [HOLE, ALLOCATED])
def test_newer_zeros_stay_above_what_a_consolidation_puts_in(zeros: int) -> None:
    """They look like the zeros that it was made of, and are not those."""
    found = BlockMap()
    found.set_base(0, location=1 << 32 | 100, length=80, tag=1)
    found.add_patch(0, mask=4, location=1 << 32 | 200, length=80, tag=2)
    found.add_patch(0, mask=1, location=zeros, length=0, tag=0)
    chain = found.take(0)
    found.add_patch(0, mask=2, location=zeros, length=0, tag=0)
    assert found.rebase(0, chain, location=2 << 32 | 100, length=80, tag=3)
    assert [found.locate(0, sector) for sector in (1, 2, 3)] == [zeros, 2 << 32 | 100, 2 << 32 | 100]
