"""This file knows the manifest: what is live, and from which WAL number on the log must be replayed. Pure.

A manifest is a checkpoint of the log and never acknowledges anything itself. Its body is msgpack of `Manifest` as an
array, so that later fields can be appended: a reader fills in those it misses and ignores those it does not know.
`check_successor` is the set of invariants every commit must keep, run before each compare-and-swap.
"""

import msgspec

from storage.errors import Corrupt
from storage.format.blocks import SstRef


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
    """Data SSTs, oldest first."""
    tree: SstRef | None = None
    """The object that holds the tree of names, unless the tree is still empty."""
    fences: list[int] = []
    """WAL numbers of all fences below `replay`: never deleted."""
    takeovers: list[int] = []
    """Numbers of all take-over manifests up to this one: never deleted."""
    keys: int = 0
    """Highest number under keys/ when this was written: an older keys object is a rollback."""


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


def check_successor(old: Manifest, new: Manifest) -> None:
    """Assert what every commit must keep; each line is a way to lose data.

    A smaller replay point replays a log that is deleted. A lost fence lets a stalled writer acknowledge. A dropped
    SST that nothing replaced is lost data (nothing drops SSTs before compaction exists). An epoch changes by a
    take-over only.
    """
    assert new.replay >= old.replay, "the replay point moves forward only"
    assert new.sequence >= old.sequence, "sequences move forward only"
    assert new.acknowledged >= old.acknowledged, "acknowledged numbers move forward only"
    assert set(old.fences) <= set(new.fences), "fences are for ever"
    assert set(old.takeovers) <= set(new.takeovers), "take-over manifests are for ever"
    assert {sst.id for sst in old.ssts} <= {sst.id for sst in new.ssts}, "no SST is dropped"
    assert len({sst.id for sst in new.ssts}) == len(new.ssts), "each SST is listed once"
    assert new.epoch == old.epoch + 1 if new.takeover else new.epoch == old.epoch, "an epoch begins with a take-over"
    assert new.keys >= old.keys, "keys move forward only"
    assert old.tree is None or new.tree is not None, "the tree is never dropped"


def checkpoint(
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
) -> Manifest:
    """The manifest after a memtable flush: SSTs are added, each once, and the replay point moves on."""
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
    )
