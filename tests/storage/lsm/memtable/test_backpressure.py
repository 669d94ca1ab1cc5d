"""Back-pressure: when replies are delayed and when no more writes are taken."""

import itertools

import pytest
from hypothesis import given
from hypothesis import strategies as st

from storage.lsm.memtable.backpressure import (
    DEBT_BYTES_PER_SECOND,
    DELAY_SECONDS_MAX,
    STANDING_BYTES,
    STANDING_SECONDS,
    UNLOGGED_BYTES_MIN,
    UPLOAD_SECONDS_MAX,
    Pressure,
)
from storage.lsm.memtable.gate import Gate
from tests.storage.lsm.memtable.test_gate import Passes

LIMIT = 1000 * 1000 * 1000
LOG_MAX = {"log_objects_max": 4000, "log_bytes_max": LIMIT}


def pressure(passes: Passes | None = None, *, memtable_max: int = 2 * LIMIT) -> Pressure:
    gate = Gate(passes.call_soon if passes else Passes().call_soon)
    return Pressure(gate, unlogged_max=LIMIT, memtable_max=memtable_max, **LOG_MAX)


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
    by_memtable.replayed(2 * LIMIT)
    by_objects.set_log(LOG_MAX["log_objects_max"], 0)
    by_bytes.set_log(1, LOG_MAX["log_bytes_max"])
    assert by_memtable.gate.closed
    assert by_objects.gate.closed
    assert by_bytes.gate.closed
    by_objects.set_log(0, 0)
    assert (by_objects.gate.closed, by_objects.gate.delay) == (False, 0.0)


def test_the_rate_bounds_what_is_unlogged() -> None:
    subject = pressure()
    subject.set_rate(10_000_000)
    assert subject.unlogged_max == 10_000_000 * UPLOAD_SECONDS_MAX
    subject.set_rate(1)
    assert subject.unlogged_max == UNLOGGED_BYTES_MIN
    subject.set_rate(1e12)
    assert subject.unlogged_max == LIMIT, "never above what was configured"
    subject.set_rate(10_000_000)
    subject.add(10_000_000 * UPLOAD_SECONDS_MAX // 2)
    assert subject.gate.delay == 0.0
    subject.add(1_000_000)
    assert subject.gate.delay > 0.0


def test_when_the_rate_falls_writers_go_on_at_half_of_what_leaves() -> None:
    """Else nobody would be answered until a backlog of another rate is uploaded at this one."""
    subject = pressure()
    subject.set_rate(100_000_000)
    subject.add(300_000_000)
    subject.set_rate(1_000_000)
    written = 0
    for _ in range(600):
        before = written
        subject.logged(1_000_000)
        subject.update()
        while not subject.gate.closed:
            subject.add(100_000)
            written += 100_000
        assert written > before
    assert subject.unlogged_max == 1_000_000 * UPLOAD_SECONDS_MAX
    assert subject.unlogged <= subject.unlogged_max + 100_000


def keeps_up(subject: Pressure, *, seconds: int, rate: int, share: float) -> None:
    """A writer that fills the limit up to this share of it, beside uploads at this rate."""
    for _ in range(seconds * 10):
        subject.add(max(int(subject.unlogged_max * share) - subject.unlogged, 0))
        subject.logged(rate // 10)
        subject.update()


def test_a_backlog_that_stands_is_made_small() -> None:
    """Who flushes waits for it, and a writer at the rate of the link writes no faster with a large one."""
    subject, rate = pressure(), 80_000_000
    subject.set_rate(rate)
    most = subject.unlogged_max
    keeps_up(subject, seconds=10, rate=rate, share=0.6)
    assert subject.unlogged_max == max(rate * STANDING_SECONDS, STANDING_BYTES) < most / 3
    keeps_up(subject, seconds=10, rate=rate, share=0.6)
    assert subject.unlogged_max == rate * STANDING_SECONDS, "and stays so while it stands"
    subject.logged(subject.unlogged)
    assert subject.unlogged_max == most, "the next one may be a burst"


def test_bursts_have_all_the_room_there_is() -> None:
    """What is uploaded in time before the next one, however often that comes."""
    subject, rate = pressure(), 80_000_000
    subject.set_rate(rate)
    most = subject.unlogged_max
    for _ in range(20):
        subject.add(most * 11 // 20)
        while subject.unlogged > rate // 5:
            subject.logged(rate // 10)
            subject.update()
            assert subject.unlogged_max == most
        subject.logged(subject.unlogged)


def test_on_a_slow_link_it_is_small_anyway() -> None:
    subject, rate = pressure(), 10_000_000
    subject.set_rate(rate)
    most = subject.unlogged_max
    keeps_up(subject, seconds=20, rate=rate, share=0.9)
    assert subject.unlogged_max == most == rate * UPLOAD_SECONDS_MAX


def test_what_a_memtable_flush_gives_back_is_used_as_it_proceeds() -> None:
    """A flush may take minutes, and gives everything back at its end: a writer would have minutes without an answer."""
    subject = Pressure(Gate(Passes().call_soon), unlogged_max=100 * LIMIT, memtable_max=LIMIT, **LOG_MAX)
    for sealed in (LIMIT // 4, LIMIT * 3 // 4):
        subject.replayed(sealed)
        subject.flushing(0.0)
        steps = []
        for done in range(1, 101):
            before = subject.memtable
            while not subject.gate.closed:
                subject.add(LIMIT // 1000)
                subject.unlogged = 0
            subject.flushing(done / 100)
            steps.append(subject.memtable - before)
        assert LIMIT * 0.98 < subject.memtable < LIMIT
        assert max(steps[1:]) <= LIMIT // 16, "in steps, from the first to the last"
        assert not any(steps[start : start + 8] == [0] * 8 for start in range(93)), "without a long pause"
        subject.flushed(sealed)
        assert not subject.gate.closed


def test_a_gate_that_closes_again_keeps_the_rest_waiting() -> None:
    passes = Passes()
    subject = pressure(passes, memtable_max=100 * LIMIT)
    subject.add(LIMIT)
    passed: list[int] = []

    def write(number: int) -> None:
        passed.append(number)
        subject.add(LIMIT // 4)

    for number in range(6):
        subject.gate.when_open(lambda number=number: write(number), 1)  # type: ignore[misc]
    subject.unlogged = LIMIT // 2
    subject.update()
    passes.run()
    assert passed == [0, 1]
    assert subject.gate.closed
    subject.unlogged = 0
    subject.update()
    passes.run()
    assert passed == [0, 1, 2, 3, 4, 5]


def test_a_debt_slows_by_its_fourth_power_and_closes_nothing() -> None:
    subject = pressure()
    rates = []
    for debt in (0.5, 1.0, 2.0, 3.0):
        subject.set_debt(debt)
        assert subject.gate.slows
        assert not subject.gate.closed
        rates.append(1 / subject.gate.seconds_per_byte)
    assert rates == pytest.approx([16 * DEBT_BYTES_PER_SECOND] + [DEBT_BYTES_PER_SECOND / d**4 for d in (1, 2, 3)])
    subject.set_debt(0.0)
    assert not subject.gate.slows
