"""A store in memory, open as its writer."""

from collections.abc import AsyncIterator

import pytest

from storage import Store, StoreOptions, open_store
from storage.crypto.keys import Cost
from storage.env import RealEnv


@pytest.fixture
async def store() -> AsyncIterator[Store]:
    env = RealEnv()
    opened = await open_store(
        "memory://", b"password", env=env, create=True, options=StoreOptions(cost=Cost.for_tests())
    )
    yield opened
    await opened.close()
    env.close()
