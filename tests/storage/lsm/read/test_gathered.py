import pytest

from storage.format.blocks import FrameRef
from storage.lsm.read.gathered import GATHERED_BLOCKS_MAX, PIECES_MIN, GatheredBlocks

pytestmark = pytest.mark.fast


def pieces(block: int, count: int) -> list[FrameRef]:
    return [FrameRef(1 << 32 | block << 8 | n, 100, 0, block, full=False) for n in range(count)]


def test_a_block_that_came_in_many_pieces_twice_is_gathered_often() -> None:
    gathered = GatheredBlocks()
    gathered.fetched(pieces(3, PIECES_MIN) + pieces(4, PIECES_MIN - 1))
    assert not gathered.often
    gathered.fetched(pieces(3, PIECES_MIN) + pieces(4, PIECES_MIN - 1))
    assert gathered.often == {3}
    gathered.forget(3)
    gathered.fetched(pieces(3, PIECES_MIN))
    assert not gathered.often


def test_what_is_remembered_is_bounded_and_the_oldest_goes_first() -> None:
    gathered = GatheredBlocks()
    for block in (0, 0, 1, 1, 0, *range(2, GATHERED_BLOCKS_MAX + 1)):
        gathered.fetched(pieces(block, PIECES_MIN))
    assert gathered.often == {0}
