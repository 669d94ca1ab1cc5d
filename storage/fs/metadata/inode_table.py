"""The inode table: tables of inodes, names and layers, what an edit does, and what must hold. No I/O.

It guarantees that a batch of edits is applied wholly or not at all, and that numbers are handed out once. It
does not know device names, records or rules for users; those are in `namespace`.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, TypeVar

from msgspec.structs import replace

from storage.errors import Corrupt, Invalid
from storage.format.trunks import CloneSnapshot, DropLayer, DropSnapshot, FreezeHead, MakeLayer, Operation, RollBack
from storage.fs.metadata.inodes import (
    LAYERS_MAX,
    CloneLayer,
    Edit,
    Effect,
    FreezeLayer,
    Image,
    Inode,
    InodeKind,
    LayerRow,
    Link,
    NameEntry,
    PutInode,
    PutLayer,
    RemoveInode,
    RemoveLayer,
    RemoveSnapshot,
    RollBackLayer,
    TrunkEdit,
    Unlink,
    ZeroRange,
    check_attributes,
    check_component,
    check_size,
    check_snapshot,
    check_target,
    damaged,
)

K = TypeVar("K")
V = TypeVar("V")

ROOT = 1
"""The number of the root directory."""


@dataclass(slots=True)
class InodeTable:
    """Invariant: what `check` says; every public method leaves it true."""

    inodes: dict[int, Inode] = field(default_factory=dict)
    entries: dict[int, dict[str, int]] = field(default_factory=dict)
    parents: dict[int, int] = field(default_factory=dict)
    layers: dict[int, LayerRow] = field(default_factory=dict)
    next_inode: int = ROOT
    next_layer: int = 1
    _undo: list[tuple[dict[Any, Any], object, object]] = field(default_factory=list)
    _newer: dict[int, int] = field(default_factory=dict, compare=False)  # of a parent, who had it when that was asked

    @classmethod
    def from_image(cls, image: Image) -> "InodeTable":
        """The tree an image describes; Corrupt unless everything in it holds."""
        tree = cls(next_inode=image.next_inode, next_layer=image.next_layer)
        tree.inodes = {inode.number: inode for inode in image.inodes}
        tree.layers = {layer.number: layer for layer in image.layers}
        tree.entries = {inode.number: {} for inode in image.inodes if inode.kind is InodeKind.DIRECTORY}
        for entry in image.entries:
            if entry.directory not in tree.entries or entry.inode in tree.parents:
                raise damaged(f"inode {entry.inode} is linked twice, or in no directory")
            tree.entries[entry.directory][entry.name] = entry.inode
            tree.parents[entry.inode] = entry.directory
        if len(image.inodes) != len(tree.inodes) or len(image.layers) != len(tree.layers):
            raise damaged("a number is used twice")
        if len(image.entries) != sum(map(len, tree.entries.values())):
            raise damaged("a name is used twice")
        tree.check()
        return tree

    def image(self) -> Image:
        """The whole tree, as it is encoded."""
        return Image(
            self.next_inode,
            self.next_layer,
            [self.inodes[number] for number in sorted(self.inodes)],
            [
                NameEntry(directory, name, self.entries[directory][name])
                for directory in sorted(self.entries)
                for name in sorted(self.entries[directory])
            ],
            [self.layers[number] for number in sorted(self.layers)],
        )

    def apply(self, edits: Sequence[Edit]) -> list[Effect]:
        """Apply a batch, all or nothing. Corrupt: it was not made for this tree, and nothing has changed."""
        effects: list[Effect] = []
        counters = self.next_inode, self.next_layer
        self._undo = []
        try:
            for edit in edits:
                self._apply_one(edit, effects)
            self._check_batch(edits)
        except Corrupt:
            self.next_inode, self.next_layer = counters
            for table, key, old in reversed(self._undo):
                if old is None:
                    table.pop(key, None)
                else:
                    table[key] = old
            raise
        finally:
            self._undo = []
        return effects

    def _apply_one(self, edit: Edit, effects: list[Effect]) -> None:
        match edit:
            case PutInode(inode):
                self._put_inode(inode)
            case RemoveInode(number):
                if number not in self.inodes or number in self.parents or self.entries.get(number):
                    raise damaged(f"inode {number} cannot be removed")
                self._set(self.inodes, number, None)
                self._set(self.entries, number, None)
            case Link(directory, name, number):
                names = self.entries.get(directory)
                if names is None or name in names or number not in self.inodes or number in self.parents:
                    raise damaged(f"inode {number} cannot be linked as {name!r} in directory {directory}")
                self._check_name(name)
                self._set(names, name, number)
                self._set(self.parents, number, directory)
            case Unlink(directory, name):
                names = self.entries.get(directory)
                if names is None or name not in names:
                    raise damaged(f"there is no {name!r} in directory {directory}")
                self._set(self.parents, names[name], None)
                self._set(names, name, None)
            case PutLayer(layer):
                self._put_layer(layer, effects)
            case RemoveLayer(number):
                if number not in self.layers or self.layers[number].frozen or self.layers[number].parent:
                    raise damaged(f"there is no layer {number} without snapshots")
                self._set(self.layers, number, None)
                effects.append(DropLayer(number))
            case FreezeLayer() | CloneLayer() | RollBackLayer() | RemoveSnapshot():
                effects.append(self._on_trunk(edit))

    def _put_inode(self, inode: Inode) -> None:
        old = self.inodes.get(inode.number)
        if old is None:
            if inode.number != self.next_inode:
                raise damaged(f"inode {inode.number} is not the next one, {self.next_inode}")
            self.next_inode += 1
            if inode.kind is InodeKind.DIRECTORY:
                self._set(self.entries, inode.number, {})
        elif old.kind is not inode.kind or old.born != inode.born or inode.generation < old.generation:
            raise damaged(f"inode {inode.number} cannot become another thing")
        self._set(self.inodes, inode.number, inode)

    def _on_trunk(self, edit: TrunkEdit) -> Operation:
        """Do what concerns snapshots; gives what that means for blocks."""
        match edit:
            case FreezeLayer(number, child):
                inode, head = self._head(number)
                self._set(self.layers, head.number, edit.snapshot_of(head))
                self._new_layer(LayerRow(child, head.number, head.size, False))
                self._set(self.inodes, number, replace(inode, layer=child))
                return FreezeHead(head.number, child)
            case CloneLayer(number, layer):
                self._new_layer(LayerRow(layer, 0, self._snapshot(number).size, False))
                return CloneSnapshot(number, layer)
            case RollBackLayer(number, snapshot, child):
                inode, head = self._head(number)
                self._new_layer(LayerRow(child, head.parent, self._snapshot(snapshot).size, False))
                self._set(self.layers, head.number, None)
                self._set(self.inodes, number, replace(inode, layer=child, generation=inode.generation + 1))
                if snapshot not in (layer.number for layer in self.trunk(child)):
                    raise damaged(f"layer {snapshot} is no snapshot of inode {number}")
                return RollBack(snapshot, head.number, child)
            case RemoveSnapshot(number):
                gone = self._snapshot(number)
                newer = self.next_newer(number)
                self._set(self.layers, newer.number, replace(newer, parent=gone.parent))
                self._set(self.layers, number, None)
                self._newer[gone.parent] = newer.number
                return DropSnapshot(number)

    def _head(self, number: int) -> tuple[Inode, LayerRow]:
        """A device file and its layer."""
        inode = self.inodes.get(number)
        if inode is None or inode.kind is not InodeKind.DEVICE:
            raise damaged(f"inode {number} is no device file")
        return inode, self.layers[inode.layer]

    def _snapshot(self, number: int) -> LayerRow:
        if number not in self.layers or not self.layers[number].frozen:
            raise damaged(f"layer {number} is no snapshot")
        return self.layers[number]

    def next_newer(self, snapshot: int) -> LayerRow:
        """The layer whose parent it is; of many in a batch one alone has to look through all layers."""
        known = self.layers.get(self._newer.get(snapshot, 0))
        if known is None or known.parent != snapshot:
            self._newer = {layer.parent: layer.number for layer in self.layers.values()}
            known = self.layers[self._newer[snapshot]]
        return known

    def _new_layer(self, layer: LayerRow) -> None:
        if layer.number != self.next_layer:
            raise damaged(f"layer {layer.number} is not the next one, {self.next_layer}")
        self.next_layer += 1
        self._set(self.layers, layer.number, layer)

    def trunk(self, head: int) -> list[LayerRow]:
        """The layers of the device that is written to `head`: snapshots, oldest first, and that."""
        found = [self.layers[head]]
        while found[-1].parent:
            found.append(self.layers[found[-1].parent])
        return found[::-1]

    def trunks(self) -> list[list[int]]:
        """All layers, as `trunk` gives them, by head."""
        heads = sorted(layer.number for layer in self.layers.values() if not layer.frozen)
        return [[layer.number for layer in self.trunk(head)] for head in heads]

    def _put_layer(self, layer: LayerRow, effects: list[Effect]) -> None:
        old = self.layers.get(layer.number)
        if layer.frozen or layer.parent != (0 if old is None else old.parent) or (old is not None and old.frozen):
            raise damaged(f"layer {layer.number} cannot be changed so")
        if old is None:
            self._new_layer(layer)
            effects.append(MakeLayer(layer.number))
            return
        if layer.size < old.size:
            effects.append(ZeroRange(layer.number, layer.size, old.size - layer.size))
        self._set(self.layers, layer.number, layer)

    def _set(self, table: dict[K, V], key: K, value: V | None) -> None:
        """Put or remove, and remember how it was."""
        self._undo.append((table, key, table.get(key)))
        if value is None:
            table.pop(key, None)
        else:
            table[key] = value

    def _check_batch(self, edits: Sequence[Edit]) -> None:
        """What a batch touched is whole by itself; all of `check` would make a replay quadratic."""
        for edit in edits:
            match edit:
                case PutInode(Inode(number=number)) | Link(inode=number) if number in self.inodes:
                    self._check_inode(self.inodes[number])
                case PutLayer(LayerRow(number=number)) if number in self.layers:
                    self._check_layer(self.layers[number])
                case FreezeLayer(child=number) | CloneLayer(layer=number) | RollBackLayer(child=number):
                    for layer in self.trunk(number) if number in self.layers else ():
                        self._check_layer(layer)
                case Unlink() | RemoveInode() | RemoveLayer() | RemoveSnapshot():
                    pass
                case _:
                    raise damaged("a record removes what it makes")

    def check(self) -> None:
        """Raise Corrupt unless every invariant of the tree holds.

        The root is a directory; every other inode has exactly one name and hangs from the root; names, sizes
        and attributes are in range; a device file has one layer, present, not frozen and no other's; a parent
        is present, frozen and older than the child; no number is as high as the next one to be given.
        """
        root = self.inodes.get(ROOT)
        if root is None or root.kind is not InodeKind.DIRECTORY:
            raise damaged("it has no root directory")
        for inode in self.inodes.values():
            self._check_inode(inode)
        for layer in self.layers.values():
            self._check_layer(layer)
        for names in self.entries.values():
            for name, number in names.items():
                self._check_name(name)
                if number not in self.inodes:
                    raise damaged(f"{name!r} points to inode {number}, which is not there")
        self._check_linked()
        self._check_layer_use()

    def _check_inode(self, inode: Inode) -> None:
        if not 1 <= inode.number < self.next_inode:
            raise damaged(f"inode {inode.number} was never given out")
        if (inode.number in self.parents) == (inode.number == ROOT):
            raise damaged(f"inode {inode.number} has no name")
        try:
            check_attributes(inode)
            if inode.kind is InodeKind.SYMLINK:
                check_target(inode.target)
        except Invalid as error:
            raise damaged(f"inode {inode.number}: {error}") from error
        if inode.kind is not InodeKind.SYMLINK and inode.target:
            raise damaged(f"inode {inode.number} is no symbolic link but has a target")
        layer = self.layers.get(inode.layer)
        if inode.kind is InodeKind.DEVICE:
            if layer is None or layer.frozen:
                raise damaged(f"the device file {inode.number} has no layer to write to")
        elif inode.layer:
            raise damaged(f"inode {inode.number} is no device file but has a layer")

    def _check_name(self, name: str) -> None:
        try:
            check_component(name)
        except Invalid as error:
            raise damaged(str(error)) from error

    def _check_layer(self, layer: LayerRow) -> None:
        if not 1 <= layer.number < self.next_layer or layer.number > LAYERS_MAX:
            raise damaged(f"layer {layer.number} was never given out")
        if layer.parent:
            parent = self.layers.get(layer.parent)
            if parent is None or not parent.frozen or parent.number >= layer.number:
                raise damaged(f"layer {layer.number} has no frozen, older parent {layer.parent}")
        if layer.base and (layer.frozen or layer.base not in (older.number for older in self.trunk(layer.number))):
            raise damaged(f"layer {layer.number} goes on from {layer.base}, which is no snapshot of it")
        try:
            check_size(layer.size)
            if layer.frozen:
                check_snapshot(layer)
        except Invalid as error:
            raise damaged(f"layer {layer.number}: {error}") from error

    def _check_linked(self) -> None:
        """Every inode hangs from the root."""
        seen = {ROOT}
        pending = [ROOT]
        while pending:
            below = self.entries.get(pending.pop(), {}).values()
            seen.update(below)
            pending.extend(below)
        if len(seen) != len(self.inodes):
            raise damaged("an inode does not hang from the root")

    def _check_layer_use(self) -> None:
        """Every layer that is written to belongs to one device file, every snapshot to one trunk."""
        used = [inode.layer for inode in self.inodes.values() if inode.kind is InodeKind.DEVICE]
        open_layers = [layer.number for layer in self.layers.values() if not layer.frozen]
        if sorted(used) != sorted(open_layers):
            raise damaged("a layer belongs to no device file, or to two")
        parents = [layer.parent for layer in self.layers.values() if layer.parent]
        if sorted(parents) != sorted(layer.number for layer in self.layers.values() if layer.frozen):
            raise damaged("a snapshot belongs to no device file, or to two")
        names = [[self.layers[layer].name for layer in layers] for layers in self.trunks()]
        if any(len(set(trunk)) != len(trunk) for trunk in names):
            raise damaged("a device has two snapshots of one name")
