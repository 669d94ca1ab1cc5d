"""Which disk a device is: what a client that comes back asks for, since the name alone may mean another one by then."""

from collections.abc import Awaitable, Callable

import pytest

from storage.fs.devices.filling import IncomingSnapshot
from storage.fs.store import Store
from tests.storage.fs.places import MIB, Place, kill, nothing

Step = Callable[[Store], Awaitable[object]]


async def anew(store: Store) -> None:
    await store.snapshots.delete("a", "s")
    await store.delete_device("a")
    await store.create_device("a", MIB)


async def swap(store: Store) -> None:
    await store.rename_device("a", "c")
    await store.rename_device("b", "a")


async def shrunk(store: Store) -> None:
    await store.resize_device("a", MIB // 2, shrink=True)
    await store.resize_device("a", MIB)


async def snapshot_again(store: Store) -> None:
    await store.snapshots.delete("a", "s")
    await store.snapshots.create(["a"], "s")


async def other_content(store: Store) -> None:
    async with store.filling.over("a", "an import", nothing):
        pass


async def arrived(store: Store) -> None:
    (snapshot,) = await store.snapshots.list("a")
    arrival = IncomingSnapshot("t", b"t" * 16, MIB, 0)
    async with store.filling.onto("a", bytes.fromhex(snapshot.identity), "an import", arrival):
        pass


async def lead_elsewhere(store: Store) -> None:
    await store.files.remove("/.nbd/link")
    await store.files.link("b", "/.nbd/link")


SAME: dict[str, tuple[str, Step]] = {
    "nothing": ("a", lambda store: store.flush()),
    "a flush of the memtable": ("a", lambda store: store.maintenance.flush()),
    "a snapshot": ("a", lambda store: store.snapshots.create(["a"], "t")),
    "a snapshot that goes": ("a", lambda store: store.snapshots.delete("a", "s")),
    "growth": ("a", lambda store: store.resize_device("a", 2 * MIB)),
    "another's deletion": ("a", lambda store: store.delete_device("b")),
    "a clone of it": ("a", lambda store: store.snapshots.clone("a", "s", "c")),
    "a rollback of which the snapshot knows nothing": ("a@s", lambda store: store.snapshots.roll_back("a", "s")),
}

OTHER: dict[str, tuple[str, Step]] = {
    "made anew": ("a", anew),
    "the name of another": ("a", swap),
    "a link that leads elsewhere": ("link", lead_elsewhere),
    "rolled back": ("a", lambda store: store.snapshots.roll_back("a", "s")),
    "rolled back, nothing kept": ("a", lambda store: store.snapshots.roll_back("a", "s", keep=False)),
    "made smaller, and as large as before": ("a", shrunk),
    "another snapshot of that name": ("a@s", snapshot_again),
    "its content replaced": ("a", other_content),
    "made what a snapshot of elsewhere holds": ("a", arrived),
}


async def identities(place: Place, name: str, step: Step) -> list[str]:
    """Of what `name` means: before a step, after it, after a crash and a start."""
    store = await place.open(create=True)
    await store.create_device("a", MIB)
    await store.create_device("b", MIB)
    await store.files.link("a", "/.nbd/link")
    await store.snapshots.create(["a"], "s")
    found = [store.device(name).identity]
    await step(store)
    found.append(store.device(name).identity)
    await kill(store)
    store = await place.open()
    found.append(store.device(name).identity)
    await store.close()
    return found


@pytest.mark.parametrize("what", SAME)
async def test_it_is_the_same_disk(place: Place, what: str) -> None:
    before, after, later = await identities(place, *SAME[what])
    assert before == after == later != ""


@pytest.mark.parametrize("what", OTHER)
async def test_it_is_another_disk(place: Place, what: str) -> None:
    before, after, later = await identities(place, *OTHER[what])
    assert before != after == later != ""


async def test_no_two_are_the_same_and_what_is_gone_is_none(place: Place) -> None:
    store = await place.open(create=True)
    for name in ("a", "b"):
        await store.create_device(name, MIB)
    await store.snapshots.create(["a", "b"], "s")
    await store.files.link("a", "/.nbd/link")
    devices = [store.device(name) for name in ("a", "b", "a@s", "b@s")]
    assert len({device.identity for device in devices}) == 4
    assert not any("-" in device.identity for device in devices)
    assert store.device("link").identity == devices[0].identity
    await store.snapshots.delete("b", "s")
    await store.delete_device("b")
    assert devices[1].identity == ""
    await store.close()
