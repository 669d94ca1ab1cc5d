"""Each mutant can still be planted; and some, tried at every run, are noticed by the tests they name."""

import pytest

from tests.mutants.mutant import Mutant
from tests.mutants.mutants import MUTANTS
from tests.mutants.run import is_noticed, text_of


def test_every_mutant_can_still_be_planted() -> None:
    for mutant in MUTANTS:
        compile(text_of(mutant), mutant.file, "exec")
    assert len({mutant.name for mutant in MUTANTS}) == len(MUTANTS)


FIRST_OF_EACH_FILE = list({mutant.file: mutant for mutant in reversed(MUTANTS)}.values())
"""Tried at every run; `python -m tests.mutants.run` tries all."""


@pytest.mark.slow
@pytest.mark.parametrize("mutant", FIRST_OF_EACH_FILE, ids=lambda mutant: mutant.name)
def test_a_mutant_is_noticed(mutant: Mutant) -> None:
    assert is_noticed(mutant)
