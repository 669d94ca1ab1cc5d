"""Operations: what may be asked of a store besides reading and writing its devices.

An operation is data: it travels to a running server as JSON and is carried out there, or it is carried out
by a command that has opened the store itself; the code is the same. So is its answer: sizes in bytes, times
in seconds since 1970.
"""

from __future__ import annotations

import base64
from collections.abc import Iterable
from typing import TYPE_CHECKING, ClassVar

import msgspec

from nbdserver.admin.asked import NO_CLIENTS, Answer, Clients
from nbdserver.admin.client_operations import AcceptClients, DisconnectClient, ListClients, ShowSlow
from nbdserver.admin.file_operations import (
    ChangeFile,
    ListFiles,
    MakeDirectory,
    MakeLink,
    MoveFile,
    RemoveFile,
    ShowFile,
)
from nbdserver.admin.key_operations import RotateKey, ShowKey
from nbdserver.admin.password_operations import AddPassword, ChangePassword, ListPasswords, RemovePassword
from nbdserver.admin.replica_operations import DeleteUnneeded, FindHeld, ShowHistory
from nbdserver.admin.snapshot_operations import (
    CloneDevice,
    CreateSnapshot,
    DeleteSnapshot,
    DiffSnapshot,
    ListSnapshots,
    RollBackDevice,
)
from storage.secret import Secret
from storage.stats import BUDGET_STATS, COST_STATS, DEVICE_STATS, STATS, Stat

if TYPE_CHECKING:
    from storage import DeviceInfo, Store


class ListDevices(msgspec.Struct, frozen=True, tag="list-devices"):
    """All devices, in order of name."""

    writes: ClassVar[bool] = False

    async def perform(self, store: Store, clients: Clients = NO_CLIENTS) -> Answer:
        await store.count_usage()
        return {"devices": [_with_usage(store, _describe(store, info)) for info in store.devices()]}


class ShowDevice(msgspec.Struct, frozen=True, tag="show-device"):
    """One device and who is attached to it; a symbolic link shows its target."""

    name: str
    writes: ClassVar[bool] = False

    async def perform(self, store: Store, clients: Clients = NO_CLIENTS) -> Answer:
        await store.count_usage()
        facts = _with_usage(store, _show(store, self.name))
        return {**facts, "served": clients is not NO_CLIENTS, "clients": clients.clients_of(self.name)}


class ShowStats(msgspec.Struct, frozen=True, tag="show-stats"):
    """All counters and gauges of the store, or those of one device."""

    device: str | None
    writes: ClassVar[bool] = False

    async def perform(self, store: Store, clients: Clients = NO_CLIENTS) -> Answer:
        await store.count_usage()
        found = store.status() if self.device is None else store.device_usage(self.device)
        values = msgspec.to_builtins(found)
        stats = STATS if self.device is None else DEVICE_STATS
        priced, budgeted = _priced(values.get("costs")), _budgeted(values.get("budget"))
        return {"stats": [*_valued(stats, values), *priced, *budgeted]}


class PlanCompaction(msgspec.Struct, frozen=True, tag="plan-compaction"):
    """What a compaction would do, of one device or of all."""

    device: str | None
    writes: ClassVar[bool] = False

    async def perform(self, store: Store, clients: Clients = NO_CLIENTS) -> Answer:
        plan: Answer = msgspec.to_builtins(await store.maintenance.plan_compaction(self.device))
        return plan


class CompactStep(msgspec.Struct, frozen=True, tag="compact-step"):
    """One job of a compaction; the `first` step takes what is in memory in as well."""

    device: str | None
    first: bool
    writes: ClassVar[bool] = True

    async def perform(self, store: Store, clients: Clients = NO_CLIENTS) -> Answer:
        if self.first:
            await store.maintenance.flush()
        step: Answer = msgspec.to_builtins(await store.maintenance.compact_step(self.device))
        return step


class PlanCollection(msgspec.Struct, frozen=True, tag="plan-collection"):
    """What a collection of garbage would delete, and what it would keep."""

    writes: ClassVar[bool] = False

    async def perform(self, store: Store, clients: Clients = NO_CLIENTS) -> Answer:
        found: Answer = msgspec.to_builtins(await store.maintenance.collect(dry_run=True))
        return found


class CollectGarbage(msgspec.Struct, frozen=True, tag="collect-garbage"):
    """What nothing needs is deleted now."""

    writes: ClassVar[bool] = True

    async def perform(self, store: Store, clients: Clients = NO_CLIENTS) -> Answer:
        found: Answer = msgspec.to_builtins(await store.maintenance.collect(dry_run=False))
        return found


class ShowReads(msgspec.Struct, frozen=True, tag="show-reads"):
    """When the data of the store was last read."""

    writes: ClassVar[bool] = False

    async def perform(self, store: Store, clients: Clients = NO_CLIENTS) -> Answer:
        report: Answer = msgspec.to_builtins(await store.maintenance.read_report())
        return report


class CreateDevice(msgspec.Struct, frozen=True, tag="create-device"):
    """A new device that reads as zeros."""

    name: str
    size: int
    writes: ClassVar[bool] = True

    async def perform(self, store: Store, clients: Clients = NO_CLIENTS) -> Answer:
        await store.create_device(self.name, self.size)
        return _show(store, self.name)


class ResizeDevice(msgspec.Struct, frozen=True, tag="resize-device"):
    """Another size; smaller only with `shrink`."""

    name: str
    size: int
    shrink: bool
    writes: ClassVar[bool] = True

    async def perform(self, store: Store, clients: Clients = NO_CLIENTS) -> Answer:
        await store.resize_device(self.name, self.size, shrink=self.shrink)
        return _show(store, self.name)


class RenameDevice(msgspec.Struct, frozen=True, tag="rename-device"):
    """Another name."""

    old: str
    new: str
    writes: ClassVar[bool] = True

    async def perform(self, store: Store, clients: Clients = NO_CLIENTS) -> Answer:
        await store.rename_device(self.old, self.new)
        return _show(store, self.new)


class DeleteDevice(msgspec.Struct, frozen=True, tag="delete-device"):
    """The device and all its data go."""

    name: str
    writes: ClassVar[bool] = True

    async def perform(self, store: Store, clients: Clients = NO_CLIENTS) -> Answer:
        await store.delete_device(self.name)
        return {"name": self.name}


class Flush(msgspec.Struct, frozen=True, tag="flush"):
    """Everything written so far becomes durable."""

    writes: ClassVar[bool] = True

    async def perform(self, store: Store, clients: Clients = NO_CLIENTS) -> Answer:
        await store.flush()
        return {"flushed": True}


class FlushAhead(msgspec.Struct, frozen=True, tag="flush-ahead"):
    """What a stop would have to put into SSTs goes there now, beside the clients."""

    writes: ClassVar[bool] = True

    async def perform(self, store: Store, clients: Clients = NO_CLIENTS) -> Answer:
        await store.maintenance.flush_ahead()
        return {"flushed": True}


Operation = (
    ListDevices
    | ShowDevice
    | ShowStats
    | PlanCompaction
    | CompactStep
    | PlanCollection
    | CollectGarbage
    | ShowReads
    | CreateDevice
    | ResizeDevice
    | RenameDevice
    | DeleteDevice
    | CloneDevice
    | ListSnapshots
    | CreateSnapshot
    | DiffSnapshot
    | DeleteSnapshot
    | RollBackDevice
    | ShowHistory
    | FindHeld
    | DeleteUnneeded
    | ListFiles
    | ShowFile
    | MakeDirectory
    | MakeLink
    | MoveFile
    | RemoveFile
    | ChangeFile
    | Flush
    | FlushAhead
    | ListPasswords
    | ShowKey
    | RotateKey
    | ChangePassword
    | AddPassword
    | RemovePassword
    | ListClients
    | DisconnectClient
    | AcceptClients
    | ShowSlow
)


def encode_operation(operation: Operation) -> bytes:
    """An operation as it travels."""
    return msgspec.json.encode(operation, enc_hook=_reveal)


def decode_operation(data: bytes) -> Operation:
    """The operation that came. msgspec.MsgspecError: it is none."""
    try:
        operation: Operation = msgspec.json.decode(data, type=Operation, dec_hook=_hide)
    except RecursionError as error:  # lists in lists, without an end
        raise msgspec.DecodeError(str(error)) from error
    return operation


def _reveal(value: object) -> str:
    """A secret on its way; nothing else needs a hook."""
    if not isinstance(value, Secret):
        raise NotImplementedError
    return base64.b64encode(value).decode()


def _hide(kind: type, value: object) -> object:
    if kind is not Secret or not isinstance(value, str):
        raise TypeError("a secret is Base64")
    return Secret(base64.b64decode(value, validate=True))


def _describe(store: Store, info: DeviceInfo) -> Answer:
    """`read_only` is left out: it says how this process opened the store, not how the device is."""
    facts: Answer = msgspec.to_builtins(info)
    del facts["read_only"]
    return {**facts, "client_count": len(store.open_devices.clients_of(info.name))}


def _with_usage(store: Store, facts: Answer) -> Answer:
    return {**facts, "usage": msgspec.to_builtins(store.device_usage(facts["name"]))}


def _valued(stats: Iterable[Stat], values: Answer) -> list[Answer]:
    return [{**_about(stat), "value": values[stat.name]} for stat in stats]


def _priced(costs: Answer | None) -> list[Answer]:
    """What the store costs, in its currency; nothing without a price list."""
    return [] if costs is None else [{**each, "unit": costs["currency"]} for each in _valued(COST_STATS, costs)]


def _budgeted(outlook: Answer | None) -> list[Answer]:
    """How the month stands; nothing without a budget."""
    return [] if outlook is None else _valued(BUDGET_STATS, outlook)


def _about(stat: Stat) -> Answer:
    about = {"name": stat.name, "kind": stat.kind.value, "unit": stat.unit, "meaning": stat.meaning}
    return {**about, "formula": stat.formula}


def _show(store: Store, name: str) -> Answer:
    return _describe(store, store.info(name))
