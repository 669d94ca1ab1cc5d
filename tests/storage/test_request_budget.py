"""A budget of requests: where a month leads, and how much slower background work goes for it."""

from datetime import UTC, datetime

import pytest
from hypothesis import given
from hypothesis import strategies as st

from storage.request_budget import (
    HOUR_SECONDS,
    SLOWDOWN_MAX,
    WINDOW_HOURS,
    BudgetNews,
    Spending,
    pace,
    rest_after,
    slowdown,
)

DAY = 24 * HOUR_SECONDS
NOVEMBER = datetime(2026, 11, 1, tzinfo=UTC).timestamp()
DECEMBER = datetime(2026, 12, 1, tzinfo=UTC).timestamp()

budgets = st.integers(1, 10**12)
counts = st.integers(0, 10**9)
moments = st.floats(0.0, 4e9, allow_nan=False)
noted = st.lists(st.tuples(counts, st.floats(0.0, 3 * HOUR_SECONDS)), min_size=1, max_size=30)


def spent_by(steps: list[tuple[int, float]], at: float = NOVEMBER) -> tuple[Spending, float]:
    spending = Spending()
    for requests, seconds in steps:
        at += seconds
        spending.note(requests, at)
    return spending, at


def test_a_month_goes_on_as_in_the_last_hours() -> None:
    spending, now = spent_by([(100, HOUR_SECONDS)] * 10 * 24)
    assert now == NOVEMBER + 10 * DAY
    seen = spending.outlook(80_000, now)
    # The hour that begins now has 100 that were asked for just before it: seven hundred in six hours.
    assert (seen.month_requests, seen.month_requests_projected) == (24_000, 24_000 + 20 * 24 * 700 // 6)
    assert (seen.news, seen.background_slowdown) == (BudgetNews.NONE, 1.0)
    assert spending.outlook(70_000, now).news is BudgetNews.PASSES
    assert spending.outlook(24_000, now).news is BudgetNews.USED_UP


def test_what_a_start_asks_for_is_no_pace() -> None:
    spending, now = spent_by([(6000, 10.0)])
    assert pace(spending.hours, now) == pytest.approx(6000 / (6 * HOUR_SECONDS + 10))


def test_twice_as_slow_with_each_twentieth_beyond() -> None:
    assert [slowdown(100, 0, projected) for projected in (0, 100, 105, 110, 115, 120, 121, 1e300)] == pytest.approx(
        [1, 1, 2, 4, 8, 16, 16, 16]
    )
    assert slowdown(100, 100, 100) == SLOWDOWN_MAX, "it is used up"


@given(budgets, counts, st.floats(0.0, 1e15), st.floats(0.0, 1e15))
def test_it_slows_never_beyond_its_bounds_and_more_the_more_is_asked(
    budget: int, spent: int, some: float, more: float
) -> None:
    less, greater = (slowdown(budget, spent, spent + beyond) for beyond in sorted((some, more)))
    assert 1.0 <= less <= greater <= SLOWDOWN_MAX
    assert slowdown(budget, spent + 1, spent + 1 + max(some, more)) >= greater
    assert slowdown(budget + 1, spent, spent + some) <= slowdown(budget, spent, spent + some)
    assert (slowdown(budget, spent, spent + some) == 1.0) == (spent < budget and (spent + some) / budget <= 1.0)


@given(noted, budgets)
def test_all_that_is_noted_counts_once_and_a_restart_changes_nothing(
    steps: list[tuple[int, float]], budget: int
) -> None:
    spending, now = spent_by(steps)
    assert spending.spent == sum(requests for requests, _ in steps), "90 hours at most: it is still November"
    again = Spending.decode(spending.encode())
    seen = spending.outlook(budget, now)
    assert again.outlook(budget, now) == seen
    assert seen.month_requests <= seen.month_requests_projected
    assert spending.untold(seen) is again.untold(seen) is seen.news
    assert Spending.decode(spending.encode()).untold(seen) is BudgetNews.NONE, "it was said before the restart"
    half = Spending()
    at = NOVEMBER
    for requests, seconds in steps:
        at += seconds
        half.note(requests // 2, at)
        half = Spending.decode(half.encode())
        half.note(requests - requests // 2, at)
    assert (half.spent, half.hours) == (spending.spent, spending.hours), "cut up by restarts"


@given(noted, moments)
def test_whatever_the_clock_does_the_count_goes_on(steps: list[tuple[int, float]], jump: float) -> None:
    spending, now = spent_by(steps)
    spending.note(7, jump)
    assert all(0 <= int(jump // HOUR_SECONDS) - hour <= WINDOW_HOURS for hour in spending.hours)
    seen = spending.outlook(10**6, jump)
    assert 7 <= seen.month_requests <= seen.month_requests_projected
    spending.note(5, now)
    assert spending.outlook(10**6, now).month_requests >= 5


def test_a_clock_that_was_ahead_costs_a_count_and_stops_none() -> None:
    spending, now = spent_by([(100, HOUR_SECONDS)])
    spending.note(70, DECEMBER + 400 * DAY)
    spending.note(5, now)
    assert spending.outlook(1000, now).month_requests == 5
    spending.note(3, DECEMBER)
    assert spending.outlook(1000, DECEMBER).month_requests == 3


def test_a_new_month_begins_at_nothing_and_at_the_pace_of_the_last_one() -> None:
    spending, _ = spent_by([(600, HOUR_SECONDS)] * 12, DECEMBER - 12 * HOUR_SECONDS - 1)
    assert spending.untold(spending.outlook(1000, DECEMBER - 1)) is BudgetNews.USED_UP
    spending.note(1, DECEMBER)
    seen = spending.outlook(1000, DECEMBER)
    assert seen.month_requests == 1
    assert seen.month_requests_projected > 1000
    assert spending.untold(seen) is BudgetNews.PASSES, "said anew in each month"


def test_each_news_is_said_once_in_a_month_and_of_a_budget() -> None:
    spending, now = spent_by([(500, 2 * HOUR_SECONDS)])

    def said(budget: int) -> BudgetNews:
        return spending.untold(spending.outlook(budget, now))

    assert [said(1000), said(1000)] == [BudgetNews.PASSES, BudgetNews.NONE]
    spending.note(500, now)
    assert [said(1000), said(1000)] == [BudgetNews.USED_UP, BudgetNews.NONE]
    assert [said(10**9), said(2000), said(2000)] == [BudgetNews.NONE, BudgetNews.PASSES, BudgetNews.NONE]


@pytest.mark.parametrize("raw", [None, b"", b"\xc1", Spending().encode()[:-1], b"\x96\x02\xa0\x00\x80\x00\x00"])
def test_a_file_that_is_lost_or_damaged_is_a_new_month(raw: bytes | None) -> None:
    spending = Spending.decode(raw)
    assert (spending.month, spending.spent, spending.hours) == ("", 0, {})
    assert Spending.decode(b"\x96\x01\xa72026-11\x05\x80\x09\x00").spent == 0, "it says what nobody knows"


@given(st.floats(0.0, 60.0), st.floats(0.0, 60.0), st.floats(1.0, SLOWDOWN_MAX))
def test_a_rest_is_as_much_longer_as_background_work_is_to_be_slower(took: float, usual: float, slow: float) -> None:
    rest = rest_after(took, usual, slow)
    assert rest.usual_seconds == usual <= rest.slowed_seconds
    assert took + rest.slowed_seconds == pytest.approx(slow * (took + usual))
    assert rest_after(took, usual, 1.0).slowed_seconds == usual
