"""The metadata tree: directories, device files, symbolic links, and what may be done to them. No I/O.

A `Namespace` is plain data in memory. What changes it is always one *record*, a batch of small edits:

    record = tree.plan_create_device("vol1", size, now)   # checked against the tree as it is; changes nothing
    ...                                                   # the record is made durable in the log
    effects = tree.apply(record)                          # all of it or nothing; what the engine has to do

`apply` is the same function for a live change and for replay, so a replayed tree equals the lived one, number
for number. A record fits only the tree it was planned on: between a plan and its `apply` no other record may
be applied. One that does not fit is Corrupt and changes nothing. `encode` writes the whole tree, for a
checkpoint.

Devices are the device files under `/.nbd/`, and their names are paths from there. Making a device makes the
directories of its name, and when the last name in such a directory goes, it goes too: who knows only names
with slashes never has to meet a directory. Times are given in seconds since 1970 and kept in nanoseconds.
"""

import msgspec

from storage.errors import AlreadyExists, Conflict, Invalid, NotFound
from storage.fs.inode_table import ROOT, Effect, InodeTable, ZeroRange
from storage.fs.inodes import (
    DEVICES,
    LAYERS_MAX,
    Edit,
    Image,
    Inode,
    InodeKind,
    LayerRow,
    Link,
    PutInode,
    PutLayer,
    RemoveInode,
    RemoveLayer,
    Unlink,
    check_component,
    check_size,
    damaged,
    split_device_name,
)
from storage.fs.path_walk import Trail, walk
from storage.fs.records import TREE_VERSION, encode_edits, nanoseconds, new_inode, versioned_body

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

    def plan_create_device(
        self,
        name: str,
        size: int,
        now: float,
        *,
        mode: int = 0o600,
        uid: int = 0,
        gid: int = 0,
        filling: bool = False,
    ) -> bytes:
        """A new device of `size` bytes that reads as zeros, and the directories of its name."""
        check_size(size)
        (layer,) = self.next_layers(1)
        make = PutLayer(LayerRow(number=layer, parent=0, size=size, frozen=False, filling=filling))
        return self.plan_device(name, [make], layer, now, mode=mode, uid=uid, gid=gid)

    def plan_device(
        self, name: str, making: list[Edit], layer: int, now: float, *, mode: int = 0o600, uid: int = 0, gid: int = 0
    ) -> bytes:
        """A new device of a layer that `making` makes."""
        edits: list[Edit] = []
        directory, last = self._make_way(split_device_name(name), now, edits)
        number = self._next_inode(edits)
        inode = new_inode(number, InodeKind.DEVICE, mode, uid, gid, now, layer=layer)
        return encode_edits([*edits, *making, PutInode(inode), Link(directory, last, number)])

    def plan_rename(self, old: str, new: str, now: float) -> bytes:
        """Another name for a device; it keeps its inode and its blocks."""
        trail = self._own_device(old)
        edits: list[Edit] = []
        directory, last = self._make_way(split_device_name(new), now, edits)
        name, number = trail[-1]
        edits.append(PutInode(msgspec.structs.replace(self._at(trail), ctime=nanoseconds(now))))
        edits.append(Unlink(trail[-2][1], name))
        edits.append(Link(directory, last, number))
        return encode_edits(edits + self._leave(trail, now, kept={e.directory for e in edits if isinstance(e, Link)}))

    def plan_delete(self, name: str, now: float) -> bytes:
        """The device, its layer and its blocks go."""
        trail = self._own_device(name)
        inode = self._at(trail)
        if len(snapshots := self.table.trunk(inode.layer)[:-1]):
            raise Conflict(f"{name!r} has {len(snapshots)} snapshots: delete those first")
        edits: list[Edit] = [
            Unlink(trail[-2][1], trail[-1][0]),
            RemoveInode(inode.number),
            RemoveLayer(inode.layer),
        ]
        return encode_edits(edits + self._leave(trail, now, kept=set()))

    def plan_resize(self, name: str, size: int, now: float, *, shrink: bool = False) -> bytes:
        """Another size for a device. Conflict for a smaller one unless `shrink`; what that cuts is zeroed."""
        check_size(size)
        name, inode = self.device(name)
        layer = self.table.layers[inode.layer]
        if size < layer.size and not shrink:
            raise Conflict(f"{name!r} has {layer.size} bytes: making it smaller cuts data off and needs --shrink")
        stamp, generation = nanoseconds(now), inode.generation + (size < layer.size)
        return encode_edits(
            [
                PutLayer(msgspec.structs.replace(layer, size=size)),
                PutInode(msgspec.structs.replace(inode, mtime=stamp, ctime=stamp, generation=generation)),
            ]
        )

    def free_name(self, path: str) -> tuple[int, str]:
        """The directory and the last component of an absolute path at which there is nothing yet."""
        if not path.startswith("/"):
            raise Invalid(f"{path!r} is no absolute path")
        above, _, last = path.rstrip("/").rpartition("/")
        check_component(last)
        trail = walk(self.table, above)
        names = self.table.entries.get(trail[-1][1])
        if names is None:
            raise Conflict(f"{above!r} is not a directory")
        if last in names:
            raise AlreadyExists(f"there is a {path!r} already")
        if len(trail) > 1 and trail[1][0] == DEVICES:
            split_device_name("/".join([*(part for part, _ in trail[2:]), last]))
        return trail[-1][1], last

    def touched(self, directory: int, now: float) -> PutInode:
        """What a directory's times become when a name in it came or went."""
        stamp = nanoseconds(now)
        return PutInode(msgspec.structs.replace(self.table.inodes[directory], mtime=stamp, ctime=stamp))

    def _at(self, trail: Trail) -> Inode:
        return self.table.inodes[trail[-1][1]]

    def _own_device(self, name: str) -> Trail:
        """Where a device file itself lies. Conflict for a link: its target was not meant."""
        _, inode = self.device(name)
        trail = walk(self.table, f"/{DEVICES}/{name}", follow=False)
        if self._at(trail).number != inode.number:
            raise Conflict(f"{name!r} is a symbolic link: name the device itself")
        return trail

    def _make_way(self, parts: list[str], now: float, edits: list[Edit]) -> tuple[int, str]:
        """The directory of a new device name, which `edits` make where it is missing, and the last part."""
        directory = self.table.entries[ROOT][DEVICES]
        *above, last = parts
        for index, part in enumerate(above):
            names = self.table.entries.get(directory, {})
            if part in names:
                path = "/".join(parts[: index + 1])
                try:
                    inode = self.resolve(f"/{DEVICES}/{path}")
                except NotFound:
                    raise Conflict(f"{path!r} is a symbolic link that leads nowhere") from None
                if inode.kind is not InodeKind.DIRECTORY:
                    raise Conflict(f"{path!r} is a device, so no name can begin with it and a '/'")
                directory = inode.number
                continue
            number = self._next_inode(edits)
            made = new_inode(number, InodeKind.DIRECTORY, 0o755, 0, 0, now)
            edits += [PutInode(made), Link(directory, part, number)]
            if directory in self.table.inodes:
                edits.append(self.touched(directory, now))
            directory = number
        taken = self.table.entries.get(directory, {}).get(last)
        if taken is not None:
            if self.table.inodes[taken].kind is InodeKind.DIRECTORY:
                raise AlreadyExists(f"names begin with {'/'.join(parts) + '/'!r} already")
            raise AlreadyExists(f"there is a {'/'.join(parts)!r} already")
        if directory in self.table.inodes:
            edits.append(self.touched(directory, now))
        return directory, last

    def _leave(self, trail: Trail, now: float, *, kept: set[int]) -> list[Edit]:
        """What follows when a device's name goes: directories under `/.nbd/` that are empty now go too."""
        edits: list[Edit] = []
        gone = trail[-1][0]
        depth = len(trail) - 2
        while depth >= 2 and trail[1][0] == DEVICES:
            name, directory = trail[depth]
            if directory in kept or set(self.table.entries[directory]) != {gone}:
                break
            edits += [Unlink(trail[depth - 1][1], name), RemoveInode(directory)]
            gone = name
            depth -= 1
        return [*edits, self.touched(trail[depth][1], now)]

    def _next_inode(self, edits: list[Edit]) -> int:
        """The number after those that `edits` give out already."""
        numbers = [edit.inode.number for edit in edits if isinstance(edit, PutInode)]
        return max([self.table.next_inode, *(number + 1 for number in numbers)])
