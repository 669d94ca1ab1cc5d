"""Histograms: each value in its bucket, at its bound too."""

import pytest

from storage.histogram import BOUNDS, Histogram


@pytest.mark.fast
def test_a_value_is_counted_in_the_first_bucket_that_has_it() -> None:
    histogram = Histogram()
    for seconds in (0.0, BOUNDS[0], BOUNDS[0] * 1.01, 0.3, BOUNDS[-1], BOUNDS[-1] + 1):
        histogram.add(seconds)
    found = dict(histogram.cumulative())
    assert (found[BOUNDS[0]], found[BOUNDS[1]], found[0.25], found[0.5], found[100.0]) == (2, 3, 3, 4, 5)
    assert found[float("inf")] == histogram.count == 6
    assert histogram.seconds == pytest.approx(sum((BOUNDS[0] * 2.01, 0.3, 201)))


@pytest.mark.fast
def test_bounds_ascend_from_a_tenth_of_a_millisecond_to_a_hundred_seconds() -> None:
    assert list(BOUNDS) == sorted(set(BOUNDS))
    assert (BOUNDS[0], BOUNDS[-1]) == (0.0001, 100.0)
