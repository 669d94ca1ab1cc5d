"""A trunk: the indexes of one device's layers, and the index of a snapshot as its readers see it. No I/O.

The head has a flat index of all blocks. A snapshot has a reverse delta; what is not in that is what the next newer
layer shows. So a look-up in the head costs the same at any number of snapshots.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from storage.errors import BrokenInvariant, NotFound
from storage.format.trunks import TrunkRef
from storage.lsm.index.block_map import BlockMap
from storage.lsm.index.bulk_load import HeldRows
from storage.lsm.index.page import DeltaPage, PageRows
from storage.lsm.index.reverse_delta import ReverseDelta
from storage.lsm.index.rows import Found, Standing
from storage.lsm.index.shown_sectors import PartOfPage

AnyMap = BlockMap | ReverseDelta
"""The map of one layer: of a head all blocks, of a snapshot those that were replaced since."""


@dataclass(slots=True, eq=False)
class Trunk:
    """The layers of one device. `flat.below` is the newest delta."""

    layers: list[int]
    """Snapshots, oldest first, and the head."""
    flat: BlockMap
    """What the head shows of every block."""
    deltas: list[ReverseDelta] = field(default_factory=list)
    """What each snapshot shows otherwise than the next newer layer, oldest first."""
    shares: bool = False
    """Whether it was cloned, or is a clone: its frames may be another trunk's as well."""
    origin: int = 0
    """The snapshot that it was cloned from since the store was opened, 0 for none."""

    @property
    def head(self) -> int:
        """The layer that is written to."""
        return self.layers[-1]

    def ref(self) -> TrunkRef:
        """As a checkpoint names it."""
        return TrunkRef(list(self.layers), self.shares)

    def maps(self) -> list[AnyMap]:
        """Of all its layers, oldest first."""
        return [*self.deltas, self.flat]

    def keep_what_changes(self) -> None:
        """From now on the newest snapshot keeps what is replaced in the head's index (I6); none, if there is none."""
        self.flat.below = self.deltas[-1] if self.deltas else None

    @contextmanager
    def changing_alone(self) -> Iterator[None]:
        """Meanwhile no snapshot keeps what is replaced in the head's index."""
        below, self.flat.below = self.flat.below, None
        try:
            yield
        finally:
            self.flat.below = below

    @property
    def is_alone(self) -> bool:
        """Whether nothing else can refer to what its head refers to."""
        return not (self.deltas or self.shares)

    def index(self, layer: int) -> "LayerIndex":
        """The index of one of its layers, for readers."""
        at = self.layers.index(layer)
        return self.flat if at == len(self.deltas) else SnapshotIndex(self, self.deltas[at])

    def pages_held(self, at: int) -> list[int]:
        """The pages on which the layer at position `at` may show something else than the head."""
        return sorted({number for delta in self.deltas[at:] for number in delta.pages})

    def rows_held(self, at: int, number: int) -> HeldRows:
        """What the layer at position `at` shows of a page by its own delta, and by those of newer layers."""
        parts = [(delta.pages[number].rows(), delta.patches) for delta in self.deltas[at:] if number in delta.pages]
        tables = [patches for _, patches in parts]
        of = np.repeat(np.arange(len(parts)), [len(rows.at) for rows, _ in parts])
        if not parts:
            return HeldRows(DeltaPage().rows(), of, tables)
        joined = PageRows(
            np.concatenate([rows.at for rows, _ in parts]),
            np.concatenate([rows.location for rows, _ in parts]),
            np.concatenate([rows.length for rows, _ in parts]),
            np.concatenate([rows.tag for rows, _ in parts]),
            np.concatenate([rows.head for rows, _ in parts]),
        )
        # Of each block the first, which is what the oldest of them keeps.
        _, first = np.unique(joined.at, return_index=True)
        return HeldRows(joined.where(first), of[first], tables)

    def rows_shown(self, at: int, number: int, blocks: NDArray[np.integer]) -> PageRows:
        """What the layer at position `at` shows of some blocks of a page, which ascend; the row of the newest patch is
        of one table or another, and 0 for none all the same.
        """
        shown, held = self.flat.rows(number, blocks), self.rows_held(at, number).rows
        _, here, there = np.intersect1d(shown.at, held.at, assume_unique=True, return_indices=True)
        shown.location[here], shown.length[here] = held.location[there], held.length[there]
        shown.tag[here], shown.head[here] = held.tag[there], held.head[there]
        return shown

    def parts(self, at: int, number: int, blocks: NDArray[np.integer]) -> list[PartOfPage]:
        """The same, with the table of the patches of each."""
        held = self.rows_held(at, number)
        held = held.where(np.isin(held.rows.at, blocks))
        rest = np.setdiff1d(blocks, held.rows.at, assume_unique=True)
        plain = held.rows.head == 0
        found = [PartOfPage(self.flat.rows(number, rest), self.flat.patches)]
        found.append(PartOfPage(held.rows.where(plain), self.flat.patches))
        for table in np.unique(held.of[~plain]).tolist():
            found.append(PartOfPage(held.rows.where(~plain & (held.of == table)), held.tables[table]))
        return found

    def holder(self, at: int, block: int) -> AnyMap:
        """Where it stands what the layer at position `at` shows of a block."""
        for delta in self.deltas[at:]:
            if delta.holds(block):
                return delta
        return self.flat


class SnapshotIndex:
    """The index of a snapshot, as a reader asks a `BlockMap`. What it says never changes, but where frames lie."""

    __slots__ = ("_delta", "_trunk", "assembled")

    def __init__(self, trunk: Trunk, delta: ReverseDelta) -> None:
        self._trunk = trunk
        self._delta = delta
        self.assembled: dict[int, tuple[int, int]] = {}
        """As in a `BlockMap`."""

    def _position(self) -> int:
        for at, delta in enumerate(self._trunk.deltas):
            if delta is self._delta:
                return at
        raise NotFound("this snapshot was deleted")

    def _holder(self, block: int) -> AnyMap:
        return self._trunk.holder(self._position(), block)

    def standing(self, block: int) -> Standing:
        """What the snapshot shows of a block."""
        return self._holder(block).standing(block)

    def find(self, block: int) -> Iterator[Found]:
        """What is known of a block, newest first; the last one covers the whole block."""
        return self._holder(block).find(block)

    def locate(self, block: int, sector: int) -> int:
        """The cache key of the newest content of one sector."""
        key, mask = self.assembled.get(block, (0, 0))
        if mask >> sector & 1:
            return key
        for found in self.find(block):
            if found.mask >> sector & 1:
                return found.content if isinstance(found.content, int) else found.content.location
        raise BrokenInvariant(f"nothing covers sector {sector} of block {block} of a snapshot")

    def is_patched(self, block: int) -> bool:
        """Whether a block has anything above its base."""
        return self.standing(block).head != 0

    def forget_assembled(self, block: int) -> None:
        """The cache has dropped what was put together of it."""
        self.assembled.pop(block, None)

    @property
    def depth(self) -> int:
        """How many deltas a block is looked for in before the head's index."""
        return len(self._trunk.deltas) - self._position()

    def parts(self, number: int, at: NDArray[np.integer]) -> list[PartOfPage]:
        """As in a `BlockMap`."""
        return self._trunk.parts(self._position(), number, at)

    def uniform(self, number: int) -> int | None:
        """Whether all of a page is zeros of one kind: HOLE, ALLOCATED; None: ask for its blocks."""
        if any(number in delta.pages for delta in self._trunk.deltas[self._position() :]):
            return None
        return self._trunk.flat.uniform(number)


LayerIndex = BlockMap | SnapshotIndex
"""The index of a layer, as readers see it."""
