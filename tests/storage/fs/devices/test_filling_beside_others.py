"""Devices that are filled beside others: what clears away, who reads or is attached, and what cannot be undone now."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest

from storage.errors import Conflict, Unreadable
from storage.fs.devices.filling import IncomingSnapshot
from storage.fs.devices.history import History
from storage.fs.metadata.inodes import LayerRow
from storage.fs.store import Store
from tests.storage.fs.places import MIB, Place, contents, nothing
from tests.support.waiting import until

FILLER = "an import"
OLD, NEW = b"old" * 100_000, b"new" * 100_000
ASIDE = "import-under-way"


@pytest.fixture
async def store(place: Place) -> AsyncIterator[Store]:
    """A device `a` of 4 MiB which holds what `a@one` holds."""
    store = await place.open(create=True)
    await store.create_device("a", 4 * MIB)
    store.device("a").write(0, OLD)
    await store.snapshots.create(["a"], "one")
    yield store
    assert not store.failed.done()
    await store.close()


def snapshots(store: Store) -> list[str]:
    return store.device("a").history.snapshots()


async def is_as_before(store: Store) -> None:
    assert await contents(store.device("a")) == OLD + bytes(4 * MIB - len(OLD))
    await until(lambda: snapshots(store) == ["one"])


async def fail(store: Store, *, arriving: bool) -> None:
    """Fill a device half, with a snapshot that arrives or over all that it holds, and fail."""
    (one,) = await store.snapshots.list("a")
    arrival = IncomingSnapshot("two", b"2" * 16, 5 * MIB, 0)
    onto = store.filling.onto("a", bytes.fromhex(one.identity), FILLER, arrival)

    async def fill() -> None:
        async with onto if arriving else store.filling.over("a", FILLER, nothing) as device:
            device.write(0, NEW)
            raise ValueError("no more")

    with pytest.raises(ValueError, match="no more"):
        await fill()


@pytest.mark.parametrize("arriving", [False, True])
async def test_what_cannot_be_undone_now_is_nobodys_until_it_is(
    store: Store, monkeypatch: pytest.MonkeyPatch, arriving: bool
) -> None:
    """What it holds is half of one and half of the other. It is undone by itself as soon as that can be."""
    tried: list[int] = []

    async def refuse(number: int) -> None:
        tried.append(number)
        raise Unreadable("not now")

    with monkeypatch.context() as patched:
        patched.setattr(store.filling, "undo", refuse)
        await fail(store, arriving=arriving)
        await until(lambda: len(tried) >= 2)  # at once, and by what clears away, which was told
        assert store.device("a").exclusive_user in (FILLER, "an import that is not done")
        for refused in (store.snapshots.create(["a"], "three"), store.resize_device("a", 6 * MIB)):
            with pytest.raises(Conflict):
                await refused
    store.filling.on_cut_short()
    await until(lambda: store.device("a").exclusive_user is None)
    assert store.device("a").size == 4 * MIB
    await is_as_before(store)


@asynccontextmanager
async def cleared_always(store: Store) -> AsyncIterator[None]:
    """What clears away looks at every moment in here, as it does when snapshots come and go."""

    async def clear() -> None:
        while True:
            store.snapshots.on_change()
            await asyncio.sleep(0)

    clearing = asyncio.ensure_future(clear())
    try:
        yield
    finally:
        clearing.cancel()


async def test_what_clears_away_leaves_what_it_goes_back_to(store: Store) -> None:
    """From the moment on at which the snapshot is there, until nothing goes on from it any more."""
    async with cleared_always(store):
        await fail(store, arriving=False)
        await is_as_before(store)


async def test_what_clears_away_leaves_what_is_being_filled(store: Store) -> None:
    """It is marked as not done, like what nobody fills any more."""
    (one,) = await store.snapshots.list("a")
    arrival = IncomingSnapshot("two", b"2" * 16, 4 * MIB, 0)
    for name, filling in (
        ("b", store.filling.new("b", 4 * MIB, FILLER)),
        ("a", store.filling.onto("a", bytes.fromhex(one.identity), FILLER, arrival)),
        ("b", store.filling.over("b", FILLER, nothing)),
    ):
        async with cleared_always(store), filling as device:
            device.zero(0, device.size, allocated=False)
            device.write(0, NEW)
            await store.flush()
        assert await contents(store.device(name)) == NEW + bytes(4 * MIB - len(NEW))
        assert store.device(name).exclusive_user is None


async def test_what_arrives_keeps_what_it_goes_on_from(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    """From the moment on at which the device is compared with it, which may take long."""
    compare, refused = History.equals, []

    async def equals(self: History, snapshot: LayerRow) -> bool:
        found = await compare(self, snapshot)
        with pytest.raises(Conflict, match="in use by an import") as caught:
            await store.snapshots.delete("a", "one")
        refused.append(caught.value)
        return found

    monkeypatch.setattr(History, "equals", equals)
    await fail(store, arriving=True)
    assert len(refused) == 1
    await is_as_before(store)


@pytest.mark.parametrize("who", ["attached", "reads"])
async def test_what_was_set_aside_stays_while_somebody_has_it(store: Store, who: str) -> None:
    """The device has its new content all the same; what it held before goes when nobody has it any more."""
    users = [f"a@{ASIDE}"] if who == "attached" else []
    async with store.filling.over("a", FILLER, nothing) as device:
        device.zero(0, device.size, allocated=False)
        device.write(0, NEW)
        store.open_devices.clients_of = lambda name: ["a client"] if name in users else []
        reading = store.snapshots.reading("a", ASIDE, "a reader")
        if who == "reads":
            reading.__enter__()
    assert store.device("a").exclusive_user is None
    assert snapshots(store) == ["one", ASIDE]
    assert await contents(store.device(f"a@{ASIDE}")) == OLD + bytes(4 * MIB - len(OLD))
    if who == "reads":
        reading.__exit__(None, None, None)
    users.clear()
    store.snapshots.on_change()
    await until(lambda: snapshots(store) == ["one"])
    assert await contents(store.device("a")) == NEW + bytes(4 * MIB - len(NEW))


async def test_a_candidate_that_goes_while_another_one_is_compared_is_passed_over(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whoever sends to a device asks which of many it holds; comparing takes minutes, in which others expire."""
    store.device("a").write(0, NEW)
    await store.snapshots.create(["a"], "two")
    await store.snapshots.create(["a"], "three")
    equals = History.equals

    async def first_delete(self: History, snapshot: LayerRow) -> bool:
        if snapshot.name == "one":
            await store.snapshots.delete("a", "two")
        with pytest.raises(Conflict, match="in use by a test"):
            await store.snapshots.delete("a", snapshot.name)
        return await equals(self, snapshot)

    monkeypatch.setattr(History, "equals", first_delete)
    assert await store.snapshots.which_is_held("a", ["one", "two", "three"], "a test") == "three"
