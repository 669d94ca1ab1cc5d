"""The position of the log: its next number, its tail, and the objects that a replay would read.

Invariants, by number:

    P1  `next_number` only grows: a number is given once, and bound for ever to one sealed byte string.
    P2  `objects` ascend, are acknowledged and at or above the replay point; `logged_bytes` is the sum of their sizes.
    P3  `acknowledged` only grows, and every data object below it is in the store.
    P4  `tail_tag` is that of the object sealed last; objects are sealed in order of number, one at a time.

The group commit owns it and alone changes it, by these methods; others ask it, or read a `LogSnapshot`.
"""

from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass, field

from storage.errors import BrokenInvariant
from storage.format.envelope import NO_LINK


@dataclass(frozen=True, slots=True)
class LoggedObject:
    """A data object of the log that exists."""

    number: int
    size: int
    tag: bytes


@dataclass(frozen=True, slots=True)
class LogSnapshot:
    """Where the log stood at one moment."""

    next_number: int
    acknowledged: int
    objects: int
    """Data objects that are acknowledged and not truncated yet."""
    logged_bytes: int
    """What a replay would have to read."""


@dataclass(slots=True)
class LogPosition:
    """Where the log stands."""

    next_number: int
    tail_tag: bytes
    """Tag of the object sealed last: the link of the next one."""
    acknowledged: int
    objects: deque[LoggedObject] = field(default_factory=deque)
    """Data objects that are acknowledged and not truncated yet, ascending."""
    fences: Sequence[int] = ()
    """Numbers of all fences of the store; a writer puts none but the one at its beginning."""
    logged_bytes: int = 0
    """Sum of the sizes of `objects`: what a replay would have to read."""
    truncated: LoggedObject | None = None
    """The object truncated last: what follows it is still linked to it."""

    def take_number(self) -> int:
        """The number of a new object (P1)."""
        number = self.next_number
        self.next_number += 1
        return number

    def sealed(self, tag: bytes) -> None:
        """The next object in order of number was sealed, with this tag (P4)."""
        self.tail_tag = tag

    def acknowledge(self, number: int) -> None:
        """All objects up to `number` exist (P3)."""
        if number <= self.acknowledged:
            raise BrokenInvariant(f"WAL object {number} is acknowledged behind {self.acknowledged}")
        self.acknowledged = number

    def add(self, logged: LoggedObject) -> None:
        """An object was acknowledged (P2)."""
        if self.objects and logged.number <= self.objects[-1].number:
            raise BrokenInvariant(f"WAL object {logged.number} follows {self.objects[-1].number}")
        self.objects.append(logged)
        self.logged_bytes += logged.size

    def truncate(self, replay: int) -> list[int]:
        """Forget the objects below `replay`; gives their numbers, to be deleted."""
        numbers = []
        while self.objects and self.objects[0].number < replay:
            logged = self.objects.popleft()
            self.logged_bytes -= logged.size
            numbers.append(logged.number)
            self.truncated = logged
        return numbers

    def tag_below(self, number: int) -> bytes:
        """Tag of the object just below `number`, zeros if that is no data object.

        A replay point may stay where it is, when the object there holds the end of two memtables and more.
        """
        if self.truncated is not None and self.truncated.number == number - 1:
            return self.truncated.tag
        return next((logged.tag for logged in self.objects if logged.number == number - 1), NO_LINK)

    def snapshot(self) -> LogSnapshot:
        """Where it stands now."""
        return LogSnapshot(self.next_number, self.acknowledged, len(self.objects), self.logged_bytes)
