"""The tree of names as the engine needs it: opaque state, changed by opaque records.

A record is logged like a write. Applied live and in replay by the same call, it may say that blocks of a layer are
zeroed, or that something is done to trunks of layers; the engine does that in the same step, so no crash can fall in
between.
"""

from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Protocol

from storage.format.trunks import Operation


@dataclass(frozen=True, slots=True)
class TreeEffects:
    """What a tree change means for blocks: (layer, byte offset, bytes) zeroed, and what is done to trunks, in order."""

    zeroed: list[tuple[int, int, int]] = field(default_factory=list)
    operations: list[Operation] = field(default_factory=list)


class TreeState(Protocol):
    """The tree of names."""

    def load(self, image: bytes) -> None:
        """Become the tree that `encode` gave."""

    def encode(self) -> bytes:
        """The whole tree."""

    def apply(self, record: bytes) -> TreeEffects:
        """Change the tree by one record, all or nothing."""

    def trunks(self) -> Iterable[list[int]]:
        """The layers that exist, as trunks: of each device its snapshots, oldest first, and its head."""
