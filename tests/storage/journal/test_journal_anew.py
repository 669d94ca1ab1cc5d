"""A journal that was turned off: it ends whatever else fails, and what begins anew is a journal as the first was."""

from pathlib import Path

import pytest

from storage.errors import AccessDenied
from storage.journal.journal import EPOCH_SHIFT, OFF_SECONDS_MIN, JournalPlace
from tests.storage.journal.test_journal import BYTES_MAX, CIPHER, ID, SECTOR, Queue, Writer, no_lock
from tests.support.inside import folder_of


def test_one_that_began_anew_goes_on_as_the_first_did(memory: Path) -> None:
    """What was turned off by an operation too large for the room there is: the segment before that had room yet."""
    writer, a = Writer(memory), Queue(1)
    writer.write(a)
    writer.journal.keep()
    writer.files.room = 0
    writer.sequence += 1
    writer.journal.pending.append((a, 1, a.last_sequence, (writer.sequence, 0, bytes(BYTES_MAX))))
    a.last_sequence = writer.sequence
    writer.journal.keep()
    assert not writer.is_on()
    writer.files.room = 1 << 40
    a.acked_sequence = writer.sequence
    writer.journal.logged(everything=True)
    assert not writer.is_on(), "not before a while is over"
    writer.now += OFF_SECONDS_MIN
    writer.journal.logged(everything=True)
    assert writer.is_on()
    writer.write(a)
    writer.journal.keep()
    assert writer.sequences() == [writer.sequence]
    for _ in range(3):
        writer.write(a, 30)
        writer.journal.keep()
        a.acked_sequence = writer.sequence
        writer.journal.logged(everything=True)
        assert writer.is_on()
        assert writer.journal.bytes == sum(path.stat().st_size for path in folder_of(writer.files).rglob("*.segment"))
    writer.journal.close(clean=True)


def test_without_room_it_begins_anew_also_if_nobody_writes(memory: Path) -> None:
    """The first write after a quiet night was not in it, and a status said for the whole night that it was off."""
    writer, a = Writer(memory), Queue(1)

    def write() -> None:
        writer.write(a, 40)
        writer.journal.keep()

    def all_logged() -> None:
        a.acked_sequence = writer.sequence
        writer.journal.logged(everything=True)

    writer.files.room = 2 * SECTOR
    write()
    assert not writer.is_on()
    all_logged()
    writer.passes(OFF_SECONDS_MIN)
    assert not writer.is_on(), "there is no room yet"
    writer.files.room = 1 << 40
    write()
    writer.passes(OFF_SECONDS_MIN)
    assert not writer.is_on(), "the log lacks what was written meanwhile"
    all_logged()
    assert writer.is_on()
    writer.files.room = 0
    write()
    assert not writer.is_on()
    all_logged()
    writer.files.room = 1 << 40
    writer.journal.pending.append((a, 1, a.last_sequence, (writer.sequence + 1, 0, bytes(SECTOR))))
    writer.passes(OFF_SECONDS_MIN)
    assert not writer.is_on(), "something was linked, and not kept yet"
    writer.journal.pending.clear()
    writer.journal.logged(everything=True)
    assert writer.is_on()
    writer.files.room = 0
    write()
    all_logged()
    assert not writer.is_on()
    writer.files.room = 1 << 40
    writer.passes(OFF_SECONDS_MIN)
    assert writer.is_on()
    writer.journal.close(clean=True)


def test_one_that_could_not_let_go_of_what_is_logged_begins_anew(memory: Path) -> None:
    """The log had everything in that moment, and nobody says so again."""
    writer, a = Writer(memory), Queue(1)
    writer.write(a, 30)
    writer.journal.keep()
    a.acked_sequence, writer.files.is_stuck = writer.sequence, True
    writer.journal.logged(everything=True)
    assert not writer.is_on()
    assert writer.failure() == "Input/output error"
    writer.passes(OFF_SECONDS_MIN)
    assert writer.is_on()
    writer.journal.close(clean=True)


def test_without_room_at_the_start_it_begins_once_there_is(memory: Path) -> None:
    writer, a = Writer(memory), Queue(1)
    writer.journal.close(clean=True)
    place = JournalPlace(writer.files, ID, CIPHER, 3, no_lock)
    writer.journal.start_off(place, "no room")
    assert (writer.is_on(), writer.failure()) == (False, "no room")
    writer.files.room = 0
    writer.passes(OFF_SECONDS_MIN)
    assert (writer.is_on(), writer.failure()) == (False, "No space left on device")
    writer.files.room = 1 << 40
    writer.passes(OFF_SECONDS_MIN)
    assert (writer.is_on(), writer.failure()) == (True, None)
    writer.write(a)
    writer.journal.keep()
    assert writer.sequences() == [1]
    assert min(writer.files.segments()) >> EPOCH_SHIFT == 3, "no number of another writer's"
    writer.journal.close(clean=True)


def test_it_is_tried_once_at_a_time(memory: Path) -> None:
    """In the moment in which a try is due the log said that it has everything, which is one too."""
    writer, a = Writer(memory), Queue(1)
    writer.files.room = 0
    writer.write(a)
    writer.journal.keep()
    a.acked_sequence = writer.sequence
    for _ in range(4):
        writer.now += OFF_SECONDS_MIN
        writer.journal.logged(everything=True)
    before = writer.files.calls
    writer.passes(5 * OFF_SECONDS_MIN)
    assert writer.files.calls - before == 5
    writer.journal.close(clean=True)


def test_a_lock_that_names_it_again_is_told_that_there_is_none(memory: Path, caplog: pytest.LogCaptureFixture) -> None:
    """It could not be told when that went off; of one that cannot be told at all there is one line in the log."""
    named: list[bytes | None] = []

    def name(journal_id: bytes | None) -> None:
        if is_full:
            raise AccessDenied("the lock cannot be written")
        named.append(journal_id)

    is_full = True
    writer, a = Writer(memory, name=name), Queue(1)
    writer.files.room = 0
    writer.write(a)
    writer.journal.keep()
    a.acked_sequence = writer.sequence
    writer.journal.logged(everything=True)
    writer.passes(3 * OFF_SECONDS_MIN)
    assert caplog.messages == ["journal_off", "journal_left"]
    is_full = False
    writer.passes(3 * OFF_SECONDS_MIN)
    assert named == [None]
    writer.files.room = 1 << 40
    writer.passes(OFF_SECONDS_MIN)
    assert writer.is_on()
    assert named == [None, ID]
    writer.files.room = 0
    writer.write(a, 40)
    writer.journal.keep()
    assert not writer.is_on()
    assert named == [None, ID, None]
    writer.journal.close(clean=True)


def test_where_its_lock_cannot_be_written_it_ends_all_the_same(memory: Path) -> None:
    """It goes with a sentence in the log, and the server that turned it off goes on."""

    def refused(journal_id: bytes | None) -> None:
        raise AccessDenied("the state folder is not safe")

    writer = Writer(memory, name=refused)
    writer.files.room = 0
    writer.write(Queue(1))
    writer.journal.keep()
    assert not writer.is_on()
    assert list(memory.iterdir()) == []
    writer.journal.close(clean=True)


def test_one_that_the_lock_does_not_name_again_is_none(memory: Path) -> None:
    """The lock could not be written when it ended either: it names the first one, under the same id, for ever."""

    def full(journal_id: bytes | None) -> None:
        raise AccessDenied("the lock cannot be written")

    writer, queue = Writer(memory, name=full), Queue(1)
    writer.files.room = 0
    writer.write(queue)
    writer.journal.keep()
    queue.acked_sequence, writer.files.room = writer.sequence, 1 << 40
    writer.now += OFF_SECONDS_MIN
    writer.journal.logged(everything=True)
    assert not writer.is_on()
    writer.write(queue)
    writer.journal.keep()  # in no journal, and answered
    writer.journal.close(clean=False)
    assert writer.files.take(ID) == "gone", "an empty journal would pass for all that was answered"
