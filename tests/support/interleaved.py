"""The order of tests that several workers run: those that wait beside those that work, and the long ones not last.

As the files lie, all tests of the real program come one after the other, and processors idle while each worker waits
for a server or for the end of an outage; then come thousands that wait for nothing. And what takes long and begins last
runs alone.
"""

from collections.abc import Iterable, Sequence
from itertools import groupby
from operator import itemgetter
from typing import NamedTuple, TypeVar

import pytest

T = TypeVar("T")


class Kind(NamedTuple):
    """What a test does most of the time."""

    waits: bool
    """It runs the real program."""
    is_long: bool


DONE_AT = {
    Kind(waits=True, is_long=True): 0.7,
    Kind(waits=False, is_long=True): 0.7,
    Kind(waits=True, is_long=False): 0.9,
    Kind(waits=False, is_long=False): 1.0,
}
"""The share of a run, counted in tests, by which all of a kind have begun. A run has thousands that take milliseconds:
the last fifth of all tests is over sooner than one soak.
"""


class Interleaved:
    """The plugin of a worker. All of them have the same order: it follows from the tests alone."""

    @pytest.hookimpl(trylast=True)
    def pytest_collection_modifyitems(self, items: list[pytest.Item]) -> None:
        items[:] = interleaved([(str(item.path), kind(item), item) for item in items])


def kind(item: pytest.Item) -> Kind:
    marks = {mark.name for mark in item.iter_markers()}
    return Kind(waits="integration" in marks, is_long=not marks.isdisjoint(("guest", "slow")))


def interleaved(tests: Iterable[tuple[str, Kind, T]]) -> list[T]:
    """Each kind evenly over its part of the run, in the order it had. Tests of one file stay together, since they may
    share what is made once a file; but for those that wait long, of which one worker each would wait.
    """
    tests = list(tests)
    placed = []
    for kind_, done_at in DONE_AT.items():
        of_kind = [(file, test) for file, of, test in tests if of == kind_]
        files = [[test for _, test in of_file] for _, of_file in groupby(of_kind, key=itemgetter(0))]
        units = [[test] for file in files for test in file] if kind_.waits and kind_.is_long else files
        placed += _places(units, done_at)
    return [test for _, unit in sorted(placed, key=itemgetter(0)) for test in unit]


def _places(units: Sequence[Sequence[T]], done_at: float) -> list[tuple[float, Sequence[T]]]:
    """Where in the run each begins, from 0 to 1."""
    count = sum(map(len, units))
    placed, before = [], 0
    for unit in units:
        placed.append((done_at * before / count, unit))
        before += len(unit)
    return placed
