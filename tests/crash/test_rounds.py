"""Kill -9 under load: after each restart the disk is a prefix of its writes that holds every flushed one."""

from collections.abc import Iterator

import pytest

from tests.crash.rounds import Rounds
from tests.support.program import Host
from tests.support.stores import StoreUnderTest

ROUNDS = {"file": 5, "minio": 3}
"""In every test run; `python -m tests.crash.rounds` does as many as one likes."""

SEED = 20261124


@pytest.fixture
def rounds(store: StoreUnderTest, host: Host) -> Iterator[Rounds]:
    host.store_environment = store.environment
    made = Rounds(host, store, seed=SEED)
    yield made
    made.close()


@pytest.mark.integration
@pytest.mark.slow
def test_kill_under_load(rounds: Rounds, store: StoreUnderTest) -> None:
    flushes = 0
    for number in range(ROUNDS[store.kind]):
        outcome = rounds.crash(connections=4 if number % 2 else 1)
        flushes += outcome.flushes
    assert flushes > 0, "no flush was ever answered: the rounds showed nothing"
    rounds.stop_cleanly(connections=4)
