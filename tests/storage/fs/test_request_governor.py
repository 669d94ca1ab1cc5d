"""A budget of requests of a real store: what is said of it, what is slowed, and what outlives a restart."""

import asyncio
import logging
from collections.abc import Iterable
from pathlib import Path

import pytest

from storage.crypto.keyslots import Cost
from storage.fs.opening import open_reader, open_store
from storage.fs.request_governor import SPENDING_LOOK_SECONDS, SPENDING_SAVE_SECONDS
from storage.fs.store import Store
from storage.fs.store_options import StoreOptions
from storage.request_budget import SLOWDOWN_MAX, Outlook
from tests.simulation.virtual import in_virtual_time
from tests.storage.fs.places import kill
from tests.storage.fs.snapshots.test_clearing import Clock
from tests.support.inside import engine_of

PASSWORD = b"password"
BUDGET = 1500
"""The watch for a newer writer alone asks 8,640 times in a day."""

ENV = Clock()


def options(folder: Path, budget: int | None) -> StoreOptions:
    return StoreOptions(state_folder=folder / "state", request_budget=budget, cost=Cost.for_tests())


async def opened(folder: Path, budget: int | None = BUDGET) -> Store:
    how = options(folder, budget)
    return await open_store(f"file://{folder}/store", PASSWORD, env=ENV, create=True, take_over=True, options=how)


async def seen(store: Store) -> Outlook:
    """What `status` says, once something was looked at."""
    await asyncio.sleep(1)
    found = store.status().budget
    assert found is not None
    return found


def warnings(messages: Iterable[str]) -> list[str]:
    return [message for message in messages if message.startswith("request")]


def test_each_news_is_said_once_and_a_restart_forgets_nothing(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    async def case() -> None:
        store = await opened(tmp_path)
        await asyncio.sleep(3600)
        early = await seen(store)
        assert 360 <= early.month_requests < BUDGET < early.month_requests_projected
        assert early.background_slowdown == engine_of(store).compactor.slowdown == SLOWDOWN_MAX
        assert warnings(caplog.messages) == ["request_budget_will_not_do"]
        before = sum(store.request_stats.requests.values())
        await store.close()
        store = await opened(tmp_path)
        again = await seen(store)
        assert again.month_requests >= before, "what was asked before the restart counts"
        assert engine_of(store).compactor.slowdown == SLOWDOWN_MAX
        await asyncio.sleep(4 * 3600)
        assert (await seen(store)).month_requests >= BUDGET
        assert warnings(caplog.messages) == ["request_budget_will_not_do", "request_budget_used_up"]
        await kill(store)
        store = await opened(tmp_path)
        lost = (SPENDING_SAVE_SECONDS + SPENDING_LOOK_SECONDS) / 10 + 50
        assert (await seen(store)).month_requests >= again.month_requests + 4 * 360 - lost, "a crash forgets little"
        assert len(warnings(caplog.messages)) == 2
        await store.close()
        (kept,) = (tmp_path / "state").rglob("requests.msgpack")
        kept.unlink()
        store = await opened(tmp_path)
        assert (await seen(store)).month_requests < BUDGET, "a file that is lost is a month that begins now"
        await store.close()

    with caplog.at_level(logging.WARNING, "nbdserver"):
        in_virtual_time(case())


def test_a_budget_is_changed_while_the_store_is_open(tmp_path: Path) -> None:
    async def case() -> None:
        store = await opened(tmp_path, None)
        await asyncio.sleep(3600)
        assert store.status().budget is None
        assert not list((tmp_path / "state").rglob("requests.msgpack"))
        store.governor.change(BUDGET)
        assert (await seen(store)).background_slowdown == SLOWDOWN_MAX
        store.governor.change(10**9)
        assert (await seen(store)).background_slowdown == engine_of(store).compactor.slowdown == 1.0
        store.governor.change(BUDGET)
        assert engine_of(store).compactor.slowdown == SLOWDOWN_MAX
        store.governor.change(None)
        assert store.status().budget is None
        assert engine_of(store).compactor.slowdown == 1.0
        await store.close()
        reader = await open_reader(f"file://{tmp_path}/store", PASSWORD, env=ENV, options=options(tmp_path, BUDGET))
        reader.governor.change(BUDGET)
        await asyncio.sleep(3600)
        assert reader.status().budget is None, "who only reads has no work that can wait"
        await reader.close()

    in_virtual_time(case())
