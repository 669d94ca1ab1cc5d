"""What clients asked for and got, counted: by connection, and for each export over all that it ever had."""

from collections.abc import Mapping
from dataclasses import dataclass, field

from storage.histogram import Histogram


@dataclass(frozen=True, slots=True)
class Traffic:
    """Counters of one connection, or of several together."""

    commands: Mapping[int, int] = field(default_factory=dict)
    """Requests by the number of their command; only commands of which there were some."""
    received: int = 0
    """Bytes from the client."""
    sent: int = 0
    """Bytes of data to it."""

    @property
    def requests(self) -> int:
        """How many requests there were, of all commands."""
        return sum(self.commands.values())

    def plus(self, other: "Traffic") -> "Traffic":
        """The sum of this and the other, in a new object."""
        commands = dict(self.commands)
        for command, count in other.commands.items():
            commands[command] = commands.get(command, 0) + count
        return Traffic(commands, self.received + other.received, self.sent + other.sent)


@dataclass(frozen=True, slots=True)
class Waits:
    """How long requests took that memory could not answer; the others take microseconds."""

    flush: Histogram = field(default_factory=Histogram)
    """From a FLUSH, or a write with FUA, that found something not durable, to its reply."""
    read: Histogram = field(default_factory=Histogram)
    """From a READ that needed the store to its last reply."""
