"""The plan is a pure function: each rule at its boundary, what comes first, and that it always comes to an end."""

from dataclasses import replace

import pytest

from storage.lsm.compaction.plan import (
    Consolidate,
    Drop,
    Job,
    PatchedBlock,
    Repack,
    StoreFacts,
    WriteCheckpoint,
    decide,
    is_over_target,
    next_job,
    space_debt,
)
from storage.lsm.compaction.sst_table import SstFacts, SstTable
from storage.lsm.options import MaintenanceOptions
from storage.units import KIB, MIB

OPTIONS = MaintenanceOptions()
OVERHEAD = 300
"""Bytes of headers and index in the objects of these tests."""


def sst(
    number: int, live: int, *, frames: int | None = None, merged: bool = True, rows: int = 10, name: str = ""
) -> SstFacts:
    """All of it is live unless `frames` says that there is more."""
    frames = live if frames is None else frames
    return SstFacts(name or f"S{number}", number, frames + OVERHEAD, frames, live, rows, merged)


def snapshot(
    *ssts: SstFacts, patched: tuple[PatchedBlock, ...] = (), at_rest: bool = False, checkpoint_rows: int = 0
) -> StoreFacts:
    return StoreFacts(SstTable.of(ssts), patched, checkpoint_rows, at_rest)


def names(job: Job | None) -> list[str]:
    assert isinstance(job, Drop | Repack)
    return [victim.id for victim in job.ssts]


def test_an_empty_or_a_whole_store_has_nothing_to_do() -> None:
    for at_rest in (False, True):
        assert next_job(snapshot(at_rest=at_rest), OPTIONS) is None
        whole = snapshot(*(sst(n, 16 * MIB) for n in range(50)), at_rest=at_rest)
        assert next_job(whole, OPTIONS) is None


# --- drop


def test_all_merged_ssts_without_anything_live_are_dropped_at_once() -> None:
    seen = snapshot(sst(1, 0, frames=5), sst(2, 1, frames=1), sst(3, 0, frames=0), sst(4, 0, frames=5, merged=False))
    assert names(next_job(seen, OPTIONS)) == ["S1", "S3"]


def test_an_unmerged_sst_is_neither_dropped_nor_repacked_nor_packed() -> None:
    """A start reads its rows: without it they would be missing."""
    few = [sst(n, 10 * KIB, frames=2 * MIB, merged=False) for n in range(3)]
    many = [sst(n, 10 * KIB, merged=False) for n in range(OPTIONS.pack_count + 1)]
    for ssts in ([sst(1, 0, frames=5, merged=False)], few, many):
        assert next_job(snapshot(*ssts, at_rest=True), OPTIONS) is None


# --- checkpoint


def due(*ssts: SstFacts, checkpoint_rows: int = 0) -> bool:
    return isinstance(next_job(snapshot(*ssts, checkpoint_rows=checkpoint_rows), OPTIONS), WriteCheckpoint)


def test_a_checkpoint_is_due_when_there_are_many_ssts_beside_it() -> None:
    beside = [sst(n, MIB, merged=False) for n in range(OPTIONS.unmerged_ssts_max)]
    assert due(*beside)
    assert not due(*beside[1:])
    assert not due(*(replace(s, merged=n > 0) for n, s in enumerate(beside)), sst(99, 16 * MIB))


@pytest.mark.parametrize(
    ("in_it", "needed"), [(0, 100_000), (400_000, 100_000), (400_004, 100_001), (10**7, 2_500_000)]
)
def test_a_checkpoint_is_due_when_there_are_many_rows_beside_it(in_it: int, needed: int) -> None:
    def beside(rows: int) -> list[SstFacts]:
        return [
            sst(1, MIB, merged=False, rows=rows - 7),
            sst(2, MIB, merged=False, rows=7),
            sst(3, 16 * MIB, rows=10**9),
        ]

    assert due(*beside(needed), checkpoint_rows=in_it)
    assert not due(*beside(needed - 1), checkpoint_rows=in_it)


@pytest.mark.parametrize(("live", "needed"), [(0, 64 * MIB), (640 * MIB, 64 * MIB), (1000 * MIB, 100 * MIB)])
def test_a_checkpoint_is_due_when_much_beside_it_is_dead(live: int, needed: int) -> None:
    """Only a checkpoint makes it collectable. What is dead in merged ones does not count."""
    bulk = [sst(1, live, frames=int(live * 1.4))] if live else []
    assert due(*bulk, sst(2, 0, frames=needed, merged=False))
    assert not due(*bulk, sst(2, 0, frames=needed - 1, merged=False))


@pytest.mark.parametrize(("live", "needed"), [(0, 8 * MIB), (80 * MIB, 8 * MIB), (1000 * MIB, 100 * MIB)])
def test_at_rest_less_is_enough(live: int, needed: int) -> None:
    """After a discard of everything nothing is written that would ask for a checkpoint some day."""

    def due_at_rest(dead: int) -> bool:
        bulk = [sst(1, live)] if live else []
        seen = snapshot(*bulk, sst(2, 0, frames=dead, merged=False), at_rest=True)
        return isinstance(next_job(seen, OPTIONS), WriteCheckpoint)

    assert due_at_rest(needed)
    assert not due_at_rest(needed - 1)


# --- repack


@pytest.mark.parametrize(
    ("share", "at_rest"), [(OPTIONS.repack_share, False), (OPTIONS.repack_share_at_rest, True)], ids=["busy", "at rest"]
)
def test_an_sst_is_repacked_below_its_share(share: float, at_rest: bool) -> None:
    frames = 10_000_000
    at = int(frames * share)
    assert next_job(snapshot(sst(1, at, frames=frames), at_rest=at_rest), OPTIONS) is None
    assert names(next_job(snapshot(sst(1, at - 1, frames=frames), at_rest=at_rest), OPTIONS)) == ["S1"]


def test_over_the_space_target_more_is_repacked() -> None:
    frames = 10_000_000
    at = int(frames * OPTIONS.repack_share_over_target)
    options = MaintenanceOptions(space_factor=1.0, space_slack_bytes=0)
    for at_rest in (False, True):
        assert next_job(snapshot(sst(1, at, frames=frames), at_rest=at_rest), options) is None
        assert names(next_job(snapshot(sst(1, at - 1, frames=frames), at_rest=at_rest), options)) == ["S1"]


def test_those_with_the_least_live_share_go_first_and_as_many_as_a_job_may_hold() -> None:
    part = OPTIONS.job_bytes_max // 4
    victims = [sst(n, part, frames=part * (3 + n)) for n in range(6)]
    assert names(next_job(snapshot(*victims), OPTIONS)) == ["S5", "S4", "S3", "S2"]
    more = [replace(victim, live=victim.live + 1) for victim in victims]
    assert names(next_job(snapshot(*more), OPTIONS)) == ["S5", "S4", "S3"]


def test_one_that_is_larger_than_a_job_is_repacked_alone() -> None:
    large = OPTIONS.job_bytes_max * 2
    assert names(next_job(snapshot(sst(1, large, frames=large * 3), sst(2, 5 * MIB, frames=11 * MIB)), OPTIONS)) == [
        "S1"
    ]


def test_what_is_damaged_is_passed_over() -> None:
    seen = replace(snapshot(sst(1, 5 * MIB, frames=20 * MIB)), skipped={"S1"})
    assert next_job(seen, OPTIONS) is None
    small = [sst(n, 100 * KIB) for n in range(OPTIONS.pack_count)]
    assert isinstance(next_job(snapshot(*small), OPTIONS), Repack)
    assert next_job(replace(snapshot(*small), skipped={"S3"}), OPTIONS) is None


# --- pack


def test_small_ssts_of_about_one_size_are_packed() -> None:
    small = [sst(n, 100 * KIB + n) for n in range(OPTIONS.pack_count)]
    assert set(names(next_job(snapshot(*small, sst(50, 2 * KIB), sst(51, 16 * MIB)), OPTIONS))) == {s.id for s in small}
    assert next_job(snapshot(*small[1:], sst(50, 2 * KIB)), OPTIONS) is None


def test_what_is_not_small_is_not_packed() -> None:
    at = OPTIONS.pack_bytes_max
    assert isinstance(next_job(snapshot(*(sst(n, at) for n in range(8))), OPTIONS), Repack)
    assert next_job(snapshot(*(sst(n, at + 1) for n in range(20))), OPTIONS) is None


def test_on_a_slow_link_what_is_a_quarter_of_an_object_is_small() -> None:
    """Objects are smaller there: what is packed must not be small again, or it would be packed for ever."""
    seen = replace(snapshot(*(sst(n, 256 * KIB) for n in range(8))), object_bytes=MIB)
    assert isinstance(next_job(seen, OPTIONS), Repack)
    assert next_job(replace(seen, object_bytes=MIB - 4), OPTIONS) is None


def test_one_sst_is_not_packed() -> None:
    """It would be a copy of itself, for ever."""
    options = MaintenanceOptions(job_bytes_max=100 * KIB)
    assert next_job(snapshot(*(sst(n, 60 * KIB) for n in range(20))), options) is None


# --- consolidate


def block(number: int, patches: int, sectors: int = 1) -> PatchedBlock:
    return PatchedBlock(1, number, patches, sectors)


@pytest.mark.parametrize(("patches", "at_rest"), [(OPTIONS.patches_max, False), (OPTIONS.patches_max_at_rest, True)])
def test_a_block_in_many_pieces_is_consolidated(patches: int, at_rest: bool) -> None:
    assert next_job(snapshot(patched=(block(1, patches),), at_rest=at_rest), OPTIONS) == Consolidate(
        (block(1, patches),)
    )
    assert next_job(snapshot(patched=(block(1, patches - 1),), at_rest=at_rest), OPTIONS) is None


def test_so_is_one_of_which_patches_hold_half() -> None:
    half = OPTIONS.patched_sectors_max
    assert next_job(snapshot(patched=(block(1, 1, half),)), OPTIONS) == Consolidate((block(1, 1, half),))
    assert next_job(snapshot(patched=(block(1, 1, half - 1),)), OPTIONS) is None


def test_blocks_go_in_turn_round_the_disk() -> None:
    options = MaintenanceOptions(consolidate_blocks_max=3)
    patched = (block(9, 20), block(4, 17), block(7, 30), block(1, 18), block(2, 15))
    seen = snapshot(patched=patched)
    assert next_job(seen, options) == Consolidate((block(1, 18), block(4, 17), block(7, 30)))
    seen = replace(seen, consolidated=(1, 7))
    assert next_job(seen, options) == Consolidate((block(1, 18), block(4, 17), block(9, 20)))
    for last in ((1, 9), (2, 0)):
        seen = replace(seen, consolidated=last)
        assert next_job(seen, options) == Consolidate((block(1, 18), block(4, 17), block(7, 30)))


def test_a_block_that_readers_gather_often_goes_early_and_first() -> None:
    options = MaintenanceOptions(consolidate_blocks_max=1)
    often = replace(block(5, 2), often_gathered=True)
    assert next_job(snapshot(patched=(block(1, 40), often)), options) == Consolidate((often,))


def test_blocks_over_damage_are_passed_over() -> None:
    seen = replace(snapshot(patched=(block(1, 20), block(2, 20))), skipped_blocks={(1, 1)})
    assert next_job(seen, OPTIONS) == Consolidate((block(2, 20),))
    assert next_job(replace(seen, skipped_blocks={(1, 1), (1, 2)}), OPTIONS) is None


# --- what comes first


def test_each_job_makes_room_for_the_next() -> None:
    """Dropping costs nothing, a checkpoint makes more collectable, repacking frees space, the rest makes order."""
    dead = sst(1, 0, frames=5)
    beside = [sst(n, MIB, merged=False) for n in range(100, 100 + OPTIONS.unmerged_ssts_max)]
    thin = sst(2, 8 * MIB, frames=20 * MIB)
    small = [sst(n, 100 * KIB) for n in range(10, 10 + OPTIONS.pack_count)]
    pieces = (block(1, 40),)
    order: list[type] = []
    for ssts in ([dead, *beside, thin, *small], [*beside, thin, *small], [thin, *small], small, []):
        job = next_job(snapshot(*ssts, patched=pieces), OPTIONS)
        order.append(type(job))
        if ssts == [thin, *small]:
            assert names(job) == ["S2"]
    assert order == [Drop, WriteCheckpoint, Repack, Repack, Consolidate]


# --- space


def test_the_space_target_is_a_share_of_what_is_live_and_a_slack() -> None:
    live = 1000 * MIB
    allowed = int(live * OPTIONS.space_factor) + OPTIONS.space_slack_bytes
    at = snapshot(sst(1, live, frames=allowed - OVERHEAD))
    over = snapshot(sst(1, live, frames=allowed - OVERHEAD + 1))
    assert not is_over_target(at, OPTIONS)
    assert is_over_target(over, OPTIONS)
    assert space_debt(at, OPTIONS) == 0
    assert 0 < space_debt(over, OPTIONS) < 1e-6


def test_the_debt_is_one_where_writers_are_held_back() -> None:
    live = 1000 * MIB
    full = snapshot(sst(1, live, frames=int(OPTIONS.space_full_factor * live) + OPTIONS.space_slack_bytes - OVERHEAD))
    assert space_debt(full, OPTIONS) == pytest.approx(1)
    empty = snapshot(sst(1, 0, frames=2 * OPTIONS.space_slack_bytes - OVERHEAD, merged=False))
    assert space_debt(empty, OPTIONS) == pytest.approx(1)
    assert space_debt(snapshot(), MaintenanceOptions(space_slack_bytes=0)) == 0


def test_what_patches_cover_is_not_shown() -> None:
    seen = snapshot(sst(1, 1000 * MIB), sst(2, 1000 * MIB))
    assert not is_over_target(seen, OPTIONS)
    covered = replace(seen, covered=1000 * MIB)
    assert is_over_target(covered, OPTIONS)
    assert space_debt(covered, OPTIONS) > space_debt(seen, OPTIONS) == 0
    assert replace(seen, covered=3000 * MIB).shown == 0


def test_what_patches_cover_most_makes_room_first() -> None:
    least = OPTIONS.patched_sectors_over_target
    pieces = tuple(PatchedBlock(1, at, 2, sectors) for at, sectors in enumerate((least - 1, least, 60, 31)))
    ssts = (sst(1, 400 * MIB), sst(2, 400 * MIB), sst(3, 150 * MIB, frames=400 * MIB))
    seen = replace(snapshot(*ssts, patched=pieces), covered=400 * MIB)
    assert next_job(seen, OPTIONS) == Consolidate((pieces[2],)), "as at any time"
    seen = replace(seen, skipped_blocks={(1, 2)})
    assert next_job(seen, OPTIONS) == Consolidate((pieces[1], pieces[3]))
    assert next_job(seen, MaintenanceOptions(consolidate_blocks_max=1)) == Consolidate((pieces[3],))
    assert isinstance(next_job(replace(seen, covered=249 * MIB), OPTIONS), Repack), "more is dead"
    assert isinstance(next_job(replace(seen, patched=pieces[:1]), OPTIONS), Repack), "too little of each is covered"


def test_writers_wait_for_nothing_that_cannot_be_done() -> None:
    over = snapshot(sst(1, 100 * MIB, frames=900 * MIB))
    decision = decide(over, OPTIONS)
    assert decision.over_target
    assert (decision.job, decision.debt) == (next_job(over, OPTIONS), space_debt(over, OPTIONS))
    assert decide(replace(over, skipped={"S1"}), OPTIONS).debt == 0
