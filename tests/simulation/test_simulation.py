"""Fresh worlds at every commit, and proof that they can find mistakes.

A failure names its seed: `python -m tests.simulation.run --seed N` repeats it with a trace. NBDSERVER_SEED sets the
first seed of all chunks; without it the commit does.
"""

import ast
import asyncio
import os
import subprocess
import sys
from collections import Counter
from collections.abc import Callable, Sequence

import pytest

from storage.lsm.index.block_map import BlockMap
from tests.simulation import limit, world
from tests.simulation.fixed import FIXED
from tests.simulation.mutation import ROOT, mutated
from tests.simulation.mutations import MUTATIONS, hunt
from tests.simulation.run import MUST_HAPPEN, WORLDS_THAT_SEE_ALL
from tests.simulation.virtual import in_virtual_time
from tests.simulation.world import run_world
from tests.support.examples import first_soon
from tests.support.seeds import fresh_seed
from tests.support.sightings import tell

CHUNKS = 26
WORLDS_IN_CHUNK = 10

FIRST = fresh_seed()

SMALL = 564
REPEATED = (51, 56, 80)
HASHED = (57, 101, 102, 103)

FIXED_IN_CHUNK = 5
FIXED_CHUNKS_SOON = 7

FOUND_SOON = (
    "acknowledged out of number order",
    "a taken name counts as success",
    "fences are deleted with the log they end",
    "the sweep takes objects of any epoch",
    "an uploaded frame replaces newer bytes",
    "sectors written in part are completed with zeros",
    "a damaged object of the log is taken for its end",
)
"""Mistakes hunted at every run; `python -m tests.simulation.mutations` hunts all."""

WORLDS_FOR_MISTAKE_MAX = 150


@pytest.mark.slow
@pytest.mark.parametrize("chunk", range(CHUNKS))
def test_fresh_worlds(chunk: int, record_property: Callable[[str, object], None]) -> None:
    first = FIRST + chunk * WORLDS_IN_CHUNK
    all_is_well_in(range(first, first + WORLDS_IN_CHUNK), record_property)


def all_is_well_in(seeds: Sequence[int], record_property: Callable[[str, object], None]) -> None:
    """And what they have seen is told: those of a whole run must have seen everything."""
    seen: Counter[str] = Counter()
    for seed in seeds:
        result = run_world(seed)
        seen.update(result.seen)
        if result.violation is not None:
            again = f"repeat it with: python -m tests.simulation.run --seed {seed}"
            pytest.fail(f"{result.violation}\n\n{again}", pytrace=False)
    tell(
        record_property,
        "worlds",
        cases=len(seeds),
        seen=seen,
        must=MUST_HAPPEN,
        cases_that_see_all=WORLDS_THAT_SEE_ALL,
    )


def test_a_whole_run_is_enough_to_see_everything() -> None:
    assert CHUNKS * WORLDS_IN_CHUNK + len(FIXED) >= WORLDS_THAT_SEE_ALL


@pytest.mark.parametrize("first", first_soon(range(0, len(FIXED), FIXED_IN_CHUNK), FIXED_CHUNKS_SOON))
def test_fixed_worlds(first: int, record_property: Callable[[str, object], None]) -> None:
    all_is_well_in(FIXED[first : first + FIXED_IN_CHUNK], record_property)


@pytest.mark.parametrize("seed", [SMALL, *(pytest.param(seed, marks=pytest.mark.slow) for seed in REPEATED)])
def test_one_seed_is_one_world(seed: int) -> None:
    events: list[str] = []
    first = run_world(seed, trace=events.append)
    assert len(events) > 100
    assert run_world(seed).digest == first.digest
    assert run_world(seed + 1).digest != first.digest


def test_the_order_in_which_several_tasks_end_is_always_the_same() -> None:
    """A group of them has them in a set."""
    kept: list[set[asyncio.Task[None]]] = []

    async def order() -> list[str]:
        tasks = {asyncio.ensure_future(asyncio.sleep(at), loop=asyncio.get_running_loop()): None for at in range(50)}
        kept.append(set(tasks))
        numbers = {task: str(at) for at, task in enumerate(tasks)}
        return [numbers[task] for task in kept[-1]]

    assert in_virtual_time(order()) == in_virtual_time(order()) == in_virtual_time(order())


@pytest.mark.parametrize("seed", first_soon([SMALL, *HASHED]))
@pytest.mark.thorough
def test_a_world_does_not_depend_on_the_hashes_of_a_process(seed: int) -> None:
    command = f"from tests.simulation.world import run_world; print(run_world({seed}).digest)"
    other = "2" if os.environ.get("PYTHONHASHSEED") == "1" else "1"
    done = subprocess.run(
        [sys.executable, "-c", command],
        cwd=ROOT,
        env={**os.environ, "PYTHONHASHSEED": other},
        capture_output=True,
        text=True,
        check=True,
    )
    assert done.stdout == run_world(seed).digest + "\n"


def test_a_world_that_hangs_ends_and_says_where(monkeypatch: pytest.MonkeyPatch) -> None:
    def find(self: BlockMap, block: int) -> None:
        while block >= 0:
            pass

    monkeypatch.setattr(BlockMap, "find", find)
    monkeypatch.setattr(world, "WORLD_SECONDS_MAX", 0.3)
    monkeypatch.setattr(limit, "AGAIN_SECONDS", 0.1)
    result = world.run_world(0)
    assert result.violation is not None
    assert result.violation.startswith("it hangs")
    assert "in find" in result.violation


def test_every_mistake_can_still_be_planted() -> None:
    gone = []
    for mutation in MUTATIONS:
        try:
            ast.parse(mutated(mutation))
        except (AssertionError, SyntaxError, ValueError) as error:
            gone.append(f"{mutation.name}: {error}")
    assert gone == []


@pytest.mark.slow
@pytest.mark.parametrize("name", FOUND_SOON)
def test_planted_mistakes_are_found(name: str) -> None:
    (mutation,) = [mutation for mutation in MUTATIONS if mutation.name == name]
    assert hunt(mutation, worlds=WORLDS_FOR_MISTAKE_MAX).seed is not None
