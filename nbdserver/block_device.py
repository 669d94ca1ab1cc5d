"""What a device must be able to do: all that the connections ask of the storage engine."""

from collections.abc import Callable, Sequence
from typing import Protocol

from nbdserver.protocol.replies import Piece
from storage.fetch_times import FetchTimes


class WriteRateLimiter(Protocol):
    """When the replies of one writer may go out."""

    def delay(self, length: int) -> float:
        """Seconds by which the reply to a write of `length` bytes, carried out now, is to be delayed; called once."""


class WriteGate(Protocol):
    """Back-pressure of a store, as plain attributes that the request loop can afford to read."""

    @property
    def slows(self) -> bool:
        """Replies to writes are to be delayed now; False as a rule."""

    def rate_limiter(self, clock: Callable[[], float]) -> WriteRateLimiter:
        """For the delays of one more writer. `clock` gives seconds, and does not go back."""

    @property
    def closed(self) -> bool:
        """No write may be applied out of turn."""

    def when_open(self, callback: Callable[[], None], length: int) -> None:
        """Call once when it is this writer's turn for one write of `length` bytes; turns are fair by bytes."""

    def forget(self, callback: Callable[[], None]) -> None:
        """Do not call it after all."""


class WriteJournal(Protocol):
    """What must know of every write before its client is told of it."""

    @property
    def pending(self) -> Sequence[object]:
        """The writes that it does not know of yet, of all devices; the same object for the life of the store."""

    def keep(self) -> None:
        """Know of all of them. Never fails, and never awaits."""


Extents = Callable[[int, int], Sequence[tuple[int, int]]]
"""(length, flags) of a metadata context from an offset on, for a length, or the beginning of that; never nothing.
NotFound: what it is about is gone.
"""


class ChangeMap(Protocol):
    """What changed since one snapshot."""

    def extents(self, offset: int, length: int) -> Sequence[tuple[int, int]]:
        """Bit 0 of the flags says that the range may differ. See `Extents`."""


class DeviceHistory(Protocol):
    """The snapshots of a device."""

    def snapshots(self) -> Sequence[str]:
        """Their names, oldest first."""

    def since(self, snapshot: str) -> ChangeMap:
        """What changes, from now on and before, since the snapshot that has the name now. NotFound."""


class BlockDevice(Protocol):
    """A disk. Buffers that go in or come out are never changed afterwards. The properties may be plain
    attributes.

    One disk is one object: whoever looks it up, under whichever name, gets the same one.
    """

    @property
    def size(self) -> int:
        """In bytes, as it is now: a device may be resized meanwhile."""

    @property
    def identity(self) -> str:
        """Which disk of its store this is, in printing characters without "-"; another one once what it shows was
        replaced by something else than a client's write. Nothing: it was deleted.
        """

    @property
    def read_only(self) -> bool:
        """Whether it may not be written."""

    @property
    def is_view(self) -> bool:
        """Whether it is of a store that somebody else writes, as that was at one moment: who attaches it again, or once
        more, may get another moment, or a snapshot that was taken anew under the name."""

    @property
    def exclusive_user(self) -> str | None:
        """What has it for itself now, such as "an import", or None."""

    @property
    def gate(self) -> WriteGate:
        """The same one for the life of the device."""

    @property
    def journal(self) -> WriteJournal:
        """The same one for the life of the store."""

    @property
    def history(self) -> DeviceHistory:
        """The same one for the life of the device."""

    @property
    def last_sequence(self) -> int:
        """Number of the newest write."""

    def read_cached(self, offset: int, length: int) -> Sequence[Piece] | None:
        """What memory can answer at once, or None."""

    async def read(self, offset: int, length: int, times: FetchTimes | None = None) -> Sequence[Piece]:
        """The same from wherever it lies. StorageError if it cannot be had. `times` is told where the time went."""

    def write(self, offset: int, data: bytes | bytearray | memoryview) -> int:
        """Link `data` and return the sequence number of the write."""

    def zero(self, offset: int, length: int, *, allocated: bool) -> int:
        """Make a range of any length zero and return the sequence number of the write."""

    def want_durable(self, sequence: int) -> bool:
        """Whether every write up to this one is durable. If not, it will be soon, and who listens is told."""

    def listen(self, listener: Callable[[int], None]) -> None:
        """From now on call `listener` with the number of the newest durable write whenever that grows."""

    def unlisten(self, listener: Callable[[int], None]) -> None:
        """Do not call `listener` any more."""

    def extents(self, offset: int, length: int) -> Sequence[tuple[int, int]]:
        """(length, flags) of base:allocation from `offset` on: for the range, or the beginning of it; never nothing."""

    def prefetch(self, offset: int, length: int) -> None:
        """Load into memory what is worth it; returns at once."""
