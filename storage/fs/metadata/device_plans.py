"""Devices in the tree of names: what may be done with them, as records. No I/O.

As everything that changes the tree: a record is planned against the tree as it is, made durable, and applied. Making a
device makes the directories of its name, and when the last name in such a directory goes, it goes too: who knows only
names with slashes never has to meet a directory. Times are seconds since 1970.
"""

import msgspec

from storage.errors import AlreadyExists, Conflict, NotFound
from storage.fs.metadata.inode_table import ROOT
from storage.fs.metadata.inodes import (
    DEVICES,
    Edit,
    Inode,
    InodeKind,
    LayerRow,
    Link,
    PutInode,
    PutLayer,
    RemoveInode,
    RemoveLayer,
    Unlink,
    check_size,
    split_device_name,
)
from storage.fs.metadata.namespace import Namespace
from storage.fs.metadata.path_walk import Trail, walk
from storage.fs.metadata.records import encode_edits, nanoseconds, new_inode


def plan_create_device(names: Namespace, name: str, size: int, now: float, *, filling: bool = False) -> bytes:
    """A new device of `size` bytes that reads as zeros, and the directories of its name."""
    check_size(size)
    (layer,) = names.next_layers(1)
    make = PutLayer(LayerRow(number=layer, parent=0, size=size, frozen=False, filling=filling))
    return plan_device(names, name, [make], layer, now)


def plan_device(names: Namespace, name: str, making: list[Edit], layer: int, now: float) -> bytes:
    """A new device of a layer that `making` makes."""
    edits: list[Edit] = []
    directory, last = _make_way(names, split_device_name(name), now, edits)
    number = _next_inode(names, edits)
    inode = new_inode(number, InodeKind.DEVICE, 0o600, 0, 0, now, layer=layer)
    return encode_edits([*edits, *making, PutInode(inode), Link(directory, last, number)])


def plan_rename_device(names: Namespace, old: str, new: str, now: float) -> bytes:
    """Another name for a device; it keeps its inode and its blocks."""
    trail = _own_device(names, old)
    edits: list[Edit] = []
    directory, last = _make_way(names, split_device_name(new), now, edits)
    name, number = trail[-1]
    edits.append(PutInode(msgspec.structs.replace(_at(names, trail), ctime=nanoseconds(now))))
    edits.append(Unlink(trail[-2][1], name))
    edits.append(Link(directory, last, number))
    return encode_edits(edits + _leave(names, trail, now, staying={e.directory for e in edits if isinstance(e, Link)}))


def plan_delete_device(names: Namespace, name: str, now: float) -> bytes:
    """The device, its layer and its blocks go."""
    trail = _own_device(names, name)
    inode = _at(names, trail)
    if len(snapshots := names.table.trunk(inode.layer)[:-1]):
        raise Conflict(f"{name!r} has {len(snapshots)} snapshots: delete those first")
    edits: list[Edit] = [
        Unlink(trail[-2][1], trail[-1][0]),
        RemoveInode(inode.number),
        RemoveLayer(inode.layer),
    ]
    return encode_edits(edits + _leave(names, trail, now, staying=set()))


def plan_resize_device(names: Namespace, name: str, size: int, now: float, *, shrink: bool = False) -> bytes:
    """Another size for a device. Conflict for a smaller one unless `shrink`; what that cuts is zeroed."""
    check_size(size)
    name, inode = names.device(name)
    layer = names.table.layers[inode.layer]
    if size < layer.size and not shrink:
        raise Conflict(f"{name!r} has {layer.size} bytes: making it smaller cuts data off and needs --shrink")
    stamp, generation = nanoseconds(now), inode.generation + (size < layer.size)
    return encode_edits(
        [
            PutLayer(msgspec.structs.replace(layer, size=size)),
            PutInode(msgspec.structs.replace(inode, mtime=stamp, ctime=stamp, generation=generation)),
        ]
    )


def _own_device(names: Namespace, name: str) -> Trail:
    """Where a device file itself lies. Conflict for a link: its target was not meant."""
    _, inode = names.device(name)
    trail = walk(names.table, f"/{DEVICES}/{name}", follow=False)
    if _at(names, trail).number != inode.number:
        raise Conflict(f"{name!r} is a symbolic link: name the device itself")
    return trail


def _make_way(names: Namespace, parts: list[str], now: float, edits: list[Edit]) -> tuple[int, str]:
    """The directory of a new device name, which `edits` make where it is missing, and the last part."""
    directory = names.table.entries[ROOT][DEVICES]
    *above, last = parts
    for index, part in enumerate(above):
        entries = names.table.entries.get(directory, {})
        if part in entries:
            path = "/".join(parts[: index + 1])
            try:
                inode = names.resolve(f"/{DEVICES}/{path}")
            except NotFound:
                raise Conflict(f"{path!r} is a symbolic link that leads nowhere") from None
            if inode.kind is not InodeKind.DIRECTORY:
                raise Conflict(f"{path!r} is a device, so no name can begin with it and a '/'")
            directory = inode.number
            continue
        number = _next_inode(names, edits)
        made = new_inode(number, InodeKind.DIRECTORY, 0o755, 0, 0, now)
        edits += [PutInode(made), Link(directory, part, number)]
        if directory in names.table.inodes:
            edits.append(names.touched(directory, now))
        directory = number
    taken = names.table.entries.get(directory, {}).get(last)
    if taken is not None:
        if names.table.inodes[taken].kind is InodeKind.DIRECTORY:
            raise AlreadyExists(f"names begin with {'/'.join(parts) + '/'!r} already")
        raise AlreadyExists(f"there is a {'/'.join(parts)!r} already")
    if directory in names.table.inodes:
        edits.append(names.touched(directory, now))
    return directory, last


def _leave(names: Namespace, trail: Trail, now: float, *, staying: set[int]) -> list[Edit]:
    """What follows when a device's name goes: directories under `/.nbd/` that are empty now go too."""
    edits: list[Edit] = []
    gone = trail[-1][0]
    depth = len(trail) - 2
    while depth >= 2 and trail[1][0] == DEVICES:
        name, directory = trail[depth]
        if directory in staying or set(names.table.entries[directory]) != {gone}:
            break
        edits += [Unlink(trail[depth - 1][1], name), RemoveInode(directory)]
        gone = name
        depth -= 1
    return [*edits, names.touched(trail[depth][1], now)]


def _next_inode(names: Namespace, edits: list[Edit]) -> int:
    """The number after those that `edits` give out already."""
    numbers = [edit.inode.number for edit in edits if isinstance(edit, PutInode)]
    return max([names.table.next_inode, *(number + 1 for number in numbers)])


def _at(names: Namespace, trail: Trail) -> Inode:
    return names.table.inodes[trail[-1][1]]
