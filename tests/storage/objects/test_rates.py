"""How long a request may take by the bodies that went before it."""

import pytest

from storage.objects.rates import BODY_RATE_MIN, Rate

KIB = 1 << 10
MIB = 1 << 20


def test_a_body_has_six_times_what_it_is_expected_to_take() -> None:
    rate = Rate()
    assert rate.seconds(0) == 10
    assert rate.seconds(MIB) == 10
    assert rate.seconds(16 * MIB) == 96, "nothing measured: 1 MiB/s is assumed"
    for _ in range(30):
        rate.took(10 * MIB, 0.1)
    assert rate.seconds(64 * MIB) == 10
    assert rate.seconds(10_000 * MIB) == pytest.approx(6 * 100, rel=0.01)


def test_a_body_that_did_not_arrive_has_twice_the_time_at_its_next_attempt_and_no_other_one_has() -> None:
    rate = Rate()
    for _ in range(30):
        rate.took(4 * MIB, 0.1)
    assert [rate.seconds(MIB, late) for late in range(5)] == [10, 20, 40, 60, 60]
    assert [rate.seconds(4 * MIB, late) for late in (0, 1, 5, 6, 1000)] == [10, 20, 320, 384, 384]
    assert rate.seconds(4 * MIB) == 10
    for _ in range(1000):
        rate.took(MIB, 1e6)
    assert rate.seconds(4 * MIB) == rate.seconds(4 * MIB, 9) == 6 * 4 * MIB / BODY_RATE_MIN == 384, "nobody is slower"


def test_what_is_all_latency_has_no_more_time_at_any_attempt() -> None:
    """45 s without answers once made time-outs of minutes, and longer silences of years."""
    rate = Rate()
    assert [rate.seconds(size, 9) for size in (0, 192, 4 * KIB, 255 * KIB)] == [10] * 4
    for _ in range(1000):
        rate.took(MIB, 1e6)
    assert [rate.seconds(size * KIB) for size in (0, 256, 640, 1024)] == [10, 24, 60, 60]
