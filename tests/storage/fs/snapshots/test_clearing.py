"""Snapshots that expire: which, when, by whose clock, and what keeps them."""

import asyncio
from collections.abc import Awaitable, Callable, Sequence

import pytest
from hypothesis import given
from hypothesis import strategies as st

from storage.crypto.keyslots import Cost
from storage.errors import Conflict, StorageError, Unreadable
from storage.fs.devices.filling import IncomingSnapshot
from storage.fs.metadata.inodes import LayerRow, SnapshotOrigin
from storage.fs.metadata.snapshot_plans import expired
from storage.fs.opening import open_store
from storage.fs.snapshots.clearing import AGAIN_SECONDS
from storage.fs.store import Store
from storage.fs.store_options import StoreOptions
from tests.simulation.virtual import in_virtual_time
from tests.storage.lsm.worlds import InlineEnv

DAY = 86400.0
MIB = 1 << 20
START = 1.7e9

layers = st.builds(
    LayerRow,
    number=st.integers(1, 10),
    parent=st.just(0),
    size=st.just(512),
    frozen=st.just(True),
    origin=st.sampled_from(SnapshotOrigin),
    expires=st.integers(0, 5).map(lambda at: at * 10**9),
)


@given(
    st.lists(layers, unique_by=lambda layer: layer.number), st.none() | st.integers(0, 6), st.sets(st.integers(1, 10))
)
def test_what_has_expired(all_layers: list[LayerRow], now: int | None, held: set[int]) -> None:
    gone = expired(all_layers, now, held)
    assert gone == sorted(gone)
    assert not held & set(gone)
    for layer in all_layers:
        late = layer.expires and now is not None and layer.expires <= now * 10**9
        assert (layer.number in gone) == (
            layer.number not in held and bool(late or layer.origin is SnapshotOrigin.CLONE)
        )


class Clock(InlineEnv):
    """Virtual time, and a wall clock that is `off` by some seconds."""

    off = 0.0

    def monotonic(self) -> float:
        return asyncio.get_running_loop().time()

    def wall_clock(self) -> float:
        return START + self.monotonic() + self.off


World = Callable[[Store, Clock], Awaitable[None]]


def live(work: World) -> None:
    """A store in memory with a device `a` in virtual time; its objects are as old as the host says."""

    async def run() -> None:
        env = Clock()
        store = await open_store("memory://", b"p", env=env, create=True, options=StoreOptions(cost=Cost.for_tests()))
        await store.create_device("a", MIB)
        await work(store, env)
        assert not store.failed.done()
        await store.close()
        env.close()

    in_virtual_time(run())


def names(store: Store) -> list[str]:
    return store.device("a").history.snapshots()


@pytest.mark.thorough
def test_it_goes_when_its_time_has_come() -> None:
    async def work(store: Store, env: Clock) -> None:
        await store.snapshots.create(["a"], "week", lasts=7 * DAY)
        await store.snapshots.create(["a"], "day", lasts=DAY)
        await store.snapshots.create(["a"], "kept")
        (week, day, kept) = await store.snapshots.list()
        assert week.expires == pytest.approx(week.created + 7 * DAY)
        assert day.expires == pytest.approx(day.created + DAY)
        assert kept.expires is None
        await asyncio.sleep(DAY - 700)
        assert names(store) == ["week", "day", "kept"]
        await asyncio.sleep(1400)
        assert names(store) == ["week", "kept"]
        await asyncio.sleep(7 * DAY)
        assert names(store) == ["kept"]

    live(work)


def test_one_taken_by_a_clock_that_is_behind_lives_as_long() -> None:
    """By the right clock it would have expired long ago, and the next server would delete it."""

    async def work(store: Store, env: Clock) -> None:
        await store.snapshots.create(["a"], "before")
        env.off = -30 * DAY
        await store.snapshots.create(["a"], "week", lasts=7 * DAY)
        before, week = await store.snapshots.list("a")
        assert week.expires is not None
        assert week.expires >= before.created + 7 * DAY
        assert week.created < before.created

    live(work)


def test_one_that_is_taken_though_who_asked_went_away_goes_in_its_time() -> None:
    """The command is interrupted when nothing can stop the snapshot any more."""

    made_all_the_same = []

    def interrupted(steps: int) -> World:
        async def work(store: Store, env: Clock) -> None:
            await asyncio.sleep(60)
            taking = asyncio.ensure_future(store.snapshots.create(["a"], "hour", lasts=3600.0))
            for _ in range(steps):
                await asyncio.sleep(0)
            taking.cancel()
            await asyncio.wait([taking])
            await asyncio.sleep(60)
            if taking.cancelled() and names(store):
                made_all_the_same.append(steps)
            await asyncio.sleep(2 * 3600)
            assert names(store) == []

        return work

    for steps in range(1, 6):
        live(interrupted(steps))
    assert made_all_the_same


@pytest.mark.parametrize("jump", [-400 * DAY, 400 * DAY])
@pytest.mark.thorough
def test_one_clock_that_jumps_deletes_nothing(jump: float) -> None:
    """The host's; the store's has not got there."""

    async def work(store: Store, env: Clock) -> None:
        await store.snapshots.create(["a"], "day", lasts=DAY)
        await asyncio.sleep(60)
        env.off = jump
        await asyncio.sleep(DAY / 2)
        assert names(store) == ["day"]
        env.off = 0.0
        await asyncio.sleep(DAY / 2 + 1200)
        assert names(store) == []

    live(work)


@pytest.mark.thorough
def test_a_clock_that_is_behind_is_waited_for() -> None:
    async def work(store: Store, env: Clock) -> None:
        await store.snapshots.create(["a"], "day", lasts=DAY)
        env.off = -400 * DAY
        await asyncio.sleep(1.5 * DAY)
        assert names(store) == ["day"]
        env.off = 0.0
        await asyncio.sleep(1200)
        assert names(store) == []

    live(work)


@pytest.mark.thorough
def test_who_is_attached_keeps_it() -> None:
    async def work(store: Store, env: Clock) -> None:
        await store.snapshots.create(["a"], "hour", lasts=3600.0)
        users = ["a@hour"]
        store.open_devices.clients_of = lambda name: ["a client"] if name in users else []
        await asyncio.sleep(DAY)
        assert names(store) == ["hour"]
        users.clear()
        await asyncio.sleep(600)
        assert names(store) == []

    live(work)


@pytest.mark.thorough
def test_what_something_under_way_needs_is_kept() -> None:
    async def work(store: Store, env: Clock) -> None:
        await store.snapshots.create(["a"], "hour", lasts=3600.0)
        with store.snapshots.reading("a", "hour", "a test"):
            await asyncio.sleep(DAY)
            assert names(store) == ["hour"]
            with pytest.raises(Conflict, match="in use by a test"):
                await store.snapshots.delete("a", "hour")
        await asyncio.sleep(600)
        assert names(store) == []

    live(work)


def test_what_a_clone_left_goes_as_soon_as_nobody_has_it(caplog: pytest.LogCaptureFixture) -> None:
    """Nothing tells of that, and nothing else is to go: it is tried again, and is said once."""

    async def work(store: Store, env: Clock) -> None:
        users = ["a@left"]
        store.open_devices.clients_of = lambda name: ["a client"] if name in users else []
        await store.snapshots.create(["a"], "left", origin=SnapshotOrigin.CLONE)
        await asyncio.sleep(10 * AGAIN_SECONDS)
        assert names(store) == ["left"]
        assert caplog.messages.count("snapshot_not_deleted") == 1
        users.clear()
        await asyncio.sleep(1.1 * AGAIN_SECONDS)
        assert names(store) == []

    live(work)


async def cut_short(store: Store) -> None:
    """A snapshot that was to arrive, and did not."""
    (base,) = [each for each in await store.snapshots.list("a") if each.name == "base"]
    arrival = IncomingSnapshot("two", b"2" * 16, MIB, 0)
    with pytest.raises(ValueError, match="no more"):
        async with store.filling.onto("a", bytes.fromhex(base.identity), "an import", arrival):
            raise ValueError("no more")
    assert store.device("a").exclusive_user is not None


@pytest.mark.parametrize("error", [Conflict("not now"), Unreadable("not now")])
def test_what_cannot_be_undone_is_tried_again(monkeypatch: pytest.MonkeyPatch, error: StorageError) -> None:
    """Though nothing else is to go, and nothing tells of it."""

    async def refuse(number: int) -> None:
        raise error

    async def work(store: Store, env: Clock) -> None:
        await store.snapshots.create(["a"], "base")
        with monkeypatch.context() as patched:
            patched.setattr(store.filling, "undo", refuse)
            await cut_short(store)
            await asyncio.sleep(10 * AGAIN_SECONDS)
            assert not store.failed.done()
        await asyncio.sleep(1.1 * AGAIN_SECONDS)
        assert store.device("a").exclusive_user is None

    live(work)


def test_what_comes_while_others_go_is_not_missed(monkeypatch: pytest.MonkeyPatch) -> None:
    """It is told of in the midst of a round, which has looked for such things already."""

    async def refuse(number: int) -> None:
        raise Unreadable("not now")

    async def work(store: Store, env: Clock) -> None:
        delete, deleting, rest = store.snapshots.delete_several, asyncio.Event(), asyncio.Event()

        async def slowly(numbers: Sequence[int]) -> dict[int, StorageError]:
            if numbers:
                deleting.set()
                await rest.wait()
            return await delete(numbers)

        await store.snapshots.create(["a"], "base")
        monkeypatch.setattr(store.snapshots, "delete_several", slowly)
        await store.snapshots.create(["a"], "second", lasts=1.0)
        await deleting.wait()
        with monkeypatch.context() as patched:
            patched.setattr(store.filling, "undo", refuse)
            await cut_short(store)
        rest.set()
        await asyncio.sleep(5 * AGAIN_SECONDS)
        assert names(store) == ["base"]
        assert store.device("a").exclusive_user is None

    live(work)
