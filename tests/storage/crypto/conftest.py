"""A store for keys objects, empty at first."""

from collections.abc import Iterator

import pytest

from storage.env import RealEnv
from storage.objects.memory import MemoryStore


@pytest.fixture
def env() -> Iterator[RealEnv]:
    env = RealEnv()
    yield env
    env.close()


@pytest.fixture
def store() -> MemoryStore:
    return MemoryStore()
