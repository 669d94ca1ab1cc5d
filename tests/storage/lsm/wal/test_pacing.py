"""When a queue is cut and a PUT is sent, decided from plain values: no store, no clock."""

from dataclasses import replace

import pytest

from storage.bucket.pace import BULK_BYTES_MIN, Pace
from storage.format.wal import WINDOW
from storage.lsm.memtable.backpressure import Pressure
from storage.lsm.memtable.gate import Gate
from storage.lsm.memtable.write_state import WriteState
from storage.lsm.options import EngineOptions
from storage.lsm.wal.pacing import Flight, Pacing
from storage.lsm.wal.queue import LayerQueue
from storage.units import MIB

IDLE = Flight(0, 0, 7, 7, 0.0)
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
    assert pacing.look_again_at([queue], ONE) == pytest.approx(50.2)
    assert pacing.is_due(queue, ONE, 50.21)


def test_what_nobody_waits_for_goes_when_it_is_a_second_old(pacing: Pacing, queue: LayerQueue) -> None:
    assert not pacing.is_due(queue, ONE, 40.99)
    assert pacing.look_again_at([queue], ONE) == 41.0
    assert pacing.is_due(queue, ONE, 41.0)


def test_the_number_of_puts_the_window_and_a_slow_link_bound_what_is_under_way(pacing: Pacing) -> None:
    assert pacing.may_send(ONE)
    assert not pacing.may_send(replace(ONE, count=OPTIONS.log.in_flight_max))
    assert not pacing.may_send(replace(ONE, next_number=ONE.lowest + WINDOW))
    assert pacing.may_send(replace(ONE, next_number=ONE.lowest + WINDOW - 1))
    assert not pacing.may_send(replace(ONE, count=2, written=64 * MIB)), "at 1 MiB/s both would be a minute late"


def test_nothing_is_looked_at_before_something_may_be_sent(pacing: Pacing, queue: LayerQueue) -> None:
    assert pacing.look_again_at([queue], replace(ONE, count=OPTIONS.log.in_flight_max)) is None
    assert pacing.look_again_at([], IDLE) is None


def test_the_usual_time_is_that_of_small_objects(pacing: Pacing) -> None:
    pacing.measured(2.4, BULK_BYTES_MIN)
    assert pacing.usual == 0.4
    pacing.measured(2.4, BULK_BYTES_MIN - 1)
    assert pacing.usual == pytest.approx(0.8)
