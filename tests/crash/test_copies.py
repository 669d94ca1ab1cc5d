"""A partial copy of a store is refused untouched, or holds what the store held once; and nothing of it is lost."""

import os
import random
from collections import Counter

import pytest

from tests.crash.copies import run_cases

FIXED = 80
FRESH = 500
"""In every test run; `python -m tests.crash.copies` does as many as one likes."""

FIRST = int(os.environ.get("NBDSERVER_SEED") or random.SystemRandom().randrange(10**12))


async def test_partial_copies() -> None:
    outcomes = Counter(outcome for _, outcome in await run_cases(1, FIXED, copies_each=4))
    assert min(outcomes[outcome] for outcome in ("whole", "older state", "refused", "empty place")) > 0, outcomes


@pytest.mark.slow
async def test_fresh_partial_copies() -> None:
    outcomes = Counter(outcome for _, outcome in await run_cases(FIRST, FRESH))
    assert outcomes.total() == FRESH
