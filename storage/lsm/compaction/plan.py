"""The plan of maintenance: which job is next, a pure function of what is known of the store now. One job at a time.

In this order, since each makes room for the next:

1. *Drop* SSTs that no map refers to, some thousands at a time: one manifest, no data. It waits while many are deleted.
2. *Checkpoint* when the rows that a start reads besides the newest checkpoint have become many, when SSTs that only a
   checkpoint makes collectable hold much that is dead, or when there are many of them.
3. *Repack* SSTs of which little is still referred to, those with the least first; and *pack* small ones, of which a
   light load makes one a minute.
4. *Consolidate* blocks that lie in many pieces.
5. *Defragment* windows of neighbouring blocks that lie in many places, when clients write nothing.

The figures, and why:

- A repack of an SST with live share s writes s bytes to free 1 - s: at one half it writes as much as it frees. While
  clients write nothing it may cost more (up to 0.7); over the space target space counts more than writing (0.85).
- Space target: 1.5 times what is shown and 128 MiB, so that a small store does not work all the time. What patches
  cover is referred to, and not shown: where blocks are overwritten in parts, that is the larger half. Then it is
  consolidation that makes room: while more is covered than dead it goes before a repack, which would copy it.
- While the data key is rotated, what an older key sealed is due, whatever is live of it: repacks seal it anew.
- Beyond the target writers are delayed, at 2.25 times what is shown and 128 MiB so much that they hardly write: with
  the log, and what waits to be deleted, a store of a GiB stays below 3 times what is shown.
- A block of 64 sectors is consolidated at 16 patches, or at 32 patched sectors: then at least half of what is written
  is new. At rest 2 patches are enough: a read costs a request for each piece. So they are, at any time, for a block
  that readers had to fetch in four pieces twice: it is read often, and goes from the cache in between.
- Small SSTs are packed by tiers of four: eight of about one size become one, so each byte is copied once a tier, five
  or six times until it lies in an SST of megabytes. On a slow link objects are smaller (`bucket/pace`), and small is
  what is a quarter of one at most: what is packed is never small again, but for one remainder.
- 64 SSTs beside the checkpoint are two round trips of a start; a checkpoint is written again when the rows beside it
  are a quarter of those in it, so all checkpoints together write each row four times at most.
- What is dead beside the checkpoint makes one due at 64 MiB, or a tenth of what is live: a checkpoint is about a
  thousandth of what is live. At rest 8 MiB are enough: where a disk was discarded, nothing else would ever come and ask
  for one, and of a store without data no more than that stays.
- A window of 16 blocks is what one request can bring. It is written anew at 12 pieces: blocks overwritten at random
  reach that when nine or ten of the sixteen are, so it costs less than two bytes for each written. Whoever writes
  little and pauses often would pay that for each byte: so no more is written anew than flushes have listed since the
  store was opened. Of small objects a window needs several: it must have more pieces, or it would be written anew for
  ever. And the store never goes over its target, here without the slack: old frames die one by one, and only then go.
"""

import heapq
from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from storage.lsm.compaction.sst_table import LEAVING_SSTS_MAX, SstFacts, SstTable
from storage.lsm.options import MaintenanceOptions
from storage.units import MIB

WINDOW_BLOCKS = 16
"""4 MiB: what one request for frames brings at most."""


@dataclass(frozen=True, slots=True)
class PatchedBlock:
    """A block with something above its base."""

    layer: int
    block: int
    patches: int
    sectors: int
    """Sectors that patches hold."""
    often_gathered: bool = False
    """Readers had to fetch it in many pieces, twice."""


@dataclass(frozen=True, slots=True, order=True)
class Window:
    """Neighbouring blocks, of which one request could bring all."""

    layer: int
    first: int
    blocks: int
    """Of them, those with a frame."""
    size: int
    """Bytes of their frames."""
    pieces: int
    """Requests that it takes to bring them."""


@dataclass(frozen=True, slots=True)
class StoreFacts:
    """What is known of a store at one moment; sizes in bytes."""

    ssts: SstTable
    patched: Sequence[PatchedBlock]
    checkpoint_rows: int
    at_rest: bool
    """Clients have written nothing for a while."""
    object_bytes: int = 16 * MIB
    """Where one new SST ends and the next begins."""
    skipped: Collection[str] = ()
    """SSTs that are damaged or withheld, which are left as they are."""
    skipped_blocks: Collection[tuple[int, int]] = ()
    consolidated: tuple[int, int] = (0, 0)
    """Layer and block of the last one that was consolidated in turn."""
    operations: int = 0
    """Done to trunks of layers, and not in the checkpoint."""
    covered: int = 0
    """Bytes of live frames that patches cover: nothing shows them, and a consolidation makes them dead."""
    fragmented: Sequence[Window] = ()
    """Windows that are worth it, in turn from where the last job ended; as many as a job may have, or more."""
    checkpoint_older_key: bool = False
    listed_bytes: int = 0
    """That flushes have listed and no defragmentation was set against yet."""
    drop_max: int = LEAVING_SSTS_MAX
    """SSTs of one drop; 0: it waits."""

    @property
    def stored(self) -> int:
        """Bytes of all SSTs that are listed."""
        return int(self.ssts.size.sum())

    @property
    def shown(self) -> int:
        """Bytes of frames that somebody can read."""
        return max(int(self.ssts.live.sum()) - self.covered, 0)


@dataclass(frozen=True, slots=True)
class Drop:
    """A job: take SSTs to which nothing refers off the list, and delete them."""

    ssts: tuple[SstFacts, ...]

    def words(self) -> str:
        """For people, when it is done; of the other jobs too."""
        return f"dropped {len(self.ssts)} SSTs that nothing refers to"


@dataclass(frozen=True, slots=True)
class WriteCheckpoint:
    """A job: write a checkpoint of the index as it is now."""

    reason: str

    def words(self) -> str:
        return f"wrote a checkpoint: {self.reason}"


@dataclass(frozen=True, slots=True)
class Repack:
    """A job: copy the frames that are live in some SSTs into new ones, and drop the old ones."""

    ssts: tuple[SstFacts, ...]
    reason: str

    def words(self) -> str:
        return f"repacked {len(self.ssts)} SSTs: {self.reason}"


@dataclass(frozen=True, slots=True)
class Consolidate:
    """A job: write blocks that lie in pieces as one frame each."""

    blocks: tuple[PatchedBlock, ...]

    def words(self) -> str:
        return f"wrote {len(self.blocks)} blocks that lay in pieces as one each"


@dataclass(frozen=True, slots=True)
class Defragment:
    """A job: write windows of neighbouring blocks anew, side by side."""

    windows: tuple[Window, ...]

    def words(self) -> str:
        return f"wrote {len(self.windows)} windows of neighbouring blocks that lay apart side by side"


Job = Drop | WriteCheckpoint | Repack | Consolidate | Defragment


@dataclass(frozen=True, slots=True)
class Decision:
    """What follows from a snapshot."""

    job: Job | None
    over_target: bool
    debt: float
    """How far the store is beyond its space target (`space_debt`); 0 where nothing can be done about it: what takes the
    room may be damaged, or withheld.
    """


def decide(snapshot: StoreFacts, options: MaintenanceOptions) -> Decision:
    """What to do now, and how urgent it is."""
    job = next_job(snapshot, options)
    return Decision(
        job,
        is_over_target(snapshot, options),
        0.0 if job is None else space_debt(snapshot, options),
    )


def is_over_target(snapshot: StoreFacts, options: MaintenanceOptions) -> bool:
    """Whether the store is larger than it should be."""
    return snapshot.ssts.in_use_bytes > options.space_factor * snapshot.shown + options.space_slack_bytes


def space_debt(snapshot: StoreFacts, options: MaintenanceOptions) -> float:
    """How far the store is on its way from the space target (0) to where writers are to be held back (1, or more):
    replies of writes are delayed accordingly, so that a store never grows without bound, and no writer waits for a job
    to end.
    """
    target = options.space_factor * snapshot.shown + options.space_slack_bytes
    room = (options.space_full_factor - options.space_factor) * snapshot.shown
    return max(snapshot.ssts.in_use_bytes - target, 0.0) / max(room, options.space_slack_bytes, 1)


def next_job(snapshot: StoreFacts, options: MaintenanceOptions) -> Job | None:
    """What to do now; None: nothing is worth it."""
    return (
        next_drop(snapshot)
        or _checkpoint(snapshot, options)
        or _uncover(snapshot, options)
        or _repack(snapshot, options)
        or _pack(snapshot, options)
        or _consolidate(snapshot, options)
        or _defragment(snapshot, options)
        or _settle(snapshot, options)
    )


def next_drop(snapshot: StoreFacts) -> Drop | None:
    """Of the SSTs that nothing refers to so many as may go now."""
    unused = snapshot.ssts.unused
    return Drop(tuple(map(unused.facts, range(count)))) if (count := min(len(unused), snapshot.drop_max)) else None


def _settle(snapshot: StoreFacts, options: MaintenanceOptions) -> WriteCheckpoint | None:
    if options.checkpoint_at_rest and not snapshot.ssts.merged.all():
        return WriteCheckpoint("nothing else is left to do beside it")
    return None


def _checkpoint(snapshot: StoreFacts, options: MaintenanceOptions) -> WriteCheckpoint | None:
    if snapshot.operations >= options.operations_max:
        return WriteCheckpoint(f"{snapshot.operations} changes of layers beside it")
    if snapshot.checkpoint_older_key or (snapshot.ssts.older_key & ~snapshot.ssts.merged).any():
        return WriteCheckpoint("an older data key sealed it, or what lies beside it")
    unmerged = snapshot.ssts.where(~snapshot.ssts.merged)
    if not len(unmerged):
        return None
    rows, dead = int(unmerged.rows.sum()), int(unmerged.dead.sum())
    live = int(snapshot.ssts.live.sum())
    if len(unmerged) >= options.unmerged_ssts_max:
        return WriteCheckpoint(f"{len(unmerged)} SSTs beside it")
    if rows >= max(options.unmerged_rows_min, options.unmerged_rows_share * snapshot.checkpoint_rows):
        return WriteCheckpoint(f"{rows} rows beside it")
    dead_min = options.unmerged_dead_bytes_min_at_rest if snapshot.at_rest else options.unmerged_dead_bytes_min
    if dead >= max(dead_min, options.unmerged_dead_share * live):
        return WriteCheckpoint(f"{dead} dead bytes in SSTs beside it")
    return None


def _repack(snapshot: StoreFacts, options: MaintenanceOptions) -> Repack | None:
    share = options.repack_share_at_rest if snapshot.at_rest else options.repack_share
    if is_over_target(snapshot, options):
        share = options.repack_share_over_target
    movable = snapshot.ssts.where(_movable(snapshot) & ((snapshot.ssts.share < share) | snapshot.ssts.older_key))
    if not len(movable):
        return None
    order = np.argsort(movable.share, kind="stable").tolist()
    why = "an older data key sealed some of them" if movable.older_key.any() else "little of them is live"
    return Repack(_some(map(movable.facts, order), options), why)


def _pack(snapshot: StoreFacts, options: MaintenanceOptions) -> Repack | None:
    tiers: dict[int, list[SstFacts]] = {}
    small_max = min(options.pack_bytes_max, snapshot.object_bytes // 4)
    for sst in snapshot.ssts.where(_movable(snapshot) & (snapshot.ssts.live <= small_max)):
        tiers.setdefault(sst.live.bit_length() // 2, []).append(sst)
    for _, small in sorted(tiers.items()):
        packed = _some(small, options)
        if len(small) >= options.pack_count and len(packed) > 1:
            return Repack(packed, "they are small")
    return None


def _movable(snapshot: StoreFacts) -> NDArray[np.bool_]:
    """Which SSTs a job may copy from."""
    ssts = snapshot.ssts
    return ssts.merged & (ssts.live > 0) & ~ssts.are(snapshot.skipped)


def _some(victims: Iterable[SstFacts], options: MaintenanceOptions) -> tuple[SstFacts, ...]:
    """The first ones, up to `job_bytes_max` of live bytes, and not too many; one at least."""
    total, taken = 0, list[SstFacts]()
    for victim in victims:
        total += victim.live
        if taken and (total > options.job_bytes_max or len(taken) == LEAVING_SSTS_MAX):
            break
        taken.append(victim)
    return tuple(taken)


def _uncover(snapshot: StoreFacts, options: MaintenanceOptions) -> Consolidate | None:
    """Consolidation, where what patches cover is what takes the room."""
    dead = int((snapshot.ssts.frames - snapshot.ssts.live).sum())
    if snapshot.covered <= dead or not is_over_target(snapshot, options):
        return None
    if (job := _consolidate(snapshot, options)) is not None:
        return job
    least = options.patched_sectors_over_target
    worth = [block for block in _readable(snapshot) if block.sectors >= least]
    first = heapq.nlargest(options.consolidate_blocks_max, worth, key=lambda block: (block.sectors, block.patches))
    return _one_job(first)


def _consolidate(snapshot: StoreFacts, options: MaintenanceOptions) -> Consolidate | None:
    """Blocks in many pieces: those that readers gather often, then in turn round the disk, from where the last job
    ended. So neighbours come into one SST, and into one request of a reader.
    """
    patches = options.patches_max_at_rest if snapshot.at_rest else options.patches_max
    worth = [
        block
        for block in _readable(snapshot)
        if block.patches >= patches or block.sectors >= options.patched_sectors_max or block.often_gathered
    ]
    behind = snapshot.consolidated
    worth.sort(key=lambda at: (not at.often_gathered, (at.layer, at.block) <= behind, at.layer, at.block))
    return _one_job(worth[: options.consolidate_blocks_max])


def _defragment(snapshot: StoreFacts, options: MaintenanceOptions) -> Defragment | None:
    room = int(options.space_factor * snapshot.shown) - snapshot.stored
    if not options.defragment_always:
        if not snapshot.at_rest:
            return None
        room = min(room, snapshot.listed_bytes)
    room = min(room, options.job_bytes_max)
    taken: list[Window] = []
    for window in snapshot.fragmented:
        room -= window.size
        if room < 0:
            break
        taken.append(window)
    return Defragment(tuple(taken)) if taken else None


def _readable(snapshot: StoreFacts) -> Iterable[PatchedBlock]:
    return (block for block in snapshot.patched if (block.layer, block.block) not in snapshot.skipped_blocks)


def _one_job(blocks: list[PatchedBlock]) -> Consolidate | None:
    return Consolidate(tuple(sorted(blocks, key=lambda block: (block.layer, block.block)))) if blocks else None
