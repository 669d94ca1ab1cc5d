"""The options of an engine. Sizes in bytes, times in seconds; the defaults are those that servers run with.

They are those of whoever opens an engine, and the configuration of a server has `cache_bytes` alone of them. The others
follow from what a request, a frame and a turn of the event loop cost, not from what a server is for: nobody who runs
one has a reason to set them, and a wrong one costs speed that nobody would look for here. They are options since worlds
of the simulation give each of them values that make rare situations common.
"""

import msgspec

from storage.bucket.pace import ObjectSizes
from storage.format.checkpoint import ROWS_PER_PART
from storage.format.envelope import PART_BYTES_MAX
from storage.units import GIB, KIB, MIB

MANIFESTS_KEPT = 16
"""The newest so many stay: a reader that is a few commits behind still finds the manifest that it has listed, and who
looks for the cause of damage has the last steps before it. One is enough for the store to be whole.
"""

LEFTOVER_SECONDS_MIN = 24 * 3600.0
"""Nothing younger is swept: somebody has a day to notice that a store is not all there."""

GAP_BYTES_MAX = 64 * KIB
"""Bytes between two frames that are cheaper to read along than to ask for separately (2 ms at 30 MB/s)."""

GARBAGE_NAMES_MAX = 20_000
"""Names of garbage that are remembered, about 3 MiB. Beyond that the oldest are forgotten, which the next writer's
sweep finds: so no more is dropped while half of them wait to be deleted (`JobContext.drop_max`), but where deletions
fail.
"""

PRUNE_AFTER = 16
"""Patches added to a block between two prunings of its chain: pruning costs as much as adding ten."""

BLOCKS_FEW = 256
"""Who asks for the extents of so many has each looked at, without asking first where the memtables have anything: half
a millisecond."""


class LogOptions(msgspec.Struct, frozen=True):
    """How the log is written, and how it is read when a store is opened: options of `wal/`."""

    in_flight_max: int = 4
    """PUTs under way at a time, at least one. Behind the window that a fence jumps over none begins, however many."""
    usual_seconds_first: float = 0.01
    """What a PUT is taken to need before one was seen: half of it is between two that flushes wait for."""
    seal_inline_bytes_max: int = 64 * KIB
    """Operations of a batch that is sealed on the event loop: 30 us there cost less than a trip to a thread."""
    reads_in_flight: int = 32
    """Objects asked for at a time, while a store is opened."""


class ReadOptions(msgspec.Struct, frozen=True):
    """How reads are answered: options of `layer`, `read/` and `sst/`."""

    fragments_max: int = 4
    """A block read from more entries of the index than this is put together once and kept."""
    assemble_bytes_min: int = 64 * KIB
    """Smaller reads do not pay for putting a whole block together (about 50 us)."""
    window_blocks_max: int = 64
    """How far a sequential reader is read ahead: 16 MiB, four ranged GETs."""
    gap_bytes_max: int = GAP_BYTES_MAX
    """See there."""
    blocks_few: int = BLOCKS_FEW
    """See there."""


class IndexOptions(msgspec.Struct, frozen=True):
    """How the index in memory is kept, and how it is read when a store is opened: options of `index/`."""

    prune_after: int = PRUNE_AFTER
    """See there: at most 256, since ages of chains are bytes."""
    entries_in_step: int = 64
    """Entries of a flush that are put into it between two turns of the event loop: 10 us each, with its frame put into
    the cache."""
    reads_in_flight: int = 32
    """Indexes of SSTs asked for at a time, while a store is opened."""


class FlushOptions(msgspec.Struct, frozen=True):
    """What a memtable becomes: options of `flush/`."""

    full_sectors_min: int = 32
    """A block that is wholly known and has this many sectors of data is written as one full frame; fewer than all."""
    sectors_together: int = 64
    """Sectors completed together: 64 frames of 256 KiB at most, and about a millisecond of the event loop."""


class MaintenanceOptions(msgspec.Struct, frozen=True):
    """When maintenance is worth it; why each figure is what it is stands in `compaction/plan`."""

    look_seconds: float = 5.0
    """Between two looks at a store where nothing was worth doing."""
    rest_seconds: float = 10.0
    """A store to which nothing was written for so long is at rest."""
    repack_share: float = 0.5
    """Live share of an SST below which it is repacked."""
    repack_share_at_rest: float = 0.7
    repack_share_over_target: float = 0.85
    space_factor: float = 1.5
    """The space target: stored bytes for each one that is shown, and `space_slack_bytes` more."""
    space_full_factor: float = 2.25
    """Here, and `space_slack_bytes` more, writers are held back."""
    space_slack_bytes: int = 128 * MIB
    unmerged_ssts_max: int = 64
    """SSTs beside the newest checkpoint that make the next one due."""
    operations_max: int = 256
    """Changes of layers that the newest checkpoint does not hold, which make the next one due."""
    unmerged_rows_min: int = 100_000
    """Rows in those; and `unmerged_rows_share` of the rows of the checkpoint."""
    unmerged_rows_share: float = 0.25
    unmerged_dead_bytes_min: int = 64 * MIB
    """Dead bytes in those; and `unmerged_dead_share` of what is live."""
    unmerged_dead_bytes_min_at_rest: int = 8 * MIB
    unmerged_dead_share: float = 0.1
    job_bytes_max: int = 64 * MIB
    """Live bytes of one repack, which is in memory meanwhile."""
    pack_bytes_max: int = 4 * MIB
    """An SST with more live bytes is not small."""
    pack_count: int = 8
    """Small SSTs of about one size that are packed into one."""
    patches_max: int = 16
    """A block with so many patches is consolidated."""
    patches_max_at_rest: int = 2
    patched_sectors_max: int = 32
    """So is one of which patches hold so many sectors."""
    patched_sectors_over_target: int = 16
    """And one of so many, where more is covered by patches than dead, and the store is over its target."""
    consolidate_blocks_max: int = 256
    """Blocks of one consolidation: 64 MiB."""
    window_pieces_max: int = 12
    """Sixteen neighbouring blocks in so many places are written anew when clients write nothing."""
    defragment_always: bool = False
    """That is done also while they write, and however little they have written."""
    rows_per_part: int = ROWS_PER_PART
    """Of a checkpoint: about so many rows are sealed as one, and opened as one by a start."""
    frames_in_step: int = 256
    """Frames pointed elsewhere between two turns of the event loop: about half a millisecond."""
    checkpoint_at_rest: bool = False
    """When nothing else is to be done, write a checkpoint if any SST is beside it: then all are movable."""


def thorough(options: MaintenanceOptions) -> MaintenanceOptions:
    """For somebody who asks for maintenance now: as small a store and as whole blocks as can be."""
    return msgspec.structs.replace(
        options,
        repack_share=0.9,
        repack_share_at_rest=0.9,
        repack_share_over_target=0.9,
        pack_count=2,
        patches_max=1,
        patches_max_at_rest=1,
        window_pieces_max=8,
        defragment_always=True,
        checkpoint_at_rest=True,
    )


class EngineOptions(msgspec.Struct, frozen=True):
    """How much an engine keeps, and how often it does what nobody asks it for."""

    cache_bytes: int = GIB
    """Decoded frames in memory."""
    unlogged_bytes_max: int = 256 * MIB
    """Written and not in the log yet; on a slow link less."""
    memtable_bytes_max: int = 256 * MIB
    """Written and not in SSTs yet."""
    log_objects_max: int = 4000
    log_bytes_max: int = 512 * MIB
    """What a replay may have to read at most; memtable flushes begin at a quarter of that."""
    kept_bytes_max: int = 32 * MIB
    """Parts of sectors over what cannot be read that are kept for a layer (see `complete`): 8,000 of them. They are in
    memory and in the log until they can be completed, so further ones are refused.
    """
    flush_bytes: int = 64 * MIB
    """A memtable of this size is flushed."""
    flush_objects: int = 1000
    """WAL objects that start a memtable flush: a replay of that many takes about a second."""
    flush_uploaded_bytes: int = 128 * MIB
    """In SSTs that were uploaded past the log and that no manifest lists yet, each of which counts for a MiB at least.
    They weigh nothing in a memtable, but nothing in them is collected before, and a start after a crash asks for each.
    """
    flush_seconds: float = 60.0
    """A memtable is flushed when its oldest operation is this old, so an idle store needs no replay."""
    push_seconds: float = 1.0
    """Operations nobody flushes go to the log after this long."""
    watch_seconds: float = 10.0
    """How often a writer asks for the next manifest number: for so long a superseded one may serve its older view."""
    sweep_seconds: float = 3600.0
    """How often a writer looks for leftovers that have become old enough, and for what landed late."""
    patience_seconds: float | None = None
    """How long a read waits for a store that is away; None, for servers: for ever."""
    sizes: ObjectSizes = ObjectSizes()
    """Of objects, between which the measured rate of uploads decides."""
    manifests_kept: int = MANIFESTS_KEPT
    """The newest ones, which are no garbage, and which a check expects; at least one."""
    garbage_names_max: int = GARBAGE_NAMES_MAX
    """See there."""
    leftover_seconds: float = LEFTOVER_SECONDS_MIN
    """What lies in the store for less long is no leftover."""
    atomic_bytes_max: int = 8 * MIB
    """A write up to this size is one record of the log and so all there or not there after a crash."""
    part_bytes: int = PART_BYTES_MAX
    """Of what is sealed as one, in objects of the log, manifests and images of the tree; no more than the format's."""
    log: LogOptions = LogOptions()
    reads: ReadOptions = ReadOptions()
    index: IndexOptions = IndexOptions()
    flush: FlushOptions = FlushOptions()
    maintenance: MaintenanceOptions = MaintenanceOptions()
