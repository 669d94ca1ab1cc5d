"""This file knows the state that all writers share: the sequence, the memtables, and what they weigh."""

from storage.errors import BrokenInvariant
from storage.lsm.memtable.backpressure import Pressure
from storage.lsm.memtable.memtable import Memtable


class WriteState:
    """Owned by the event loop. `memtable` takes writes; `sealed` is the one being flushed, if any."""

    __slots__ = ("memtable", "pressure", "sealed", "sequence")

    def __init__(self, *, sequence: int, pressure: Pressure) -> None:
        self.sequence = sequence
        """Sequence of the newest operation of any layer."""
        self.memtable = Memtable()
        self.sealed: Memtable | None = None
        self.pressure = pressure

    def charge(self, count: int) -> None:
        """An operation was linked that keeps `count` bytes alive."""
        self.memtable.bytes += count
        self.pressure.add(count)

    def release(self, count: int, *, sealed: bool = False) -> None:
        """Blocks that were charged `count` bytes were dropped, or are uploaded frames now."""
        memtable = self.sealed if sealed else self.memtable
        if memtable is None:
            raise BrokenInvariant("memory is given back of a sealed memtable, and none is sealed")
        memtable.bytes -= count
        self.pressure.memtable -= count

    def keep(self, count: int) -> None:
        """Of what was charged, `count` bytes are pieces that no flush can take: they neither ask for one nor close the
        gate, since only further writes can end that.
        """
        self.memtable.kept += count
        self.pressure.memtable -= count
