"""Listings of many names, which are many requests: each part has its own time. Time is virtual."""

import asyncio
from collections.abc import Callable
from typing import Any

import pytest

from storage.objects.base import Capabilities
from storage.objects.retry import LISTED_AT_ONCE, RetryingStore
from tests.storage.objects.test_retry import Faulty, FullJitterEnv, Run, down


class Distant(Faulty):
    """Gives some pages of a listing in ten seconds."""

    @property
    def capabilities(self) -> Capabilities:
        return Capabilities(conditional_create=True, remote=True)

    async def _faulty(self, verb: str, call: Callable[[], Any]) -> Any:
        await asyncio.sleep(10)
        return await super()._faulty(verb, call)

    async def list(self, prefix: str, start_after: str = "", limit: int | None = None) -> Any:
        assert limit is not None
        assert limit <= LISTED_AT_ONCE
        return await super().list(prefix, start_after, limit)


@pytest.mark.parametrize(("limit", "expected", "requests"), [(None, 65500, 4), (40001, 40001, 3), (40000, 40000, 2)])
def test_each_part_of_a_listing_has_its_own_time(
    virtual_time: Run, limit: int | None, expected: int, requests: int
) -> None:
    """Of a store of many terabytes a listing takes minutes, and is no sign that it does not answer."""
    inner = Distant()

    async def main() -> None:
        names = [f"data/{number:05}" for number in range(65500)]
        for name in names:
            await inner.inner.put(name, b"")
        inner.faults = list(down(1))
        found = await RetryingStore(inner, FullJitterEnv(), 30).list("data/", "", limit)
        assert [info.name for info in found] == names[:expected]

    virtual_time(main())
    assert inner.calls == ["list"] * (requests + 1), "what had an answer is not asked for again"
