"""Masks of sectors."""

import itertools

from hypothesis import given
from hypothesis import strategies as st

from storage.format.blocks import runs, sector_range
from storage.format.frame import FULL_MASK, SECTORS

masks = st.one_of(
    st.integers(0, FULL_MASK), st.sampled_from([0, 1, 1 << 63, FULL_MASK, FULL_MASK >> 1, 0x5555555555555555])
)


@given(st.integers(0, SECTORS), st.integers(0, SECTORS))
def test_a_range_has_its_sectors(a: int, b: int) -> None:
    first, end = min(a, b), max(a, b)
    mask = sector_range(first, end)
    assert [s for s in range(SECTORS) if mask >> s & 1] == list(range(first, end))
    assert 0 <= mask <= FULL_MASK


@given(masks)
def test_runs_are_the_mask(mask: int) -> None:
    found = runs(mask)
    again = 0
    for first, end in found:
        assert first < end
        assert again & sector_range(first, end) == 0
        again |= sector_range(first, end)
    assert again == mask


@given(masks)
def test_runs_are_ascending_and_as_long_as_can_be(mask: int) -> None:
    found = runs(mask)
    assert all(before[1] < after[0] for before, after in itertools.pairwise(found))
    assert all(first >= 0 and end <= SECTORS for first, end in found)


def test_runs_by_hand() -> None:
    assert runs(0) == []
    assert runs(FULL_MASK) == [(0, 64)]
    assert runs(0b1011) == [(0, 2), (3, 4)]
    assert runs(1 << 63) == [(63, 64)]
