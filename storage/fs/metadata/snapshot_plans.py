"""Snapshots of devices in the tree of names: what may be done with them, as records. No I/O.

As everything that changes the tree: a record is planned against the tree as it is, made durable, and applied.
"""

from collections.abc import Callable, Container, Iterable, Sequence
from dataclasses import dataclass

from storage.errors import AlreadyExists, Conflict, NotFound, StorageError
from storage.fs.metadata.device_plans import plan_device
from storage.fs.metadata.inodes import (
    SNAPSHOT_IDENTITY_BYTES,
    CloneLayer,
    Edit,
    FreezeLayer,
    Inode,
    LayerRow,
    RemoveSnapshot,
    RollBackLayer,
    SnapshotOrigin,
    check_snapshot_name,
)
from storage.fs.metadata.namespace import Namespace
from storage.fs.metadata.records import encode_edits, nanoseconds


@dataclass(frozen=True, slots=True)
class SnapshotTerms:
    """How snapshots are taken: when, in seconds since 1970, who wanted it, and until when."""

    now: float
    draw: Callable[[int], bytes]
    """Gives so many unpredictable bytes: the identities come from it."""
    origin: SnapshotOrigin = SnapshotOrigin.ASKED
    expires: float | None = None

    def freeze(self, inode: Inode, child: int, name: str) -> FreezeLayer:
        """The layer of a device becomes a snapshot."""
        until = 0 if self.expires is None else max(nanoseconds(self.expires), 1)
        identity = self.draw(SNAPSHOT_IDENTITY_BYTES)
        return FreezeLayer(inode.number, child, name, nanoseconds(self.now), identity, self.origin, until)


def split_snapshot(name: str) -> tuple[str, str]:
    """The device and the snapshot that `NAME@SNAPSHOT` means; the second is empty where there is no `@`."""
    device, _, snapshot = name.partition("@")
    return device, snapshot


def find_snapshot(names: Namespace, device: str, snapshot: str) -> LayerRow:
    """A snapshot of a device. NotFound."""
    own_name, inode = names.device(device)
    for layer in names.table.trunk(inode.layer)[:-1]:
        if layer.name == snapshot:
            return layer
    raise NotFound(f"{own_name!r} has no snapshot named {snapshot!a}")


def heads_of(names: Namespace, devices: Sequence[str]) -> list[int]:
    """The layers that these devices are written to. NotFound."""
    return [names.device(device)[1].layer for device in devices]


def head_above(names: Namespace, snapshot: int) -> int:
    """The layer of the device whose snapshot has this number. NotFound: it is gone."""
    for trunk in names.table.trunks():
        if snapshot in trunk[:-1]:
            return trunk[-1]
    raise NotFound("the snapshot was deleted meanwhile")


def expired(layers: Iterable[LayerRow], now: float | None, pins: Container[int]) -> list[int]:
    """The snapshots that are to be deleted at a time, in seconds since 1970, but for those that are pinned; None: what
    time it is is not known. What a clone has left goes at any time.
    """
    upto = 0 if now is None else nanoseconds(now)
    due = [layer for layer in layers if layer.origin is SnapshotOrigin.CLONE or 0 < layer.expires <= upto]
    return sorted(layer.number for layer in due if layer.number not in pins)


def plan_snapshot(names: Namespace, devices: Sequence[str], snapshot: str, taking: SnapshotTerms) -> bytes:
    """A snapshot of each of these devices, of one name, at one moment. AlreadyExists; Invalid: no such name may be."""
    check_snapshot_name(snapshot)
    inodes: dict[int, Inode] = {}
    for device in devices:
        own_name, inode = names.device(device)
        if any(layer.name == snapshot for layer in names.table.trunk(inode.layer)):
            raise AlreadyExists(f"there is a {own_name}@{snapshot} already")
        inodes[inode.number] = inode
    children = names.next_layers(len(inodes))
    return encode_edits(
        [taking.freeze(inode, child, snapshot) for inode, child in zip(inodes.values(), children, strict=True)]
    )


def plan_delete_snapshots(
    names: Namespace, numbers: Iterable[int], refuse: Callable[[int, str], None]
) -> tuple[bytes, list[int], dict[int, StorageError]]:
    """Snapshots go, but for those that are gone, that `refuse` raises Conflict for, told number and name, or that a
    device which is being filled goes back to if that is cut short. Gives the record, the heads above those that go, and
    why the others stay.
    """
    devices = {inode.layer: name for name, inode in names.devices()}
    heads = {number: trunk[-1] for trunk in names.table.trunks() for number in trunk[:-1]}
    bases = {layer.base for layer in names.layers().values()}
    going: list[Edit] = []
    above: dict[int, None] = {}
    stay: dict[int, StorageError] = {}
    for number in numbers:
        try:
            if number not in heads:
                raise NotFound("the snapshot was deleted meanwhile")
            refuse(number, f"{devices[heads[number]]}@{names.layers()[number].name}")
            if number in bases:
                raise Conflict("an import that is not done goes on from this snapshot: wait for its end to delete it")
        except (Conflict, NotFound) as error:
            stay[number] = error
        else:
            going.append(RemoveSnapshot(number))
            above[heads[number]] = None
    return encode_edits(going), list(above), stay


def plan_clone(names: Namespace, snapshot: int, new: str, now: float) -> bytes:
    """A new device that shows what a snapshot shows. AlreadyExists; Invalid: no such name may be."""
    (layer,) = names.next_layers(1)
    making: list[Edit] = [CloneLayer(snapshot, layer)]
    return plan_device(names, new, making, layer, now)


def temporary_name(names: Namespace, device: str, wanted: str) -> str:
    """A name for a snapshot that is to be deleted soon: `wanted`, or one like it. NotFound."""
    return _free_name(names, names.device(device)[1], wanted)


def plan_rollback(
    names: Namespace, device: str, snapshot: str, taking: SnapshotTerms, *, keep: bool
) -> tuple[bytes, str | None]:
    """A device shows what its snapshot shows. With `keep` what it showed becomes a snapshot. Gives the record and the
    name of that. NotFound.
    """
    _, inode = names.device(device)
    target = find_snapshot(names, device, snapshot)
    if not keep:
        (child,) = names.next_layers(1)
        return encode_edits([RollBackLayer(inode.number, target.number, child)]), None
    between, child = names.next_layers(2)
    name = _free_name(names, inode, "before-rollback")
    edits: list[Edit] = [
        taking.freeze(inode, between, name),
        RollBackLayer(inode.number, target.number, child),
    ]
    return encode_edits(edits), name


def _free_name(names: Namespace, inode: Inode, wanted: str) -> str:
    """A name that no snapshot of a device has."""
    taken = {layer.name for layer in names.table.trunk(inode.layer)}
    name, count = wanted, 1
    while name in taken:
        count += 1
        name = f"{wanted}-{count}"
    return name
