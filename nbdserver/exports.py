"""This file knows which devices are served, under which names, and how many clients each has.

It also says what a device must be able to do (`Device`, `Gate`): all that the connections ask of the storage
engine.
"""

from collections import Counter
from collections.abc import Callable, Sequence
from typing import Protocol

from nbdserver.protocol.replies import Piece
from storage.errors import Invalid, NotFound

_UNITS = ("bytes", "KiB", "MiB", "GiB", "TiB", "PiB")


class Gate(Protocol):
    """Back-pressure of a store, as plain attributes that the request loop can afford to read."""

    @property
    def delay(self) -> float:
        """Seconds by which the reply to a write is to be delayed now; 0.0 as a rule."""

    @property
    def closed(self) -> bool:
        """No write may be applied now."""

    def when_open(self, callback: Callable[[], None]) -> None:
        """Call once when the gate opens again, in the order of these calls."""


class Device(Protocol):
    """A disk. Buffers that go in or come out are never changed afterwards. The properties may be plain
    attributes.

    One disk is one object: whoever looks it up, under whichever name, gets the same one.
    """

    @property
    def size(self) -> int:
        """Bytes now."""

    @property
    def read_only(self) -> bool:
        """Whether it may not be written."""

    @property
    def gate(self) -> Gate:
        """The same one for the life of the device."""

    @property
    def last_sequence(self) -> int:
        """Number of the newest write."""

    def read_cached(self, offset: int, length: int) -> Sequence[Piece] | None:
        """What memory can answer at once, or None."""

    async def read(self, offset: int, length: int) -> Sequence[Piece]:
        """The same from wherever it lies. StorageError if it cannot be had."""

    def write(self, offset: int, data: bytes | bytearray | memoryview) -> int:
        """Link `data` and return the sequence number of the write."""

    def zero(self, offset: int, length: int, *, allocated: bool) -> int:
        """Make a range of any length zero and return the sequence number of the write."""

    def when_durable(self, sequence: int, callback: Callable[[], None]) -> bool:
        """True: that write is durable, and `callback` is not called. Otherwise it is called when it is."""

    def extents(self, offset: int, length: int) -> Sequence[tuple[int, int]]:
        """(length, flags) of base:allocation for the range."""

    def prefetch(self, offset: int, length: int) -> None:
        """Load into memory what is worth it; returns at once."""


class Export:
    """A device under the name a client gets it by."""

    def __init__(self, name: str, device: Device, *, read_only: bool) -> None:
        self.name = name
        self.device = device
        self.read_only = read_only or device.read_only
        self.exclusive = False

    @property
    def size(self) -> int:
        """Bytes now."""
        return self.device.size

    @property
    def description(self) -> str:
        """One line for people: "disk of 10 GiB, read-only"."""
        size = float(self.size)
        unit = 0
        while size >= 1024 and unit < len(_UNITS) - 1:
            size /= 1024
            unit += 1
        return f"disk of {size:.4g} {_UNITS[unit]}" + (", read-only" if self.read_only else "")


class Exports:
    """The devices that are served.

    `lookup` finds a device by name (NotFound, Invalid), `names` lists what there is. `only` restricts what is
    served to these names; `read_only` makes all of it read-only.
    """

    def __init__(
        self,
        lookup: Callable[[str], Device],
        names: Callable[[], list[str]],
        *,
        read_only: bool = False,
        only: list[str] | None = None,
    ) -> None:
        self._lookup = lookup
        self._names = names
        self._read_only = read_only
        self._only = only
        self._attached: Counter[Device] = Counter()

    def names(self) -> list[str]:
        """What a client sees in a listing."""
        return self._names() if self._only is None else list(self._only)

    def find(self, name: str) -> Export | None:
        """The export of that name, or None; "" means the only one."""
        if not name:
            names = self.names()
            if len(names) != 1:
                return None
            (name,) = names
        elif self._only is not None and name not in self._only:
            return None
        try:
            device = self._lookup(name)
        except (NotFound, Invalid):
            return None
        return Export(name, device, read_only=self._read_only)

    def refusal(self, export: Export) -> str | None:
        """Why the export cannot be attached now."""
        return None

    def attach(self, export: Export) -> None:
        """A client entered the transmission phase on it."""
        self._attached[export.device] += 1

    def detach(self, export: Export) -> None:
        """That client is gone."""
        self._attached[export.device] -= 1
        if not self._attached[export.device]:
            del self._attached[export.device]

    def attached(self, name: str) -> int:
        """How many clients the device of that name has, under whichever names they attached it."""
        try:
            return self._attached[self._lookup(name)]
        except (NotFound, Invalid):
            return 0
