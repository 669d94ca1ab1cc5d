"""The forest: the indexes of all layers of a store, as trunks, and what operations do to them. No I/O.

One function, `steps`, does an operation in life and at a start. It is done when everything that was written before it
is in the indexes, and nothing that was written after it: its *turn*. It goes on in steps between turns of the event
loop; between two of them every layer shows what it did, but a head that goes, and the new one is not there yet.
"""

from collections.abc import Iterable, Iterator

import numpy as np
from numpy.typing import NDArray

from storage.errors import BrokenInvariant
from storage.format.trunks import (
    CloneSnapshot,
    DropLayer,
    DropSnapshot,
    FreezeHead,
    MakeLayer,
    Operation,
    RollBack,
    TrunkRef,
)
from storage.lsm.index.block_map import BlockMap
from storage.lsm.index.bulk_load import HeldRows, put_rows
from storage.lsm.index.page import ALLOCATED_PAGE, PAGE_SHIFT
from storage.lsm.index.reverse_delta import ReverseDelta
from storage.lsm.index.rows import Standing, found_in
from storage.lsm.index.trunk import AnyMap, LayerIndex, Trunk
from storage.lsm.options import PRUNE_AFTER

COMPARED_MAX = 8
"""Pages that one is compared with: clones of other snapshots, or written to since, may be as many as there are."""


class Forest:
    """The trunks of a store, by the layers in them. Owned by the event loop."""

    def __init__(self, trunks: Iterable[Trunk] = (), *, prune_after: int = PRUNE_AFTER) -> None:
        self._prune_after = prune_after
        self._trunks: dict[int, Trunk] = {layer: trunk for trunk in trunks for layer in trunk.layers}
        """The trunk of each layer, by its number."""
        self._dropped: set[int] = set()
        """Layers that are gone ahead of their turn, and whose making may have its turn yet: that makes nothing."""

    @classmethod
    def empty(cls, refs: Iterable[TrunkRef], *, prune_after: int = PRUNE_AFTER) -> "Forest":
        """The trunks that a checkpoint names, with empty indexes; `hold` follows when those are read."""
        trunks = [
            Trunk(
                list(ref.layers), BlockMap(prune_after), [ReverseDelta(prune_after) for _ in ref.layers[1:]], ref.shares
            )
            for ref in refs
        ]
        return cls(trunks, prune_after=prune_after)

    def hold(self) -> None:
        """All indexes were read: from now on snapshots keep what is replaced, and clones share what they have alike."""
        for trunk in self.trunks():
            trunk.keep_what_changes()
        _share_pages(trunk.flat for trunk in self.trunks() if trunk.shares)

    def __contains__(self, layer: object) -> bool:
        return layer in self._trunks

    def trunks(self) -> list[Trunk]:
        """All of them, by head."""
        return [self._trunks[head] for head in sorted({trunk.head for trunk in self._trunks.values()})]

    def refs(self) -> list[TrunkRef]:
        """As a checkpoint names them."""
        return [trunk.ref() for trunk in self.trunks()]

    def trunk(self, layer: int) -> Trunk:
        """The trunk of a layer."""
        return self._trunks[layer]

    def index(self, layer: int) -> LayerIndex:
        """The index of a layer, for readers."""
        return self._trunks[layer].index(layer)

    def heads(self) -> dict[int, BlockMap]:
        """The index of each layer that is written to."""
        return {trunk.head: trunk.flat for trunk in self.trunks()}

    def head(self, layer: int) -> BlockMap | None:
        """The same of one layer; None: it is no head. It costs one look-up."""
        trunk = self._trunks.get(layer)
        return trunk.flat if trunk is not None and trunk.head == layer else None

    def maps(self) -> dict[int, AnyMap]:
        """The map of each layer: all that refers to anything."""
        found: dict[int, AnyMap] = {}
        for trunk in self.trunks():
            found.update(zip(trunk.layers, trunk.deltas, strict=False))
            found[trunk.head] = trunk.flat
        return found

    def writing(self, layer: int) -> "Writing":
        """Where entries of a layer are put; until the next operation."""
        return Writing(self._trunks[layer], layer)

    # --- operations

    def make(self, layer: int) -> None:
        """A new trunk of one layer, unless it is there: that may be done ahead of its turn."""
        if layer not in self._trunks:
            self._trunks[layer] = Trunk([layer], BlockMap(self._prune_after))

    def drop(self, layer: int) -> None:
        """A trunk of one layer goes, if it is there, ahead of its turn."""
        self._dropped.add(layer)
        self._drop_trunk(layer)

    def _drop_trunk(self, layer: int) -> None:
        trunk = self._trunks.get(layer)
        if trunk is not None and trunk.layers == [layer]:
            del self._trunks[layer]

    def steps(self, operation: Operation) -> Iterator[None]:
        """Do an operation, at its turn, in steps of one page, about a millisecond with a hundred snapshots: others
        may run between two of them, and none is left out. BrokenInvariant: it does not fit what is there.
        """
        match operation:
            case MakeLayer(layer):
                if layer not in self._dropped:
                    self.make(layer)
            case DropLayer(layer):
                if layer in self._trunks and self._trunks[layer].layers != [layer]:
                    raise BrokenInvariant(f"layer {layer} is dropped, and has snapshots")
                self._dropped.discard(layer)
                self._drop_trunk(layer)
            case FreezeHead(head, child):
                self._freeze(self._trunk_of(head, head), child)
            case CloneSnapshot(snapshot, layer):
                yield from self._clone(self._trunk_of(snapshot), snapshot, layer)
            case RollBack(snapshot, head, child):
                yield from self._roll_back(self._trunk_of(snapshot, head), snapshot, child)
            case DropSnapshot(snapshot):
                yield from self._drop_snapshot(self._trunk_of(snapshot), snapshot)

    def _trunk_of(self, layer: int, head: int | None = None) -> Trunk:
        trunk = self._trunks.get(layer)
        if trunk is None or (layer == trunk.head if head is None else head != trunk.head):
            raise BrokenInvariant(f"an operation on layer {layer} does not fit the index: it is not what it should be")
        return trunk

    def _freeze(self, trunk: Trunk, child: int) -> None:
        delta = ReverseDelta(self._prune_after)
        trunk.layers.append(child)
        trunk.deltas.append(delta)
        trunk.keep_what_changes()
        self._trunks[child] = trunk

    def _clone(self, trunk: Trunk, snapshot: int, layer: int) -> Iterator[None]:
        at = trunk.layers.index(snapshot)
        flat = trunk.flat.copy()
        for number in trunk.pages_held(at):
            put_rows(flat, number, trunk.rows_held(at, number))
            yield
        flat.dead.clear()
        flat.compact()
        others = sorted((other for other in self.trunks() if other.shares), key=lambda other: other.origin == snapshot)
        _share_pages([*(other.flat for other in others[-COMPARED_MAX:]), flat])
        trunk.shares = True
        self._trunks[layer] = Trunk([layer], flat, shares=True, origin=snapshot)

    def _roll_back(self, trunk: Trunk, snapshot: int, child: int) -> Iterator[None]:
        at = trunk.layers.index(snapshot)
        flat, head = trunk.flat, trunk.head
        for number in trunk.pages_held(at):
            held = trunk.rows_held(at, number)
            # What the newest snapshot shows of them by way of the head stands in it from here on (I6).
            put_rows(flat, number, held.where(_differs(flat, number, held)))
            yield
        trunk.layers[-1] = child
        del self._trunks[head]
        self._trunks[child] = trunk

    def _drop_snapshot(self, trunk: Trunk, snapshot: int) -> Iterator[None]:
        at = trunk.layers.index(snapshot)
        gone = trunk.deltas[at]
        if at:
            for number in sorted(gone.pages):
                trunk.deltas[at - 1].record_rows(number, gone.pages[number].rows(), gone.patches)
                yield
        del trunk.layers[at], trunk.deltas[at]
        trunk.keep_what_changes()
        del self._trunks[snapshot]


class Writing:
    """One layer, into which entries are put: what was written to it, in order, zeros of a block before its data."""

    def __init__(self, trunk: Trunk, layer: int) -> None:
        self._trunk = trunk
        self._at = trunk.layers.index(layer)

    @property
    def flat(self) -> BlockMap | None:
        """The index itself if the layer is the head: that sees to its snapshots. None: it is a snapshot."""
        return self._trunk.flat if self._at == len(self._trunk.deltas) else None

    def set_base(self, block: int, *, location: int, length: int, tag: int) -> None:
        """The whole block is this."""
        if (flat := self.flat) is not None:
            flat.set_base(block, location=location, length=length, tag=tag)
            return
        holder = self._holder(block)
        with self._trunk.changing_alone():
            holder.set_base(block, location=location, length=length, tag=tag)

    def add_patch(self, block: int, *, mask: int, location: int, length: int, tag: int) -> None:
        """The sectors of `mask` are this."""
        if (flat := self.flat) is not None:
            flat.add_patch(block, mask=mask, location=location, length=length, tag=tag)
            return
        holder = self._holder(block)
        with self._trunk.changing_alone():
            holder.add_patch(block, mask=mask, location=location, length=length, tag=tag)

    def _holder(self, block: int) -> AnyMap:
        """Where an entry of a snapshot goes.

        What was written to a layer before it became a snapshot, and is flushed after that, belongs to the newer layers
        too, as far as they wrote nothing over it: it goes where the snapshot finds the block. Only the next older
        snapshot keeps what it replaces, not those that the entry is for.
        """
        trunk, at = self._trunk, self._at
        holder = trunk.holder(at, block)
        if at:
            trunk.deltas[at - 1].record(block, holder)
        return holder


def _differs(flat: BlockMap, number: int, held: HeldRows) -> NDArray[np.bool_]:
    """Of which blocks of a page something else stands in `flat`."""
    rows, there = held.rows, flat.rows(number, held.rows.at)
    found: NDArray[np.bool_] = rows.location != there.location
    for row in np.flatnonzero(~found & ((rows.head | there.head) != 0)).tolist():
        block = number << PAGE_SHIFT | int(rows.at[row])
        stands = Standing(*(int(column[row]) for column in rows[1:]))
        found[row] = list(found_in(stands, held.tables[held.of[row]], block)) != list(flat.find(block))
    return found


def _share_pages(maps: Iterable[BlockMap]) -> None:
    """Have one page for all that are equal, so that clones cost nothing until they are written to."""
    known: dict[int, list[BlockMap]] = {}
    for part in maps:
        for number, page in part.pages.items():
            alike = known.setdefault(number, [])
            for other in alike:
                there = other.pages[number]
                if there is page:
                    break
                if page is not ALLOCATED_PAGE is not there and page.equals(there):
                    part.share(number, other)
                    break
            else:
                if len(alike) < COMPARED_MAX:
                    alike.append(part)


def done(steps: Iterator[None]) -> None:
    """Do all steps at once."""
    for _ in steps:
        pass
