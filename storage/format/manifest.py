"""The manifest: what is live, and from which WAL number on the log must be replayed. Pure.

A manifest is a checkpoint of the log and never acknowledges anything itself. Its body is msgpack of `Manifest` as an
array, so that later fields can be appended: a reader fills in those it misses and ignores those it does not know.
`WAYS_TO_LOSE_DATA` are the invariants that every commit must keep, looked at before each compare-and-swap.
"""

from collections.abc import Callable, Collection, Sequence
from typing import Any

import msgspec
import numpy as np

from storage.errors import BrokenInvariant, Corrupt
from storage.format.blocks import SstRef
from storage.format.sst_list import SstList
from storage.format.trunks import LoggedOperation


class Manifest(msgspec.Struct, frozen=True, array_like=True):
    """The state of a store up to WAL number `replay`, exclusive."""

    epoch: int
    """The writer's epoch; grows by one with each take-over."""
    takeover: bool
    """Written by a take-over: such a manifest is never deleted, a stalled writer must collide with it for ever."""
    closed: bool
    """Written by a clean stop: nothing in the log behind it, and no process holds the store."""
    replay: int
    """First WAL number not contained in `ssts`."""
    replay_tag: bytes
    """Tag of the WAL object just below `replay` (zeros behind a fence): where the chain of the log goes on."""
    acknowledged: int
    """Highest WAL number known to be acknowledged; a gap below it is a loss."""
    sequence: int
    """Every operation in `ssts` has a sequence up to this one."""
    ssts: list[SstRef] = []
    """Data SSTs whose rows the checkpoint does not hold, oldest first."""
    tree: SstRef | None = None
    """The object that holds the tree of names, unless the tree is still empty."""
    fences: list[int] = []
    """WAL numbers of all fences below `replay`: never deleted."""
    takeovers: list[int] = []
    """Numbers of all take-over manifests up to this one: never deleted."""
    keys: int = 0
    """Highest number under keys/ when this was written: an older keys object is a rollback."""
    checkpoint: SstRef | None = None
    """The newest checkpoint of the index. It lists further data SSTs: its *table*, those whose rows it holds."""
    gone: list[int] = []
    """Positions in that table, from 1, of SSTs that were dropped or repacked since: they are not listed any more."""
    operations: list[LoggedOperation] = []
    """What was done to trunks up to `sequence`, and is not in the checkpoint; by sequence."""
    lineage: list[bytes] = []
    """Ids of the newest epochs, oldest first, this one's last, between which nothing that was answered was lost."""
    identity: bytes = b""
    """Which store this is, if it began as a copy of another one; else the id of the keys says that."""
    rekeyed: int | None = 0
    """The WAL number from which on all of the log is sealed under the data key of this manifest. None: not known, as in
    a take-over under another key than the manifest before it, whose fence is not there yet."""


INCARNATION_BYTES = 8

STORE_IDENTITY_BYTES = 16

LINEAGE_MAX = 256
"""Epochs that are remembered: of an older one a client is told that something may be lost since."""

EMPTY = Manifest(epoch=0, takeover=False, closed=True, replay=1, replay_tag=bytes(16), acknowledged=0, sequence=0)
"""What a store without any manifest holds; it counts as manifest number 0."""

_ENCODER = msgspec.msgpack.Encoder()
_DECODER = msgspec.msgpack.Decoder(Manifest)


def encode(manifest: Manifest) -> bytes:
    """The body of a manifest object."""
    return _ENCODER.encode(manifest)


def decode(name: str, body: bytes) -> Manifest:
    """The manifest in the body of the object `name`; Corrupt if it is none."""
    try:
        return _DECODER.decode(body)
    except msgspec.MsgspecError as error:
        raise Corrupt(name, f"its content is malformed: {error}") from error


def _replay_point_goes_back(old: Manifest, new: Manifest) -> bool:
    return new.replay < old.replay


def _sequence_goes_back(old: Manifest, new: Manifest) -> bool:
    return new.sequence < old.sequence


def _acknowledged_goes_back(old: Manifest, new: Manifest) -> bool:
    return new.acknowledged < old.acknowledged


def _fence_is_dropped(old: Manifest, new: Manifest) -> bool:
    return not set(old.fences) <= set(new.fences)


def _takeover_is_dropped(old: Manifest, new: Manifest) -> bool:
    return not set(old.takeovers) <= set(new.takeovers)


def _sst_is_dropped(old: Manifest, new: Manifest) -> bool:
    """One that no checkpoint holds. (What a new checkpoint holds is its own table: see `check_table`.)"""
    kept = {sst.id for sst in new.ssts}
    return old.checkpoint == new.checkpoint and not {sst.id for sst in old.ssts} <= kept


def _gone_comes_back(old: Manifest, new: Manifest) -> bool:
    return old.checkpoint == new.checkpoint and not set(old.gone) <= set(new.gone)


def _checkpoint_is_dropped(old: Manifest, new: Manifest) -> bool:
    return old.checkpoint is not None and new.checkpoint is None


def _sst_is_listed_twice(_: Manifest, new: Manifest) -> bool:
    return len({sst.id for sst in new.ssts}) != len(new.ssts)


def _epoch_begins_without_takeover(old: Manifest, new: Manifest) -> bool:
    return new.epoch != old.epoch + new.takeover


def _operation_is_dropped(old: Manifest, new: Manifest) -> bool:
    """One that no checkpoint holds. (What a new checkpoint holds it says itself: see `checkpointed`.)"""
    return old.checkpoint == new.checkpoint and new.operations[: len(old.operations)] != old.operations


def _operation_is_out_of_order(_: Manifest, new: Manifest) -> bool:
    sequences = [logged.sequence for logged in new.operations]
    return sequences != sorted(sequences) or bool(sequences and sequences[-1] > new.sequence)


def _lineage_is_forged(old: Manifest, new: Manifest) -> bool:
    """Only a take-over makes an incarnation; after it nothing happens but that those before are found to be lost."""
    return not new.takeover and new.lineage not in (old.lineage, old.lineage[-1:])


def _identity_changes(old: Manifest, new: Manifest) -> bool:
    return not new.takeover and new.identity != old.identity


def _keys_go_back(old: Manifest, new: Manifest) -> bool:
    return new.keys < old.keys


def _tree_is_dropped(old: Manifest, new: Manifest) -> bool:
    return old.tree is not None and new.tree is None


WAYS_TO_LOSE_DATA: tuple[tuple[Callable[[Manifest, Manifest], bool], str], ...] = (
    (_replay_point_goes_back, "its replay point goes back: the log from there on is deleted already, and missed"),
    (_sequence_goes_back, "its sequence goes back: a replay would lay old operations over newer ones"),
    (_acknowledged_goes_back, "its acknowledged number goes back: a gap in the log would pass for the end of it"),
    (_fence_is_dropped, "it drops a fence: that would be deleted, and a stalled writer acknowledge in its place"),
    (_takeover_is_dropped, "it drops a take-over: a stalled writer could commit under that number once it is deleted"),
    (_sst_is_dropped, "it drops an SST whose rows no checkpoint holds: a start would not know what is in that"),
    (_gone_comes_back, "it lists an SST again that was dropped: that is deleted already, or will be"),
    (_checkpoint_is_dropped, "it drops the checkpoint, and with it all that only that knows"),
    (_sst_is_listed_twice, "it lists an SST twice: whoever drops it once would delete what is still listed"),
    (_epoch_begins_without_takeover, "its epoch does not follow: one begins with a take-over and only with one"),
    (_operation_is_dropped, "it drops what was done to trunks of layers: a start would show other layers"),
    (_operation_is_out_of_order, "what was done to trunks is not in order: a start would do it in another one"),
    (_lineage_is_forged, "it says of an epoch that nothing was lost since: a client would go on over what is lost"),
    (_identity_changes, "it is of another store: a copy of a store would pass for that one"),
    (_keys_go_back, "its number of keys goes back: a password that was replaced could be put back unnoticed"),
    (_tree_is_dropped, "it drops the tree of names, and all devices with it"),
)
"""Each way in which the next manifest could lose data, and what would come of it."""


def check_successor(old: Manifest, new: Manifest) -> None:
    """What every commit must keep, looked at before each. BrokenInvariant: `new` would lose data in one of the ways."""
    for loses, story in WAYS_TO_LOSE_DATA:
        if loses(old, new):
            raise BrokenInvariant(f"a manifest is not committed, since {story}")


def flushed(
    old: Manifest,
    *,
    closed: bool,
    replay: int,
    replay_tag: bytes,
    acknowledged: int,
    sequence: int,
    ssts: list[SstRef],
    tree: SstRef | None,
    fences: list[int],
    keys: int,
    operations: Sequence[LoggedOperation],
) -> Manifest:
    """The manifest after a memtable flush: SSTs are added, each once, and the replay point moves on, past what was done
    to trunks.
    """
    listed = {sst.id for sst in old.ssts}
    added = [sst for sst in {sst.id: sst for sst in ssts}.values() if sst.id not in listed]
    return msgspec.structs.replace(
        old,
        takeover=False,
        closed=closed,
        replay=replay,
        replay_tag=replay_tag,
        acknowledged=acknowledged,
        sequence=sequence,
        ssts=old.ssts + added,
        tree=old.tree if tree is None else tree,
        fences=fences,
        keys=keys,
        operations=[*old.operations, *operations],
    )


def merged(manifest: Manifest, table: SstList) -> SstList:
    """The SSTs of the checkpoint's table that are listed still."""
    if not manifest.gone:
        return table
    return table.where(~np.isin(np.arange(1, len(table) + 1), manifest.gone))


def checkpointed(old: Manifest, *, ref: SstRef, table: SstList, sequence: int) -> Manifest:
    """The manifest with a new checkpoint, which holds the rows of all SSTs in `table`, and what was done to trunks up
    to `sequence`: what was there when it was frozen. What a flush has listed since stays as it is.
    """
    held = table.held(sst.id for sst in old.ssts)
    return _edited(
        old,
        checkpoint=ref,
        gone=[],
        ssts=[sst for sst in old.ssts if sst.id not in held],
        operations=[logged for logged in old.operations if logged.sequence > sequence],
    )


def check_table(old: Manifest, old_table: SstList, table: SstList) -> None:
    """A new checkpoint's table holds all that the older one's did and that is listed still. BrokenInvariant."""
    if not table.includes(merged(old, old_table)):
        raise BrokenInvariant("a manifest is not committed, since its checkpoint does not hold what the older one did")


def repacked(old: Manifest, *, table: SstList, ids: Collection[str], ssts: Sequence[SstRef]) -> Manifest:
    """The manifest after a repack: `ssts` hold what was live in those with `ids`."""
    return _edited(old, gone=_without(old, table, ids), ssts=[*old.ssts, *ssts])


def consolidated(old: Manifest, *, ssts: Sequence[SstRef]) -> Manifest:
    """The manifest after a consolidation."""
    return _edited(old, ssts=[*old.ssts, *ssts])


def dropped(old: Manifest, *, table: SstList, ids: Collection[str]) -> Manifest:
    """The manifest without the SSTs that have `ids`, to which nothing refers."""
    return _edited(old, gone=_without(old, table, ids))


def _edited(old: Manifest, **changes: Any) -> Manifest:
    return msgspec.structs.replace(old, takeover=False, closed=False, **changes)


def _without(old: Manifest, table: SstList, ids: Collection[str]) -> list[int]:
    """Positions of what is gone, with those of `ids`. BrokenInvariant: one of them is not merged, or gone already."""
    leaving = set((np.flatnonzero(table.are(ids)) + 1).tolist()) - set(old.gone)
    if len(leaving) != len(ids):
        raise BrokenInvariant(
            "a manifest is not committed, since it takes an SST off the list whose rows no checkpoint holds"
        )
    return sorted({*old.gone, *leaving})
