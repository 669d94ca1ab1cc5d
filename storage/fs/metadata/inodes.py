"""Inodes, layers, and the edits of one record, of which the metadata tree is made; the rules for names and sizes.

Everything here is immutable data that msgspec writes as MessagePack arrays, field after field in the order
below, so a reader needs no key names and a later version may add fields at the end. Times are integer
nanoseconds since 1970. A layer is what holds a device's blocks: a device file points to its newest one, and a
layer has at most one parent. Inodes and layers are numbered from 1, no number is used twice, and 0
means "none".
"""

from dataclasses import dataclass
from enum import IntEnum

import msgspec

from storage.errors import Corrupt, Invalid
from storage.format.trunks import Operation
from storage.units import KIB

NAME_BYTES_MAX = 255
"""Of one component, as in every Unix filesystem."""

PATH_BYTES_MAX = 4096
"""Of a whole device name: the longest string NBD lets a client send. Link targets share the limit."""

SIZE_STEP_BYTES = 512
"""Every client addresses a disk in sectors of at least 512 bytes."""

SIZE_BYTES_MAX = (2**32 - 1) * 256 * KIB
"""Block numbers are 32 bits and blocks 256 KiB: 1 PiB less one block."""

LAYERS_MAX = 2**32 - 1
"""Layer numbers are 32 bits in every block entry and are never reused."""

DEVICES = ".nbd"
"""The directory in the root whose device files are exported."""

SNAPSHOT_IDENTITY_BYTES = 16
"""Of the identity of a snapshot."""

LINKS_MAX = 40
"""Symbolic links followed in one look-up, as in Linux; a loop of them ends here."""

MODE_MAX = 0o7777
ID_MAX = 2**32 - 1


class InodeKind(IntEnum):
    """What an inode is."""

    DIRECTORY = 1
    DEVICE = 2
    SYMLINK = 3


class Inode(msgspec.Struct, frozen=True, array_like=True):
    """One node of the tree. `layer` is set for a device file, `target` for a symbolic link."""

    number: int
    kind: InodeKind
    mode: int
    uid: int
    gid: int
    atime: int
    mtime: int
    ctime: int
    born: int
    layer: int = 0
    target: str = ""
    generation: int = 0
    """Of a device file: how often what it shows was replaced by something else (rolled back), or cut off."""


class SnapshotOrigin(IntEnum):
    """Who wanted a snapshot."""

    ASKED = 0
    """Somebody asked for the snapshot, under its name."""
    ROLLBACK = 1
    """A rollback, which kept what it replaced."""
    CLONE = 2
    """The cloning of a device, or an import that replaces what it holds: it is deleted when that has ended, however it
    did."""
    SCHEDULE = 3
    """The schedule of a server, which deletes it when it is not kept any more."""


class LayerRow(msgspec.Struct, frozen=True, array_like=True):
    """One layer of blocks; `size` in bytes. A frozen layer is a snapshot: it never changes again."""

    number: int
    parent: int
    """The next older snapshot of the same device, 0 for none."""
    size: int
    frozen: bool
    name: str = ""
    """The name of a snapshot; devices have theirs in the tree of names."""
    born: int = 0
    """When it became a snapshot, in nanoseconds since 1970."""
    origin: SnapshotOrigin = SnapshotOrigin.ASKED
    identity: bytes = b""
    """What the content of a snapshot is known by: drawn when it is taken, and the same wherever that was brought to."""
    expires: int = 0
    """When a snapshot may be deleted, in nanoseconds since 1970; 0: when somebody asks for it."""
    filling: bool = False
    """It takes a whole content from somewhere, and has not all of it yet: if that is cut short, its device goes, or is
    rolled back to `base`."""
    base: int = 0
    """The snapshot that is filled up from; 0 for none."""


class NameEntry(msgspec.Struct, frozen=True, array_like=True):
    """A name in a directory."""

    directory: int
    name: str
    inode: int


class PutInode(msgspec.Struct, frozen=True, array_like=True, tag=1):
    """A new inode (its number is the next free one), or new attributes of one that exists."""

    inode: Inode


class RemoveInode(msgspec.Struct, frozen=True, array_like=True, tag=2):
    """An inode that no name points to any more goes."""

    number: int


class Link(msgspec.Struct, frozen=True, array_like=True, tag=3):
    """A free name now points to an inode that no other name points to."""

    directory: int
    name: str
    inode: int


class Unlink(msgspec.Struct, frozen=True, array_like=True, tag=4):
    """A name goes; its inode stays, to be linked elsewhere or removed by the same record."""

    directory: int
    name: str


class PutLayer(msgspec.Struct, frozen=True, array_like=True, tag=5):
    """A new layer (its number is the next free one), or a new size or frozen mark of one that exists."""

    layer: LayerRow


class RemoveLayer(msgspec.Struct, frozen=True, array_like=True, tag=6):
    """The row of a device's layer goes, which has no snapshots: those go by `RemoveSnapshot`. In the engine it is a
    `DropLayer`, with all its blocks."""

    number: int


class FreezeLayer(msgspec.Struct, frozen=True, array_like=True, tag=7):
    """The layer of a device file becomes a snapshot, and `child`, the next free number, takes its place."""

    inode: int
    child: int
    name: str
    born: int
    identity: bytes
    origin: SnapshotOrigin = SnapshotOrigin.ASKED
    expires: int = 0

    def snapshot_of(self, head: LayerRow) -> LayerRow:
        """What that layer becomes."""
        return LayerRow(
            number=head.number,
            parent=head.parent,
            size=head.size,
            frozen=True,
            name=self.name,
            born=self.born,
            origin=self.origin,
            identity=self.identity,
            expires=self.expires,
        )


class CloneLayer(msgspec.Struct, frozen=True, array_like=True, tag=8):
    """A new layer (its number is the next free one) that shows what a snapshot shows."""

    snapshot: int
    layer: int


class RollBackLayer(msgspec.Struct, frozen=True, array_like=True, tag=9):
    """The layer of a device file goes, and `child`, the next free number, takes its place: it shows what one of the
    device's snapshots shows, and has its size. The device file has its next generation.
    """

    inode: int
    snapshot: int
    child: int


class RemoveSnapshot(msgspec.Struct, frozen=True, array_like=True, tag=10):
    """The row of a snapshot goes; all other layers show what they showed. In the engine it is a `DropSnapshot`."""

    number: int


TrunkEdit = FreezeLayer | CloneLayer | RollBackLayer | RemoveSnapshot

Edit = PutInode | RemoveInode | Link | Unlink | PutLayer | RemoveLayer | TrunkEdit


@dataclass(frozen=True, slots=True)
class ZeroRange:
    """The bytes [offset, offset + length) of the layer are zeros from now on, also when it grows again."""

    layer: int
    offset: int
    length: int


Effect = Operation | ZeroRange


class Image(msgspec.Struct, frozen=True, array_like=True):
    """The whole tree as it is encoded: every list in ascending order, so equal trees have equal bytes."""

    next_inode: int
    next_layer: int
    inodes: list[Inode]
    entries: list[NameEntry]
    layers: list[LayerRow]


def damaged(detail: str) -> Corrupt:
    """The error for a tree, or a record of it, that cannot be right."""
    return Corrupt("the metadata tree", detail)


def check_component(name: str) -> None:
    """Raise Invalid unless `name` can stand in a directory: 1 to 255 bytes of UTF-8, no NUL or `/`, not `.` or `..`."""
    try:
        length = len(name.encode())
    except UnicodeEncodeError:
        raise Invalid(f"{name!a} is no name: names are UTF-8") from None
    if not 1 <= length <= NAME_BYTES_MAX:
        raise Invalid(f"{name[:80]!r} is no name: one to {NAME_BYTES_MAX} bytes are")
    if name in (".", "..") or "/" in name or "\0" in name:
        raise Invalid(f"{name!r} is no name: no '/', no NUL, not '.' or '..'")


def split_device_name(name: str) -> list[str]:
    """The components of a device name such as `vol1` or `tenant-a/vol1`; Invalid for anything else.

    `@` is refused, since `NAME@SNAPSHOT` means a snapshot.
    """
    parts = name.split("/")
    for part in parts:
        check_component(part)
    if "@" in name:
        raise Invalid(f"{name!r} is no device name: '@' separates a device from its snapshot")
    if len(name.encode()) > PATH_BYTES_MAX:
        raise Invalid(f"a device name has at most {PATH_BYTES_MAX} bytes")
    return parts


def check_snapshot_name(name: str) -> None:
    """Raise Invalid unless a snapshot may be called so: as a component of a path, without `@`."""
    check_component(name)
    if "@" in name:
        raise Invalid(f"{name!r} is no name of a snapshot: '@' separates it from its device")


def check_snapshot(layer: LayerRow) -> None:
    """Raise Invalid unless a frozen layer has what every snapshot has."""
    check_snapshot_name(layer.name)
    if len(layer.identity) != SNAPSHOT_IDENTITY_BYTES:
        raise Invalid(f"the identity of a snapshot has {SNAPSHOT_IDENTITY_BYTES} bytes, not {len(layer.identity)}")


def check_target(target: str) -> None:
    """Raise Invalid unless `target` can be the text of a symbolic link."""
    try:
        length = len(target.encode())
    except UnicodeEncodeError:
        raise Invalid(f"{target!a} is no link target: targets are UTF-8") from None
    if not 1 <= length <= PATH_BYTES_MAX or "\0" in target:
        raise Invalid(f"a link target is 1 to {PATH_BYTES_MAX} bytes without NUL")


def check_size(size: int) -> None:
    """Raise Invalid unless a device may have `size` bytes."""
    if not SIZE_STEP_BYTES <= size <= SIZE_BYTES_MAX:
        raise Invalid(
            f"a device has {SIZE_STEP_BYTES} bytes to {SIZE_BYTES_MAX} bytes (1 PiB less a block), not {size}"
        )
    if size % SIZE_STEP_BYTES:
        raise Invalid(f"the size of a device is a multiple of {SIZE_STEP_BYTES} bytes; {size} is not")


def check_attributes(inode: Inode) -> None:
    """Raise Invalid unless mode, owner, group and times are in range."""
    if not 0 <= inode.mode <= MODE_MAX:
        raise Invalid(f"{inode.mode:o} is no mode: it has four octal digits")
    if not (0 <= inode.uid <= ID_MAX and 0 <= inode.gid <= ID_MAX):
        raise Invalid(f"user and group ids are 0 to {ID_MAX}")
    if not all(-(2**63) <= time < 2**63 for time in (inode.atime, inode.mtime, inode.ctime, inode.born)):
        raise Invalid("a time does not fit in 64 bits of nanoseconds")
