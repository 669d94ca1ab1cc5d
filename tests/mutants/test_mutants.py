"""Each mutant can still be planted, and is noticed by the tests it names."""

import pytest

from tests.mutants.mutants import MUTANTS, Mutant
from tests.mutants.run import is_noticed, text_of


def test_every_mutant_can_still_be_planted() -> None:
    for mutant in MUTANTS:
        compile(text_of(mutant), mutant.file, "exec")
    assert len({mutant.name for mutant in MUTANTS}) == len(MUTANTS)


@pytest.mark.slow
@pytest.mark.parametrize("mutant", MUTANTS, ids=lambda mutant: mutant.name)
def test_a_mutant_is_noticed(mutant: Mutant) -> None:
    assert is_noticed(mutant)
