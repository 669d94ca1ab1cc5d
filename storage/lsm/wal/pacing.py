"""The pacing of group commit: when a queue is cut, and when one more PUT is sent. Decisions, given the time. No I/O.

No timer paces commits. A queue is cut when a flush waits for it and no PUT is in flight or the newest one is older
than half the usual time; when it is full; or when its oldest operation is a second old. At most 4 PUTs are in flight,
and none at or above the lowest unresolved number + 16: that window is what a fence jumps over (docs/architecture.md,
"Opening and recovery").

Objects count in the order of their numbers, so a flush waits for what was sent before it. While somebody waits for one
device, what is written to others goes in objects that take no longer than a small one does, and leaves one PUT free.
"""

from collections.abc import Iterable
from dataclasses import dataclass

from storage.bucket.pace import SAMPLE_BYTES_MIN, Pace
from storage.format.wal import WINDOW
from storage.lsm.options import EngineOptions
from storage.lsm.wal.queue import LayerQueue
from storage.units import KIB

BULK_CUTS_MAX = 16
"""Cuts of one queue whose bulk is being uploaded, or waits to be: small ones are acknowledged in small steps."""

SMALL_CUT_BYTES = 512 * KIB
"""The least that is cut of what nobody waits for while others wait: smaller objects cost more than they spare."""

LATELY_SECONDS = 2.0
"""Who waited for a flush so long ago is expected to do so again."""

USUAL_SHARE = 0.2
"""What the latest PUT counts for in the usual time."""


@dataclass(frozen=True, slots=True)
class Flight:
    """The PUTs under way at one moment."""

    count: int
    written: int
    """Bytes of operations in them."""
    lowest: int
    """Lowest number that is unresolved; the next one if nothing is under way."""
    next_number: int
    awaited_at: float | None
    """When the newest was sent that somebody waits for; None if there is none."""


class Pacing:
    """Changes only by what it is told of PUTs that have ended (`measured`), and of those who wait (`waits`)."""

    def __init__(self, pace: Pace, options: EngineOptions) -> None:
        self.usual = options.log.usual_seconds_first
        """Seconds that a small PUT of the log usually takes."""
        self._waited: tuple[LayerQueue | None, float] = (None, 0.0)
        """The queue that somebody waited for last, and when; then the last other one."""
        self._waited_before: tuple[LayerQueue | None, float] = (None, 0.0)
        self._pace = pace
        self._push_seconds = options.push_seconds
        self._in_flight_max = options.log.in_flight_max

    def measured(self, seconds: float, size: int) -> None:
        """A PUT of `size` bytes took so long; one of much data says nothing of a small one."""
        if size < SAMPLE_BYTES_MIN:
            self.usual += USUAL_SHARE * (seconds - self.usual)

    def waits(self, queue: LayerQueue, now: float) -> None:
        """Somebody waits for what is in this queue."""
        if queue is not self._waited[0]:
            self._waited_before = self._waited
        self._waited = queue, now

    def _others_wait(self, queue: LayerQueue | None, now: float) -> bool:
        """Whether somebody waits, or did lately, for another queue than this one."""
        latest = (self._waited, self._waited_before)
        return any(other not in (None, queue) and now - since < LATELY_SECONDS for other, since in latest)

    def inline_bytes(self, queue: LayerQueue, now: float) -> int:
        """What one cut of a queue puts into the log itself at most."""
        most = self._pace.inline_bytes
        if not self._others_wait(queue, now):
            return most
        return min(max(SMALL_CUT_BYTES, int(self._pace.rate * self.usual)), most)

    def may_send(self, flight: Flight, now: float, *, awaited: bool) -> bool:
        """Whether one more PUT may be under way, of what somebody waits for or not."""
        most = self._in_flight_max
        if not awaited and self._others_wait(None, now):
            most = max(most - 1, 1)
        if flight.count >= most or flight.next_number >= flight.lowest + WINDOW:
            return False
        return flight.count < 2 or flight.written < self._pace.abreast_bytes

    def is_due(self, queue: LayerQueue, flight: Flight, now: float) -> bool:
        """Whether a queue with pending operations is to be cut now."""
        bulk = queue.has_bulk
        if queue.wanted > queue.cut_sequence:
            return bulk or (self.may_send(flight, now, awaited=True) and now >= self._next_slot(flight))
        if self._is_crowded(queue):
            return False
        if not queue.is_full and now < self.push_at(queue):
            return False
        return bulk or self.may_send(flight, now, awaited=False)

    def push_at(self, queue: LayerQueue) -> float:
        """When its oldest pending operation goes to the log although nobody waits for it."""
        return queue.since + self._push_seconds

    def look_again_at(self, queues: Iterable[LayerQueue], flight: Flight, now: float) -> float | None:
        """When to decide again if nothing happens until then; None: not before something does."""
        if not self.may_send(flight, now, awaited=True):
            return None
        pushed = self.may_send(flight, now, awaited=False)
        due = [
            self._next_slot(flight) if queue.wanted > queue.cut_sequence else self.push_at(queue)
            for queue in queues
            if queue.pending and not self._is_crowded(queue) and (pushed or queue.wanted > queue.cut_sequence)
        ]
        return min(due, default=None)

    def _is_crowded(self, queue: LayerQueue) -> bool:
        """Whether more bulk of a queue has to wait until an upload of it is done."""
        return queue.has_bulk and sum(not cut.ready for cut in queue.cuts) >= BULK_CUTS_MAX

    def _next_slot(self, flight: Flight) -> float:
        """When the newest PUT that a flush waits for is old enough that another one beside it helps."""
        return 0.0 if flight.awaited_at is None else flight.awaited_at + self.usual / 2
