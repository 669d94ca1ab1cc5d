"""The write state, which all writers share: the sequence, the memtables, and what they weigh.

Memory is accounted for here and nowhere else: each change of what a memtable holds goes with the change of the
pressure that follows from it. Others read `gate`, `unlogged_bytes` and `memtable_bytes`.
"""

from collections.abc import Iterable
from typing import Any

from storage.errors import BrokenInvariant
from storage.lsm.memtable.backpressure import Pressure
from storage.lsm.memtable.gate import Gate
from storage.lsm.memtable.memtable import Memtable


class WriteState:
    """What all writers of a store share. `memtable` takes writes; `sealed` is the one being flushed, if any. Owned by
    the event loop.
    """

    __slots__ = ("_pressure", "memtable", "sealed", "sequence", "unkept")

    def __init__(self, *, sequence: int, pressure: Pressure) -> None:
        self.sequence = sequence
        """Sequence of the newest operation of any layer."""
        self.memtable = Memtable()
        self.sealed: Memtable | None = None
        self.unkept: list[Any] = []
        """Operations that were linked and are not in the journal yet (`journal.Unkept`)."""
        self._pressure = pressure

    @property
    def gate(self) -> Gate:
        """Where writers wait while there is no room."""
        return self._pressure.gate

    @property
    def unlogged_bytes(self) -> int:
        """Written and not acknowledged in the log yet."""
        return self._pressure.unlogged

    @property
    def memtable_bytes(self) -> int:
        """Written and not in SSTs yet, less what no flush can take."""
        return self._pressure.memtable

    def take_sequence(self) -> int:
        """The sequence of a new operation."""
        self.sequence += 1
        return self.sequence

    def has_taken(self, sequence: int) -> None:
        """A journal holds an operation with this sequence."""
        self.sequence = max(self.sequence, sequence)

    def charge(self, count: int) -> None:
        """An operation was linked that keeps `count` bytes alive."""
        self.memtable.bytes += count
        self._pressure.add(count)

    def logged(self, count: int) -> None:
        """Operations that were charged `count` bytes are acknowledged in the log; `log_holds` follows."""
        self._pressure.logged(count)

    def log_holds(self, objects: int, size: int) -> None:
        """A replay of the log would read so many objects, of `size` bytes together. What is kept over unreadable data
        counts for nothing: a flush puts it into the log again, so nobody waits for the room that it takes there.
        """
        if self.sealed is None and self.memtable.kept_bytes:
            objects = objects if self.memtable.holds_more_than_kept else 0
            size = max(size - self.memtable.kept_bytes, 0)
        self._pressure.set_log(objects, size)

    def journal_holds(self, share: float) -> None:
        """The journal in memory takes this share of what it may."""
        self._pressure.set_journal(share)

    def maintenance_is_behind(self, debt: float) -> None:
        """The store is so far beyond its space target (see `compaction.plan.space_debt`)."""
        self._pressure.set_debt(debt)

    def release(self, count: int, *, sealed: bool = False) -> None:
        """Blocks that were charged `count` bytes were dropped, or are uploaded frames now (M4)."""
        memtable = self.sealed if sealed else self.memtable
        if memtable is None:
            raise BrokenInvariant("memory is given back of a sealed memtable, and none is sealed")
        memtable.bytes -= count
        self._pressure.release(count)

    def keep(self, count: int) -> None:
        """Of what was charged, `count` bytes are pieces that no flush can take: they neither ask for one nor close the
        gate, since only further writes can end that.
        """
        self.memtable.kept_bytes += count
        self._pressure.release(count)

    def replay(self, count: int) -> None:
        """An operation of the log was linked that keeps `count` bytes alive; `replayed` follows."""
        self.memtable.bytes += count

    def replayed(self) -> None:
        """All that the log held beyond the SSTs is linked."""
        self._pressure.replayed(self.memtable.bytes)

    def seal(self) -> Memtable:
        """Put a new memtable in place of the active one; gives that."""
        if self.sealed is not None:
            raise BrokenInvariant("a memtable is sealed while another is being flushed: nobody would flush that one")
        sealed = self.sealed = self.memtable
        sealed.sequence = self.sequence
        sealed.in_parts = sealed.has_parts
        self.memtable = Memtable()
        return sealed

    @property
    def sealed_has_to_be_installed(self) -> bool:
        """Whether the memtable being flushed has what a change of trunks has to find in the indexes: an earlier one; or
        parts of sectors that are being completed, or kept by the layer that they are of now.
        """
        sealed = self.sealed
        return sealed is not None and (sealed.changes_trunks or sealed.in_parts)

    def sent(self, number: int, memtables: Iterable[Memtable]) -> None:
        """WAL object `number`, higher than all before it, holds operations of these memtables."""
        sealed = self.sealed
        if sealed is not None and sealed.first_beyond is None and any(each is not sealed for each in memtables):
            sealed.first_beyond = number

    def flushing(self, progress: float) -> None:
        """The flush of the sealed memtable is so far, from 0 to 1."""
        self._pressure.flushing(progress)

    def flushed(self) -> None:
        """What the sealed memtable held is in SSTs and in the index."""
        sealed, self.sealed = self.sealed, None
        if sealed is None:
            raise BrokenInvariant("a memtable was flushed, and none is sealed")
        self._pressure.flushed(sealed.bytes - sealed.kept_bytes)
