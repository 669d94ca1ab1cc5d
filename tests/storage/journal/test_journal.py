"""The journal of a running writer, over real files in memory."""

import errno
import os
from collections.abc import Callable, Iterator
from operator import itemgetter
from pathlib import Path

import pytest

from storage.crypto.memory_cipher import MemoryCipher
from storage.format.journal_batch import JournalEntry, Memory
from storage.journal.files import SPARES_KEPT, FolderFiles
from storage.journal.journal import OFF_SECONDS_MIN, TRIM_SECONDS, Journal, JournalPlace, Segment, Unkept
from storage.journal.unlogged import ReadSegment, read
from storage.secret import Secret
from tests.support.inside import folder_of

URL, ID = "file:///store", b"1" * 16
CIPHER = MemoryCipher(Secret(bytes(32)))
SECTOR = 4096
BYTES_MAX = 64 * SECTOR


def no_lock(journal_id: bytes | None) -> None:
    """Nobody reads which journal counts."""


class Queue:
    """A queue whose log is the test."""

    def __init__(self, layer: int) -> None:
        self.layer = layer
        self.acked_sequence = self.last_sequence = 0


class Files(FolderFiles):
    """Real ones, with as much room for new segments as the test says, and a count of those."""

    def __init__(self, folder: Path) -> None:
        super().__init__(folder, URL)
        self.room = 1 << 40
        self.calls = 0
        self.is_stuck = False

    def map(self, segment: int, size: int) -> Memory:
        self.calls += 1
        if size > self.room:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        self.room -= size
        return super().map(segment, size)

    def remove(self, segment: int) -> None:
        if self.is_stuck:
            raise OSError(errno.EIO, os.strerror(errno.EIO))
        super().remove(segment)


class Writer:
    """A journal, and who writes to it."""

    def __init__(
        self, folder: Path, bytes_max: int = BYTES_MAX, name: Callable[[bytes | None], None] = no_lock
    ) -> None:
        self.files = Files(folder)
        self.files.begin(ID, 1)
        self.now = 0.0
        self.shares: list[float] = []
        pending: list[Unkept] = []
        self.due: list[tuple[float, Callable[[], None]]] = []
        self.journal = Journal(
            pending, bytes_max=bytes_max, on_size=self.shares.append, monotonic=lambda: self.now, later=self.later
        )
        self.journal.start(JournalPlace(self.files, ID, CIPHER, 0, name), [])
        self.sequence = 0

    def write(self, queue: Queue, count: int = 1) -> int:
        for _ in range(count):
            self.sequence += 1
            op = (self.sequence, 0, bytes(SECTOR))
            self.journal.pending.append((queue, queue.layer, queue.last_sequence, op))
            queue.last_sequence = self.sequence
        return self.sequence

    def later(self, seconds: float, call: Callable[[], None]) -> None:
        self.due.append((self.now + seconds, call))

    def passes(self, seconds: float) -> None:
        """So much time goes by, and what is due in it is called."""
        end = self.now + seconds
        while True:
            self.due.sort(key=itemgetter(0))
            if not self.due or self.due[0][0] > end:
                break
            self.now, call = self.due.pop(0)
            call()
        self.now = end

    def entries(self) -> list[JournalEntry]:
        """What the next process finds."""
        return [entry for segment in read(self.files, CIPHER) for entry in segment.entries]

    def is_on(self) -> bool:
        return self.journal.on

    def failure(self) -> str | None:
        return self.journal.failure

    def sequences(self) -> list[int]:
        return [entry.sequence for entry in self.entries()]


def sequences(segment: ReadSegment) -> list[int]:
    return [entry.sequence for entry in segment.entries]


@pytest.fixture
def writer(memory: Path) -> Iterator[Writer]:
    made = Writer(memory)
    yield made
    made.journal.close(clean=False)


def test_all_of_a_pass_is_kept_in_order(writer: Writer) -> None:
    a, b = Queue(1), Queue(2)
    writer.write(a, 3)
    writer.write(b, 3)
    writer.journal.keep()
    assert writer.files.calls == 1
    assert writer.journal.pending == []
    assert [(entry.layer, entry.sequence, entry.previous) for entry in writer.entries()] == [
        (1, 1, 0),
        (1, 2, 1),
        (1, 3, 2),
        (2, 4, 0),
        (2, 5, 4),
        (2, 6, 5),
    ]


def test_a_segment_goes_when_each_of_its_queues_has_it_in_the_log(writer: Writer) -> None:
    a, b = Queue(1), Queue(2)
    for _ in range(10):
        writer.write(a, 4)
        writer.write(b)
        writer.journal.keep()
    full = writer.journal.bytes
    a.acked_sequence = writer.sequence
    writer.journal.logged(everything=False)
    assert writer.journal.bytes == full
    b.acked_sequence = 25
    writer.journal.logged(everything=False)
    left = writer.sequences()
    assert writer.journal.bytes < full
    assert left[-1] == writer.sequence
    assert left == list(range(left[0], writer.sequence + 1))
    assert left[0] <= 26
    assert writer.journal.bytes == sum(len(writer.files.read(number)) for number in writer.files.segments())


def test_one_that_grows_and_is_all_logged_goes_once_it_is_large(memory: Path) -> None:
    writer, a = Writer(memory, 256 * BYTES_MAX), Queue(1)
    writer.write(a)
    writer.journal.keep()
    a.acked_sequence = writer.sequence
    writer.journal.logged(everything=True)
    assert writer.sequences() == [1]
    writer.write(a, 64)
    writer.journal.keep()
    a.acked_sequence = writer.sequence
    writer.journal.logged(everything=True)
    assert writer.files.segments() == []
    assert writer.journal.bytes == 0
    writer.write(a)
    writer.journal.keep()
    assert writer.sequences() == [66]
    writer.journal.close(clean=False)


def test_writers_are_told_how_full_it_is(writer: Writer) -> None:
    writer.write(Queue(1), 32)
    writer.journal.keep()
    assert 0.5 < writer.shares[-1] < 0.7


def test_without_room_it_ends_at_once_and_begins_anew_when_all_is_logged(
    writer: Writer, caplog: pytest.LogCaptureFixture
) -> None:
    a = Queue(1)
    writer.write(a, 4)
    writer.journal.keep()
    writer.files.room = 2 * SECTOR
    writer.write(a, 4)
    writer.journal.keep()
    assert [record.message for record in caplog.records] == ["journal_off"]
    assert not writer.is_on()
    assert writer.failure() == "No space left on device"
    assert writer.journal.bytes == 0
    assert FolderFiles(folder_of(writer.files), URL).take(ID) == "gone", "a journal with a gap would pass for whole"
    writer.files.room = 1 << 40
    writer.write(a)
    writer.journal.keep()
    writer.now += OFF_SECONDS_MIN
    writer.journal.logged(everything=False)
    assert not writer.is_on()
    a.acked_sequence = writer.sequence
    writer.journal.logged(everything=True)
    assert writer.is_on()
    assert writer.failure() is None
    writer.write(a)
    writer.journal.keep()
    assert writer.sequences() == [writer.sequence]


def test_a_clean_end_leaves_nothing_and_another_one_all(writer: Writer, memory: Path) -> None:
    writer.write(Queue(1))
    writer.journal.keep()
    writer.journal.close(clean=False)
    assert writer.files.take(ID) == "taken"
    assert writer.sequences() == [1]
    writer.journal.start(JournalPlace(writer.files, ID, CIPHER, 1, no_lock), [])
    writer.journal.close(clean=True)
    assert list(memory.iterdir()) == []


def test_off_it_keeps_nothing_and_costs_no_memory(writer: Writer) -> None:
    writer.journal.close(clean=True)
    writer.write(Queue(1), 10)
    writer.journal.keep()
    writer.journal.logged(everything=True)
    assert writer.journal.pending == []
    assert writer.files.calls == 0


def test_what_has_no_room_in_a_segment_goes_into_the_next(writer: Writer) -> None:
    a = Queue(1)
    writer.write(a, 100)
    writer.journal.keep()
    assert writer.sequences() == list(range(1, 101))
    assert len(writer.files.segments()) > 10
    writer.sequence += 1
    writer.journal.pending.append((a, 1, a.last_sequence, (writer.sequence, 0, bytes(BYTES_MAX))))
    a.last_sequence = writer.sequence
    writer.write(a)
    writer.journal.keep()
    assert writer.sequences() == list(range(1, 103)), "also what is larger than any segment"


def test_memory_is_used_again(writer: Writer, memory: Path) -> None:
    """It costs a third of new memory."""
    a = Queue(1)
    for _ in range(50):
        writer.write(a, 20)
        writer.journal.keep()
        a.acked_sequence = writer.sequence
        writer.journal.logged(everything=True)
    assert len(list(memory.rglob("*.s*"))) < 10


def test_memory_is_used_again_after_the_log_had_everything_and_given_back_when_nobody_writes(memory: Path) -> None:
    """Who syncs after each burst would find the same memory again each time."""
    writer, a = Writer(memory), Queue(1)

    def burst() -> set[int]:
        """The memory that there was before the log got it."""
        writer.write(a, 100)
        writer.journal.keep()
        had = {path.stat().st_ino for path in memory.rglob("*.s*")}
        a.acked_sequence = writer.sequence
        writer.journal.logged(everything=True)
        return had

    first = burst()
    assert len(first) > 2 * SPARES_KEPT
    writer.passes(TRIM_SECONDS / 2)
    assert first <= burst()
    for _ in range(3):
        writer.passes(TRIM_SECONDS)
        assert first <= burst()
    writer.passes(90)
    assert writer.due == [], "nobody is woken up at rest"
    assert len(list(memory.rglob("*.spare"))) == SPARES_KEPT
    assert not first <= burst()
    writer.journal.close(clean=True)
    writer.passes(90)
    assert list(memory.iterdir()) == []


def test_a_number_of_a_segment_is_never_used_again(writer: Writer) -> None:
    """It is a part of the place under which a batch is sealed, and who goes on finds only those that are left."""
    found: set[int] = set()
    for epoch in (3, 4):
        writer.journal = Journal(
            [], bytes_max=BYTES_MAX, on_size=lambda share: None, monotonic=lambda: 0.0, later=lambda seconds, call: None
        )
        writer.journal.start(JournalPlace(writer.files, ID, CIPHER, epoch, no_lock), [])
        writer.write(Queue(1), 20)
        writer.journal.keep()
        assert found.isdisjoint(writer.files.segments())
        found.update(writer.files.segments())
        for number in writer.files.segments():
            writer.files.remove(number)


def test_segments_that_the_log_has_go_at_the_start(writer: Writer) -> None:
    """A server was killed with a full journal, and its log had everything: the next one must not wait for room."""
    queue, other = Queue(1), Queue(2)
    writer.write(queue, 200)
    writer.journal.keep()
    writer.write(other)
    writer.journal.keep()
    segments = [
        Segment(each.number, each.size, {queue: 200, other: writer.sequence if 201 in sequences(each) else 0})
        for each in read(writer.files, CIPHER)
    ]
    queue.acked_sequence = 200
    shares: list[float] = []
    next_one = Journal(
        [], bytes_max=BYTES_MAX, on_size=shares.append, monotonic=lambda: 0.0, later=lambda seconds, call: None
    )
    next_one.start(JournalPlace(writer.files, ID, CIPHER, 1, no_lock), segments)
    assert shares[0] > 1
    assert shares[-1] < 0.5
    assert len(writer.files.segments()) == 1
    assert writer.sequences()[-1] == 201, "the log lacks it"
    next_one.pending.append((other, other.layer, 201, (202, 0, bytes(SECTOR))))
    next_one.keep()
    assert next_one.on
    assert writer.sequences()[-2:] == [201, 202], "in a segment of its own, behind what was left"
