"""The state of an open store in one structure, for people and programs: its shape. `current_status` fills it in.

It is taken in one step on the event loop, also while the store fails, and while it is being closed. Bytes and seconds;
moments are seconds since 1970.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import msgspec

from storage.format.frame import BLOCK_BYTES
from storage.lsm.sst.suspects import Suspect
from storage.prices import Costs
from storage.request_budget import Outlook


class StoreFailure(msgspec.Struct, frozen=True):
    """The store does not do what it is asked. It is asked again for ever, and nothing that was written is lost."""

    since: float
    reason: str


class FailingRequest(msgspec.Struct, frozen=True):
    """A request that goes on failing while others are answered, and is asked again for ever."""

    request: str
    """What is asked: create, put, list ..."""
    name: str
    since: float
    reason: str


class DiskRange(msgspec.Struct, frozen=True):
    """A part of a device: bytes [offset, offset + length)."""

    device: str
    offset: int
    length: int


class UnreadableObject(msgspec.Struct, frozen=True):
    """An object that the store does not give, while it gives others: what needs it fails, and nothing else."""

    name: str
    since: float
    reason: str
    ranges: list[DiskRange]
    """Where somebody met it: not all there is in the object."""


class UncopiedObject(msgspec.Struct, frozen=True):
    """An object without which the store does not open, and that lies there once only, since its copy is refused."""

    name: str
    since: float
    reason: str


class UntakenSnapshot(msgspec.Struct, frozen=True):
    """A device of which a schedule was to take a snapshot, and did not."""

    device: str
    since: float
    reason: str


class GarbageStatus(msgspec.Struct, frozen=True):
    """Objects that nothing needs and that could not be deleted yet. They cost space and harm nobody."""

    objects: int
    since: float | None
    """Since when deletions fail; None while they do not."""
    reason: str


@dataclass(frozen=True, slots=True)
class DeviceInfo:
    """One device as listed; size in bytes, times in seconds since 1970."""

    name: str
    size: int
    read_only: bool
    created: float
    modified: float
    mode: int
    uid: int
    gid: int


class DeviceUsage(msgspec.Struct, frozen=True):
    """What one device uses: the `DEVICE_STATS`."""

    logical_bytes: int
    allocated_bytes: int
    live_bytes: int
    memtable_bytes: int
    unlogged_bytes: int
    written_bytes: int


class ViewStatus(msgspec.Struct, frozen=True):
    """Of a store that somebody else writes: how old what is shown of it is."""

    as_of: float
    """When it was last known to be all that is committed."""
    age_seconds: float
    """Since then."""
    older: int
    """Views of earlier moments that clients still have."""
    collected: int
    """Views of which somebody met a part that the writer has deleted since."""
    reason: str
    """Why there is no newer view, though there may be something newer; else nothing."""
    missing: str
    """What somebody has deleted of what says that the view is the newest state, and what to do; else nothing."""


class RotationStatus(msgspec.Struct, frozen=True):
    """A rotation of the data key that has not ended."""

    key: int
    """The id of the newest key, which all is sealed under that is written."""
    older_keys: list[int]
    left_objects: int
    """That count and that an older key sealed; the log is one."""
    left_bytes: int
    waits_for: str
    """Why it has not ended, where nothing of these is left; else nothing."""


class StoreStatus(msgspec.Struct, frozen=True, kw_only=True):
    """What a person wants to know of an open store."""

    url: str
    store_id: str
    epoch: int
    read_only: bool
    view: ViewStatus | None
    """Of a server that follows another one; else None."""
    devices: int
    uptime_seconds: float
    failing: StoreFailure | None
    """Set while the store as a whole is away, full or denies access."""
    failing_requests: list[FailingRequest]
    """Those that fail for long while others are answered."""
    unlogged_bytes: int
    """Bytes that were written and are not durable yet."""
    unlogged_seconds: float
    """Age of the oldest operation that is not durable yet; 0 if all are."""
    journal_bytes: int
    """In memory that outlives the process: what is answered and not durable yet, and some that is."""
    memtable_bytes: int
    kept_bytes: int
    """Parts of sectors that cannot be completed, since what lies below them cannot be read: they stay in the log."""
    cached_bytes: int
    wal_acknowledged: int
    wal_objects: int
    wal_bytes: int
    manifest: int
    sole_writer_at: float | None
    """When nobody else had written to the store since: the last look that would have found the manifest of another
    writer began then, and found none. None: not looked yet, or somebody else is the writer."""
    ssts: int
    stored_bytes: int
    logical_bytes: int
    """The sizes of all devices."""
    allocated_bytes: int
    """Written to devices and not discarded since. This and the next two as `Store.count_usage` last counted."""
    live_bytes: int
    """Of frames that a device shows something of."""
    dead_bytes: int
    """Of frames that no device shows anything of."""
    space_amplification: float
    """Stored for each live byte."""
    written_bytes: int
    """By clients, since the store was opened."""
    write_amplification: float
    """Uploaded for each byte that clients wrote since the store was opened."""
    garbage_objects: int
    """Objects that nothing needs, waiting to be deleted."""
    unmerged_ssts: int
    """SSTs beside the newest checkpoint: a start reads the index of each."""
    older_key_bytes: int
    """Of SSTs that an older data key sealed."""
    rotation: RotationStatus | None = None
    """Set while the data key is rotated."""
    untaken: list[UntakenSnapshot] = []
    """The devices of which the schedule takes none now."""
    maintenance_bytes: int
    """Uploaded by maintenance since the store was opened."""
    maintenance: str | None
    """The job that maintenance is busy with; None if there is none."""
    patches: int
    unreadable: list[UnreadableObject]
    damaged: list[str]
    """What the scrub, or a check of all data, found and did not find sound since: a sentence for each SST."""
    lost: list[str]
    """What is missing of the store, as the last sweep saw it: a sentence for each object, twenty at most."""
    uncopied: list[UncopiedObject]
    """Of the newest manifest and the keys those that have no sound copy, and get none."""
    unkept: list[str]
    """What this host cannot keep: of its memory of the store, and of what was answered and is not flushed."""
    garbage: GarbageStatus
    flushing: str | None
    """What the memtable flush under way waits for; None if there is none. Closing the store ends with one."""
    closing: bool
    requests: dict[str, int]
    request_errors: int
    bytes_up: int
    bytes_down: int
    costs: Costs | None
    """None: there is no price list."""
    budget: Outlook | None
    """None: there is no budget of requests."""


def unreadable(suspect: Suspect, names: Mapping[int, str], moment: Callable[[float], float]) -> UnreadableObject:
    """An object that the store withholds, with the places where devices show it; `names` are theirs by layer, and
    `moment` gives the wall clock's time of one of the monotonic clock.
    """
    ranges: list[DiskRange] = []
    for layer, block in sorted(suspect.blocks):
        if layer not in names:
            continue
        here = DiskRange(names[layer], block * BLOCK_BYTES, BLOCK_BYTES)
        if ranges and ranges[-1].device == here.device and ranges[-1].offset + ranges[-1].length == here.offset:
            here = DiskRange(here.device, ranges[-1].offset, ranges[-1].length + BLOCK_BYTES)
            ranges.pop()
        ranges.append(here)
    return UnreadableObject(suspect.name, moment(suspect.since), suspect.reason, ranges)
