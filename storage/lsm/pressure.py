"""This file knows how much writers hold, and how they are slowed down before it is too much. Pure.

Three things are counted: bytes not yet acknowledged in the log and bytes of memtables not yet in SSTs, since both sit
in memory, and what a replay of the log would have to read. From half of any limit the *replies* of writes are
delayed, more and more; at the limit no further writes are taken until there is room. A write that was taken is never
refused, and nothing here ever turns slowness into an error.
"""

from collections.abc import Callable

DELAY_SECONDS_MAX = 0.05
"""Longest delay of one reply, just below the limit: with 16 requests in flight still 320 writes a second."""

LOG_OBJECTS_MAX = 4000
LOG_BYTES_MAX = 512 * 1024 * 1024
"""What a replay may have to read at most; memtable flushes begin at a quarter of that."""

UPLOAD_SECONDS_MAX = 20
"""Unlogged bytes are no more than what the measured rate uploads in this time: a flush never has more before it."""

UNLOGGED_BYTES_MIN = 16 * 1024 * 1024
"""They are never bound below this: two batches in flight."""

REOPEN_SHARE = 0.9
"""A closed gate opens again below this share of the limit, so that it does not flap with every batch."""


class Gate:
    """What a connection looks at before and after each write. `delay` is in seconds."""

    __slots__ = ("_opening", "_waiting", "closed", "delay")

    def __init__(self) -> None:
        self.delay = 0.0
        self.closed = False
        self._waiting: dict[Callable[[], None], None] = {}
        self._opening = False

    def when_open(self, callback: Callable[[], None]) -> None:
        """Call `callback` once when the gate opens, in the order of these calls."""
        self._waiting[callback] = None

    def forget(self, callback: Callable[[], None]) -> None:
        """Do not call it after all."""
        self._waiting.pop(callback, None)

    def set(self, delay: float, closed: bool) -> None:
        """Change the state; an opening gate lets the waiting ones through until it closes again."""
        self.delay = delay
        self.closed = closed
        if self._opening:
            # By one that was just let through: who lets them through goes on by the new state.
            return
        self._opening = True
        try:
            while self._waiting and not self.closed:
                callback = next(iter(self._waiting))
                del self._waiting[callback]
                callback()
        finally:
            self._opening = False


class Pressure:
    """Bytes that writers hold, against their limits."""

    __slots__ = ("_configured", "_log_share", "_soft", "gate", "memtable", "memtable_max", "unlogged", "unlogged_max")

    def __init__(self, *, unlogged_max: int, memtable_max: int) -> None:
        self.gate = Gate()
        self.unlogged = 0
        self.memtable = 0
        self.unlogged_max = unlogged_max
        self.memtable_max = memtable_max
        self._configured = unlogged_max
        self._soft = unlogged_max // 2
        self._log_share = 0.0

    def add(self, count: int) -> None:
        """An operation of `count` bytes was linked."""
        self.memtable += count
        self.unlogged += count
        if self.unlogged > self._soft or self.memtable > self.memtable_max // 2:
            self.update()

    def update(self) -> None:
        """Set the gate after anything changed."""
        share = max(self.unlogged / self.unlogged_max, self.memtable / self.memtable_max, self._log_share)
        closed = share >= 1 or (self.gate.closed and share > REOPEN_SHARE)
        over = max(share - 0.5, 0.0) * 2
        delay = min(over * over, 1.0) * DELAY_SECONDS_MAX
        if closed != self.gate.closed or delay != self.gate.delay:
            self.gate.set(delay, closed)

    def set_log(self, objects: int, size: int) -> None:
        """The log holds `objects` objects of `size` bytes together behind its replay point."""
        self._log_share = max(objects / LOG_OBJECTS_MAX, size / LOG_BYTES_MAX)
        self.update()

    def set_rate(self, bytes_per_second: float) -> None:
        """One upload reached this rate lately."""
        self.unlogged_max = min(self._configured, max(int(UPLOAD_SECONDS_MAX * bytes_per_second), UNLOGGED_BYTES_MIN))
        self._soft = self.unlogged_max // 2
        self.update()
