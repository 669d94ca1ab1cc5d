"""Where the log stands: its next number, its tail, and the objects that a replay would read."""

from collections import deque
from dataclasses import dataclass, field

from storage.format.envelope import NO_LINK


@dataclass(frozen=True, slots=True)
class LoggedObject:
    """A data object of the log that exists."""

    number: int
    size: int
    tag: bytes


@dataclass(slots=True)
class LogPosition:
    """Where the log stands."""

    next_number: int
    tail_tag: bytes
    """Tag of the object sealed last: the link of the next one."""
    acknowledged: int
    objects: deque[LoggedObject] = field(default_factory=deque)
    """Data objects that are acknowledged and not truncated yet, ascending."""
    fences: list[int] = field(default_factory=list)
    """Numbers of all fences of the store."""
    logged_bytes: int = 0
    """Sum of the sizes of `objects`: what a replay would have to read."""
    truncated: LoggedObject | None = None
    """The object truncated last: what follows it is still linked to it."""

    def add(self, logged: LoggedObject) -> None:
        """An object was acknowledged."""
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
