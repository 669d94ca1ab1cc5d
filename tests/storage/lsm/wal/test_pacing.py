"""When a queue is cut and a PUT is sent, decided from plain values: no store, no clock."""

from dataclasses import replace

import pytest

from storage.bucket.pace import SAMPLE_BYTES_MIN, Pace
from storage.format.wal import WINDOW
from storage.lsm.memtable.backpressure import Pressure
from storage.lsm.memtable.gate import Gate
from storage.lsm.memtable.write_state import WriteState
from storage.lsm.options import EngineOptions, LogOptions
from storage.lsm.wal.pacing import LATELY_SECONDS, SMALL_CUT_BYTES, Flight, Pacing
from storage.lsm.wal.queue import LayerQueue
from storage.units import MIB

IDLE = Flight(0, 0, 7, 7, None)
ONE = Flight(1, 100, 7, 8, 50.0)
OPTIONS = EngineOptions(push_seconds=1.0)


class Committer:
    """What a queue asks of the group commit, and nothing behind it."""

    def __init__(self) -> None:
        self.pace = Pace(lambda: 0.0, lambda _: None)
        self.writes = WriteState(
            sequence=0,
            pressure=Pressure(
                Gate(lambda _: None),
                unlogged_max=256 * MIB,
                memtable_max=256 * MIB,
                log_objects_max=4000,
                log_bytes_max=512 * MIB,
            ),
        )

    def wake(self, queue: LayerQueue) -> None:
        queue.waits_from(40.0)

    def kick(self) -> None:
        pass


@pytest.fixture
def committer() -> Committer:
    return Committer()


@pytest.fixture
def pacing(committer: Committer) -> Pacing:
    found = Pacing(committer.pace, OPTIONS)
    found.usual = 0.4
    return found


@pytest.fixture
def queue(committer: Committer) -> LayerQueue:
    """A queue with one operation, which came at 40."""
    made = LayerQueue(1, committer, sequence=0)
    made.append((1, 0, b"x"), 4352)
    return made


def test_a_flush_is_sent_at_once_if_nothing_is_under_way(pacing: Pacing, queue: LayerQueue) -> None:
    assert not pacing.is_due(queue, IDLE, 40.0)
    queue.want_durable(1)
    assert pacing.is_due(queue, IDLE, 40.0)


def test_beside_another_it_is_sent_after_half_the_usual_time(pacing: Pacing, queue: LayerQueue) -> None:
    queue.want_durable(1)
    assert not pacing.is_due(queue, ONE, 50.19)
    assert pacing.look_again_at([queue], ONE, 50.0) == pytest.approx(50.2)
    assert pacing.is_due(queue, ONE, 50.21)


def test_beside_what_nobody_waits_for_it_is_sent_at_once(pacing: Pacing, queue: LayerQueue) -> None:
    queue.want_durable(1)
    assert pacing.is_due(queue, replace(ONE, awaited_at=None), 50.0)


def test_while_somebody_waits_others_have_small_cuts(committer: Committer, pacing: Pacing, queue: LayerQueue) -> None:
    committer.pace.rate = float(MIB)
    committer.pace.inline_bytes = most = 4 * MIB
    other = LayerQueue(2, committer, sequence=0)
    pacing.waits(queue, 50.0)
    assert pacing.inline_bytes(queue, 50.0) == most, "nobody else waits"
    small = pacing.inline_bytes(other, 50.0)
    assert small == SMALL_CUT_BYTES < most
    pacing.usual = 1.0
    assert pacing.inline_bytes(other, 50.0) == int(committer.pace.rate) < most
    pacing.usual = 0.4
    pacing.waits(other, 50.5)
    assert pacing.inline_bytes(queue, 50.5) == pacing.inline_bytes(other, 50.5) == small, "each waits for the other"
    assert pacing.inline_bytes(other, 50.0 + LATELY_SECONDS) == most, "it waits no more"
    assert pacing.inline_bytes(queue, 50.0 + LATELY_SECONDS) == small


def test_while_somebody_waits_one_put_is_kept_free(pacing: Pacing, queue: LayerQueue) -> None:
    almost = replace(ONE, count=OPTIONS.log.in_flight_max - 1)
    assert pacing.may_send(almost, 50.0, awaited=False)
    pacing.waits(queue, 50.0)
    assert not pacing.may_send(almost, 50.0, awaited=False)
    assert pacing.may_send(almost, 50.0, awaited=True)
    assert pacing.look_again_at([queue], almost, 50.0) is None
    assert pacing.may_send(almost, 50.0 + LATELY_SECONDS, awaited=False)


def test_where_there_is_but_one_put_it_is_for_all(committer: Committer, queue: LayerQueue) -> None:
    pacing = Pacing(committer.pace, EngineOptions(log=LogOptions(in_flight_max=1)))
    pacing.waits(queue, 50.0)
    assert pacing.may_send(IDLE, 50.0, awaited=False)


def test_what_nobody_waits_for_goes_when_it_is_a_second_old(pacing: Pacing, queue: LayerQueue) -> None:
    assert not pacing.is_due(queue, ONE, 40.99)
    assert pacing.look_again_at([queue], ONE, 50.0) == 41.0
    assert pacing.is_due(queue, ONE, 41.0)


def test_the_number_of_puts_the_window_and_a_slow_link_bound_what_is_under_way(pacing: Pacing) -> None:
    assert pacing.may_send(ONE, 50.0, awaited=True)
    assert not pacing.may_send(replace(ONE, count=OPTIONS.log.in_flight_max), 50.0, awaited=True)
    assert not pacing.may_send(replace(ONE, next_number=ONE.lowest + WINDOW), 50.0, awaited=True)
    assert pacing.may_send(replace(ONE, next_number=ONE.lowest + WINDOW - 1), 50.0, awaited=True)
    assert not pacing.may_send(replace(ONE, count=2, written=64 * MIB), 50.0, awaited=True), (
        "at 1 MiB/s both would be a minute late"
    )


def test_nothing_is_looked_at_before_something_may_be_sent(pacing: Pacing, queue: LayerQueue) -> None:
    assert pacing.look_again_at([queue], replace(ONE, count=OPTIONS.log.in_flight_max), 50.0) is None
    assert pacing.look_again_at([], IDLE, 50.0) is None


def test_the_usual_time_is_that_of_small_objects(pacing: Pacing) -> None:
    pacing.measured(2.4, SAMPLE_BYTES_MIN)
    assert pacing.usual == 0.4
    pacing.measured(2.4, SAMPLE_BYTES_MIN - 1)
    assert pacing.usual == pytest.approx(0.8)
