"""The pacing of group commit: when a queue is cut, and when one more PUT is sent. Decisions, given the time. No I/O.

No timer paces commits. A queue is cut when a flush waits for it and no PUT is in flight or the newest one is older
than half the usual time; when it is full; or when its oldest operation is a second old. At most 4 PUTs are in flight,
and none at or above the lowest unresolved number + 16: that window is what a fence jumps over (docs/architecture.md,
"Opening and recovery").
"""

from collections.abc import Iterable
from dataclasses import dataclass

from storage.bucket.pace import Pace
from storage.format.wal import WINDOW
from storage.lsm.options import EngineOptions
from storage.lsm.wal.queue import LayerQueue

BULK_CUTS_MAX = 16
"""Cuts of one queue whose bulk is being uploaded, or waits to be: small ones are acknowledged in small steps."""

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
    newest_sent_at: float
    """When the newest was sent; 0 if nothing is under way."""


class Pacing:
    """Changes only by what it is told of PUTs that have ended (`measured`)."""

    def __init__(self, pace: Pace, options: EngineOptions) -> None:
        self.usual = options.log.usual_seconds_first
        """Seconds that a PUT of the log usually takes."""
        self._pace = pace
        self._push_seconds = options.push_seconds
        self._in_flight_max = options.log.in_flight_max

    def measured(self, seconds: float, size: int) -> None:
        """A PUT of `size` bytes took so long; one of much data says nothing of a small one."""
        if size < self._pace.sizes.bulk_bytes_min:
            self.usual += USUAL_SHARE * (seconds - self.usual)

    def may_send(self, flight: Flight) -> bool:
        """Whether one more PUT may be under way."""
        if flight.count >= self._in_flight_max or flight.next_number >= flight.lowest + WINDOW:
            return False
        return flight.count < 2 or flight.written < self._pace.abreast_bytes

    def is_due(self, queue: LayerQueue, flight: Flight, now: float) -> bool:
        """Whether a queue with pending operations is to be cut now."""
        bulk = queue.has_bulk
        if queue.wanted > queue.cut_sequence:
            return bulk or (self.may_send(flight) and now >= self._next_slot(flight))
        if self._is_crowded(queue):
            return False
        if not queue.is_full and now < self.push_at(queue):
            return False
        return bulk or self.may_send(flight)

    def push_at(self, queue: LayerQueue) -> float:
        """When its oldest pending operation goes to the log although nobody waits for it."""
        return queue.since + self._push_seconds

    def look_again_at(self, queues: Iterable[LayerQueue], flight: Flight) -> float | None:
        """When to decide again if nothing happens until then; None: not before something does."""
        if not self.may_send(flight):
            return None
        due = [
            self._next_slot(flight) if queue.wanted > queue.cut_sequence else self.push_at(queue)
            for queue in queues
            if queue.pending and not self._is_crowded(queue)
        ]
        return min(due, default=None)

    def _is_crowded(self, queue: LayerQueue) -> bool:
        """Whether more bulk of a queue has to wait until an upload of it is done."""
        return queue.has_bulk and sum(not cut.ready for cut in queue.cuts) >= BULK_CUTS_MAX

    def _next_slot(self, flight: Flight) -> float:
        """When the newest PUT is old enough that another one beside it helps a waiting flush."""
        return flight.newest_sent_at + self.usual / 2 if flight.count else 0.0
