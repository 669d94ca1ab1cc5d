"""What maintenance would do with a store that nobody writes to: the plan, job after job, without doing any. Pure.

Sizes are what is known of the store now. What consolidation makes of a block is not: at most a block is uploaded for
each, and what it makes dead is not in the figures.
"""

from dataclasses import replace

import msgspec

from storage.format.frame import BLOCK_BYTES
from storage.lsm.compaction.plan import (
    Consolidate,
    Defragment,
    Drop,
    Job,
    Repack,
    StoreFacts,
    WriteCheckpoint,
    next_job,
)
from storage.lsm.compaction.sst_table import LEAVING_SSTS_MAX, SstFacts, SstTable
from storage.lsm.options import MaintenanceOptions

CHECKPOINT_ROW_BYTES = 24
"""Of a row of a checkpoint, about."""


class Forecast(msgspec.Struct, kw_only=True):
    """What would be done, in objects, blocks and bytes."""

    stored_before: int = 0
    stored_after: int = 0
    """Without what consolidation writes and makes dead."""
    dropped: int = 0
    """SSTs that nothing refers to."""
    repacked: int = 0
    """SSTs whose live frames would be copied."""
    checkpoints: int = 0
    consolidated: int = 0
    """Blocks that would be written as one frame each."""
    defragmented: int = 0
    """Windows of neighbouring blocks that would be written side by side."""
    fetched_bytes: int = 0
    uploaded_bytes: int = 0
    consolidated_bytes_max: int = 0
    """What consolidation fetches, and uploads, at most."""


def forecast(snapshot: StoreFacts, options: MaintenanceOptions) -> Forecast:
    """Follow the plan to its end."""
    seen, told = replace(snapshot, drop_max=LEAVING_SSTS_MAX), Forecast(stored_before=int(snapshot.ssts.size.sum()))
    while (job := next_job(seen, options)) is not None:
        seen = _after(seen, job, told)
    told.stored_after = int(seen.ssts.size.sum())
    return told


def _after(seen: StoreFacts, job: Job, told: Forecast) -> StoreFacts:
    """What a job makes of the store; it is added to what is told."""
    ssts = seen.ssts
    if isinstance(job, WriteCheckpoint):
        told.checkpoints += 1
        rows = int(ssts.rows.sum())
        told.uploaded_bytes += rows * CHECKPOINT_ROW_BYTES
        return replace(seen, ssts=ssts.all_merged(), checkpoint_rows=rows, operations=0, checkpoint_older_key=False)
    if isinstance(job, Consolidate):
        told.consolidated += len(job.blocks)
        told.consolidated_bytes_max += len(job.blocks) * BLOCK_BYTES
        taken = {(block.layer, block.block) for block in job.blocks}
        return replace(seen, patched=[block for block in seen.patched if (block.layer, block.block) not in taken])
    if isinstance(job, Defragment):
        told.defragmented += len(job.windows)
        size = sum(window.size for window in job.windows)
        told.fetched_bytes += size
        told.uploaded_bytes += size
        taken_windows = set(job.windows)
        return replace(seen, fragmented=[window for window in seen.fragmented if window not in taken_windows])
    left = ssts.where(~ssts.are({sst.id for sst in job.ssts}))
    if isinstance(job, Drop):
        told.dropped += len(job.ssts)
        return replace(seen, ssts=left)
    told.repacked += len(job.ssts)
    live = sum(sst.live for sst in job.ssts)
    told.fetched_bytes += live
    told.uploaded_bytes += live
    return replace(seen, ssts=left.beside(SstTable.of(_copies(job, told.repacked))))


def _copies(job: Repack, name: int) -> list[SstFacts]:
    """What a repack writes, as one SST."""
    live, rows = sum(sst.live for sst in job.ssts), sum(sst.rows for sst in job.ssts)
    overhead = max(sst.size - sst.frames for sst in job.ssts)
    return [SstFacts(f"copy {name}", 0, live + overhead, live, live, rows, merged=False)]
