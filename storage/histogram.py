"""Histograms of seconds: how often something took how long. Plain numbers that only grow; no I/O."""

from bisect import bisect_left

BOUNDS = (*(base * 10.0**power for power in range(-4, 2) for base in (1.0, 2.5, 5.0)), 100.0)
"""Upper bounds of the buckets in seconds, inclusive; what took longer is counted in one bucket more."""


class Histogram:
    """Counts by bucket, and the sum. Adding to it takes half a microsecond."""

    __slots__ = ("counts", "seconds")

    def __init__(self) -> None:
        self.counts = [0] * (len(BOUNDS) + 1)
        """How many durations fell into each bucket of `BOUNDS`, and last how many were longer; not cumulative."""
        self.seconds = 0.0
        """The sum of all durations."""

    def add(self, seconds: float) -> None:
        """Count one duration, in seconds."""
        self.counts[bisect_left(BOUNDS, seconds)] += 1
        self.seconds += seconds

    @property
    def count(self) -> int:
        """How many there were."""
        return sum(self.counts)

    def cumulative(self) -> list[tuple[float, int]]:
        """(upper bound, how many took at most that), the last one for infinity."""
        total, found = 0, []
        for bound, count in zip((*BOUNDS, float("inf")), self.counts, strict=True):
            total += count
            found.append((bound, total))
        return found
