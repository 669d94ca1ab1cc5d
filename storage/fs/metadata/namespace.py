"""The metadata tree: directories, device files, symbolic links, and how records change them. No I/O.

A `Namespace` is plain data in memory. What changes it is always one *record*, a batch of small edits:

    record = plan_create_device(tree, "vol1", size, now)   # checked against the tree as it is; changes nothing
    ...                                                    # the record is made durable in the log
    effects = tree.apply(record)                           # all of it or nothing; what the engine has to do

What may be done is planned in `device_plans`, `file_plans` and `snapshot_plans`.

`apply` is the same function for a live change and for replay, so a replayed tree equals the lived one, number
for number. A record fits only the tree it was planned on: between a plan and its `apply` no other record may
be applied. One that does not fit is Corrupt and changes nothing. `encode` writes the whole tree, for a
checkpoint.

Devices are the device files under `/.nbd/`, and their names are paths from there.
"""

import msgspec

from storage.errors import Conflict, Invalid, NotFound
from storage.fs.metadata.inode_table import ROOT, InodeTable
from storage.fs.metadata.inodes import (
    DEVICES,
    LAYERS_MAX,
    Edit,
    Effect,
    Image,
    Inode,
    InodeKind,
    LayerRow,
    Link,
    PutInode,
    ZeroRange,
    damaged,
    split_device_name,
)
from storage.fs.metadata.path_walk import Trail, walk
from storage.fs.metadata.records import TREE_VERSION, nanoseconds, new_inode, versioned_body

__all__ = ["Effect", "Inode", "InodeKind", "LayerRow", "Namespace", "ZeroRange"]


class Namespace:
    """The tree of names of one store, as plain data in memory."""

    def __init__(self, tree: InodeTable) -> None:
        self.table = tree
        """What there is; changed by `apply` only."""
        self._names: tuple[str, ...] | None = None

    @classmethod
    def empty(cls, now: float) -> "Namespace":
        """A new tree: the root and, in it, the directory of the devices."""
        tree = InodeTable()
        root, devices = (new_inode(number, InodeKind.DIRECTORY, 0o755, 0, 0, now) for number in (ROOT, ROOT + 1))
        tree.apply([PutInode(root), PutInode(devices), Link(ROOT, DEVICES, devices.number)])
        return cls(tree)

    def encode(self) -> bytes:
        """The whole tree: MessagePack `[version, [next_inode, next_layer, inodes, entries, layers]]`.

        Equal trees have equal bytes.
        """
        return msgspec.msgpack.encode((TREE_VERSION, self.table.image()))

    @classmethod
    def decode(cls, data: bytes) -> "Namespace":
        """The inverse of `encode`. Unsupported: a newer version. Corrupt: not a whole, valid tree."""
        try:
            return cls(InodeTable.from_image(msgspec.msgpack.decode(versioned_body(data), type=Image)))
        except msgspec.MsgspecError as error:
            raise damaged(str(error)) from error

    def check(self) -> None:
        """Raise Corrupt unless every invariant holds (listed at `InodeTable.check`)."""
        self.table.check()

    def apply(self, record: bytes) -> list[Effect]:
        """Apply one record, all or nothing, and return what the engine has to do to blocks.

        Corrupt: the record is not well-formed or does not fit this tree; nothing has changed.
        """
        try:
            edits = msgspec.msgpack.decode(versioned_body(record), type=list[Edit])
        except msgspec.MsgspecError as error:
            raise damaged(f"a record of it: {error}") from error
        effects = self.table.apply(edits)
        self._names = None
        return effects

    def names(self) -> tuple[str, ...]:
        """The names of all device files, in order; the same object until something changes."""
        if self._names is None:
            self._names = tuple(name for name, _ in self.devices())
        return self._names

    def devices(self) -> list[tuple[str, Inode]]:
        """All device files under `/.nbd/` with their names, in order of name."""
        found: list[tuple[str, Inode]] = []
        pending = [("", self.table.entries[ROOT][DEVICES])]
        while pending:
            prefix, directory = pending.pop()
            for name, number in self.table.entries[directory].items():
                inode = self.table.inodes[number]
                if inode.kind is InodeKind.DEVICE:
                    found.append((prefix + name, inode))
                elif inode.kind is InodeKind.DIRECTORY:
                    pending.append((f"{prefix}{name}/", number))
        return sorted(found, key=lambda item: item[0])

    def device(self, name: str) -> tuple[str, Inode]:
        """The device file that a name means, symbolic links followed, and its own name. NotFound if none."""
        try:
            split_device_name(name)
            trail = walk(self.table, f"/{DEVICES}/{name}")
        except (Invalid, NotFound):
            raise NotFound(f"there is no device named {name!a}") from None
        inode = self._at(trail)
        if inode.kind is not InodeKind.DEVICE:
            raise NotFound(f"{name!r} is not a device")
        below = [part for part, _ in trail[2:]] if trail[1][0] == DEVICES else []
        return "/".join(below) or name, inode

    def resolve(self, path: str) -> Inode:
        """What an absolute path leads to, symbolic links followed. NotFound; Invalid for a loop of links."""
        return self._at(walk(self.table, path))

    def size(self, inode: Inode) -> int:
        """Bytes: of a device its newest layer's size, of a symbolic link its text, of a directory nothing."""
        if inode.kind is InodeKind.DEVICE:
            return self.table.layers[inode.layer].size
        return len(inode.target.encode())

    def device_file(self, number: int) -> Inode:
        """The device file that is inode `number`, whatever it is called by now. NotFound: it is gone."""
        inode = self.table.inodes.get(number)
        if inode is None:
            raise NotFound("the device was deleted meanwhile")
        return inode

    def size_of(self, number: int) -> int | None:
        """Bytes of the device file that is inode `number`; None: it is gone."""
        inode = self.table.inodes.get(number)
        return None if inode is None else self.size(inode)

    def identity(self, number: int) -> str:
        """Which disk the device file that is inode `number` is; no two are ever the same. "": it is gone."""
        inode = self.table.inodes.get(number)
        return "" if inode is None else f"{number}.{inode.generation}"

    def layers(self) -> dict[int, LayerRow]:
        """The table of layers by number; not to be changed."""
        return self.table.layers

    def next_layers(self, count: int) -> list[int]:
        """The next free numbers of layers. Conflict: there are none left."""
        first = self.table.next_layer
        if first + count - 1 > LAYERS_MAX:
            raise Conflict("this store has given out all its layer numbers: copy the devices to a new store")
        return list(range(first, first + count))

    def touched(self, directory: int, now: float) -> PutInode:
        """What a directory's times become when a name in it came or went."""
        stamp = nanoseconds(now)
        return PutInode(msgspec.structs.replace(self.table.inodes[directory], mtime=stamp, ctime=stamp))

    def _at(self, trail: Trail) -> Inode:
        return self.table.inodes[trail[-1][1]]
