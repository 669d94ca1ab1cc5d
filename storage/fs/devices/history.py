"""The history of a device: its snapshots by name, and what changed since each."""

import asyncio

from storage.errors import NotFound
from storage.fs.devices.changes import Changes
from storage.fs.metadata.inodes import LayerRow
from storage.fs.name_tree import NameTree
from storage.lsm.engine import Engine
from storage.lsm.layer import Layer
from storage.units import MIB

COMPARED_BYTES = MIB
"""Compared between two turns of the event loop, of each of two layers: what is in memory meanwhile."""


class History:
    """The history of a device as one of its layers sees it: that of the device, or of one of its snapshots. Owned by
    the event loop.
    """

    def __init__(self, engine: Engine, tree: NameTree, layer: Layer) -> None:
        self._engine = engine
        self._tree = tree
        self._layer = layer

    def snapshots(self) -> list[str]:
        """The names of the device's snapshots, oldest first, without this one."""
        return [layer.name for layer in self._others()]

    def since(self, snapshot: str) -> Changes:
        """What may differ from that snapshot of the device, now and later. NotFound."""
        for layer in self._others():
            if layer.name == snapshot:
                return Changes(self._engine.layers, self._engine.forest, layer.number, self._layer)
        raise NotFound(f"there is no snapshot named {snapshot!a} of this device")

    async def equals(self, snapshot: LayerRow) -> bool:
        """Whether this is exactly what that snapshot of the device holds, and all of both can be read. What may differ
        is read. Corrupt, Unreadable.
        """
        layers, at = self._engine.layers, 0
        changes = Changes(layers, self._engine.forest, snapshot.number, self._layer)
        while at < snapshot.size:
            for length, changed in changes.extents(at, snapshot.size - at):
                end = at + length
                while changed and at < end:
                    step = min(COMPARED_BYTES, end - at)
                    one, other = await self._layer.read(at, step), await layers[snapshot.number].read(at, step)
                    if b"".join(map(bytes, one)) != b"".join(map(bytes, other)):
                        return False
                    at += step
                at = end
            await asyncio.sleep(0)
        return True

    def _others(self) -> list[LayerRow]:
        table, own = self._tree.namespace.table, self._layer.number
        if own not in table.layers:
            return []
        # Of a snapshot, whose the head is; not by way of all trunks, which may be of a thousand devices.
        head = own
        while table.layers[head].frozen:
            head = table.next_newer(head).number
        return [layer for layer in table.trunk(head)[:-1] if layer.number != own]
