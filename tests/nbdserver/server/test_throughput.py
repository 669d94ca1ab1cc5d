"""When something that others wait for counts as stuck."""

from nbdserver.server.limits import PROGRESS_RATE_MIN
from nbdserver.server.throughput import Progress


def test_what_moves_is_not_stuck_however_long_it_takes() -> None:
    progress = Progress(10.0, 2.0)
    for second in range(1000):
        assert not progress.is_stuck(float(second), second * (PROGRESS_RATE_MIN + 1))


def test_what_stands_or_trickles_is_stuck_after_its_time() -> None:
    for rate in (0, 1, PROGRESS_RATE_MIN // 2):
        progress = Progress(10.0, 2.0)
        assert [progress.is_stuck(float(second), second * rate) for second in range(12)] == [False] * 10 + [True] * 2


def test_the_time_begins_when_others_begin_to_wait() -> None:
    progress = Progress(10.0, 2.0)
    assert not any(progress.is_stuck(float(second), 0) for second in range(10))
    progress.begin_anew()
    assert [progress.is_stuck(float(second), 0) for second in range(10, 22)] == [False] * 10 + [True] * 2


def test_a_pause_of_the_server_itself_is_no_silence_of_the_client() -> None:
    """Stopped and gone on, it sees what one receive brought: the rest of what came is in the kernel."""
    progress = Progress(10.0, 2.0)
    assert not any(progress.is_stuck(float(second), 100) for second in range(10))
    looks = range(69, 81)
    assert [progress.is_stuck(float(second), 200) for second in looks] == [False] * 10 + [True] * 2


def test_a_look_that_is_a_little_late_counts() -> None:
    """A server that is busy would drop nobody."""
    progress = Progress(10.0, 2.0)
    assert [progress.is_stuck(second * 2.0, 0) for second in range(6)] == [False] * 5 + [True]
