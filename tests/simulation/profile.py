"""What one world is like, drawn from its seed: options of the engine, habits of clients, misbehaviour of the store.

Worlds differ on purpose (swarm testing): each draws which faults there are at all, what the engine is opened with,
and what its clients like to do. A rare situation is common in some of the worlds.
"""

import random
from dataclasses import dataclass, replace

import msgspec

from storage.bucket.pace import ObjectSizes
from storage.lsm.options import (
    EngineOptions,
    FlushOptions,
    IndexOptions,
    LogOptions,
    MaintenanceOptions,
    ReadOptions,
)
from tests.simulation.store import Faults

KIB = 1024
MIB = 1024 * KIB
BLOCK = 256 * KIB

Number = int | float

ENDINGS = {"crash": 3.0, "stall": 3.0, "alive": 2.0, "close": 1.0, "race": 1.5}
"""How the writer before a take-over goes, and how often."""

DAMAGE = ("", "flip", "missing", "unreadable")
"""Kinds of damage to an object of data that worlds have, each as often as it stands here."""

PARTS = ("log", "manifest", "checkpoint", "tree")
"""What else may be struck: an object that an opening needs, and that nobody reads who has opened."""

DAMAGE_OF_PARTS = tuple(
    # Without its newest manifest a store is an older one, which its writer has gone on from: not for one that lives.
    f"{kind}: {part}"
    for kind in ("flip", "missing", "unreadable")
    for part in PARTS
    if (kind, part) != ("missing", "manifest")
)

ROTATIONS_SHARE = 0.15
"""Of worlds, so many rotate their data key."""

SOUND_TIMES = 5
"""Worlds without damaged data are left sound, so many for one of each kind of those."""


@dataclass(frozen=True)
class Profile:
    """One world."""

    options: EngineOptions
    hedge_seconds_min: float
    """When a create that has no answer is sent again at the earliest."""
    faults: Faults
    damage: str
    """What happens to one object, one of DAMAGE or of DAMAGE_OF_PARTS (see `damage`)."""
    step_seconds: float
    thread_seconds: float
    think_seconds: float
    skew_seconds: float
    actors: int
    operations: int
    weights: dict[str, float]
    hot_blocks: int
    huge: bool
    """Whether there are disks of terabytes, and discards of as much."""
    handovers: int
    handover_seconds: float
    endings: dict[str, float]
    crossings: float
    """Share of changes of the tree that happen in the midst of writes and a memtable flush."""
    cancels: float
    """Share of changes of the tree whose operator goes away before they have returned."""
    audits: float
    """Share of changes of the bucket after which a recovery is tried on a copy of it; more of new manifests."""
    audit_steps: int
    """Steps of the event loop after which one is tried in any case."""
    rotations: float = 0.0
    """Seconds between two attempts to rotate the data key, on the average; 0: it stays the same for ever."""


def profile_of(seed: int) -> Profile:
    """The profile of a seed."""
    profile, chance = _draw(random.Random(f"profile {seed}")), random.Random(f"rotates {seed}")
    if chance.random() >= ROTATIONS_SHARE:
        return profile
    # It is to come to its end, more than once: so leftovers go soon. What is read of damage is read under one key.
    pick, options = chance.choice, profile.options
    looks = msgspec.structs.replace(options.maintenance, look_seconds=pick([0.05, 0.3]), rest_seconds=0.0)
    often = {"leftover_seconds": 0.0, "sweep_seconds": pick([0.3, 2.0]), "maintenance": looks}
    return replace(
        profile,
        options=msgspec.structs.replace(options, **often),
        faults=replace(profile.faults, stale_seconds=0.0),
        damage="",
        handovers=pick([2, 3, 4]),
        handover_seconds=pick([0.3, 1.0, 3.0]),
        rotations=pick([0.1, 0.5, 2.0]),
    )


def _draw(chance: random.Random) -> Profile:
    pick = chance.choice
    flush_bytes = pick([64 * KIB, 300 * KIB, MIB, 4 * MIB, 64 * MIB])
    object_bytes = pick([BLOCK, 2 * BLOCK, MIB, 16 * MIB])
    stale = pick([0.0, 0.0, 0.0, 0.3, 2.0])
    # The names are older than those of the options, and stay: seeds are made of them below, and what was found with one
    # is to be found again.
    drawn: dict[str, Number] = {
        "BULK_BYTES_MIN": pick([BLOCK, 2 * BLOCK, 2 * BLOCK, MIB, 4 * MIB]),
        "INLINE_BYTES_MAX": pick([64 * KIB, 300 * KIB, MIB, 8 * MIB]),
        "ATOMIC_BYTES_MAX": pick([600 * KIB, MIB, 8 * MIB, 8 * MIB]),
        "SST_BYTES_MAX": object_bytes,
        "SST_BYTES_MIN": min(object_bytes, pick([BLOCK, MIB])),
        "LOG_OBJECTS_MAX": pick([2, 5, 20, 1000]),
        "flush_seconds": pick([0.3, 2.0, 60.0]),
        "push_seconds": pick([0.05, 1.0]),
        "IN_FLIGHT_MAX": pick([1, 2, 4, 16]),
        "USUAL_SECONDS_FIRST": pick([0.0005, 0.01, 0.1]),
        "MANIFESTS_KEPT": 16 if stale else pick([1, 2, 16]),
        "READS_IN_FLIGHT": pick([2, 32]),
        "REPOINT_SLICE": pick([1, 1, 3, 256]),
        "SEAL_INLINE_BYTES_MAX": pick([0, 64 * KIB]),
        "FULL_SECTORS_MIN": pick([4, 32]),
        "FRAGMENTS_MAX": pick([1, 4]),
        "ASSEMBLE_BYTES_MIN": pick([4 * KIB, 64 * KIB]),
        "GAP_BYTES_MAX": pick([0, 64 * KIB]),
        # Mostly without the net below the rules of the sweep, so that they have to hold by themselves.
        "LEFTOVER_SECONDS_MIN": pick([0.0, 0.0, 1.0, 86400.0]),
        "sweep_seconds": pick([0.5, 5.0, 3600.0]),
        "BLOCKS_FEW": pick([0, 0, 256]),
        "PRUNE_AFTER": pick([1, 2, 16]),
        "COMPLETE_SECTORS": pick([1, 64]),
        "WINDOW_BLOCKS_MAX": pick([1, 4, 64]),
        "PART_BYTES_MAX": pick([4 * KIB, 256 * KIB]),
        "ROWS_PER_PART": pick([1, 3, 256 * KIB]),
        "STEPS_AT_ONCE": pick([1, 256]),
        "HEDGE_SECONDS_MIN": pick([0.02, 0.2, 1.0]),
    }
    drawn["INDEX_READS_IN_FLIGHT"] = drawn["READS_IN_FLIGHT"]
    options = _options(
        drawn,
        flush_seconds=drawn.pop("flush_seconds"),
        push_seconds=drawn.pop("push_seconds"),
        sweep_seconds=drawn.pop("sweep_seconds"),
        cache_bytes=pick([0, 300 * KIB, 2 * MIB, 64 * MIB]),
        flush_bytes=flush_bytes,
        unlogged_bytes_max=pick([MIB, 4 * MIB, 256 * MIB]),
        memtable_bytes_max=max(4 * flush_bytes, pick([4 * MIB, 256 * MIB])),
        maintenance=_maintenance(random.Random(chance.random())),
    )
    faults = _faults(chance, stale)
    damage = random.Random(chance.random()).choice(DAMAGE)
    snapshots = _snapshots(random.Random(f"snapshots {damage} {faults.seconds} {drawn}"), damage)
    if not damage:
        parts = (*DAMAGE_OF_PARTS, *("",) * SOUND_TIMES)
        damage = random.Random(f"parts {faults.seconds} {drawn}").choice(parts)
    if damage == "missing: log":
        # The newest object of the log, lost while listings do not show yet what came behind it, leaves no trace.
        faults = replace(faults, stale_seconds=0.0)
    return Profile(
        options=options,
        hedge_seconds_min=drawn["HEDGE_SECONDS_MIN"],
        faults=faults,
        damage=damage,
        step_seconds=pick([0.0, 1e-5, 2e-4]),
        thread_seconds=pick([0.0, 0.0005, 0.005, 0.03]),
        think_seconds=pick([0.001, 0.005, 0.02]),
        skew_seconds=pick([0.0, 1.0, 86400.0]),
        actors=pick([1, 2, 4, 8]),
        operations=pick([30, 60, 120]),
        weights=_habits(chance) | snapshots,
        hot_blocks=pick([1, 3, 6]),
        huge=chance.random() < 0.4,
        handovers=pick([1, 2, 3, 4]),
        handover_seconds=pick([0.03, 0.1, 0.3, 1.0]),
        endings=_some(chance, ENDINGS),
        crossings=pick([0.0, 0.5, 1.0]),
        cancels=pick([0.0, 0.1, 0.5]),
        audits=pick([0.015, 0.04, 0.08]),
        audit_steps=pick([300, 1000, 3000]),
    )


def _options(drawn: dict[str, Number], *, maintenance: MaintenanceOptions, **more: Number) -> EngineOptions:
    """Those of an engine, of which some were drawn under names of their own."""
    counts = {name: int(value) for name, value in drawn.items()}
    return EngineOptions(
        atomic_bytes_max=counts["ATOMIC_BYTES_MAX"],
        part_bytes=counts["PART_BYTES_MAX"],
        flush_objects=counts["LOG_OBJECTS_MAX"],
        log_objects_max=counts["LOG_OBJECTS_MAX"],
        manifests_kept=counts["MANIFESTS_KEPT"],
        leftover_seconds=drawn["LEFTOVER_SECONDS_MIN"],
        sizes=ObjectSizes(
            bulk_bytes_min=counts["BULK_BYTES_MIN"],
            inline_bytes_max=counts["INLINE_BYTES_MAX"],
            sst_bytes_max=counts["SST_BYTES_MAX"],
            sst_bytes_min=counts["SST_BYTES_MIN"],
        ),
        log=LogOptions(
            in_flight_max=counts["IN_FLIGHT_MAX"],
            usual_seconds_first=drawn["USUAL_SECONDS_FIRST"],
            seal_inline_bytes_max=counts["SEAL_INLINE_BYTES_MAX"],
            reads_in_flight=counts["READS_IN_FLIGHT"],
        ),
        reads=ReadOptions(
            fragments_max=counts["FRAGMENTS_MAX"],
            assemble_bytes_min=counts["ASSEMBLE_BYTES_MIN"],
            window_blocks_max=counts["WINDOW_BLOCKS_MAX"],
            gap_bytes_max=counts["GAP_BYTES_MAX"],
            blocks_few=counts["BLOCKS_FEW"],
        ),
        index=IndexOptions(
            prune_after=counts["PRUNE_AFTER"],
            entries_in_step=counts["REPOINT_SLICE"],
            reads_in_flight=counts["INDEX_READS_IN_FLIGHT"],
        ),
        flush=FlushOptions(
            full_sectors_min=counts["FULL_SECTORS_MIN"],
            sectors_together=counts["COMPLETE_SECTORS"],
        ),
        maintenance=msgspec.structs.replace(
            maintenance, rows_per_part=counts["ROWS_PER_PART"], frames_in_step=counts["STEPS_AT_ONCE"]
        ),
        **more,  # type: ignore[arg-type]
    )


def _maintenance(chance: random.Random) -> MaintenanceOptions:
    """In most worlds everything is worth a job, so that jobs meet everything else."""
    pick = chance.choice
    if chance.random() < 0.2:
        return MaintenanceOptions()
    if chance.random() < 0.3:
        # What comes last of all is reached where the rest is seldom worth it.
        return MaintenanceOptions(
            look_seconds=pick([0.05, 0.5]),
            rest_seconds=pick([0.0, 0.1]),
            space_factor=10.0,
            unmerged_ssts_max=pick([2, 8]),
            patches_max_at_rest=pick([2, 16]),
            window_pieces_max=pick([2, 3]),
            defragment_always=True,
        )
    return MaintenanceOptions(
        look_seconds=pick([0.05, 0.5, 2.0]),
        rest_seconds=pick([0.0, 0.1, 10.0]),
        repack_share=pick([0.2, 0.8, 0.95]),
        repack_share_at_rest=pick([0.5, 0.95]),
        space_slack_bytes=pick([0, 256 * MIB]),
        unmerged_ssts_max=pick([1, 2, 8]),
        unmerged_rows_min=pick([0, 4, 100]),
        unmerged_dead_bytes_min=pick([0, MIB]),
        job_bytes_max=pick([1, MIB, 64 * MIB]),
        pack_count=pick([2, 3, 8]),
        patches_max=pick([1, 2, 16]),
        patches_max_at_rest=pick([1, 4]),
        patched_sectors_max=pick([1, 32]),
        consolidate_blocks_max=pick([1, 3, 64]),
    )


def _some(chance: random.Random, weights: dict[str, float]) -> dict[str, float]:
    """Some of the habits are left out, the others get more or less weight; never all out."""
    kept = {name: weight * chance.choice([0, 1, 1, 3]) for name, weight in weights.items()}
    return kept if any(kept.values()) else dict(weights)


def _habits(chance: random.Random) -> dict[str, float]:
    writes = _some(
        chance,
        {"sector": 4.0, "odd": 2.0, "medium": 2.0, "block": 1.5, "run": 1.0, "blank": 0.5, "rewrite": 1.0},
    )
    zeros = {"trim": 1.5, "zeroes": 0.7, "wide": 0.7}
    others = {
        "flush": 4.0,
        "read": 4.0,
        "scan": 1.0,
        "hang_up": 0.5,
        "extents": 0.5,
        "prefetch": 0.2,
        "checkpoint": 0.1,
    }
    tree = {"create": 0.3, "resize": 0.3, "rename": 0.2, "delete": 0.5, "import": 0.15}
    often = chance.choice([0, 1, 1, 5])
    tree = {name: weight * often for name, weight in tree.items()}
    if chance.random() < 0.2:
        zeros = dict.fromkeys(zeros, 0.0)
    return writes | zeros | others | tree


def _snapshots(chance: random.Random, damage: str) -> dict[str, float]:
    """How often snapshots are taken, and what is done with them."""
    often = chance.choice([0, 0, 4] if damage else [0, 1, 4])
    weights = {"snapshot": 0.6, "clone": 0.3, "rollback": 0.3, "forget": 0.4, "past": 0.6}
    return {name: weight * often for name, weight in weights.items()}


def _faults(chance: random.Random, stale: float) -> Faults:
    def share(*values: float) -> float:
        return chance.choice([0.0, *values])

    seconds = chance.choice([0.001, 0.01, 0.05])
    outages = []
    if chance.random() < 0.25:
        start = 1000.0 + chance.uniform(0, 4)
        outages.append((start, start + chance.choice([0.5, 3.0, 40.0])))
    return Faults(
        seconds=seconds,
        slow=share(0.02, 0.1),
        fail=share(0.02, 0.15),
        lose=share(0.02, 0.15),
        late=share(0.02, 0.1, 0.3),
        echo=share(0.0, 0.05),
        log_factor=chance.choice([1.0, 1.0, 1.0, 10.0]),
        hang=share(0.0, 0.002, 0.01),
        stale_seconds=stale,
        outages=outages,
        remote=chance.random() < 0.7,
    )
