"""A partial copy of a store is refused untouched, or holds what the store held once; and nothing of it is lost."""

from collections import Counter

import pytest

from tests.crash.copies import run_cases
from tests.support.seeds import fresh_seed

FIXED = 80
FRESH = 500
"""In a run of all tests, others at each commit; `python -m tests.crash.copies` does as many as one likes."""


@pytest.mark.thorough
async def test_partial_copies() -> None:
    outcomes = Counter(outcome for _, outcome in await run_cases(21, FIXED, copies_each=4))
    assert min(outcomes[outcome] for outcome in ("whole", "older state", "refused", "empty place")) > 0, outcomes


@pytest.mark.slow
async def test_fresh_partial_copies() -> None:
    outcomes = Counter(outcome for _, outcome in await run_cases(fresh_seed(), FRESH))
    assert outcomes.total() == FRESH
