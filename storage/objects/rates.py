"""The rate at which bodies of requests travel, measured, and how long a request may take by it.

A request gets six times what its body is expected to take, and never less than 10 s. The rate it is expected at is
never below 64 KiB/s, however badly the last bodies went, so no time-out grows beyond reason: 10 s without a body, 60 s
for up to 1 MiB, 96 s for each MiB of a larger one. Only bodies say anything about the rate: a small request that had
no answer has met a silence, and lengthening the time-outs of others would make the silence longer.
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


class Rate:
    """Bytes a second of one stream in one direction, as the last bodies went."""

    def __init__(self) -> None:
        self._rate: float = BODY_RATE_FIRST

    def expected(self, size: int) -> float:
        """Seconds that `size` bytes of body should take, at the rate measured so far."""
        return size / self._rate

    def seconds(self, size: int) -> float:
        """How long a request with `size` bytes of body may take."""
        seconds = max(SECONDS_MIN, FACTOR * self.expected(size))
        return min(seconds, SMALL_SECONDS_MAX) if size <= SMALL_BYTES_MAX else seconds

    def took(self, size: int, seconds: float) -> None:
        """A body of `size` bytes arrived in `seconds`."""
        if size >= TIMED_BYTES_MIN:
            self._rate += 0.3 * (size / max(seconds, 1e-6) - self._rate)
            self._rate = max(self._rate, BODY_RATE_MIN)

    def timed_out(self, size: int) -> None:
        """A body of `size` bytes did not arrive in the time it was given."""
        if size >= TIMED_BYTES_MIN:
            self._rate = max(self._rate / 4, BODY_RATE_MIN)
