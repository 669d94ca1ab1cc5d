"""Pieces that no flush can take ask for none."""

from storage.lsm.memtable.memtable import Memtable


def test_a_memtable_of_nothing_but_kept_pieces_wants_no_flush() -> None:
    memtable = Memtable()
    memtable.bytes = memtable.kept_bytes = 4096
    assert memtable
    assert not memtable.holds_more_than_kept
    memtable.bytes += 1
    assert memtable.holds_more_than_kept
