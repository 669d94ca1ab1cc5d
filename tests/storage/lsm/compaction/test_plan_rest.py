"""Plans come to their end, and a forecast says what each will cost."""

import random
from dataclasses import replace

import pytest

from storage.lsm.compaction.forecast import forecast
from storage.lsm.compaction.plan import (
    WINDOW_BLOCKS,
    Consolidate,
    Defragment,
    Drop,
    Job,
    Repack,
    StoreFacts,
    Window,
    WriteCheckpoint,
    next_job,
)
from storage.lsm.compaction.sst_table import SstTable
from storage.lsm.options import thorough
from storage.units import KIB, MIB
from tests.storage.lsm.compaction.test_plan import OPTIONS, OVERHEAD, block, snapshot, sst

# --- it comes to an end


def after(seen: StoreFacts, job: Job, fresh: int) -> StoreFacts:
    """What a job makes of a store that nobody writes to; `fresh` is the number of an SST it writes."""
    ssts = list(seen.ssts)
    if isinstance(job, WriteCheckpoint):
        rows = seen.checkpoint_rows + sum(s.rows for s in ssts if not s.merged)
        return replace(seen, ssts=SstTable.of(replace(s, merged=True) for s in ssts), checkpoint_rows=rows)
    if isinstance(job, Consolidate):
        # Each block becomes one frame, and what it lay in loses what it held of it.
        written = len(job.blocks) * 200 * KIB
        blocks = {b.block for b in job.blocks}
        for at, old in enumerate(ssts):
            ssts[at] = replace(old, live=max(old.live - 50 * KIB * len(job.blocks) // len(ssts), 0))
        ssts.append(sst(fresh, written, merged=False, rows=len(job.blocks)))
        return replace(seen, ssts=SstTable.of(ssts), patched=[b for b in seen.patched if b.block not in blocks])
    if isinstance(job, Defragment):
        written = sum(window.size for window in job.windows)
        for at, old in enumerate(ssts):
            ssts[at] = replace(old, live=max(old.live - written // len(ssts), 0))
        ssts.append(sst(fresh, written, merged=False, rows=len(job.windows) * WINDOW_BLOCKS))
        left_as_it_is = [window for window in seen.fragmented if window not in job.windows]
        listed = seen.listed_bytes - written
        return replace(seen, ssts=SstTable.of(ssts), fragmented=left_as_it_is, listed_bytes=listed)
    assert isinstance(job, Drop | Repack)
    taken = {s.id for s in job.ssts}
    left = [s for s in ssts if s.id not in taken]
    assert len(left) == len(ssts) - len(job.ssts)
    if isinstance(job, Repack):
        left.append(sst(fresh, sum(s.live for s in job.ssts), merged=False, rows=sum(s.rows for s in job.ssts)))
    return replace(seen, ssts=SstTable.of(left))


def any_store(draw: random.Random) -> StoreFacts:
    ssts = []
    for number in range(draw.randrange(150)):
        frames = int(2 ** draw.uniform(0, 26))
        live = draw.choice([0, frames, draw.randrange(frames + 1)])
        rows = draw.choice([1, 100, 20_000])
        ssts.append(sst(number, live, frames=frames, merged=draw.random() < 0.7, rows=rows))
    patched = [block(number, draw.randrange(1, 40), draw.randrange(1, 65)) for number in range(draw.randrange(600))]
    rows, at_rest = draw.choice([0, 10**6]), draw.random() < 0.5
    windows = [
        Window(1, number * WINDOW_BLOCKS, 16, draw.choice([100 * KIB, 4 * MIB]), draw.randrange(8, 17))
        for number in range(draw.choice([0, 100]))
    ]
    listed = draw.choice([0, 100 * MIB])
    return StoreFacts(SstTable.of(ssts), patched, rows, at_rest, fragmented=windows, listed_bytes=listed)


@pytest.mark.fast
def test_a_store_that_nobody_writes_to_comes_to_rest() -> None:
    """However it looks: after some jobs, none is worth it. What is left keeps the rules."""
    done: dict[str, int] = {}
    for seed in range(100):
        seen = any_store(random.Random(seed))
        steps = 3 * len(seen.ssts) + len(seen.patched) // OPTIONS.consolidate_blocks_max + 10
        steps += len(seen.fragmented)
        for step in range(steps):
            job = next_job(seen, OPTIONS)
            if job is None:
                break
            done[type(job).__name__] = done.get(type(job).__name__, 0) + 1
            seen = after(seen, job, 1000 + step)
        else:
            pytest.fail(f"store {seed} is never at rest")
        merged = [s for s in seen.ssts if s.merged]
        assert all(s.live for s in merged)
        assert all(s.live >= OPTIONS.repack_share * s.frames for s in merged)
        assert len(seen.ssts) - len(merged) < OPTIONS.unmerged_ssts_max
        if seen.at_rest:
            live, dead = sum(s.live for s in seen.ssts), sum(s.frames - s.live for s in seen.ssts if not s.merged)
            assert dead < max(OPTIONS.unmerged_dead_bytes_min_at_rest, OPTIONS.unmerged_dead_share * live)
    assert done.keys() == {"Drop", "WriteCheckpoint", "Repack", "Consolidate", "Defragment"}


def test_it_looks_at_nothing_but_what_it_is_given() -> None:
    seen = any_store(random.Random(5))
    assert next_job(seen, OPTIONS) == next_job(seen, OPTIONS)


@pytest.mark.fast
def test_a_thorough_plan_comes_to_its_end_and_leaves_nothing_beside_the_checkpoint() -> None:
    options = thorough(OPTIONS)
    for seed in range(60):
        seen = any_store(random.Random(seed))
        told = forecast(seen, options)
        assert told.stored_before == int(seen.ssts.size.sum())
        assert told.consolidated == len(seen.patched)
        step = 0
        while (job := next_job(seen, options)) is not None:
            seen = after(seen, job, 10_000 + step)
            step += 1
            assert step < 2000, f"store {seed} is never at rest"
        assert all(s.merged and s.live and s.live >= 0.9 * s.frames for s in seen.ssts)


def test_a_forecast_counts_what_each_job_reads_and_writes() -> None:
    seen = snapshot(
        sst(1, 0, frames=5), sst(2, MIB, frames=10 * MIB), sst(3, 16 * MIB, merged=False), patched=(block(1, 4),)
    )
    told = forecast(seen, thorough(OPTIONS))
    assert (told.dropped, told.repacked, told.checkpoints, told.consolidated) == (1, 1, 1, 1)
    assert told.fetched_bytes == MIB
    assert MIB < told.uploaded_bytes < MIB + 64 * KIB
    assert told.stored_after == 17 * MIB + 2 * OVERHEAD
    assert seen.ssts.size.sum() == told.stored_before, "what it was given is as it was"
