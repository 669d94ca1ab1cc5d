"""A short run of the fuzzer, the same every time, and every seed through the target."""

import importlib.util
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.fuzz import seeds, target
from tests.support.requirements import require

INPUTS = 15_000
"""About three seconds; the command for many more is in `tests/fuzz/__main__.py`."""


@pytest.mark.parametrize("source", [seeds.rows, seeds.found], ids=["rows of the table", "found by earlier runs"])
def test_every_seed_keeps_the_promises(source: Callable[[], Iterator[bytes]]) -> None:
    inputs = list(source())
    assert inputs
    for data in inputs:
        target.run(data)


def test_segments_and_a_busy_handler_make_no_difference() -> None:
    """The comparison that some of a fuzzer's inputs choose, for every seed."""
    for data in (*seeds.rows(), *seeds.found()):
        choice = target.choose(data)
        stream = choice.start + data[2:]
        whole = target.converse(stream, choice, step=0)
        for step in (1, 5):
            assert target.converse(stream, choice, step=step) == whole, data


@pytest.mark.slow
def test_a_short_run_finds_nothing(work: Path) -> None:
    if importlib.util.find_spec("atheris") is None:
        require("atheris, a Python package of the group dev")
    run = subprocess.run(
        [sys.executable, "-m", "tests.fuzz", f"--inputs={INPUTS}", "--seed=1", f"--corpus={work}"],
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert run.returncode == 0, run.stderr[-4000:]
    assert f"{INPUTS} inputs, 0 exceptions but ProtocolError" in run.stdout, run.stdout + run.stderr[-4000:]
