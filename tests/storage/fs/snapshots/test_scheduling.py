"""A server's own snapshots, in virtual time: of all devices at one moment, deleted in turn, nobody else's touched."""

import asyncio
import logging
from collections.abc import Awaitable, Callable, Mapping
from datetime import UTC, datetime

import pytest

from storage.crypto.keyslots import Cost
from storage.errors import Unreadable
from storage.fs.metadata.inodes import SnapshotOrigin
from storage.fs.opening import open_store
from storage.fs.store import Store
from storage.fs.store_options import StoreOptions
from tests.simulation.virtual import in_virtual_time
from tests.storage.fs.places import nothing
from tests.storage.fs.snapshots.test_clearing import DAY, Clock

MIB = 1 << 20
HOUR = 3600.0
World = Callable[[Store, Clock], Awaitable[None]]


def live(keep: Mapping[str, int], work: World) -> None:
    async def run() -> None:
        env = Clock()
        options = StoreOptions(cost=Cost.for_tests(), keep=keep)
        store = await open_store("memory://", b"p", env=env, create=True, options=options)
        for name in ("a", "b"):
            await store.create_device(name, MIB)
        await work(store, env)
        assert not store.failed.done()
        await store.close()
        env.close()

    in_virtual_time(run())


async def own(store: Store, device: str = "a") -> list[str]:
    return [one.name for one in await store.snapshots.list(device) if one.origin == "schedule"]


@pytest.mark.thorough
def test_they_are_taken_and_go() -> None:
    async def work(store: Store, env: Clock) -> None:
        await store.snapshots.create(["a"], "mine")
        await store.snapshots.create(["a"], "auto-20200101T000000Z")
        await asyncio.sleep(3 * DAY)
        names = await own(store)
        assert 3 <= len(names) <= 5
        assert names == sorted(names) == await own(store, "b"), "of all devices, at one moment"
        assert all(name.startswith("auto-202311") for name in names)
        await store.create_device("c", MIB)
        await asyncio.sleep(5 * HOUR)
        assert len(await own(store, "c")) >= 3
        there = [one.name for one in await store.snapshots.list("a") if one.origin == "asked"]
        assert there == ["mine", "auto-20200101T000000Z"]

    live({"hourly": 3, "daily": 2}, work)


def test_each_holds_what_was_there_when_it_was_taken() -> None:
    async def work(store: Store, env: Clock) -> None:
        for hour in range(6):
            for name in ("a", "b"):
                store.device(name).write(0, b"%d" % hour * 4096)
            await asyncio.sleep(HOUR)
        seen = [
            [bytes(b"".join(map(bytes, await store.device(f"{name}@{one}").read(0, 1)))) for name in ("a", "b")]
            for one in await own(store)
        ]
        assert all(one == other for one, other in seen)
        assert len({one for one, _ in seen}) == len(seen) == 4

    live({"hourly": 4}, work)


@pytest.mark.thorough
def test_what_is_in_use_stays_until_it_is_not() -> None:
    async def work(store: Store, env: Clock) -> None:
        await asyncio.sleep(HOUR)
        first = (await own(store))[0]
        store.open_devices.clients_of = lambda name: ["a client"] if name == f"a@{first}" else []
        await asyncio.sleep(10 * HOUR)
        assert first in await own(store)
        assert first not in await own(store, "b")
        store.open_devices.clients_of = lambda name: []
        await asyncio.sleep(120)
        assert first not in await own(store)

    live({"hourly": 2}, work)


def test_a_device_that_somebody_has_is_left_out(caplog: pytest.LogCaptureFixture) -> None:
    async def work(store: Store, env: Clock) -> None:
        await asyncio.sleep(100)
        before = [len(await own(store, name)) for name in ("a", "b")]
        async with store.filling.over("a", "an import", nothing):
            await asyncio.sleep(3 * HOUR)
            after = [len(await own(store, name)) for name in ("a", "b")]
            assert after == [before[0], before[1] + 3]
        assert caplog.messages.count("scheduled_snapshot_taken") == 1 + 3, "of the others once in each hour"

    with caplog.at_level(logging.INFO, "nbdserver"):
        live({"hourly": 9}, work)


def test_what_is_refused_is_said_once_and_seen_until_it_is_taken(
    caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A look that finds one due comes each minute: what lasts a night was a warning each minute, and no problem."""

    async def work(store: Store, env: Clock) -> None:
        def refused() -> list[str]:
            return [each.device for each in store.status().untaken]

        create = store.snapshots.create

        async def torn(devices: list[str], name: str, **more: SnapshotOrigin) -> None:
            if set(devices) & bad:
                raise Unreadable("a part cannot be read")
            await create(devices, name, **more)

        bad = {"a", "b"}
        monkeypatch.setattr(store.snapshots, "create", torn)
        began = env.wall_clock()
        await asyncio.sleep(HOUR)
        assert refused() == ["a", "b"]
        assert [vars(each)["device"] for each in caplog.records if "not_taken" in each.message] == ["a", "b"]
        (first, _) = store.status().untaken
        assert began <= first.since <= began + HOUR
        assert first.reason == "a part cannot be read"
        bad = {"a"}
        await asyncio.sleep(HOUR)
        assert refused() == ["a"]
        assert await own(store, "b")
        for one in await store.snapshots.list("a"):
            await store.snapshots.delete("a", one.name)
        await store.delete_device("a")
        bad = {"b"}
        await asyncio.sleep(2 * HOUR)
        assert refused() == ["b"]
        assert caplog.messages.count("scheduled_snapshot_not_taken") == 3
        bad = set()
        await asyncio.sleep(HOUR)
        assert refused() == []
        bad = {"b"}
        await asyncio.sleep(2 * HOUR)
        store.upkeep.change({}, None)
        await asyncio.sleep(1)
        assert refused() == [], "there is no schedule"

    live({"hourly": 9}, work)


def test_a_device_that_somebody_has_for_long_keeps_those_it_has() -> None:
    """However many were taken of others meanwhile: the newest of its own are what there is of it."""

    async def work(store: Store, env: Clock) -> None:
        await asyncio.sleep(2 * HOUR)
        before = await own(store)
        assert len(before) == 2
        async with store.filling.over("a", "an import", nothing):
            await asyncio.sleep(5 * HOUR)
        assert await own(store) == before
        assert not set(await own(store, "b")) & set(before)

    live({"hourly": 2}, work)


def test_what_cannot_be_taken_of_all_is_taken_of_each(caplog: pytest.LogCaptureFixture) -> None:
    """Somebody has that name already, on one of them; and a schedule is no reason to serve no more."""

    async def work(store: Store, env: Clock) -> None:
        for second in range(5):
            await store.snapshots.create(["a"], f"auto-20231114T23000{second}Z")
        await asyncio.sleep(HOUR)
        assert [vars(each)["device"] for each in caplog.records if "not_taken" in each.message] == ["a"]
        assert [len(await own(store, name)) for name in "ab"] == [1, 1], "of the first hour, and of this one"
        await asyncio.sleep(2 * HOUR)
        assert [len(await own(store, name)) for name in "ab"] == [3, 3], "both are its own, and go in turn"
        assert len(store.device("a").history.snapshots()) == 5 + 3

    live({"hourly": 3}, work)


def test_a_clock_that_jumps_back_and_forth() -> None:
    """It takes no two of one hour, deletes no more than it keeps, and goes on by whatever it shows."""

    async def work(store: Store, env: Clock) -> None:
        await asyncio.sleep(4 * HOUR)
        assert len(await own(store)) == 3
        for jump in (-2 * HOUR, 2 * HOUR, -3000 * DAY, 0.0):
            env.off = jump
            before = await own(store)
            await asyncio.sleep(600)
            after = await own(store)
            assert len({name[:16] for name in after}) == len(after), "no two of one hour"
            now = datetime.fromtimestamp(env.wall_clock(), UTC).strftime("auto-%Y%m%dT%H%M%SZ")
            assert len([name for name in after if name <= now]) <= 3, "what is yet to come stays beside them"
            assert len(set(before) - set(after)) <= len(before) - 2

    live({"hourly": 3}, work)


@pytest.mark.thorough
def test_without_a_schedule_nothing_is_taken() -> None:
    async def work(store: Store, env: Clock) -> None:
        await asyncio.sleep(2 * DAY)
        assert await own(store) == []

    live({}, work)


def test_without_a_device_nothing_is_taken(caplog: pytest.LogCaptureFixture) -> None:
    async def work(store: Store, env: Clock) -> None:
        for one in await store.snapshots.list():
            await store.snapshots.delete(one.device, one.name)
        for name in "ab":
            await store.delete_device(name)
        caplog.clear()
        await asyncio.sleep(3 * HOUR)
        assert "scheduled_snapshot_taken" not in caplog.messages

    with caplog.at_level(logging.INFO, "nbdserver"):
        live({"hourly": 2}, work)
