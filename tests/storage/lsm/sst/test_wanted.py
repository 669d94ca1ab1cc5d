"""Where the time of a round of fetching went, by what is known of its frames."""

from storage.fetch_times import OBJECTS_MAX, FetchTimes
from storage.format.blocks import FrameRef
from storage.lsm.sst.wanted import Wanted, note_times


def frame(name: str, *, gets: int = 1, began: float = 0.0, answered: float = 0.0) -> Wanted:
    return Wanted(FrameRef(1, 100, 0, 0, True), name, gets=gets, began=began, answered=answered)


def noted(*frames: Wanted, asked: float = 10.0, now: float = 20.0) -> FetchTimes:
    times = FetchTimes()
    note_times(times, list(frames), asked, now)
    return times


def test_the_frame_that_came_last() -> None:
    times = noted(frame("a", began=10.5, answered=11.0), frame("b", began=12.0, answered=19.0))
    assert (times.waiting, times.store, times.decoding) == (2.0, 7.0, 1.0)
    assert (times.requests, times.tries, times.objects) == (2, 1, ["a", "b"])


def test_a_get_that_was_under_way_already() -> None:
    times = noted(frame("a", began=5.0, answered=18.0))
    assert (times.waiting, times.store, times.decoding) == (0.0, 8.0, 2.0)


def test_an_answer_that_was_there_already() -> None:
    times = noted(frame("a", began=5.0, answered=9.0))
    assert (times.waiting, times.store, times.decoding) == (0.0, 0.0, 10.0)


def test_no_answer() -> None:
    """The last try was in vain, or none began."""
    times = noted(frame("a", gets=3, began=16.0))
    assert (times.waiting, times.store, times.decoding, times.tries) == (6.0, 4.0, 0.0, 3)
    times = noted(frame("a", gets=0))
    assert (times.waiting, times.store, times.decoding, times.requests) == (10.0, 0.0, 0.0, 0)


def test_rounds_add_up_and_names_are_few() -> None:
    times = FetchTimes()
    for number in range(9):
        note_times(times, [frame(f"sst {number}", began=1.0, answered=2.0)], 1.0, 2.5)
    assert (times.store, times.decoding, times.requests) == (9.0, 4.5, 9)
    assert len(times.objects) == OBJECTS_MAX


def test_what_was_in_memory_meanwhile() -> None:
    assert noted() == FetchTimes()
