"""A device: its head, the layer that is written to, seen as a disk of a certain size in bytes. Or a snapshot of it."""

from collections.abc import Callable

from storage.buffers import Buffer
from storage.errors import AccessDenied, Invalid
from storage.fs.devices.history import History
from storage.fs.metadata.inodes import LayerRow
from storage.fs.name_tree import NameTree
from storage.journal.journal import Journal
from storage.lsm.engine import Engine
from storage.lsm.layer import Layer
from storage.lsm.memtable.gate import Gate
from storage.lsm.read.assemble import Piece

UNFINISHED = "an import that is not done"
"""What has a device that is being filled, where nobody knows more of it."""


class Device:
    """One disk. Offsets and lengths are in bytes; who calls checks them against `size`, which a resize changes.

    The methods of the fast path are those of the layer itself: a cached read costs no call in between.
    """

    def __init__(
        self,
        layer: Layer,
        *,
        gate: Gate,
        journal: Journal,
        history: History,
        size: int,
        read_only: bool,
        identity: Callable[[], str],
        is_view: bool = False,
    ) -> None:
        self._layer = layer
        self._identity = identity
        self.size = size
        self.gate = gate
        self.journal = journal
        self.history = history
        self.read_only = read_only
        self.is_view = is_view
        """Whether somebody else writes the store, and its name may mean another disk, moment or snapshot by now."""
        self.exclusive_user: str | None = None
        """What has it for itself, such as "an import"; no client should get it meanwhile."""
        self.read_cached: Callable[[int, int], list[Piece] | None] = layer.read_cached
        self.read = layer.read
        self.extents = layer.extents
        self.prefetch = layer.prefetch
        self.want_durable = layer.queue.want_durable
        self.listen = layer.queue.listen
        self.unlisten = layer.queue.unlisten
        self.write: Callable[[int, Buffer], int] = _refuse if read_only else layer.write

    @classmethod
    def of(cls, engine: Engine, tree: NameTree, record: LayerRow, identity: Callable[[], str]) -> "Device":
        """A layer of an open store as a disk."""
        layer = engine.layers[record.number]
        device = cls(
            layer,
            gate=engine.writes.gate,
            journal=engine.journal,
            history=History(engine, tree, layer),
            size=record.size,
            read_only=engine.read_only or record.frozen,
            identity=identity,
            is_view=engine.read_only,
        )
        device.exclusive_user = UNFINISHED if record.filling else None
        return device

    @property
    def identity(self) -> str:
        """Which disk of its store this is, however it is named. Another one once what it shows was replaced by
        something else (it was rolled back, or cut off); nothing once it was deleted.
        """
        return self._identity()

    @property
    def last_sequence(self) -> int:
        """Sequence of the newest operation."""
        return self._layer.last_sequence

    def zero(self, offset: int, length: int, *, allocated: bool) -> int:
        """Discard a range, or (`allocated`) write zeroes that keep it allocated. Gives the sequence of the
        operation.
        """
        if self.read_only:
            _refuse(offset, b"")
        if length <= 0:
            raise Invalid("a range to zero must not be empty")
        return self._layer.zero(offset, length, allocated=allocated)

    def retire(self) -> None:
        """The device was deleted: who still holds it writes no more."""
        self.read_only = True
        self.write = _refuse


def _refuse(offset: int, data: Buffer) -> int:
    raise AccessDenied("this device is read-only, or was deleted")
