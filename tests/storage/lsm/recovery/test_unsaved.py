"""What a host cannot keep is logged once, said as long as it is so, and nobody's end."""

import pytest

from storage.errors import AccessDenied, Corrupt, OutOfSpace, StorageError
from storage.lsm.recovery.unsaved import Unsaved


def fail(error: StorageError) -> None:
    """What saves, or loads."""
    raise error


def test_what_cannot_be_kept_is_said_until_it_is_kept(caplog: pytest.LogCaptureFixture) -> None:
    unsaved = Unsaved()
    with unsaved.tolerate("reads"):
        pass
    assert unsaved.sentence() is None
    assert caplog.messages == []
    for reason in ("no room", "still no room"):
        with unsaved.tolerate("reads"):
            fail(OutOfSpace(reason))
    assert unsaved.sentence() == "this host cannot keep when what is stored was last read: still no room"
    with unsaved.tolerate("anchor"):
        fail(AccessDenied("it is not ours"))
    assert unsaved.sentence() == (
        "this host cannot keep when what is stored was last read, how far it has seen the store: still no room"
    )
    with unsaved.tolerate("reads"):
        pass
    assert unsaved.sentence() == "this host cannot keep how far it has seen the store: it is not ours"
    assert caplog.messages == ["state_not_kept", "state_not_kept", "state_kept"]


def test_other_errors_are_not_tolerated() -> None:
    unsaved = Unsaved()
    with pytest.raises(Corrupt), unsaved.tolerate("anchor"):
        fail(Corrupt("anchor", "torn"))
    assert unsaved.sentence() is None
