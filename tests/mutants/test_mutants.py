"""Each mutant can still be planted; and some, tried at every run, are noticed by the tests they name."""

import random

import pytest

from tests.mutants.mutants import MUTANTS
from tests.mutants.run import is_noticed, text_of
from tests.support.seeds import fresh_seed


def test_every_mutant_can_still_be_planted() -> None:
    for mutant in MUTANTS:
        compile(text_of(mutant), mutant.file, "exec")
    assert len({mutant.name for mutant in MUTANTS}) == len(MUTANTS)


TRIED = 6
"""At every run, others for each commit; `python -m tests.mutants.run` tries all."""


@pytest.mark.slow
@pytest.mark.parametrize("number", range(TRIED))
def test_a_mutant_is_noticed(number: int) -> None:
    mutant = random.Random(fresh_seed()).sample(MUTANTS, TRIED)[number]
    assert is_noticed(mutant), mutant.name
