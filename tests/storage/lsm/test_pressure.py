"""Back-pressure: when replies are delayed and when no more writes are taken."""

import itertools

from hypothesis import given
from hypothesis import strategies as st

from storage.lsm.pressure import (
    DELAY_SECONDS_MAX,
    LOG_BYTES_MAX,
    LOG_OBJECTS_MAX,
    REOPEN_SHARE,
    UNLOGGED_BYTES_MIN,
    UPLOAD_SECONDS_MAX,
    Gate,
    Pressure,
)

LIMIT = 1000 * 1000 * 1000


def pressure() -> Pressure:
    return Pressure(unlogged_max=LIMIT, memtable_max=2 * LIMIT)


@given(st.lists(st.integers(1, LIMIT // 5), min_size=1, max_size=20))
def test_the_delay_grows_smoothly_from_half_of_the_limit(counts: list[int]) -> None:
    subject = pressure()
    delays = [0.0]
    for count in counts:
        subject.add(count)
        delays.append(subject.gate.delay)
        if subject.unlogged <= LIMIT // 2:
            assert subject.gate.delay == 0.0
        assert subject.gate.closed == (subject.unlogged >= LIMIT)
    assert delays == sorted(delays)
    assert all(0 <= delay <= DELAY_SECONDS_MAX for delay in delays)


def test_the_delay_does_not_jump() -> None:
    subject = pressure()
    delays = []
    for _ in range(1000):
        subject.add(LIMIT // 1000)
        delays.append(subject.gate.delay)
    assert max(b - a for a, b in itertools.pairwise(delays)) < DELAY_SECONDS_MAX / 100
    assert delays[-1] == DELAY_SECONDS_MAX


def test_each_limit_closes_the_gate_by_itself() -> None:
    by_memtable, by_objects, by_bytes = pressure(), pressure(), pressure()
    by_memtable.memtable = 2 * LIMIT
    by_memtable.update()
    by_objects.set_log(LOG_OBJECTS_MAX, 0)
    by_bytes.set_log(1, LOG_BYTES_MAX)
    assert by_memtable.gate.closed
    assert by_objects.gate.closed
    assert by_bytes.gate.closed
    by_objects.set_log(0, 0)
    assert (by_objects.gate.closed, by_objects.gate.delay) == (False, 0.0)


def test_a_closed_gate_opens_well_below_its_limit() -> None:
    subject = pressure()
    states = []
    for share in (1.0, REOPEN_SHARE + 0.001, REOPEN_SHARE, REOPEN_SHARE + 0.001):
        subject.unlogged = int(LIMIT * share)
        subject.update()
        states.append(subject.gate.closed)
    assert states == [True, True, False, False]


def test_the_rate_bounds_what_is_unlogged() -> None:
    subject = pressure()
    subject.set_rate(10_000_000)
    assert subject.unlogged_max == 10_000_000 * UPLOAD_SECONDS_MAX
    subject.set_rate(1)
    assert subject.unlogged_max == UNLOGGED_BYTES_MIN
    subject.set_rate(1e12)
    assert subject.unlogged_max == LIMIT, "never above what was configured"
    subject.set_rate(2_500_000)
    subject.add(25_000_000)
    assert subject.gate.delay == 0.0
    subject.add(1_000_000)
    assert subject.gate.delay > 0.0


def test_who_waits_goes_on_once_and_in_order() -> None:
    gate = Gate()
    gate.set(0.0, closed=True)
    passed: list[int] = []
    for number in range(5):
        gate.when_open(lambda number=number: passed.append(number))  # type: ignore[misc]
    gate.set(0.01, closed=True)
    assert passed == []
    gate.set(0.01, closed=False)
    assert passed == [0, 1, 2, 3, 4]
    gate.set(0.0, closed=True)
    gate.set(0.0, closed=False)
    assert passed == [0, 1, 2, 3, 4]


def test_a_gate_that_closes_again_keeps_the_rest_waiting() -> None:
    subject = Pressure(unlogged_max=LIMIT, memtable_max=100 * LIMIT)
    subject.add(LIMIT)
    passed: list[int] = []

    def write(number: int) -> None:
        passed.append(number)
        subject.add(LIMIT // 4)

    for number in range(6):
        subject.gate.when_open(lambda number=number: write(number))  # type: ignore[misc]
    subject.unlogged = LIMIT // 2
    subject.update()
    assert passed == [0, 1]
    assert subject.gate.closed
    subject.unlogged = 0
    subject.update()
    assert passed == [0, 1, 2, 3, 4, 5]


def test_a_thousand_who_waited_write_at_once() -> None:
    """Each of them changes the gate while it lets the others through: that must not go deeper and deeper."""
    subject = pressure()
    subject.add(LIMIT)
    passed: list[int] = []

    def write(number: int) -> None:
        passed.append(number)
        subject.add(100)

    for number in range(3000):
        subject.gate.when_open(lambda number=number: write(number))  # type: ignore[misc]
    subject.unlogged = int(LIMIT * 0.7)
    subject.update()
    assert passed == list(range(3000))
