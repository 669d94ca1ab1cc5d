"""This file knows how much writers hold in memory, and how they are slowed down before it is too much. Pure.

Two things are counted, since both sit in memory: bytes not yet acknowledged in the log, and bytes of memtables not
yet in SSTs. From half of either limit the *replies* of writes are delayed, more and more; at the limit no further
writes are taken until there is room. A write that was taken is never refused, and nothing here ever turns slowness
into an error.
"""

from collections import deque
from collections.abc import Callable

DELAY_SECONDS_MAX = 0.05
"""Longest delay of one reply, just below the limit: with 16 requests in flight still 320 writes a second."""

REOPEN_SHARE = 0.9
"""A closed gate opens again below this share of the limit, so that it does not flap with every batch."""


class Gate:
    """What a connection looks at before and after each write. `delay` is in seconds."""

    __slots__ = ("_waiting", "closed", "delay")

    def __init__(self) -> None:
        self.delay = 0.0
        self.closed = False
        self._waiting: deque[Callable[[], None]] = deque()

    def when_open(self, callback: Callable[[], None]) -> None:
        """Call `callback` once when the gate opens, in the order of these calls."""
        self._waiting.append(callback)

    def set(self, delay: float, closed: bool) -> None:
        """Change the state; an opening gate lets the waiting ones through until it closes again."""
        self.delay = delay
        self.closed = closed
        while self._waiting and not self.closed:
            self._waiting.popleft()()


class Pressure:
    """Bytes that writers hold, against their limits."""

    __slots__ = ("_soft", "gate", "memtable", "memtable_max", "unlogged", "unlogged_max")

    def __init__(self, *, unlogged_max: int, memtable_max: int) -> None:
        self.gate = Gate()
        self.unlogged = 0
        self.memtable = 0
        self.unlogged_max = unlogged_max
        self.memtable_max = memtable_max
        self._soft = unlogged_max // 2

    def add(self, count: int) -> None:
        """An operation of `count` bytes was linked."""
        self.memtable += count
        self.unlogged += count
        if self.unlogged > self._soft or self.memtable > self.memtable_max // 2:
            self.update()

    def update(self) -> None:
        """Set the gate after anything changed."""
        share = max(self.unlogged / self.unlogged_max, self.memtable / self.memtable_max)
        closed = share >= 1 or (self.gate.closed and share > REOPEN_SHARE)
        over = max(share - 0.5, 0.0) * 2
        delay = min(over * over, 1.0) * DELAY_SECONDS_MAX
        if closed != self.gate.closed or delay != self.gate.delay:
            self.gate.set(delay, closed)

    def set_rate(self, bytes_per_second: float, *, configured: int, floor: int) -> None:
        """Bound unlogged bytes by 20 s of the measured upload rate, so a flush never has more than that before it."""
        self.unlogged_max = int(max(min(configured, 20 * bytes_per_second), floor))
        self._soft = self.unlogged_max // 2
        self.update()
