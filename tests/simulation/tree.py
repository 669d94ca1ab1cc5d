"""The tree of names of a simulated store, as simple as it can be."""

import asyncio
from collections.abc import Callable
from dataclasses import replace
from typing import Any

from storage.format.trunks import CloneSnapshot, DropLayer, DropSnapshot, RollBack
from storage.fs.name_tree import NameTree
from storage.lsm.tree_state import TreeEffects
from tests.simulation.disk_history import Violation
from tests.simulation.names import CLONE_UNDER_WAY, ON_TRUNKS, Change, Devices, after
from tests.simulation.oracle import Session


class Tree(NameTree):
    """The tree of names, which tells its session of every change at the moment it is made."""

    def __init__(self) -> None:
        super().__init__()
        self.session: Session | None = None
        self.violate: Callable[[str], None]
        self.sequence: Callable[[], int]
        self.intents: dict[asyncio.Task[Any] | None, list[Change]] = {}
        """What the tasks that are changing the tree are about to do to it, in order."""
        self.positions: dict[asyncio.Task[Any] | None, int] = {}
        self.left: list[Change] = []
        """What is done to trunks though whoever asked for it has gone away."""

    def shape(self) -> Devices:
        namespace = self.namespace
        return {
            f"{name}@{layer.name}" if layer.frozen else name: (layer.number, layer.size)
            for name, inode in namespace.devices()
            for layer in namespace.table.trunk(inode.layer)
        }

    def apply(self, record: bytes) -> TreeEffects:
        filling = {layer.number for layer in self.namespace.layers().values() if layer.filling}
        effects = super().apply(record)
        if self.session is not None:
            task, change = self._who(effects, filling)
            try:
                if change is None:
                    raise Violation(f"the tree changes into {self.shape()}, and nobody asked for it")
                position = self.session.tree_changed(change, self.shape(), self.sequence())
                if change.verb == "rename":
                    self._follow(change)
                # A clone is there when it returns; the snapshot that it made on its way may go later.
                if change.verb != "forget" or task not in self.positions:
                    self.positions[task] = position
            except Violation as broken:
                self.violate(str(broken))
        return effects

    def _who(self, effects: TreeEffects, filling: set[int]) -> tuple[asyncio.Task[Any] | None, Change | None]:
        """Whose change it is, and what he meant: the task itself, or one that has a memtable flush do something to
        trunks, and perhaps did not wait for it.
        """
        task = asyncio.current_task()
        if intended := self.intents.get(task):
            if intended[0].verb == "fill" and intended[0].name not in self.shape():
                intended.pop(0)  # it was not filled to its end
            return task, intended.pop(0)
        shown = self.shape()
        # Two who roll a device back to different snapshots show the same names.
        origins = {one.snapshot for one in effects.operations if isinstance(one, CloneSnapshot | RollBack)}
        for other, intended in [*self.intents.items(), (None, self.left)]:
            for change in intended:
                if change.verb in ON_TRUNKS and self._makes(change, shown, origins):
                    intended.remove(change)
                    return other, change
        return None, self._cleared_away(effects, filling)

    def _follow(self, renamed: Change) -> None:
        """A clone that has its snapshot goes on from that, whatever its device is called by now."""
        old, new = (f"{name}@{CLONE_UNDER_WAY}" for name in (renamed.name, renamed.new))
        for intended in [*self.intents.values(), self.left]:
            if not any(change.new == CLONE_UNDER_WAY for change in intended):
                intended[:] = [replace(change, name=new) if change.name == old else change for change in intended]

    def _cleared_away(self, effects: TreeEffects, filling: set[int]) -> Change | None:
        """What is done without anybody's asking: what the making of clones has left is deleted, all of it together, and
        what was not filled to its end.
        """
        gone = {one.snapshot for one in effects.operations if isinstance(one, DropSnapshot)}
        dropped = {one.layer for one in effects.operations if isinstance(one, DropLayer)} & filling
        known = {} if self.session is None else self.session.devices[-1]
        left = [name for name, (layer, _) in known.items() if layer in gone and f"@{CLONE_UNDER_WAY}" in name]
        if left:
            return Change("forget", left[0], group=tuple(left[1:]))
        return next((Change("delete", name) for name, (layer, _) in known.items() if layer in dropped), None)

    def _makes(self, change: Change, shown: Devices, origins: set[int]) -> bool:
        known = {} if self.session is None else self.session.devices[-1]
        if origins and known.get(change.name, (0, 0))[0] not in origins:
            return False
        try:
            return self.session is not None and shown == after(
                self.session.devices[-1], change, shown, self.session.disks.keys()
            )
        except KeyError:
            return False  # of something that is not there
