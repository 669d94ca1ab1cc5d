"""What the cache is for: hit rates on traces, beside LRU. The traces are those of `scripts/bench cache`, shorter."""

import pytest

from tests.benchmarks.cache import of_lru, of_server, traces

BLOCKS, READS = 512, 20_000
ROOM = BLOCKS // 10


@pytest.mark.fast
@pytest.mark.parametrize("name", traces(8, 8))
def test_the_cache_answers_more_than_lru(name: str) -> None:
    trace = traces(BLOCKS, READS)[name]
    assert of_server(trace, ROOM) > of_lru(trace, ROOM)


@pytest.mark.fast
@pytest.mark.parametrize("name", traces(8, 8))
def test_what_fits_is_fetched_once(name: str) -> None:
    trace = traces(BLOCKS, READS)[name]
    assert of_server(trace, BLOCKS) == 1 - len(set(trace)) / len(trace)
