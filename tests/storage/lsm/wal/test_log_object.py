"""What the objects of a log say together."""

from storage.lsm.wal.log_object import Replay


def test_a_writers_part_of_the_log_ends_at_the_fence_of_the_next() -> None:
    replay = Replay(end=60, fences=[10, 30], epochs={10: 2, 30: 4})
    assert [replay.reach(epoch) for epoch in (1, 2, 3, 4, 5)] == [10, 30, 30, 60, 60]


def test_an_empty_log_has_no_sequence() -> None:
    assert Replay().sequence == 0
