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
from storage.request_budget import SLOWDOWN_MAX, Outlook, Spending
from tests.simulation.virtual import in_virtual_time, virtually
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


async def crash(store: Store, folder: Path) -> None:
    """Kill it; this host has what it kept before, and not what an end keeps."""
    kept = {path: path.read_bytes() for path in (folder / "state").rglob("requests.msgpack")}
    await kill(store)
    for path in (folder / "state").rglob("requests.msgpack"):
        path.unlink()
    for path, data in kept.items():
        path.write_bytes(data)


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
        await crash(store, tmp_path)
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


def file_in(folder: Path) -> Path:
    """Where what was counted is kept between two runs."""
    (found,) = (folder / "state").rglob("requests.msgpack")
    return found


async def times_kept(folder: Path, seconds: int) -> int:
    """How often that is written anew meanwhile."""
    seen = set()
    for _ in range(seconds // 10):
        await asyncio.sleep(10)
        found = file_in(folder).stat()
        seen.add((found.st_ino, found.st_mtime_ns))
    return len(seen)


@virtually
async def test_a_close_keeps_all_that_was_asked_for(tmp_path: Path) -> None:
    """Also what came since the last look; what the close asks for itself is no more than that."""
    store = await opened(tmp_path)
    await asyncio.sleep(SPENDING_SAVE_SECONDS * 2 + SPENDING_LOOK_SECONDS * 0.9)
    before = sum(store.request_stats.requests.values())
    await store.close()
    kept = Spending.decode(file_in(tmp_path).read_bytes()).spent
    assert before <= kept <= sum(store.request_stats.requests.values())


@virtually
async def test_it_is_kept_now_and_then_and_not_without_a_budget(tmp_path: Path) -> None:
    store = await opened(tmp_path, 10**9)
    await asyncio.sleep(SPENDING_SAVE_SECONDS + SPENDING_LOOK_SECONDS)
    assert 5 <= await times_kept(tmp_path, 3600) <= 8
    await asyncio.sleep(SPENDING_SAVE_SECONDS / 2)
    store.governor.change(None)
    assert await times_kept(tmp_path, 3600) == 1, "nobody asks for it any more"
    store.governor.change(10**9)
    first = await seen(store)
    assert first.month_requests >= sum(store.request_stats.requests.values()) - 5, "what came without one counts"
    assert await times_kept(tmp_path, 3600) > 1
    assert (await seen(store)).month_requests >= first.month_requests + 300
    await store.close()


@virtually
async def test_a_crash_right_behind_the_news_does_not_bring_them_twice(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    for _ in range(2):
        store = await opened(tmp_path)
        await asyncio.sleep(SPENDING_LOOK_SECONDS * 3)
        assert warnings(caplog.messages) == ["request_budget_will_not_do"]
        await crash(store, tmp_path)


@virtually
async def test_what_cannot_be_kept_ends_nobody(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """Neither when it is to be read nor when it is written: a budget is no reason to serve no more."""
    store = await opened(tmp_path)
    await seen(store)
    await store.close()
    kept = file_in(tmp_path)
    kept.unlink()
    kept.mkdir()
    store = await opened(tmp_path)
    await asyncio.sleep(SPENDING_SAVE_SECONDS * 3)
    assert not store.failed.done()
    assert (await seen(store)).month_requests > 100, "it is counted all the same"
    assert caplog.messages.count("state_not_kept") == 1
    assert ["what it asked of the store this month" in sentence for sentence in store.status().unkept] == [True]
    await store.close()
