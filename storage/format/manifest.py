"""The manifest: what is live, and from which WAL number on the log must be replayed. Pure.

A manifest is a checkpoint of the log and never acknowledges anything itself. Its body is msgpack of `Manifest` as an
array, so that later fields can be appended: a reader fills in those it misses and ignores those it does not know.
`WAYS_TO_LOSE_DATA` are the invariants that every commit must keep, looked at before each compare-and-swap.
"""

from collections.abc import Callable

import msgspec

from storage.errors import BrokenInvariant, Corrupt
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
    return not {sst.id for sst in old.ssts} <= {sst.id for sst in new.ssts}


def _sst_is_listed_twice(_: Manifest, new: Manifest) -> bool:
    return len({sst.id for sst in new.ssts}) != len(new.ssts)


def _epoch_begins_without_takeover(old: Manifest, new: Manifest) -> bool:
    return new.epoch != old.epoch + new.takeover


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
    (_sst_is_dropped, "it drops an SST, and nothing replaced what is in that"),
    (_sst_is_listed_twice, "it lists an SST twice: whoever drops it once would delete what is still listed"),
    (_epoch_begins_without_takeover, "its epoch does not follow: one begins with a take-over and only with one"),
    (_keys_go_back, "its number of keys goes back: a password that was replaced could be put back unnoticed"),
    (_tree_is_dropped, "it drops the tree of names, and all devices with it"),
)
"""Each way in which the next manifest could lose data, and what would come of it. Nothing drops SSTs before there is
compaction."""


def check_successor(old: Manifest, new: Manifest) -> None:
    """What every commit must keep, looked at before each. BrokenInvariant: `new` would lose data in one of the ways."""
    for loses, story in WAYS_TO_LOSE_DATA:
        if loses(old, new):
            raise BrokenInvariant(f"a manifest is not committed, since {story}")


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
