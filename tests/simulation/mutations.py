"""Mistakes planted in the real code, to see that the simulation finds them.

    python -m tests.simulation.mutations [PART OF A NAME] [--worlds N | --fixed]

Each is a replacement of one piece of text in one file, applied to a copy of the engine in a temporary folder; worlds
are run on that copy until one breaks. A mistake that is not found says that the simulation is too weak. (Mistakes that
are without effect on safety are not listed: `MISSED` would be right for them, and proves nothing.)
"""

import argparse
import os
import re
import shutil
import subprocess
import sys
import tempfile
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

from tests.simulation.fixed import FIXED
from tests.simulation.mistakes_of_blocks import BLOCKS
from tests.simulation.mistakes_of_log import LOG
from tests.simulation.mistakes_of_maintenance import MAINTENANCE
from tests.simulation.mistakes_of_rotation import ROTATION
from tests.simulation.mutation import ROOT, Mutation, mutated

WORLDS_MAX = 400
"""Worlds after which a mistake counts as missed."""


def apply(mutation: Mutation, folder: Path) -> None:
    """Write a copy of the engine with the mistake, and of the simulation, into `folder`."""
    text = mutated(mutation)
    ignore = shutil.ignore_patterns("__pycache__")
    shutil.copytree(ROOT / "storage", folder / "storage", ignore=ignore)
    shutil.copytree(ROOT / "tests" / "simulation", folder / "tests" / "simulation", ignore=ignore)
    shutil.copytree(ROOT / "tests" / "support", folder / "tests" / "support", ignore=ignore)
    (folder / "tests" / "__init__.py").touch()
    (folder / mutation.file).write_text(text)


@dataclass(frozen=True)
class Finding:
    """What became of a mistake: the seed and message of the first world that broke, if one did."""

    mutation: Mutation
    worlds: int
    seconds: float
    seed: int | None
    message: str


def hunt(mutation: Mutation, *, worlds: int = WORLDS_MAX, first: int = 0, fixed: bool = False) -> Finding:
    """Run worlds on a copy with the mistake until one breaks: those from `first` on, or the `fixed` ones. RuntimeError:
    none did by what it is named for.
    """
    started = time.monotonic()
    with tempfile.TemporaryDirectory(prefix="nbd-mutation-") as folder:
        apply(mutation, Path(folder))
        which = ["--fixed"] if fixed else ["--seeds", str(worlds), "--first", str(first)]
        done = subprocess.run(
            [sys.executable, "-m", "tests.simulation.run", *which, "--workers", "1", "--stop"],
            cwd=folder,
            env={**os.environ, "PYTHONDONTWRITEBYTECODE": "1"},
            capture_output=True,
            text=True,
            check=False,
        )
    seconds = time.monotonic() - started
    found = re.search(r"^seed (\d+): (.*)$", done.stdout, re.MULTILINE)
    if found is not None:
        seed = int(found[1])
        last = [line for line in done.stdout.splitlines() if re.match(r"\w*(Error|Exception)\b", line)]
        message = f"{found[2][:150]} {last[-1] if last else ''}".strip()
        if re.search(r"NameError|AttributeError: '(?!NoneType)", message):
            raise RuntimeError(f"{mutation.name}: it names what is not there, and proves nothing: {message}")
        return Finding(mutation, FIXED.index(seed) + 1 if fixed else seed - first + 1, seconds, seed, message)
    if done.returncode:
        raise RuntimeError(f"{mutation.name}: the worlds did not run: {done.stderr[-2000:]}")
    return Finding(mutation, len(FIXED) if fixed else worlds, seconds, None, "")


MUTATIONS = [*LOG, *BLOCKS, *MAINTENANCE, *ROTATION]


def main() -> int:
    parser = argparse.ArgumentParser(description="Plant mistakes in the engine and let the simulation find them.")
    parser.add_argument("name", nargs="?", default="", help="only those with this in their name")
    parser.add_argument("--worlds", type=int, default=WORLDS_MAX, help="worlds before a mistake counts as missed")
    parser.add_argument("--first", type=int, default=0, help="seed of the first world")
    parser.add_argument("--fixed", action="store_true", help="only the worlds that every run of the tests has")
    parser.add_argument("--workers", type=int, default=2, help="mistakes hunted at a time")
    arguments = parser.parse_args()
    chosen = [mutation for mutation in MUTATIONS if arguments.name in mutation.name]
    missed = 0
    with ThreadPoolExecutor(arguments.workers) as pool:
        worlds, first, fixed = arguments.worlds, arguments.first, arguments.fixed
        hunts = pool.map(lambda one: hunt(one, worlds=worlds, first=first, fixed=fixed), chosen)
        for finding in hunts:
            verdict = "MISSED" if finding.seed is None else "found "
            missed += finding.seed is None
            print(
                f"{verdict} {finding.worlds:4d} worlds {finding.seconds:5.0f} s  {finding.mutation.name}"
                + (f"\n         seed {finding.seed}: {finding.message}" if finding.seed is not None else ""),
                flush=True,
            )
    print(f"{len(chosen) - missed} of {len(chosen)} found")
    return int(missed > 0)


if __name__ == "__main__":
    sys.exit(main())
