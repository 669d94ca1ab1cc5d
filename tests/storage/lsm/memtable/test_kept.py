"""Pieces that no flush can take ask for none."""

from storage.lsm.memtable.backpressure import Pressure
from storage.lsm.memtable.gate import Gate
from storage.lsm.memtable.memtable import Memtable
from storage.lsm.memtable.write_state import WriteState

LOG_BOUNDS = {"log_objects_max": 4, "log_bytes_max": 1 << 20}


def test_a_memtable_of_nothing_but_kept_pieces_wants_no_flush() -> None:
    memtable = Memtable()
    memtable.bytes = memtable.kept_bytes = 4096
    assert memtable
    assert not memtable.holds_more_than_kept
    memtable.bytes += 1
    assert memtable.holds_more_than_kept


def test_a_log_of_nothing_but_kept_pieces_keeps_nobody_waiting() -> None:
    """A flush would only write them to the log again: a gate that waits for room there would stay closed."""
    pressure = Pressure(Gate(lambda turn: turn()), unlogged_max=1 << 20, memtable_max=1 << 20, **LOG_BOUNDS)
    writes = WriteState(sequence=0, pressure=pressure)
    writes.charge(8192)
    writes.keep(8192)

    def closes(objects: int, size: int) -> bool:
        writes.log_holds(objects, size)
        return writes.gate.closed

    assert not closes(LOG_BOUNDS["log_objects_max"], LOG_BOUNDS["log_bytes_max"] + 8000)
    writes.charge(1)
    assert closes(LOG_BOUNDS["log_objects_max"], 0)
    assert closes(0, LOG_BOUNDS["log_bytes_max"] + 8192)
    assert not closes(0, 0)
