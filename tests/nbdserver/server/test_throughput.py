"""When something that others wait for counts as stuck."""

from nbdserver.server.limits import PROGRESS_RATE_MIN
from nbdserver.server.throughput import Progress


def test_what_moves_is_not_stuck_however_long_it_takes() -> None:
    progress = Progress(10.0)
    for second in range(1000):
        assert not progress.is_stuck(float(second), second * (PROGRESS_RATE_MIN + 1))


def test_what_stands_or_trickles_is_stuck_after_its_time() -> None:
    for rate in (0, 1, PROGRESS_RATE_MIN // 2):
        progress = Progress(10.0)
        assert [progress.is_stuck(float(second), second * rate) for second in range(12)] == [False] * 10 + [True] * 2


def test_the_time_begins_when_others_begin_to_wait() -> None:
    progress = Progress(10.0)
    assert not progress.is_stuck(0.0, 0)
    assert not progress.is_stuck(9.0, 0)
    progress.begin_anew()
    assert not progress.is_stuck(18.0, 0)
    assert not progress.is_stuck(27.0, 0)
    assert progress.is_stuck(28.0, 0)
