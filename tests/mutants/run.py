"""Plant mutants and run their tests:  python -m tests.mutants.run [PART OF A NAME] [--workers N]

A mutant whose tests all pass is missed: a test is missing, or cannot fail.
"""

import argparse
import os
import shutil
import subprocess
import sys
import tempfile
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from tests.mutants.mutant import Mutant
from tests.mutants.mutants import MUTANTS

ROOT = Path(__file__).parents[2]

TESTS_FAILED = 1
"""pytest's status; what is above it says that they did not run."""


KINDS = "fast or thorough or integration"
"""Which of the tests a mutant names are run."""

SEED = "--hypothesis-seed=0"
"""What is noticed is noticed again, and not by the luck of a draw; where CI is set Hypothesis passes over this."""

LIMIT = "--timeout=30"
"""Some mistakes make a loop that has no end; a test that is stopped has failed."""

SECONDS_MAX = 300
"""And some hang where no signal is looked at, as in the end of a loop: a run that takes longer has failed too."""


def text_of(mutant: Mutant) -> str:
    """The file with the mistake in it. ValueError: the text to replace is not there (once)."""
    text = (ROOT / mutant.file).read_text()
    if (count := text.count(mutant.old)) != 1:
        raise ValueError(f"{mutant.name}: its text stands {count} times in {mutant.file}")
    return text.replace(mutant.old, mutant.new)


def is_noticed(mutant: Mutant) -> bool:
    """Whether a test fails with it. RuntimeError: the tests did not run."""
    environment = {name: value for name, value in os.environ.items() if name != "CI"}
    with tempfile.TemporaryDirectory(prefix="nbd-mutant-") as name:
        folder = Path(name)
        for part in ("nbdserver", "scripts", "storage", "tests"):
            shutil.copytree(ROOT / part, folder / part, ignore=shutil.ignore_patterns("__pycache__"))
        shutil.copy(ROOT / "pyproject.toml", folder)
        (folder / mutant.file).write_text(text_of(mutant))
        try:
            done = subprocess.run(
                [
                    sys.executable,
                    "-m",
                    "pytest",
                    "-q",
                    "-x",
                    "-m",
                    KINDS,
                    "-p",
                    "no:cacheprovider",
                    SEED,
                    LIMIT,
                    *mutant.tests,
                ],
                cwd=folder,
                env={**environment, "PYTHONDONTWRITEBYTECODE": "1", "PYTHONPATH": str(folder)},
                capture_output=True,
                text=True,
                timeout=SECONDS_MAX,
            )
        except subprocess.TimeoutExpired:
            return True
    if done.returncode > TESTS_FAILED:
        raise RuntimeError(f"{mutant.name}: {done.stdout[-2000:]}{done.stderr[-2000:]}")
    return done.returncode == TESTS_FAILED


def main() -> int:
    parser = argparse.ArgumentParser(description="Plant mistakes, and see that tests notice them.")
    parser.add_argument("name", nargs="?", default="", help="only those with this in their name")
    parser.add_argument("--workers", type=int, default=2, help="mistakes tried at a time")
    arguments = parser.parse_args()
    chosen = [mutant for mutant in MUTANTS if arguments.name in mutant.name]
    with ThreadPoolExecutor(arguments.workers) as pool:
        missed = 0
        for mutant, noticed in zip(chosen, pool.map(is_noticed, chosen), strict=True):
            missed += not noticed
            print(f"{'noticed' if noticed else 'MISSED '} {mutant.name}", flush=True)
    print(f"{len(chosen) - missed} of {len(chosen)} noticed")
    return int(missed > 0)


if __name__ == "__main__":
    sys.exit(main())
