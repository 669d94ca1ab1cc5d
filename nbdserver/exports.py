"""The exports: which devices are served, under which names, to whom, and which clients each has."""

import asyncio
from collections.abc import Callable, Collection, Iterable, Sequence
from typing import NamedTuple, Protocol

from nbdserver.access import AccessList, Identity, Mode, Rights
from nbdserver.attachments import HERE, Attachment, Attachments
from nbdserver.block_device import BlockDevice, Extents
from nbdserver.protocol.agreement import INCARNATION, Catalogue, MetaContext
from nbdserver.traffic import Traffic
from storage.errors import Invalid, NotFound

_UNITS = ("bytes", "KiB", "MiB", "GiB", "TiB", "PiB")


CHANGES_EFFORT = 4
"""What changed since a snapshot costs as much as so many looks at what is allocated."""


class StatusMap(NamedTuple):
    """What answers for a metadata context."""

    extents: Extents
    effort: int = 1


class Incarnations(Protocol):
    """What a term of the store's writer is known by."""

    @property
    def id(self) -> str:
        """In hexadecimal digits; nothing: there is none."""

    def is_unbroken_since(self, incarnation: str) -> bool:
        """Whether nothing was lost since that one that was answered."""


class Export:
    """A device under the name a client gets it by, as one client was told of it.

    `size` stays what it was at that moment: a client that is attached does not know of a device that has grown
    since, and its requests end where they did when it attached. (A device that has clients never shrinks.)
    """

    def __init__(
        self,
        name: str,
        device: BlockDevice,
        *,
        read_only: bool,
        exclusive: bool = False,
        incarnation: Incarnations | None = None,
    ) -> None:
        self._incarnation = incarnation
        self.name = name
        self.device = device
        self.size = device.size
        """Bytes."""
        self.read_only = read_only or device.read_only
        self.exclusive = exclusive
        """Only one connection may have it at a time."""
        self.is_view = device.is_view

    def snapshots(self) -> Sequence[str]:
        """The snapshots since which it can say what changed."""
        return self.device.history.snapshots()

    def maps(self, contexts: Iterable[MetaContext]) -> dict[int, StatusMap]:
        """What answers for each of these contexts, by its number."""
        return {each.number: self._map(each) for each in contexts}

    def incarnations(self, queries: Sequence[str]) -> Sequence[str]:
        """This one, and those that are asked for since which this disk has lost nothing: each with the disk's identity,
        since a name may mean another one by now.
        """
        incarnation, disk = self._incarnation, self.device.identity
        if incarnation is None or not incarnation.id or not disk:
            return ()
        asked = [query.removeprefix(INCARNATION) for query in queries if query.startswith(INCARNATION)]
        terms = dict.fromkeys(
            [incarnation.id, *(each.removesuffix(f"-{disk}") for each in asked if each.endswith(f"-{disk}"))]
        )
        return [f"{INCARNATION}{each}-{disk}" for each in terms if incarnation.is_unbroken_since(each)]

    def _map(self, context: MetaContext) -> StatusMap:
        if context.since:
            return StatusMap(self._changes(context.since), CHANGES_EFFORT)
        if context.name.startswith(INCARNATION):
            return StatusMap(lambda offset, length: ((length, 0),))
        return StatusMap(self.device.extents)

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
    may use what; None: everybody everything. `incarnation` gives that of what `lookup` finds.
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
        incarnation: Callable[[], Incarnations] | None = None,
        attachments: Attachments | None = None,
    ) -> None:
        self._incarnation = incarnation
        self.attachments = attachments or Attachments(None)
        self.access = access
        """What counts for every client that attaches."""
        self._lookup = lookup
        self._names = names
        self._read_only = read_only
        self._only = None if only is None else tuple(only)
        self._default = default
        self._exclusive = exclusive
        self.past: dict[str, Traffic] = {}
        """What was counted of clients that left, by the name under which they had their export; of an export that is
        gone until the next new name."""
        self._clients: dict[BlockDevice, list[str]] = {}
        """The clients of each device, by what they are called."""
        self._meant: dict[Attachment, list[BlockDevice]] = {}
        """What each name means to those of one address that have it: one device, as often as they are."""

    def use_access_list(self, access: AccessList | None) -> None:
        """From now on this one counts for every client that attaches; None: each may have everything."""
        self.access = access

    def use(self, *, only: Sequence[str], default: str | None, exclusive: bool) -> None:
        """From now on these are served, without any all of them, the default one is that, and each has one client at a
        time or not. Who is attached stays."""
        self._only = tuple(only) or None
        self._default = default
        self._exclusive = exclusive

    def seen_by(self, identity: Identity, address: str = HERE) -> Catalogue[Export]:
        """The exports as far as this client, which comes from there, may know of them."""
        return _All(self, address) if self.access is None else _PermittedExports(self, identity, address)

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
        only_read = self._read_only or read_only
        incarnation = None if self._incarnation is None else self._incarnation()
        return Export(name, device, read_only=only_read, exclusive=self._exclusive, incarnation=incarnation)

    def refusal(self, export: Export) -> str | None:
        """Why the export cannot be attached now."""
        user = export.device.exclusive_user
        if user is not None:
            return f"{export.name} is in use by {user}: attach when that is done"
        clients = self._clients.get(export.device)
        if not export.exclusive or not clients:
            return None
        return f"{export.name} is attached by {clients[0]}, and this server lets only one client have a device"

    def means_another(self, export: Export, address: str) -> str | None:
        """Why this is not what the name means to clients of that address that have it, if it is not: to one client with
        several connections, two disks would be one."""
        if export.is_view:
            return None  # no client may have several: each shows the newest moment there was when it came
        for device in self._meant.get(Attachment(export.name, address), ())[:1]:
            # What was made of a disk while they had it is it too.
            if device is not export.device and device.identity != export.device.identity:
                return (
                    f"{export.name} is another disk now than when clients at your address attached it: "
                    "attach when they have left"
                )
        return None

    def attach(self, export: Export, client: str, address: str = HERE) -> asyncio.Future[None] | None:
        """A client, called so, has it from now on; its requests wait for what this gives, if anything."""
        self._clients.setdefault(export.device, []).append(client)
        self._meant.setdefault(Attachment(export.name, address), []).append(export.device)
        return None if export.read_only else self.attachments.attach(Attachment(export.name, address))

    def detach(self, export: Export, client: str, traffic: Traffic, address: str = HERE) -> None:
        """That client is gone; `traffic` was counted of it."""
        attachment = Attachment(export.name, address)
        if not export.read_only:
            self.attachments.leave(attachment, export.device)
        if export.name not in self.past:
            self.past = {name: counted for name, counted in self.past.items() if self._is_there(name)}
        self.past[export.name] = self.past.get(export.name, Traffic()).plus(traffic)
        clients = self._clients[export.device]
        clients.remove(client)
        if not clients:
            del self._clients[export.device]
        meant = self._meant[attachment]
        meant.remove(export.device)
        if not meant:
            del self._meant[attachment]

    def _is_there(self, name: str) -> bool:
        try:
            self._lookup(name)
        except (NotFound, Invalid):
            return False
        return True

    def held(self) -> Collection[BlockDevice]:
        """The devices that clients have."""
        return self._clients.keys()

    def clients_of(self, name: str) -> list[str]:
        """What the clients of the device of that name are called, under whichever names they attached it."""
        try:
            return list(self._clients.get(self._lookup(name), ()))
        except (NotFound, Invalid):
            return []


class _All:
    """All exports, for a client that comes from an address."""

    def __init__(self, exports: Exports, address: str) -> None:
        self._exports = exports
        self._address = address

    def names(self) -> Sequence[str]:
        return self._exports.names()

    def find(self, name: str) -> Export | None:
        return self._exports.find(name)

    def refusal(self, export: Export) -> str | None:
        lost = self._exports.attachments.refusal(Attachment(export.name, self._address))
        return lost or self._exports.means_another(export, self._address) or self._exports.refusal(export)


class _PermittedExports(_All):
    """The exports that a client may see, by the access list as it is when something is asked."""

    def __init__(self, exports: Exports, identity: Identity, address: str) -> None:
        super().__init__(exports, address)
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
        why, in_use = super().refusal(export), self._exports.refusal(export)
        return f"{export.name} is in use, and cannot be attached now" if in_use is not None and why == in_use else why

    def _renew(self) -> None:
        if self._exports.access is not self._access:
            self._access = self._exports.access
            self._rights = self._look_up(self._access)
            self._all = ()

    def _look_up(self, access: AccessList | None) -> Rights:
        return Rights(()) if access is None else access.rights(self._identity)
