"""On what terms a store is taken from a writer that has not closed it."""

from storage.lsm.recovery.turn import Terms


def test_from_whoever_has_it() -> None:
    assert Terms(True, 1).forces(b"one")
    assert not Terms(False, 1).forces(b"one")


def test_from_one_writer_and_nobody_else() -> None:
    """Who waited for one to end takes the store from no other, nor from the same when it has gone on."""
    assert Terms(b"one", 1).forces(b"one")
    assert not Terms(b"one", 1).forces(b"other")
