"""How many examples a property is tried on: all of them in a run of all tests, a share before a commit."""

import hypothesis

USUAL = 100
"""What Hypothesis takes where nothing is said, and `tests/conftest.py` changes before a commit."""


def examples(count: int) -> int:
    """So many examples in a run of all tests, and in others the share that every property gets there."""
    loaded = hypothesis.settings.get_current_profile_name()
    return max(count * hypothesis.settings.get_profile(loaded).max_examples // USUAL, 1)
