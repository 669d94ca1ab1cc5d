"""Run worlds from the command line.

python -m tests.simulation.run --seeds 5000 [--first K]     many worlds, two at a time
python -m tests.simulation.run --seed S                     one world, with a trace of everything that happens
"""

import argparse
import sys
import time
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor

from tests.simulation.fixed import FIXED
from tests.simulation.names import ON_TRUNKS
from tests.simulation.profile import DAMAGE, DAMAGE_OF_PARTS, ENDINGS, PARTS
from tests.simulation.spoiling import NOT_NEEDED, WAYS
from tests.simulation.store import MISBEHAVIOUR
from tests.simulation.world import JOBS, Result, run_world

CHUNK = 10

MUST_HAPPEN = (
    *(f"job: {job}" for job in JOBS),
    *(f"{event} inside a job" for event in ("crash", "stall", "take-over")),
    *(f"ending: {how}" for how in ENDINGS),
    *(f"fault: {kind}" for kind in (*MISBEHAVIOUR, *sorted(set(DAMAGE) - {""}))),
    "ending: restart",
    "opened with what was answered and not flushed",
    *(f"tree: {verb}" for verb in ON_TRUNKS),
    *(f"what was read ahead was {end}" for end in ("gone on with", "of no use")),
    "a data key was drawn",
    "an older data key left",
    "check of a copy",
    "check of a running writer",
    "reader saw the same again",
    "what a reader saw was deleted",
    "change cancelled after it was made",
    "change cancelled before it was made",
    "late WAL PUT landed behind a fence",
    "read of what is damaged: Corrupt",
    "refused for what is damaged: Corrupt",
    "session opened that cannot read everything",
    "fault: an object that is not of data",
    *(f"refused for what is spoiled: {part}, {way}" for part in PARTS for way in WAYS),
    "refused for what is spoiled: index, flip",
    "opened with what is spoiled: log, missing",
    "opened with what is spoiled: manifest, missing",
    *(f"opened with what is spoiled: manifest, {way}, with its copy" for way in ("flip", "missing")),
    *(f"opened with what is spoiled: {NOT_NEEDED}, {way}" for way in WAYS),
)
"""What a run of many worlds must have seen, or its faults have no teeth: each happens in one of twenty at least."""

WORLDS_THAT_SEE_ALL = 300

RARE = ("opened so after others had died opening", *(f"fault: {kind}" for kind in DAMAGE_OF_PARTS))
"""And what happens in one of two hundred."""

WORLDS_THAT_SEE_RARE = 2000


def chunk(first: int, count: int) -> list[Result]:
    """Some worlds in a row."""
    return [run_world(seed) for seed in range(first, first + count)]


def run_many(first: int, count: int, workers: int) -> Iterator[Result]:
    """The worlds of seeds first .. first + count - 1, as they are done."""
    if workers == 1:
        yield from map(run_world, range(first, first + count))
        return
    with ProcessPoolExecutor(workers) as pool:
        starts = range(first, first + count, CHUNK)
        for results in pool.map(chunk, starts, [min(CHUNK, first + count - s) for s in starts]):
            yield from results


def main() -> int:
    parser = argparse.ArgumentParser(description="Simulate the engine on a store that misbehaves.")
    parser.add_argument("--seeds", type=int, default=300, help="how many worlds")
    parser.add_argument("--first", type=int, default=0, help="seed of the first one")
    parser.add_argument("--seed", type=int, help="only this one, with a trace")
    parser.add_argument("--fixed", action="store_true", help="those that every run of the tests has, in one process")
    parser.add_argument("--workers", type=int, default=2, help="processes")
    parser.add_argument("--stop", action="store_true", help="stop at the first violation")
    arguments = parser.parse_args()
    if arguments.seed is not None:
        result = run_world(arguments.seed, trace=print)
        print(f"seed {result.seed} digest {result.digest}: {result.violation or 'all well'}")
        return int(result.violation is not None)
    started = time.monotonic()
    seen: Counter[str] = Counter()
    broken = worlds = 0
    many = run_many(arguments.first, arguments.seeds, arguments.workers)
    for result in map(run_world, FIXED) if arguments.fixed else many:
        worlds += 1
        seen.update(result.seen)
        if result.violation:
            broken += 1
            print(f"seed {result.seed}: {result.violation}", flush=True)
            if arguments.stop:
                break
    elapsed = time.monotonic() - started
    print(f"{worlds} worlds in {elapsed:.0f} s ({elapsed / worlds:.2f} s each), {broken} broke a promise")
    for what, count in sorted(seen.items()):
        print(f"{count:9d} {what}")
    missing, rare = ([what for what in must if not seen[what]] for must in (MUST_HAPPEN, RARE))
    print(f"never happened: {', '.join(missing + rare) or 'nothing'}")
    toothless = (missing and worlds >= WORLDS_THAT_SEE_ALL) or (rare and worlds >= WORLDS_THAT_SEE_RARE)
    return int(broken > 0 or bool(toothless))


if __name__ == "__main__":
    sys.exit(main())
