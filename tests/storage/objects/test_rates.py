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


def test_a_body_that_did_not_arrive_lengthens_the_next_ones_time() -> None:
    rate = Rate()
    rate.timed_out(16 * MIB)
    assert rate.seconds(16 * MIB) == 4 * 96
    for _ in range(10):
        rate.took(4 * MIB, 4)
    assert rate.seconds(16 * MIB) == pytest.approx(96, rel=0.1)


def test_no_silence_makes_time_outs_long() -> None:
    """45 s without answers once made time-outs of minutes, and longer silences of years."""
    rate = Rate()
    for size in (0, 192, 4 * KIB, 255 * KIB) * 100:
        rate.timed_out(size)
    assert rate.seconds(16 * MIB) == 96, "a request that is all latency taught a rate"
    for _ in range(1000):
        rate.timed_out(16 * MIB)
        rate.took(MIB, 1e6)
    assert rate.seconds(192) == 10
    assert [rate.seconds(size * KIB) for size in (256, 640, 1024)] == [24, 60, 60]
    assert rate.seconds(4 * MIB) == 6 * 4 * MIB / BODY_RATE_MIN == 384
