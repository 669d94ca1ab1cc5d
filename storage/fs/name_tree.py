"""The tree of names as the engine wants it: an image, records to apply, and what they do to layers."""

from collections.abc import Iterable

from storage.fs.metadata.inodes import ZeroRange
from storage.fs.metadata.namespace import Namespace
from storage.lsm.tree_state import TreeEffects


class NameTree:
    """The tree of names as the engine wants it: a `storage.lsm.tree_state.TreeState`.

    Until a checkpoint holds it, every process that opens the store begins with an empty tree of its own and applies
    the log to that: it must be the same for all of them, so its directories are as old as the clock.
    """

    def __init__(self) -> None:
        self.namespace = Namespace.empty(0.0)

    def load(self, image: bytes) -> None:
        self.namespace = Namespace.decode(image)

    def encode(self) -> bytes:
        return self.namespace.encode()

    def apply(self, record: bytes) -> TreeEffects:
        effects = TreeEffects()
        for effect in self.namespace.apply(record):
            if isinstance(effect, ZeroRange):
                effects.zeroed.append((effect.layer, effect.offset, effect.length))
            else:
                effects.operations.append(effect)
        return effects

    def trunks(self) -> Iterable[list[int]]:
        return self.namespace.table.trunks()
