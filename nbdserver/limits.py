"""This file knows what one client, and all of them together, may make the server hold."""

from collections import deque
from collections.abc import Callable
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Limits:
    """Bounds of the server; the defaults are those of the design, each with its reason."""

    connections: int = 100
    """Clients at once. What is over it costs a client its place that has not finished its handshake yet."""

    handshake_seconds: float = 10.0
    """From the first byte to the transmission phase; a client that takes longer is stuck or hostile."""

    requests: int = 4096
    """Requests of one client under way, each about 300 bytes; the kernel's client has 128."""

    reply_bytes: int = 1 << 20
    """Replies of one client unsent before no more of its requests are looked at."""

    inflight_bytes: int = 64 << 20
    """Data of one client's requests under way: two of the longest, or many short ones."""

    memory_bytes: int = 512 << 20
    """Data of all requests under way beyond `reply_bytes` a client, taken before it is allocated."""


class Budget:
    """A number of bytes that requests of all clients share.

    Invariant: what is taken never exceeds the total. Who got nothing is told, in order, when there is room
    again.
    """

    def __init__(self, total: int) -> None:
        self.total = total
        self.taken = 0
        self._waiting: deque[Callable[[], None]] = deque()

    def take(self, count: int) -> bool:
        """Take `count` bytes, if there are so many left."""
        if self.taken + count > self.total:
            return False
        self.taken += count
        return True

    def give(self, count: int) -> None:
        """Give back what was taken, and tell those who wait."""
        self.taken -= count
        assert self.taken >= 0
        waiting, self._waiting = self._waiting, deque()
        for callback in waiting:
            callback()

    def when_free(self, callback: Callable[[], None]) -> None:
        """Call once when something was given back."""
        self._waiting.append(callback)
