"""The engine's rules of layers break no promise in any state within small bounds, and each planted mistake does."""

import random

import pytest

from tests.model.explore import explore
from tests.model.layers.cases import EQUAL, LONG, MISTAKES, PROVEN, QUICK
from tests.model.layers.jobs import Layers
from tests.model.layers.rules import Bounds, Rules
from tests.support.seeds import fresh_seed

SECONDS = 1200.0
"""Ends a search that would not; the longest took eight minutes on a slow machine that was busy."""


def keeps_its_promises(rules: Rules, bounds: Bounds) -> None:
    verdict = explore(Layers(rules, bounds), seconds=SECONDS)
    assert verdict.violation is None, "\n".join([*verdict.trace, str(verdict.violation)])
    assert verdict.complete, f"{verdict.states} states were not all"


@pytest.mark.parametrize(
    "name",
    [pytest.param(name, marks=[] if name in QUICK else [pytest.mark.slow]) for name in PROVEN if name not in LONG],
)
@pytest.mark.thorough
def test_every_layer_shows_what_was_written_to_it(name: str) -> None:
    keeps_its_promises(Rules(), PROVEN[name])


@pytest.mark.slow
def test_every_layer_shows_it_where_there_are_many_states() -> None:
    """One of these searches at every run, another for other commits."""
    keeps_its_promises(Rules(), PROVEN[random.Random(fresh_seed()).choice(LONG)])


@pytest.mark.slow
def test_what_makes_no_difference() -> None:
    """One of them at every run, another for other commits: it is for thrift that they are so."""
    keeps_its_promises(*EQUAL[random.Random(fresh_seed()).choice(sorted(EQUAL))])


@pytest.mark.parametrize("name", MISTAKES)
def test_a_mistake_is_found(name: str) -> None:
    verdict = explore(Layers(*MISTAKES[name]), seconds=SECONDS)
    assert verdict.violation is not None, f"nothing is wrong in {verdict.states} states"
