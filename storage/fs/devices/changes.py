"""Changes of a layer since a snapshot of the same device: what may differ between the two."""

from collections import Counter
from collections.abc import Mapping

from storage.errors import NotFound
from storage.lsm.index.forest import Forest
from storage.lsm.layer import Layer
from storage.lsm.read.changed import Runs, changed

CHANGED = 1
"""The flag of a range that may differ: bit 0, as in QEMU's dirty bitmaps."""


class Changes:
    """The changes of one layer since a snapshot, which stays the one meant though its name may go to another. Owned by
    the event loop.
    """

    def __init__(self, layers: Mapping[int, Layer], forest: Forest, snapshot: int, layer: Layer) -> None:
        """`layer` may become a newer one meanwhile: then it is that which is compared. `layers` are all that live."""
        self._layers = layers
        self._forest = forest
        self._snapshot = snapshot
        self._layer = layer

    def extents(self, offset: int, length: int) -> list[tuple[int, int]]:
        """(bytes, CHANGED or 0) from `offset` on, for the range or the beginning of it; never nothing. Never less than
        what differs. NotFound: the snapshot was deleted.
        """
        return [(size, CHANGED if differs else 0) for size, differs in self._runs(offset, length)]

    def _runs(self, offset: int, length: int) -> Runs:
        older = self._layers.get(self._snapshot)
        if older is None:
            raise NotFound("the snapshot that changes were asked for was deleted: ask for those since another one")
        forest, layer = self._forest, self._layer
        trunk = forest.trunk(self._snapshot) if self._snapshot in forest else None
        if trunk is None:
            return [(length, True)]
        if layer.number in trunk.layers:
            high = trunk.layers.index(layer.number)
        elif layer.index is trunk.flat:
            high = len(trunk.deltas)  # a newer snapshot is being taken: what it will keep lies in memory
        else:
            return [(length, True)]
        low, high = sorted((trunk.layers.index(self._snapshot), high))
        # What both show, of a snapshot that is being taken, lies over the same.
        shown = Counter(map(id, [*older.memtables, *layer.memtables]))
        tables = [table for table in [*older.memtables, *layer.memtables] if shown[id(table)] == 1]
        return changed(trunk, low, high, tables, offset, length)
