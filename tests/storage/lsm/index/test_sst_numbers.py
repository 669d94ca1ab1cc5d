"""An SST keeps its number for the life of a process, however many come after it, one by one or at once."""

import random
import tracemalloc

import pytest
from ulid import ULID

from storage.errors import BrokenInvariant
from storage.format.names import sst_name
from storage.format.sst_list import ids_of
from storage.lsm.index.sst_numbers import RECENT_MAX, SstNumbers


@pytest.mark.parametrize("seed", range(3))
def test_a_number_is_given_once(seed: int) -> None:
    draw = random.Random(seed)
    ids = [str(ULID.from_bytes(draw.randbytes(16))) for _ in range(3 * RECENT_MAX)]
    numbers, given = SstNumbers(), dict[str, int]()
    for _ in range(40):
        if draw.random() < 0.5:
            some = draw.choices(ids, k=draw.choice([0, 1, 300]))
            found = numbers.numbers(ids_of(some)).tolist()
        else:
            some = draw.choices(ids, k=150)
            found = [numbers.number(sst) for sst in some]
        for sst, number in zip(some, found, strict=True):
            assert given.setdefault(sst, number) == number
    assert sorted(given.values()) == list(range(1, len(numbers)))
    assert numbers.given_all(ids_of(ids)).tolist() == [given.get(sst, 0) for sst in ids]
    assert [numbers.given(sst) for sst in ids[:300]] == [given.get(sst) for sst in ids[:300]]
    for sst in draw.sample(sorted(given), 200):
        location = numbers.location(sst, 77)
        assert location == given[sst] << 32 | 77
        assert numbers.name(location) == sst_name(sst)


def test_zeros_lie_in_no_sst() -> None:
    with pytest.raises(BrokenInvariant, match="no place in an SST"):
        SstNumbers().name(1)


def test_to_ask_for_one_costs_nothing_for_the_others() -> None:
    """Whoever drops a large disk asks for all of them."""
    draw = random.Random(1)
    ids = [str(ULID.from_bytes(draw.randbytes(16))) for _ in range(50_000)]
    numbers = SstNumbers()
    numbers.numbers(ids_of(ids))
    numbers.number(ids[7])
    tracemalloc.start()
    try:
        numbers.number(ids[8])
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert peak < len(ids)
