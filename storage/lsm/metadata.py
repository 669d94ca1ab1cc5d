"""The tree of names as the engine needs it: opaque state, changed by opaque records.

A record is logged like a write. Applied live and in replay by the same call, it may say that blocks of a layer are
zeroed or that a layer is gone; the engine does that in the same step, so no crash can fall in between.
"""

from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Protocol


@dataclass(frozen=True, slots=True)
class TreeEffects:
    """What a tree change means for blocks: (layer, byte offset, bytes) zeroed, and layers dropped."""

    zeroed: list[tuple[int, int, int]] = field(default_factory=list)
    dropped: list[int] = field(default_factory=list)


class TreeState(Protocol):
    """The tree of names."""

    def load(self, image: bytes) -> None:
        """Become the tree that `encode` gave."""

    def encode(self) -> bytes:
        """The whole tree."""

    def apply(self, record: bytes) -> TreeEffects:
        """Change the tree by one record, all or nothing."""

    def layers(self) -> Iterable[int]:
        """Numbers of the layers that exist."""
