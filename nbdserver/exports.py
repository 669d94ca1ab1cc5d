"""The exports: which devices are served, under which names, to whom, and which clients each has.

It also says what a device must be able to do (`BlockDevice`, `WriteGate`): all that the connections ask of the storage
engine.
"""

from collections.abc import Callable, Iterable, Sequence
from typing import NamedTuple, Protocol

from nbdserver.access import AccessList, Identity, Mode, Rights
from nbdserver.protocol.agreement import Catalogue, MetaContext
from nbdserver.protocol.replies import Piece
from nbdserver.traffic import Traffic
from storage.errors import Invalid, NotFound

_UNITS = ("bytes", "KiB", "MiB", "GiB", "TiB", "PiB")


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

CHANGES_EFFORT = 4
"""What changed since a snapshot costs as much as so many looks at what is allocated."""


class StatusMap(NamedTuple):
    """What answers for a metadata context."""

    extents: Extents
    effort: int = 1


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
        """Bytes now."""

    @property
    def read_only(self) -> bool:
        """Whether it may not be written."""

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

    async def read(self, offset: int, length: int) -> Sequence[Piece]:
        """The same from wherever it lies. StorageError if it cannot be had."""

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


class Export:
    """A device under the name a client gets it by, as one client was told of it.

    `size` stays what it was at that moment: a client that is attached does not know of a device that has grown
    since, and its requests end where they did when it attached. (A device that has clients never shrinks.)
    """

    def __init__(self, name: str, device: BlockDevice, *, read_only: bool, exclusive: bool = False) -> None:
        self.name = name
        self.device = device
        self.size = device.size
        """Bytes."""
        self.read_only = read_only or device.read_only
        self.exclusive = exclusive
        """Only one connection may have it at a time."""

    def snapshots(self) -> Sequence[str]:
        """The snapshots since which it can say what changed."""
        return self.device.history.snapshots()

    def maps(self, contexts: Iterable[MetaContext]) -> dict[int, StatusMap]:
        """What answers for each of these contexts, by its number."""
        allocation = StatusMap(self.device.extents)
        return {
            each.number: StatusMap(self._changes(each.since), CHANGES_EFFORT) if each.since else allocation
            for each in contexts
        }

    def _changes(self, snapshot: str) -> Extents:
        try:
            return self.device.history.since(snapshot).extents
        except NotFound as error:
            gone = error

        def fail(offset: int, length: int) -> Sequence[tuple[int, int]]:
            raise gone.with_traceback(None)

        return fail

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

    `lookup` finds a device by name (NotFound, Invalid), `names` lists what there is, as the same object until that
    changes. `only` restricts what is served to these names; `read_only` makes all of it read-only; `exclusive` lets
    each device have one connection at a time; `default` is what a client gets that asks for no name. `access` says who
    may use what; None: everybody everything.
    """

    def __init__(
        self,
        lookup: Callable[[str], BlockDevice],
        names: Callable[[], Sequence[str]],
        *,
        read_only: bool = False,
        only: list[str] | None = None,
        default: str | None = None,
        exclusive: bool = False,
        access: AccessList | None = None,
    ) -> None:
        self.access = access
        """May be replaced; it counts for every client that attaches then."""
        self._lookup = lookup
        self._names = names
        self._read_only = read_only
        self._only = None if only is None else tuple(only)
        self._default = default
        self._exclusive = exclusive
        self.past: dict[str, Traffic] = {}
        """What was counted of clients that left, by the name under which they had their export."""
        self._clients: dict[BlockDevice, list[str]] = {}
        """The clients of each device, by what they are called."""

    def seen_by(self, identity: Identity) -> Catalogue[Export]:
        """The exports as far as this client may know of them."""
        return self if self.access is None else _Visible(self, identity)

    def names(self) -> Sequence[str]:
        """What a client sees in a listing; the same object until that changes."""
        return self._names() if self._only is None else self._only

    def find(self, name: str) -> Export | None:
        """The export of that name, or None; "" means the default one."""
        wanted = name or self.default_among(self.names())
        return None if wanted is None else self.named(wanted)

    def default_among(self, names: Sequence[str]) -> str | None:
        """The export that is meant by no name: the one that was set, or the only one; None if it is not among
        these."""
        if self._default is None:
            return names[0] if len(names) == 1 else None
        return self._default if self._default in names else None

    def named(self, name: str, *, read_only: bool = False) -> Export | None:
        """The export of that name, or None."""
        if self._only is not None and name not in self._only:
            return None
        try:
            device = self._lookup(name)
        except (NotFound, Invalid):
            return None
        return Export(name, device, read_only=self._read_only or read_only, exclusive=self._exclusive)

    def refusal(self, export: Export) -> str | None:
        """Why the export cannot be attached now."""
        user = export.device.exclusive_user
        if user is not None:
            return f"{export.name} is in use by {user}: attach when that is done"
        clients = self._clients.get(export.device)
        if not export.exclusive or not clients:
            return None
        return f"{export.name} is attached by {clients[0]}, and this server lets only one client have a device"

    def attach(self, export: Export, client: str) -> None:
        """A client, called so, entered the transmission phase on it."""
        self._clients.setdefault(export.device, []).append(client)

    def detach(self, export: Export, client: str, traffic: Traffic) -> None:
        """That client is gone; `traffic` was counted of it."""
        self.past[export.name] = self.past.get(export.name, Traffic()).plus(traffic)
        clients = self._clients[export.device]
        clients.remove(client)
        if not clients:
            del self._clients[export.device]

    def clients_of(self, name: str) -> list[str]:
        """What the clients of the device of that name are called, under whichever names they attached it."""
        try:
            return list(self._clients.get(self._lookup(name), ()))
        except (NotFound, Invalid):
            return []


class _Visible:
    """The exports that a client may see, by the access list as it is when something is asked."""

    def __init__(self, exports: Exports, identity: Identity) -> None:
        self._exports = exports
        self._identity = identity
        self._access = exports.access
        self._rights = self._look_up(self._access)
        self._all: Sequence[str] = ()
        self._names: Sequence[str] = ()
        """Those of `_all` that it may see."""

    def names(self) -> Sequence[str]:
        self._renew()
        names = self._exports.names()
        if names is not self._all:
            self._all, self._names = names, [name for name in names if self._rights.to(name) is not None]
        return self._names

    def find(self, name: str) -> Export | None:
        self._renew()
        wanted = name or self._exports.default_among(self.names())
        mode = None if wanted is None else self._rights.to(wanted)
        if wanted is None or mode is None:
            return None
        return self._exports.named(wanted, read_only=mode is Mode.READ_ONLY)

    def refusal(self, export: Export) -> str | None:
        """Who another client is, is not told to one that has rights of its own only."""
        if self._exports.refusal(export) is None:
            return None
        return f"{export.name} is in use, and cannot be attached now"

    def _renew(self) -> None:
        if self._exports.access is not self._access:
            self._access = self._exports.access
            self._rights = self._look_up(self._access)
            self._all = ()

    def _look_up(self, access: AccessList | None) -> Rights:
        return Rights(()) if access is None else access.rights(self._identity)
