"""Reading ahead: for whom, and how far."""

import random

from hypothesis import given
from hypothesis import strategies as st

from storage.lsm.options import ReadOptions
from storage.lsm.read.read_ahead import STREAMS_MAX, ReadAhead
from tests.support.inside import streams_of

WINDOW_BLOCKS = ReadOptions().window_blocks_max


def test_a_first_miss_fetches_nothing_ahead() -> None:
    assert not ReadAhead(WINDOW_BLOCKS).miss(7, 8)


def test_the_window_doubles_and_leaves_no_block_out() -> None:
    streams = ReadAhead(WINDOW_BLOCKS)
    streams.miss(0, 1)
    fetched: list[int] = []
    at = 1
    while at < 500:
        ahead = streams.miss(at, at + 1)
        assert len(ahead) <= WINDOW_BLOCKS
        fetched += ahead
        at = max(at + 1, fetched[-1] + 1 if fetched else 0)
    assert fetched == sorted(set(fetched)), "no block is fetched ahead twice"
    assert max(fetched) - len(fetched) < 20, "once it goes, the reader misses at window ends only"


def test_several_readers_do_not_disturb_each_other() -> None:
    streams = ReadAhead(WINDOW_BLOCKS)
    starts = [reader * 10_000 for reader in range(4)]
    for step in range(3):
        ahead = [streams.miss(start + step, start + step + 1) for start in starts]
    assert all(blocks and blocks[0] > start for blocks, start in zip(ahead, starts, strict=True))


def test_a_jump_is_no_stream() -> None:
    streams = ReadAhead(WINDOW_BLOCKS)
    streams.miss(0, 1)
    assert not streams.miss(1000, 1001)


def test_who_reads_at_random_gets_little_ahead_on_a_small_disk_too() -> None:
    """All streams together reach over 256 MiB: whoever was taken for sequential anywhere in them fetched twelve blocks
    for each that he read.
    """
    streams, chance = ReadAhead(WINDOW_BLOCKS), random.Random(1)
    ahead = 0
    for _ in range(5000):
        block = chance.randrange(1024)
        ahead += len(streams.miss(block, block + 1))
    assert ahead < 5000 / 4


def test_a_reader_whose_requests_overtake_each_other_is_sequential() -> None:
    streams, chance = ReadAhead(WINDOW_BLOCKS), random.Random(1)
    fetched: set[int] = set()
    missed = 0
    for start in range(0, 1000, 4):
        for block in chance.sample(range(start, start + 4), 4):
            if block not in fetched:
                missed += 1
                fetched |= {block, *streams.miss(block, block + 1)}
    assert missed < 100


@given(st.lists(st.integers(0, 5000), max_size=200))
def test_never_behind_the_miss_and_never_too_far(misses: list[int]) -> None:
    streams = ReadAhead(WINDOW_BLOCKS)
    for block in misses:
        ahead = streams.miss(block, block + 1)
        assert not ahead or block < ahead[0] <= ahead[-1] <= block + WINDOW_BLOCKS
        assert streams_of(streams) <= STREAMS_MAX
