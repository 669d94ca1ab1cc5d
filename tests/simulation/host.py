"""What a simulated host remembers: the anchor and the lock files of `storage.lsm.recovery.anchor`, in memory, and the
journals of `storage.journal.files`.

A lock is held as long as its process lives, stalled or not; a crash of the process leaves the host as it was. A journal
too, but that what the process had linked and not kept yet may be in it in part, as if it had died while it kept that.
"""

import random
from collections.abc import Callable
from dataclasses import dataclass, field

import msgspec

from storage.format.journal_batch import Memory, clear
from storage.journal.files import Taken
from storage.lsm.recovery.anchor import Anchor
from storage.lsm.recovery.locks import LockHolder
from storage.lsm.recovery.unsaved import Unsaved
from tests.simulation.loop import Process

DAMAGED_SHARE = 0.05
"""Of the journals that are taken."""

STUCK_SHARE = 0.3
"""Of the journals without room: they cannot be removed."""


class SimLock:
    """One process's claim on an epoch."""

    def __init__(self, host: "SimHost", epoch: int, tag: bytes, process: Process, journal_id: bytes | None) -> None:
        self.journal_id = journal_id
        self.epoch = epoch
        self.tag = tag
        self.process = process
        self.confirmed = False
        self.held = True
        self._host = host

    def confirm(self) -> None:
        self.confirmed = True

    def name_journal(self, journal_id: bytes | None) -> None:
        self.journal_id = journal_id

    def release(self) -> None:
        self.held = False

    def discard(self) -> None:
        self.release()
        self._host.locks.remove(self)


class SimHost:
    """The state folder of one host."""

    def __init__(self) -> None:
        self.anchors: dict[int, Anchor] = {}
        self.locks: list[SimLock] = []
        self.marks: dict[int, int] = {}
        self.journals: dict[bytes, SimJournal] = {}

    def of(self, process: Process) -> "HostView":
        return HostView(self, process)


class HostView:
    """The state folder as one process uses it; the interface of `HostState`."""

    def __init__(self, host: SimHost, process: Process) -> None:
        self._host = host
        self._process = process
        self.unsaved = Unsaved()

    def load(self) -> Anchor | None:
        anchors = self._host.anchors
        if not anchors:
            return None
        anchor = anchors[max(anchors)]
        marked = self._host.marks.get(anchor.epoch, 0)
        return msgspec.structs.replace(anchor, wal_number=max(anchor.wal_number, marked))

    def mark(self, epoch: int) -> "SimMark":
        return SimMark(self._host, epoch, self._process)

    def save(self, anchor: Anchor) -> None:
        host = self._host
        host.anchors[anchor.epoch] = anchor
        host.anchors = {epoch: kept for epoch, kept in host.anchors.items() if epoch >= anchor.epoch}
        host.locks = [lock for lock in host.locks if lock.epoch >= anchor.epoch or _is_held(lock)]

    def forget(self) -> None:
        self._host.anchors.clear()
        self._host.marks.clear()

    def lock_epoch(self, epoch: int, takeover_tag: bytes, journal_id: bytes | None = None) -> SimLock:
        lock = SimLock(self._host, epoch, takeover_tag, self._process, journal_id)
        self._host.locks.append(lock)
        return lock

    def holder(self, epoch: int, newest_tag: bytes) -> LockHolder:
        lock = self._lock_of(epoch, newest_tag)
        if lock is None:
            return LockHolder("elsewhere")
        return LockHolder("held", 1) if _is_held(lock) else LockHolder("gone")

    def journal_of(self, epoch: int, newest_tag: bytes) -> bytes | None:
        lock = self._lock_of(epoch, newest_tag)
        return None if lock is None else lock.journal_id

    def _lock_of(self, epoch: int, newest_tag: bytes) -> SimLock | None:
        for lock in self._host.locks:
            if lock.epoch == epoch and (lock.confirmed or lock.tag == newest_tag):
                return lock
        return None

    def journals(self, chance: random.Random, room: int) -> "SimFiles":
        """Where this process has its journals; `room`: bytes that there is room for."""
        return SimFiles(self._host, self._process, chance, room)


class SimMark:
    """What a writer acknowledged, known to its host at once."""

    def __init__(self, host: SimHost, epoch: int, process: Process) -> None:
        self._host = host
        self._epoch = epoch
        self._process = process

    def set(self, number: int) -> None:
        if self._process.alive:
            self._host.marks[self._epoch] = number

    def close(self) -> None:
        pass


def _is_held(lock: SimLock) -> bool:
    return lock.held and lock.process.alive


@dataclass(eq=False)
class SimJournal:
    """One journal: its segments, who has it, and what that process would write next."""

    process: Process
    epoch: int
    """Of the writer that began it."""
    segments: dict[int, Memory] = field(default_factory=dict)
    held: bool = True
    damaged: bool = False
    """It is not what was written any more, whoever took it first."""
    torn: Callable[[], tuple[int, bytes, int]] | None = None
    """Number of a segment as a dead process would have left it next; and where in it that is only begun."""


class SimFiles:
    """The journals of one store on a host, as one process uses them; the interface of `JournalFiles`."""

    def __init__(self, host: SimHost, process: Process, chance: random.Random, room: int) -> None:
        self.full = 0
        """How often there was no room."""
        self.damaged = False
        """What this process took was not what was written."""
        self.withheld = False
        """Another living process had one that was to be taken."""
        self._host = host
        self._process = process
        self._chance = chance
        self._room = room
        self._id: bytes | None = None
        self._spare: Memory | None = None
        """The segment that was dropped last."""

    def tears(self, next_batch: Callable[[], tuple[int, bytes, int]]) -> None:
        """What is written next may be there in part, if the process dies first."""
        if self._id is not None and self._id in self._host.journals:
            self._journal.torn = next_batch

    @property
    def _journal(self) -> SimJournal:
        assert self._id is not None
        return self._host.journals[self._id]

    def take(self, journal_id: bytes) -> Taken:
        journal = self._host.journals.get(journal_id)
        if journal is None:
            return "gone"
        if journal.held and journal.process.alive:
            self.withheld = True
            return "held"
        if journal.torn is not None and not journal.process.alive and self._chance.random() < 0.5:
            number, data, at = journal.torn()
            if data:
                # The batch, a part of it, or all of it and that it is there, but not that anybody may be told.
                kept, written = journal.segments[number], self._chance.randrange(at, len(data) + 1)
                kept[at:written] = data[at:written]
                if written == len(data):
                    kept[:8] = data[:8]
        if journal.segments and self._chance.random() < DAMAGED_SHARE:
            number = self._chance.choice(sorted(journal.segments))
            struck = journal.segments[number]
            struck[self._chance.randrange(len(struck))] ^= 1 << self._chance.randrange(8)
            journal.damaged = True
        self.damaged = self.damaged or journal.damaged
        journal.process, journal.held, journal.torn = self._process, True, None
        self._id = journal_id
        return "taken"

    def begin(self, journal_id: bytes, epoch: int) -> None:
        self.leave()
        self._host.journals[journal_id] = SimJournal(self._process, epoch)
        self._id = journal_id

    def segments(self) -> list[int]:
        return sorted(self._journal.segments)

    def read(self, segment: int) -> bytes:
        return bytes(self._journal.segments[segment])

    def map(self, segment: int, size: int) -> Memory:
        segments = self._journal.segments
        if sum(map(len, segments.values())) + size > self._room:
            self.full += 1
            raise OSError(28, "No space left on device")
        # With what lay there before, perhaps.
        spare = self._spare if self._spare is not None and len(self._spare) == size else Memory(-1, size)
        clear(spare)
        segments[segment], self._spare = spare, None
        return spare

    def remove(self, segment: int) -> None:
        self._spare = self._journal.segments.pop(segment)

    def trim(self) -> bool:
        self._spare = None
        return False

    def end(self) -> None:
        if self.full and self._chance.random() < STUCK_SHARE:
            raise OSError(5, "Input/output error")
        if self._id is not None:
            del self._host.journals[self._id]
            self._id = None

    def leave(self) -> None:
        if self._id is not None and self._id in self._host.journals:
            self._journal.held = False
        self._id = None

    def set_aside(self, *, epoch: int | None) -> str | None:
        journals = self._host.journals
        others = [
            key
            for key, found in journals.items()
            if key != self._id and not (found.held and found.process.alive) and (epoch is None or found.epoch <= epoch)
        ]
        for key in others:
            del journals[key]
        return "aside" if others else None
