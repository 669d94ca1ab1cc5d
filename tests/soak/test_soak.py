"""A few soaks at every run, one of a seed that follows from the commit, and proof that they find mistakes.

A failure names its seed: `python -m tests.soak --first SEED --store STORE` repeats its plan. NBDSERVER_SEED sets the
fresh one.
"""

import sys
from pathlib import Path

import pytest

from tests.soak.broken import MISTAKES
from tests.soak.plan import LONG_SECONDS, Fault, Life, Plan, plan
from tests.soak.rules import WAIT_SECONDS
from tests.soak.run import soak_on_folder, soak_on_minio
from tests.soak.soak import Broken
from tests.support.minio import RunningMinio
from tests.support.requirements import require
from tests.support.seeds import fresh_seed

pytestmark = [pytest.mark.slow, pytest.mark.integration]

SECONDS = LONG_SECONDS
"""Of each of four: about five minutes in all, with those that find mistakes."""

HANG_SECONDS = 5.0
"""For a server that is known to hang: so that the test does not take a minute."""

FRESH = fresh_seed()
FIXED = 1


@pytest.mark.parametrize("seed", [FIXED, FRESH], ids=["fixed", "fresh"])
def test_soak_on_minio(seed: int, work: Path, minio: RunningMinio) -> None:
    seen = soak_on_minio(plan(seed, "minio", SECONDS), work, minio)
    assert seen["flushes answered"]
    assert any(kind.startswith("fault: ") for kind in seen)


@pytest.mark.parametrize("seed", [FIXED, FRESH], ids=["fixed", "fresh"])
def test_soak_on_a_folder(seed: int, work: Path) -> None:
    require("setpriv")
    seen = soak_on_folder(plan(seed, "file", SECONDS), work)
    assert seen["flushes answered"]
    assert any(kind.startswith("fault: ") for kind in seen)


FOUND_BY = {
    "flush_is_answered_before_it_is_durable": "must be there",
    "a_flush_that_takes_long_drops_its_client": "was dropped",
    "discards_are_rounded_outward": "read wrong",
    "a_flush_in_twenty_is_not_answered": "had no reply",
    "each_write_keeps_the_buffer_it_came_in": "the limits add up to",
}
assert set(FOUND_BY) == set(MISTAKES)


OUTAGE = Fault("closed", 3.0, 10.0, 0.5)
RUNS_MAX = 3
"""A busy machine does less in the seconds of one life."""

SHORT = Plan(0, "file", (Life(7.0, (OUTAGE,), (), (), "killed in an outage"), Life(1.0, (), (), (), "stopped")))
"""One outage, in which the server is killed, and a life after it."""


@pytest.mark.parametrize("mistake", FOUND_BY)
def test_a_mistake_is_found(mistake: str, work: Path) -> None:
    require("setpriv")
    program = [sys.executable, "-m", "tests.soak.broken", mistake]
    limit = HANG_SECONDS if FOUND_BY[mistake] == "had no reply" else WAIT_SECONDS
    for run in range(RUNS_MAX):
        folder = work / str(run)
        folder.mkdir()
        try:
            soak_on_folder(SHORT, folder, program=program, wait_seconds=limit)
        except Broken as found:
            if FOUND_BY[mistake] not in str(found):
                raise
            return
    pytest.fail(f"{mistake} was not found in {RUNS_MAX} runs")


def test_nothing_is_found_where_there_is_no_mistake(work: Path) -> None:
    require("setpriv")
    assert soak_on_folder(SHORT, work)["disks compared"]
