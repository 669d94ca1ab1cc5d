"""Directories, symbolic links and attributes in the tree of names: what may be done with them, as records. No I/O.

As everything that changes the tree: a record is planned against the tree as it is, made durable, and applied. Paths are
absolute; times are seconds since 1970.
"""

import msgspec

from storage.errors import AlreadyExists, Conflict, Invalid
from storage.fs.metadata.inode_table import ROOT
from storage.fs.metadata.inodes import (
    DEVICES,
    Edit,
    InodeKind,
    Link,
    PutInode,
    RemoveInode,
    Unlink,
    check_attributes,
    check_component,
    check_target,
    split_device_name,
)
from storage.fs.metadata.namespace import Namespace
from storage.fs.metadata.path_walk import Trail, walk
from storage.fs.metadata.records import encode_edits, nanoseconds, new_inode


def plan_mkdir(names: Namespace, path: str, now: float) -> bytes:
    """A new, empty directory."""
    directory, last = _free_path(names, path)
    number = names.table.next_inode
    inode = new_inode(number, InodeKind.DIRECTORY, 0o755, 0, 0, now)
    return encode_edits([PutInode(inode), Link(directory, last, number), names.touched(directory, now)])


def plan_symlink(names: Namespace, path: str, target: str, now: float) -> bytes:
    """A new symbolic link; what it points to need not be there."""
    check_target(target)
    directory, last = _free_path(names, path)
    number = names.table.next_inode
    inode = new_inode(number, InodeKind.SYMLINK, 0o777, 0, 0, now, target=target)
    return encode_edits([PutInode(inode), Link(directory, last, number), names.touched(directory, now)])


def plan_remove(names: Namespace, path: str, now: float) -> bytes:
    """A symbolic link or an empty directory goes; a device is Conflict."""
    trail = walk(names.table, path, follow=False)
    inode = names.table.inodes[trail[-1][1]]
    if inode.kind is InodeKind.DEVICE:
        raise Conflict(f"{path!r} is a device: delete it as one")
    if names.table.entries.get(inode.number):
        raise Conflict(f"the directory {path!r} is not empty")
    _refuse_fixed(trail, path, "removed")
    directory, name = trail[-2][1], trail[-1][0]
    return encode_edits([Unlink(directory, name), RemoveInode(inode.number), names.touched(directory, now)])


def plan_move(names: Namespace, old: str, new: str, now: float) -> bytes:
    """Another path for a symbolic link, or for a directory in which no devices are. Conflict: there are, or it would
    lie in itself.
    """
    trail = walk(names.table, old, follow=False)
    inode = names.table.inodes[trail[-1][1]]
    _refuse_fixed(trail, old, "moved")
    if inode.kind is InodeKind.DEVICE or _has_devices(names, inode.number):
        raise Conflict(
            f"{old!r} is a device, or devices are in it: rename those, since clients know them by their names"
        )
    directory, last = _free_path(names, new)
    above = walk(names.table, new.rstrip("/").rpartition("/")[0])
    if any(number == inode.number for _, number in above):
        raise Conflict(f"{old!r} cannot be moved into itself")
    before, name = trail[-2][1], trail[-1][0]
    edits: list[Edit] = [
        Unlink(before, name),
        Link(directory, last, inode.number),
        PutInode(msgspec.structs.replace(inode, ctime=nanoseconds(now))),
    ]
    return encode_edits([*edits, *(names.touched(number, now) for number in sorted({before, directory}))])


def plan_attributes(
    names: Namespace,
    path: str,
    now: float,
    *,
    mode: int | None = None,
    uid: int | None = None,
    gid: int | None = None,
) -> bytes:
    """New permission bits, owner or group; what is None stays as it is."""
    inode = names.table.inodes[walk(names.table, path)[-1][1]]
    changed = msgspec.structs.replace(
        inode,
        mode=inode.mode if mode is None else mode,
        uid=inode.uid if uid is None else uid,
        gid=inode.gid if gid is None else gid,
        ctime=nanoseconds(now),
    )
    check_attributes(changed)
    return encode_edits([PutInode(changed)])


def _refuse_fixed(trail: Trail, path: str, done: str) -> None:
    """The root, and the directory of the devices, are always there."""
    if len(trail) == 1 or (trail[-2][1] == ROOT and trail[-1][0] == DEVICES):
        raise Conflict(f"{path!r} cannot be {done}")


def _has_devices(names: Namespace, directory: int) -> bool:
    pending = [directory]
    while pending:
        for number in names.table.entries.get(pending.pop(), {}).values():
            if names.table.inodes[number].kind is InodeKind.DEVICE:
                return True
            pending.append(number)
    return False


def _free_path(names: Namespace, path: str) -> tuple[int, str]:
    """The directory and the last component of an absolute path at which there is nothing yet."""
    if not path.startswith("/"):
        raise Invalid(f"{path!r} is no absolute path")
    above, _, last = path.rstrip("/").rpartition("/")
    check_component(last)
    trail = walk(names.table, above)
    entries = names.table.entries.get(trail[-1][1])
    if entries is None:
        raise Conflict(f"{above!r} is not a directory")
    if last in entries:
        raise AlreadyExists(f"there is a {path!r} already")
    if len(trail) > 1 and trail[1][0] == DEVICES:
        split_device_name("/".join([*(part for part, _ in trail[2:]), last]))
    return trail[-1][1], last
