"""Back-pressure: how much writers hold, and how they are slowed down before it is too much. No I/O.

Three things are counted: bytes not yet acknowledged in the log and bytes of memtables not yet in SSTs, since both sit
in memory, and what a replay of the log would have to read. From half of any limit the *replies* of writes are
delayed, more and more; at the limit the gate is closed: writes wait, and are let through one by one as room is made.
A write that was taken is never refused, and nothing here ever turns slowness into an error.

Room is made in small steps, so that writers go on in small steps. Bytes leave the log's share with each of its
objects. The memtable's and the log's share are given back only at the end of a memtable flush, which may take
minutes; so what may be used of them beyond half grows with the progress of the flush.
"""

from storage.lsm.memtable.gate import Gate
from storage.units import MIB

DELAY_SECONDS_MAX = 0.05
"""Longest delay of one reply, just below the limit: with 16 requests in flight still 320 writes a second."""

DEBT_BYTES_PER_SECOND = 16 * MIB
"""What one writer may write while maintenance is behind by 1: about what repacking and consolidating keep up with."""

UPLOAD_SECONDS_MAX = 4
"""Unlogged bytes are no more than what the measured rate uploads in this time: a flush never has more before it, and
nobody waits much longer for the next reply."""

STANDING_SECONDS = 1
"""Unlogged bytes are no more than what is uploaded in this time if they have stood there for long: that is no burst,
which room makes short, but a writer that is faster than the link. Room gains it nothing, and who waits for it waits."""

STANDING_BYTES = 64 * MIB
"""But so much they may be: four of the largest objects on their way."""

UNLOGGED_BYTES_MIN = MIB
"""They are never bound below this: two of the smallest batches in flight, and room to gather the next two."""

PROGRESS_MIN = 1 / 16
"""What a memtable flush counts for before its first object is uploaded."""


class Pressure:
    """Bytes that writers hold, against their limits."""

    __slots__ = (
        "_configured",
        "_flushing",
        "_journal_share",
        "_log_bytes_max",
        "_log_objects_max",
        "_log_share",
        "_lowest",
        "_passed",
        "_progress",
        "_rate",
        "_soft",
        "_standing",
        "_target",
        "debt",
        "gate",
        "memtable",
        "memtable_max",
        "unlogged",
        "unlogged_max",
    )

    def __init__(
        self, gate: Gate, *, unlogged_max: int, memtable_max: int, log_objects_max: int, log_bytes_max: int
    ) -> None:
        """The limits, in bytes but for `log_objects_max`, are those of `EngineOptions`."""
        self.gate = gate
        self._log_objects_max = log_objects_max
        self._log_bytes_max = log_bytes_max
        self.unlogged = 0
        self.memtable = 0
        self.unlogged_max = unlogged_max
        self.memtable_max = memtable_max
        self._configured = unlogged_max
        self._target = unlogged_max
        """Where `unlogged_max` is going: it is above this after the rate has fallen, until enough was uploaded."""
        self._soft = unlogged_max // 2
        self._rate = 0.0
        self._standing = False
        """Whether what is unlogged has stood there for long."""
        self._passed = 0
        """Bytes that were logged since it was looked at last, and the fewest that were unlogged meanwhile."""
        self._lowest = 0
        self._log_share = 0.0
        self._journal_share = 0.0
        self._flushing: tuple[float, float] | None = None
        """Shares of the memtables and of the log when the flush under way began."""
        self._progress = 0.0
        self.debt = 0.0
        """How far maintenance is behind: writers are slowed down to `DEBT_BYTES_PER_SECOND` at 1, and by its fourth
        power: nearly to a stop before it is 3, and hardly below a half. The gate is not closed.
        """

    def add(self, count: int) -> None:
        """An operation of `count` bytes was linked."""
        self.memtable += count
        self.unlogged += count
        if self.unlogged > self._soft or self.memtable > self.memtable_max // 2:
            self.update()

    def logged(self, count: int) -> None:
        """Operations of `count` bytes are acknowledged in the log; `update` follows."""
        self.unlogged -= count
        self._look_at_backlog(count)
        if self.unlogged_max > self._target:
            # Half of what leaves is room for writers: they go on, at half the rate, while the backlog shrinks.
            self._limit(max(self.unlogged_max - (count + 1) // 2, self._target))

    def _look_at_backlog(self, count: int) -> None:
        """It stands if what half a second uploads was there through two seconds of uploads, and until an eighth of a
        second's is left.
        """
        self._lowest = min(self._lowest, self.unlogged)
        self._passed += count
        before = self._standing
        if self._standing:
            self._standing = self.unlogged > self._rate / 8
        elif self._passed >= 2 * self._rate:
            self._standing = self._lowest > self._rate / 2
            self._passed, self._lowest = 0, self.unlogged
        if self._standing is not before:
            self._passed, self._lowest = 0, self.unlogged
            self._aim()
            self._limit(max(self.unlogged_max, self._target))

    def _aim(self) -> None:
        self._target = min(self._configured, max(int(UPLOAD_SECONDS_MAX * self._rate), UNLOGGED_BYTES_MIN))
        if self._standing:
            self._target = min(self._target, max(int(STANDING_SECONDS * self._rate), STANDING_BYTES))

    def release(self, count: int) -> None:
        """So many bytes of memtables are no longer a flush's to give back; the gate follows with the next change."""
        self.memtable -= count

    def replayed(self, count: int) -> None:
        """The memtable holds `count` bytes, which a replay linked."""
        self.memtable = count
        self.update()

    def set_debt(self, debt: float) -> None:
        """Maintenance is so far behind."""
        self.debt = debt
        self.update()

    def update(self) -> None:
        """Set the gate after anything changed."""
        memtable = self.memtable / self.memtable_max
        share = max(self.unlogged / self.unlogged_max, memtable, self._log_share, self._journal_share)
        full = share >= 1
        if self._flushing is not None and not full:
            full = self._is_ahead(memtable, self._flushing[0]) or self._is_ahead(self._log_share, self._flushing[1])
        over = max(share - 0.5, 0.0) * 2
        delay = min(over * over, 1.0) * DELAY_SECONDS_MAX
        self.gate.set(delay, full=full, seconds_per_byte=self.debt**4 / DEBT_BYTES_PER_SECOND)

    def set_log(self, objects: int, size: int) -> None:
        """A replay of the log would read so many objects, of `size` bytes together; the gate follows."""
        self._log_share = max(objects / self._log_objects_max, size / self._log_bytes_max)
        self.update()

    def set_journal(self, share: float) -> None:
        """The journal takes this share of what it may: more than what is unlogged, if that lies scattered in it."""
        before, self._journal_share = self._journal_share, share
        if max(before, share) > 0.5:
            self.update()

    def set_rate(self, bytes_per_second: float) -> None:
        """Uploads reach this rate together, in bytes a second."""
        self._rate = bytes_per_second
        self._aim()
        self._limit(max(self._target, min(self.unlogged_max, self.unlogged)))
        self.update()

    def flushing(self, progress: float) -> None:
        """A memtable flush is under way, and this share of it (0 to 1) is uploaded or on its way."""
        if self._flushing is None:
            self._flushing = (self.memtable / self.memtable_max, self._log_share)
        self._progress = max(progress, PROGRESS_MIN)
        self.update()

    def flushed(self, count: int) -> None:
        """It is over, and the `count` bytes that it held are given back."""
        self.memtable -= count
        self._flushing = None
        self.update()

    def _limit(self, unlogged_max: int) -> None:
        self.unlogged_max = unlogged_max
        self._soft = unlogged_max // 2

    def _is_ahead(self, share: float, at_start: float) -> bool:
        """Whether more of a limit is used than the flush under way has earned."""
        base = max(at_start, 0.5)
        return share >= base + (1 - base) * self._progress
