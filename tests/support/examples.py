"""What of many examples is tried before a commit: a share of them, and in a run of all tests every one."""

from collections.abc import Iterable
from typing import Any

import hypothesis
import pytest

USUAL = 100
"""What Hypothesis takes where nothing is said, and `tests/conftest.py` changes before a commit."""


def examples(count: int) -> int:
    """So many examples in a run of all tests, and in others the share that every property gets there."""
    loaded = hypothesis.settings.get_current_profile_name()
    return max(count * hypothesis.settings.get_profile(loaded).max_examples // USUAL, 1)


def first_soon(cases: Iterable[Any], soon: int = 1) -> list[Any]:
    """Cases for `pytest.mark.parametrize` of one kind, as seeds are: the first before a commit, the others in a run of
    all tests.
    """
    return [pytest.param(case, marks=pytest.mark.slow if at >= soon else ()) for at, case in enumerate(cases)]
