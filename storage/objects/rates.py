"""The rate at which bodies of requests travel, measured, and how long a request may take by it.

A request gets six times what its body is expected to take, and never less than 10 s. Only bodies that arrived say
anything about the rate: one that had no answer has met a silence or a slow way, and nobody knows which. So it has twice
the time at its next attempt, and no other request has more for it. The rate it is expected at is never below 64 KiB/s,
whatever happened, so no time-out grows beyond reason: 10 s without a body, 60 s for up to 1 MiB, 96 s for each MiB of a
larger one.
"""

from storage.units import KIB, MIB

SECONDS_MIN = 10.0
"""For a request without a body, and for a small one: stores answer in milliseconds, or have lost it."""

SMALL_BYTES_MAX = MIB
"""A body of up to this size..."""

SMALL_SECONDS_MAX = 60.0
"""...has at most this long, whatever the rate."""

FACTOR = 6
"""How much longer than expected a body may take: a rate halves easily when another stream joins."""

BODY_RATE_FIRST = MIB
"""Bytes a second assumed before a body was timed: any link that a disk is worth having over."""

BODY_RATE_MIN = 64 * KIB
"""Bytes a second below which no rate is believed."""

TIMED_BYTES_MIN = 256 * KIB
"""Smaller bodies say more about the latency than about the rate."""

LATE_MAX = 10
"""Doublings after which every request has the longest time there is."""


class Rate:
    """Bytes a second of one stream in one direction, as the last bodies went."""

    def __init__(self, *, seconds_min: float = SECONDS_MIN) -> None:
        self._rate: float = BODY_RATE_FIRST
        self._seconds_min = seconds_min

    def expected(self, size: int) -> float:
        """Seconds that `size` bytes of body should take, at the rate measured so far."""
        return size / self._rate

    def seconds(self, size: int, late: int = 0) -> float:
        """How long a request with `size` bytes of body may take, of which `late` attempts in a row took too long."""
        usual = max(self._seconds_min, FACTOR * self.expected(size))
        longest = max(self._seconds_min, FACTOR * size / BODY_RATE_MIN)
        if size <= SMALL_BYTES_MAX:
            longest = min(longest, SMALL_SECONDS_MAX)
        if size < TIMED_BYTES_MIN:
            late = 0  # it is all latency: more time would only make a silence longer
        return min(usual * (1 << min(late, LATE_MAX)), longest)

    def took(self, size: int, seconds: float) -> None:
        """A body of `size` bytes arrived in `seconds`."""
        if size >= TIMED_BYTES_MIN:
            self._rate += 0.3 * (size / max(seconds, 1e-6) - self._rate)
            self._rate = max(self._rate, BODY_RATE_MIN)
