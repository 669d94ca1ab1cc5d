"""Devices that are filled by the name of a symbolic link, which leads elsewhere before that is done."""

from collections.abc import AsyncIterator

import pytest

from storage.errors import Conflict, NotFound
from storage.fs.devices.device import Device
from storage.fs.devices.history import History
from storage.fs.metadata.inodes import LayerRow
from storage.fs.store import Store
from storage.lsm.engine import Engine
from storage.lsm.tree_state import TrunkPlan
from tests.storage.fs.places import MIB, Place, contents
from tests.support.waiting import until

FILLER = "an import"
A, B, NEW = b"of a" * 1000, b"of b" * 1000, b"new" * 1000


@pytest.fixture
async def store(place: Place) -> AsyncIterator[Store]:
    """Devices `one/x` and `two/x` of different sizes, and `cur`, a link to `one`."""
    store = await place.open(create=True)
    await store.create_device("one/x", 4 * MIB)
    await store.create_device("two/x", 2 * MIB)
    store.device("one/x").write(0, A)
    store.device("two/x").write(0, B)
    await store.files.link("one", "/.nbd/cur")
    yield store
    assert not store.failed.done()
    await store.close()


async def lead_to(store: Store, target: str) -> None:
    await store.files.remove("/.nbd/cur")
    await store.files.link(target, "/.nbd/cur")


async def is_untouched(store: Store, name: str, content: bytes, size: int) -> None:
    device = store.device(name)
    assert device.exclusive_user is None
    assert device.size == size
    assert await contents(device) == content + bytes(size - len(content))
    await until(lambda: device.history.snapshots() == [])


@pytest.mark.parametrize("target", ["two", "nowhere"])
async def test_a_link_that_leads_elsewhere_before_its_turn_comes(store: Store, target: str) -> None:
    """What was to be filled is not what would be asked for now."""

    async def check(_: Device) -> None:
        await lead_to(store, target)

    with pytest.raises(Conflict if target == "two" else NotFound, match="'cur/x'"):
        async with store.filling.over("cur/x", FILLER, check):
            pytest.fail("nothing is to be filled")
    await is_untouched(store, "one/x", A, 4 * MIB)
    await is_untouched(store, "two/x", B, 2 * MIB)


@pytest.mark.parametrize("fails", [False, True])
async def test_a_link_that_leads_elsewhere_once_the_snapshot_is_taken(
    store: Store, monkeypatch: pytest.MonkeyPatch, fails: bool
) -> None:
    """The disk of which there is a snapshot is the one that is filled, and that is as it was if that fails."""
    change_trunks = Engine.change_trunks

    async def first_then_lead_elsewhere(self: Engine, plan: TrunkPlan) -> None:
        monkeypatch.undo()
        await change_trunks(self, plan)
        await lead_to(store, "two")

    async def nothing(_: Device) -> None:
        monkeypatch.setattr(Engine, "change_trunks", first_then_lead_elsewhere)

    async def fill() -> None:
        async with store.filling.over("cur/x", FILLER, nothing) as device:
            device.write(0, NEW)
            device.zero(len(NEW), len(A) - len(NEW), allocated=False)
            if fails:
                raise ValueError("no more")

    if fails:
        with pytest.raises(ValueError, match="no more"):
            await fill()
    else:
        await fill()
    await is_untouched(store, "one/x", A if fails else NEW, 4 * MIB)
    await is_untouched(store, "two/x", B, 2 * MIB)


@pytest.mark.parametrize("target", ["two", "nowhere"])
async def test_a_new_device_that_fails_below_a_link_that_leads_elsewhere(store: Store, target: str) -> None:
    """It goes itself, and no other one of its name."""
    await store.create_device("two/new", MIB)
    store.device("two/new").write(0, B)

    async def fill() -> None:
        async with store.filling.new("cur/new", MIB, FILLER) as device:
            device.write(0, NEW)
            await lead_to(store, target)
            raise ValueError("no more")

    with pytest.raises(ValueError, match="no more"):
        await fill()
    assert store.names() == ("one/x", "two/new", "two/x")
    await is_untouched(store, "two/new", B, MIB)


async def test_what_is_held_is_asked_of_one_device(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    """Not of the one that the name means when one snapshot of the first was compared."""
    await store.snapshots.create(["one/x"], "other")
    store.device("one/x").write(0, NEW)
    await store.snapshots.create(["one/x"], "held")
    equals = History.equals

    async def then_lead_elsewhere(self: History, snapshot: LayerRow) -> bool:
        found = await equals(self, snapshot)
        await lead_to(store, "two")
        return found

    monkeypatch.setattr(History, "equals", then_lead_elsewhere)
    assert await store.snapshots.which_is_held("cur/x", ["other", "held"], "a test") == "held"
