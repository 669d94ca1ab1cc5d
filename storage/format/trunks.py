"""Trunks of layers, and the operations that change them, as logs, manifests and checkpoints name them. Pure.

A *trunk* is a device: its snapshots, which are frozen layers, oldest first, and its head, the layer that is written to.
An operation has the sequence of the record of the tree of names that it came with.

One deed has a word in each layer, where something else is done: what somebody asks for is *deleted* (a device, a
snapshot); then its row in the tree of names is *removed* (`storage.fs.metadata`), and in the engine its blocks and its
place in the trunk are *dropped*, which is what operations say. An object that nothing needs is deleted from the bucket.
"""

import msgspec


class MakeLayer(msgspec.Struct, frozen=True, array_like=True, tag=1):
    """A new trunk of one layer, which holds nothing."""

    layer: int


class DropLayer(msgspec.Struct, frozen=True, array_like=True, tag=2):
    """A trunk without snapshots goes with all its blocks."""

    layer: int


class FreezeHead(msgspec.Struct, frozen=True, array_like=True, tag=3):
    """The head becomes a snapshot; `child` is the head from now on, and shows the same."""

    head: int
    child: int


class CloneSnapshot(msgspec.Struct, frozen=True, array_like=True, tag=4):
    """A new trunk of one layer, which shows what the snapshot shows."""

    snapshot: int
    layer: int


class RollBack(msgspec.Struct, frozen=True, array_like=True, tag=5):
    """The head goes; `child` is the head from now on, and shows what `snapshot`, of the same trunk, shows."""

    snapshot: int
    head: int
    child: int


class DropSnapshot(msgspec.Struct, frozen=True, array_like=True, tag=6):
    """A snapshot goes; all others show what they showed."""

    snapshot: int


Operation = MakeLayer | DropLayer | FreezeHead | CloneSnapshot | RollBack | DropSnapshot


def placed_by(operation: Operation) -> tuple[int, ...]:
    """The layers that an operation gives a place in a trunk, the last one as its head; none, if it only drops some."""
    match operation:
        case FreezeHead(head, child):
            return head, child
        case MakeLayer(layer) | CloneSnapshot(layer=layer) | RollBack(child=layer):
            return (layer,)
        case DropLayer() | DropSnapshot():
            return ()


ON_TRUNKS = (FreezeHead, CloneSnapshot, RollBack, DropSnapshot)
"""Operations that give layers another place."""


class LoggedOperation(msgspec.Struct, frozen=True, array_like=True):
    """An operation, and when it happened."""

    sequence: int
    operation: Operation


class TrunkRef(msgspec.Struct, frozen=True, array_like=True):
    """One trunk as a checkpoint names it."""

    layers: list[int]
    """Its snapshots, oldest first, and its head."""
    shares: bool
    """Whether another trunk may refer to the same frames: one was cloned from the other."""
