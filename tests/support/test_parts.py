"""What is dealt out to several runs is run by exactly one of them."""

import subprocess
import sys
from pathlib import Path

import pytest

from tests.support.parts import Parts

ROOT = Path(__file__).parents[2]
PYTEST = [sys.executable, "-m", "pytest", "-q", "--collect-only", "-m", "fast", "-p", "no:cacheprovider"]
TESTS = "tests/support/test_seeds.py"


def collected(*options: str) -> list[str]:
    done = subprocess.run(
        [*PYTEST, *options, TESTS],
        cwd=ROOT, capture_output=True, text=True, check=True,
    )  # fmt: skip
    return [line for line in done.stdout.splitlines() if "::" in line]


@pytest.mark.thorough
def test_every_test_is_in_one_part() -> None:
    every, first, second = collected(), collected("--part", "1/2"), collected("--part", "2/2")
    assert len(every) > 2
    assert first == every[::2]
    assert second == every[1::2]


@pytest.mark.parametrize("named", ["", "1", "0/2", "3/2", "1/0", "a/b", "1/2/3"])
def test_what_is_no_part_is_refused(named: str) -> None:
    with pytest.raises(pytest.UsageError):
        Parts(named)
