"""Which snapshots a schedule takes and deletes: rules for any moments, and months of virtual time."""

from collections.abc import Mapping
from datetime import UTC, datetime

import pytest
from hypothesis import given
from hypothesis import strategies as st

from storage.fs.snapshots.retention import PERIODS, is_due, retained

moments = st.floats(0, 4e9, allow_nan=False)
keeps = st.dictionaries(st.sampled_from(list(PERIODS)), st.integers(1, 30), min_size=1)
DAY = 86400.0
FOR_EVER = float("inf")


def at(text: str) -> float:
    return datetime.fromisoformat(text).replace(tzinfo=UTC).timestamp()


@pytest.mark.parametrize(
    ("period", "last", "first"),
    [
        ("hourly", "2026-11-29T01:59:59", "2026-11-29T02:00:00"),
        ("daily", "2026-11-28T23:59:59", "2026-11-29T00:00:00"),
        ("weekly", "2026-11-29T23:59:59", "2026-11-30T00:00:00"),
        ("monthly", "2026-11-30T23:59:59", "2026-12-01T00:00:00"),
        ("yearly", "2026-12-31T23:59:59", "2027-01-01T00:00:00"),
    ],
)
def test_where_periods_begin(period: str, last: str, first: str) -> None:
    number = PERIODS[period]
    assert number(at(first)) == number(at(last)) + 1


@given(keeps, st.sets(moments))
def test_what_is_kept(keep: Mapping[str, int], taken: set[float]) -> None:
    """The first of each of the newest periods in which there is one, and nothing else."""
    still = retained(keep, taken, FOR_EVER)
    assert still <= taken
    assert len(still) <= sum(keep.values())
    for period, count in keep.items():
        newest = sorted({PERIODS[period](moment) for moment in taken})[-count:]
        for number in newest:
            assert min(moment for moment in taken if PERIODS[period](moment) == number) in still
    for moment in still:
        assert any(
            min(other for other in taken if PERIODS[period](other) == PERIODS[period](moment)) == moment
            for period in keep
        )
    assert retained(keep, still, FOR_EVER) == still, "what is kept stays kept until another one is taken"


@given(keeps, st.sets(moments), moments)
def test_what_is_due_is_kept(keep: Mapping[str, int], taken: set[float], now: float) -> None:
    """Whatever the clock says: nothing is taken to be deleted at once, and nothing twice in one period."""
    if is_due(keep, taken, now):
        assert now in retained(keep, {*taken, now}, now)
        assert not is_due(keep, {*taken, now}, now)


@given(keeps, st.lists(st.floats(1.0, 40 * DAY), min_size=1, max_size=120), st.floats(0, 2e9))
def test_a_server_that_looks_now_and_then(keep: Mapping[str, int], pauses: list[float], start: float) -> None:
    """With a clock that only goes on, each look in a new shortest period takes one, and the newest is always there."""
    taken: set[float] = set()
    now = start
    shortest = next(PERIODS[period] for period in PERIODS if period in keep)
    seen: set[int] = set()
    for pause in pauses:
        now += pause
        due = is_due(keep, taken, now)
        assert due == (shortest(now) not in seen)
        seen.add(shortest(now))
        if due:
            taken.add(now)
        taken = retained(keep, taken, now)
        assert shortest(max(taken)) == shortest(now)


@given(keeps, st.sets(moments), moments)
def test_what_was_taken_at_a_time_that_is_yet_to_come_stays_and_keeps_nothing_from_being_taken(
    keep: Mapping[str, int], taken: set[float], now: float
) -> None:
    shortest = next(PERIODS[period] for period in PERIODS if period in keep)
    assert is_due(keep, taken, now) == (shortest(now) not in {shortest(moment) for moment in taken})
    past = {moment for moment in taken if moment <= now}
    assert retained(keep, taken, now) == retained(keep, past, FOR_EVER) | (taken - past)


def test_a_clock_that_was_a_year_ahead_for_a_week() -> None:
    keep, start = {"hourly": 24, "daily": 7}, at("2026-11-01T00:00:30")
    taken: set[float] = set()

    def live(days: int, now: float) -> float:
        nonlocal taken
        for _ in range(days * 24):
            if is_due(keep, taken, now):
                taken.add(now)
            taken = retained(keep, taken, now)
            now += 3600
        return now

    now = live(10, start)
    live(7, now + 365 * DAY)
    now = live(10, now)
    assert {now - 3600 * number for number in range(1, 25)} <= taken, "as many as ever, by the clock that was set right"
    assert len(taken) == 2 * len({moment for moment in taken if moment <= now})
    live(10, now + 365 * DAY)
    assert len(taken) == 24 + 6, "all of them count when their time has come"


def test_a_month_of_hours_and_days() -> None:
    taken: set[float] = set()
    start = at("2026-11-01T00:00:30")
    for minute in range(40 * 24 * 60):
        now = start + 60 * minute
        if is_due({"hourly": 24, "daily": 7}, taken, now):
            taken = retained({"hourly": 24, "daily": 7}, {*taken, now}, now)
    last = at("2026-12-10T23:00:30")
    hours = {last - 3600 * number for number in range(24)}
    days = {at("2026-12-10T00:00:30") - DAY * number for number in range(7)}
    assert taken == hours | days
