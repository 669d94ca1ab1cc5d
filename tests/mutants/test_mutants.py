"""Each mutant can still be planted; and some, tried at every run, are noticed by the tests they name."""

import random
import subprocess
import sys
from pathlib import Path

import pytest

from tests.mutants.mutants import MUTANTS
from tests.mutants.run import is_noticed, text_of
from tests.simulation.mutation import mutated
from tests.simulation.mutations import MUTATIONS
from tests.support.seeds import fresh_seed


def test_every_mutant_can_still_be_planted() -> None:
    for mutant in MUTANTS:
        compile(text_of(mutant), mutant.file, "exec")
    assert len({mutant.name for mutant in MUTANTS}) == len(MUTANTS)


def test_no_mistake_is_noticed_because_it_names_what_is_not_there(tmp_path: Path) -> None:
    """It would be found at once, and say nothing of what it is named for: those of the simulation too."""
    texts = {mutant.name: text_of(mutant) for mutant in MUTANTS} | {each.name: mutated(each) for each in MUTATIONS}
    for number, text in enumerate(texts.values()):
        (tmp_path / f"{number}.py").write_text(text)
    found = subprocess.run(
        [
            sys.executable,
            "-m",
            "ruff",
            "check",
            "--isolated",
            "--select",
            "F821",
            "--output-format",
            "concise",
            tmp_path,
        ],
        capture_output=True,
        text=True,
        timeout=60,
    )
    names = list(texts)
    lines = [line for line in found.stdout.splitlines() if "F821" in line]
    assert found.returncode == 0, [names[int(Path(line.partition(":")[0]).stem)] for line in lines] or found.stderr


TRIED = 6
"""At every run, others for each commit; `python -m tests.mutants.run` tries all."""


@pytest.mark.slow
@pytest.mark.parametrize("number", range(TRIED))
def test_a_mutant_is_noticed(number: int) -> None:
    mutant = random.Random(fresh_seed()).sample(MUTANTS, TRIED)[number]
    assert is_noticed(mutant), mutant.name
