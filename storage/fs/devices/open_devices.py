"""Devices that somebody has: one object for each, by whichever name it was asked for, and what they keep others from.

As long as anybody has a device, it is the same object to all, so that whoever changes its size or retires it reaches
every client. Who holds one, or is attached to it, has it neither deleted, renamed nor made smaller meanwhile.
"""

from __future__ import annotations

from collections.abc import Callable, Collection
from functools import partial
from weakref import WeakValueDictionary

from storage.errors import Conflict, NotFound
from storage.fs.devices.device import Device
from storage.fs.metadata.inodes import Inode
from storage.fs.metadata.snapshot_plans import find_snapshot, split_snapshot
from storage.fs.name_tree import NameTree
from storage.lsm.engine import Engine


class OpenDevices:
    """The devices and snapshots of one store that are in use."""

    def __init__(self, engine: Engine, tree: NameTree) -> None:
        self.clients_of: Callable[[str], list[str]] = lambda name: []
        """What the clients that are attached to a device are called; set by the server."""
        self._engine = engine
        self._tree = tree
        self._devices: WeakValueDictionary[str, Device] = WeakValueDictionary()
        """As long as anybody has one."""

    def device(self, name: str) -> Device:
        """A device or, `NAME@SNAPSHOT`, a snapshot; no name means the only device. Links are followed. NotFound."""
        name, snapshot = split_snapshot(name)
        if not name:
            names = self._tree.namespace.names()
            if len(names) != 1:
                raise NotFound(f"there are {len(names)} devices, so a name is needed")
            name = names[0]
        inode = self._tree.namespace.device(name)[1]
        record, key = self._tree.namespace.layers()[inode.layer], f"inode {inode.number}"
        identity = partial(self._engine.identity, partial(self._tree.namespace.identity, inode.number))
        if snapshot:
            record = find_snapshot(self._tree.namespace, name, snapshot)
            key = f"layer {record.number}"
            identity = partial("@{}".format, record.number)  # nothing it shows is ever replaced
        device = self._devices.get(key)
        if device is None:
            device = self._devices[key] = Device.of(self._engine, self._tree, record, identity)
        return device

    def has(self, devices: Collection[object]) -> bool:
        """Whether one of these devices is one of its own."""
        return any(device in devices for device in self._devices.values())

    def retire(self, inode: Inode) -> None:
        """The device goes: whoever has it can do nothing more with it."""
        device = self._devices.pop(f"inode {inode.number}", None)
        if device is not None:
            device.retire()

    def refuse_exclusive(self, name: str, action: str) -> None:
        """Raise Conflict if somebody holds the device; `action` is what refusals say cannot be done."""
        user = self.device(name).exclusive_user
        if user is not None:
            raise Conflict(f"{name!r} is in use by {user}: wait for its end to {action}")

    def refuse_in_use(self, name: str, action: str) -> None:
        """Raise Conflict if somebody holds the device, or clients are attached to it."""
        self.refuse_exclusive(name, action)
        clients = self.clients_of(name)
        if clients:
            others = f" and {len(clients) - 1} more" if len(clients) > 1 else ""
            raise Conflict(f"{name!r} is attached by {clients[0]}{others}: detach first to {action}")
