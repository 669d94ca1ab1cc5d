"""The cache of decoded frames: its bound, what it keeps, and its books."""

import random

from hypothesis import given, settings
from hypothesis import strategies as st

from storage.cache.frame_cache import FRESH_KEYS, PART_OVERHEAD, STALE_MAX, FrameCache
from tests.support.examples import examples
from tests.support.inside import queues

KIB = 1024

operations = st.lists(
    st.tuples(st.sampled_from(["put", "put", "put", "get", "get", "discard"]), st.integers(1, 40), st.integers(1, 300)),
    max_size=300,
)


@settings(max_examples=examples(300))
@given(st.integers(1, 2000), operations)
def test_the_bound_and_the_books_hold(capacity: int, ops: list[tuple[str, int, int]]) -> None:
    cache = FrameCache(capacity)
    sizes: dict[int, int] = {}
    for verb, key, size in ops:
        if verb == "put":
            if key not in cache.entries:
                sizes[key] = size + PART_OVERHEAD
            cache.put(key, bytes([key]) * size)
        elif verb == "get":
            found = cache.get(key)
            assert found is None or found[0] == key
        else:
            cache.discard(key)
            assert key not in cache.entries
        assert cache.bytes <= capacity
        assert cache.bytes == sum(sizes[key] for key in cache.entries)
        new_bytes, small, main, ghosts, queued = queues(cache)
        assert new_bytes == sum(sizes[key] for key, frame in cache.entries.items() if frame.is_new)
        assert {key for key, frame in cache.entries.items() if frame.is_new} <= small
        assert {key for key, frame in cache.entries.items() if not frame.is_new} <= main
        assert ghosts <= max(len(cache.entries), 1) + 1
        assert queued <= 2 * len(cache.entries) + STALE_MAX + 1


def test_what_is_asked_for_again_survives_a_scan() -> None:
    cache = FrameCache(100 * KIB)
    hot = range(50)
    for _ in range(3):
        for key in hot:
            if cache.get(key) is None:
                cache.put(key, bytes(KIB))
    for key in range(1000, 6000):
        assert cache.get(key) is None
        cache.put(key, bytes(KIB))
    assert all(key in cache.entries for key in hot)


def test_a_new_working_set_takes_the_place_of_an_old_one() -> None:
    cache = FrameCache(100 * KIB)
    chance = random.Random(1)
    for base in (0, 1000):
        for _ in range(3000):
            key = base + chance.randrange(60)
            if cache.get(key) is None:
                cache.put(key, bytes(KIB))
    assert sum(key >= 1000 for key in cache.entries) >= 55


def test_a_frame_that_was_evicted_and_comes_back_counts_as_known() -> None:
    cache = FrameCache(10 * KIB)
    for key in range(1, 12):
        cache.put(key, bytes(KIB))
    assert 1 not in cache.entries
    cache.put(1, bytes(KIB))
    assert not cache.entries[1].is_new


def test_what_is_larger_than_the_whole_is_not_kept() -> None:
    cache = FrameCache(10 + PART_OVERHEAD)
    cache.put(1, b"x" * 11)
    assert cache.entries == {}
    cache.put(2, b"x" * 10)
    cache.put(3, b"x" * 10)
    assert list(cache.entries) == [3]
    cache.put(4, b"x" * 11)
    assert list(cache.entries) == [3], "nothing makes room for it"
    nothing = FrameCache(0)
    nothing.put(1, b"x")
    assert nothing.get(1) is None
    assert nothing.bytes == 0


def test_the_first_of_two_fills_stays() -> None:
    cache = FrameCache(10 * KIB)
    cache.put(1, b"first")
    cache.put(1, b"second")
    assert cache.get(1) == b"first"
    assert cache.bytes == len(b"first") + PART_OVERHEAD


def test_fresh_keys_are_no_locations_and_never_the_same() -> None:
    cache = FrameCache(10)
    keys = [cache.fresh_key() for _ in range(100)]
    assert len(set(keys)) == 100
    assert min(keys) > 2**64 - 1 >= FRESH_KEYS - 1


def test_frames_that_are_discarded_leave_no_places_behind() -> None:
    """A cache that is never full evicts nothing, so it has to forget their places by itself."""
    cache = FrameCache(1 << 30)
    for key in range(10 * STALE_MAX):
        cache.put(key, b"x")
        cache.discard(key)
    assert queues(cache)[4] <= STALE_MAX + 1


def test_a_frame_that_moved_is_there_once() -> None:
    cache = FrameCache(1 << 20)
    cache.put(1, b"frame")
    size = cache.bytes
    cache.move(1, 2)
    assert cache.bytes == size
    assert cache.get(1) is None
    assert cache.get(2) == b"frame"
