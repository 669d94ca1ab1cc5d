"""What the plan makes of a rotation of the data key: everything that an older key sealed, and it comes to its end."""

from dataclasses import replace

import pytest

from storage.lsm.compaction.forecast import forecast
from storage.lsm.compaction.plan import Repack, StoreFacts, WriteCheckpoint, next_job
from storage.lsm.compaction.sst_table import SstFacts
from storage.units import MIB
from tests.storage.lsm.compaction.test_plan import OPTIONS, names, snapshot, sst


def older(number: int, live: int = 16 * MIB, *, merged: bool = True) -> SstFacts:
    return replace(sst(number, live, merged=merged), older_key=True)


@pytest.mark.parametrize("at_rest", [False, True])
def test_what_is_all_live_is_sealed_anew_and_nothing_else(at_rest: bool) -> None:
    seen = snapshot(older(1), sst(2, 16 * MIB), older(3), at_rest=at_rest)
    assert names(next_job(seen, OPTIONS)) == ["S1", "S3"]


def test_what_lies_beside_the_checkpoint_is_merged_first() -> None:
    job = next_job(snapshot(older(1), older(2, merged=False)), OPTIONS)
    assert isinstance(job, WriteCheckpoint)
    assert isinstance(next_job(snapshot(older(1), sst(2, MIB, merged=False)), OPTIONS), Repack)


def test_the_checkpoint_is_written_anew() -> None:
    assert isinstance(next_job(replace(snapshot(), checkpoint_older_key=True), OPTIONS), WriteCheckpoint)


def test_what_is_left_alone_keeps_no_others() -> None:
    assert names(next_job(replace(snapshot(older(1), older(2)), skipped=["S1"]), OPTIONS)) == ["S2"]
    assert next_job(replace(snapshot(older(1)), skipped=["S1"]), OPTIONS) is None


def test_a_job_is_no_larger_than_any_other() -> None:
    seen = snapshot(*(older(n) for n in range(20)))
    job = next_job(seen, OPTIONS)
    assert isinstance(job, Repack)
    assert sum(victim.live for victim in job.ssts) <= OPTIONS.job_bytes_max


def test_it_comes_to_its_end() -> None:
    seen: StoreFacts = replace(
        snapshot(*(older(n, (n + 1) * MIB) for n in range(20)), older(99, merged=False)), checkpoint_older_key=True
    )
    told = forecast(seen, OPTIONS)
    assert told.repacked >= 21
    assert told.checkpoints >= 1
