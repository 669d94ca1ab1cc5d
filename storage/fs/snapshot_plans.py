"""Snapshots of devices in the tree of names: what may be done with them, as records. No I/O.

As everything that changes the tree: a record is planned against the tree as it is, made durable, and applied.
"""

from collections.abc import Sequence

from storage.errors import AlreadyExists, NotFound
from storage.fs.inodes import (
    CloneLayer,
    Edit,
    FreezeLayer,
    Inode,
    LayerRecord,
    RemoveSnapshot,
    RollBackLayer,
    check_snapshot_name,
)
from storage.fs.namespace import Namespace
from storage.fs.records import encode_edits, nanoseconds


def split_snapshot(name: str) -> tuple[str, str]:
    """The device and the snapshot that `NAME@SNAPSHOT` means; the second is empty where there is no `@`."""
    device, _, snapshot = name.partition("@")
    return device, snapshot


def find_snapshot(names: Namespace, device: str, snapshot: str) -> LayerRecord:
    """A snapshot of a device. NotFound."""
    own_name, inode = names.device(device)
    for layer in names.table.trunk(inode.layer)[:-1]:
        if layer.name == snapshot:
            return layer
    raise NotFound(f"{own_name!r} has no snapshot named {snapshot!a}")


def plan_snapshot(names: Namespace, devices: Sequence[str], snapshot: str, now: float) -> bytes:
    """A snapshot of each of these devices, of one name, at one moment. AlreadyExists; Invalid: no such name may be."""
    check_snapshot_name(snapshot)
    inodes: dict[int, Inode] = {}
    for device in devices:
        own_name, inode = names.device(device)
        if any(layer.name == snapshot for layer in names.table.trunk(inode.layer)):
            raise AlreadyExists(f"there is a {own_name}@{snapshot} already")
        inodes[inode.number] = inode
    children = names.next_layers(len(inodes))
    stamp = nanoseconds(now)
    edits: list[Edit] = [
        FreezeLayer(number, child, snapshot, stamp) for number, child in zip(inodes, children, strict=True)
    ]
    return encode_edits(edits)


def plan_delete_snapshot(names: Namespace, device: str, snapshot: str) -> bytes:
    """A snapshot goes. NotFound."""
    return encode_edits([RemoveSnapshot(find_snapshot(names, device, snapshot).number)])


def plan_clone(names: Namespace, device: str, snapshot: str, new: str, now: float) -> bytes:
    """A new device that shows what a snapshot shows. NotFound, AlreadyExists."""
    (layer,) = names.next_layers(1)
    making: list[Edit] = [CloneLayer(find_snapshot(names, device, snapshot).number, layer)]
    return names.plan_device(new, making, layer, now)


def temporary_name(names: Namespace, device: str) -> str:
    """A name for a snapshot that is to be deleted soon. NotFound."""
    return _free_name(names, names.device(device)[1], "clone-under-way")


def plan_rollback(names: Namespace, device: str, snapshot: str, now: float, *, keep: bool) -> tuple[bytes, str | None]:
    """A device shows what its snapshot shows. With `keep` what it showed becomes an automatic snapshot. Gives the
    record and the name of that. NotFound.
    """
    _, inode = names.device(device)
    target = find_snapshot(names, device, snapshot)
    if not keep:
        (child,) = names.next_layers(1)
        return encode_edits([RollBackLayer(inode.number, target.number, child)]), None
    between, child = names.next_layers(2)
    name = _free_name(names, inode, "before-rollback")
    edits: list[Edit] = [
        FreezeLayer(inode.number, between, name, nanoseconds(now), automatic=True),
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
