"""A clone of a device as it is now: however its making ends, nothing of it is left but the clone."""

import asyncio
from pathlib import Path

import pytest

from storage.errors import AlreadyExists, Conflict, Unreadable
from storage.format.frame import BLOCK_BYTES
from storage.fs.store import Store
from tests.storage.fs.places import MIB, Place, contents, kill, nothing
from tests.support.inside import engine_of, tree_of
from tests.support.waiting import until

BASE = bytes(range(256)) * (BLOCK_BYTES // 256)


@pytest.fixture
async def store(place: Place) -> Store:
    store = await place.open(create=True)
    await store.create_device("a", 4 * MIB)
    store.device("a").write(0, BASE)
    await store.flush()
    return store


def snapshots(store: Store) -> list[str]:
    return [one for name in store.names() for one in store.device(name).history.snapshots()]


async def nothing_left(store: Store) -> None:
    """Wait until only the device and perhaps its clone are there."""
    await until(lambda: not snapshots(store))


@pytest.mark.parametrize("passes", [0, 1, 3, 8, 20, 60, 150])
async def test_one_that_is_cancelled(store: Store, passes: int) -> None:
    """In whichever step; what was asked for may have happened."""
    cloning = asyncio.ensure_future(store.snapshots.clone("a", "", "b"))
    for _ in range(passes):
        await asyncio.sleep(0)
    cloning.cancel()
    await asyncio.wait({cloning})
    await store.flush()
    await engine_of(store).flush_memtable()  # what it began has ended
    await nothing_left(store)
    assert set(store.names()) <= {"a", "b"}
    for name in store.names():
        assert await contents(store.device(name), 0, BLOCK_BYTES) == BASE
    await store.close()


async def test_one_that_is_cancelled_behind_another(store: Store) -> None:
    """While it waits for its turn, when nothing of it is there yet: nor is there later."""
    for passes in range(0, 60, 4):
        first = asyncio.ensure_future(store.snapshots.clone("a", "", f"b{passes}"))
        second = asyncio.ensure_future(store.snapshots.clone("a", "", f"c{passes}"))
        for _ in range(passes):
            await asyncio.sleep(0)
        second.cancel()
        await asyncio.wait({first, second})
        await engine_of(store).flush_memtable()
        await nothing_left(store)
    await store.close()


async def test_one_that_is_refused_makes_nothing(store: Store) -> None:
    """Neither where its name is taken, nor of what holds half of one content and half of another."""
    next_layers = tree_of(store).namespace.next_layers
    before = next_layers(1)
    with pytest.raises(AlreadyExists):
        await store.snapshots.clone("a", "", "a")
    assert next_layers(1) == before
    async with store.filling.over("a", "an import", nothing) as device:
        device.write(0, b"half")
        before = next_layers(1)
        with pytest.raises(Conflict, match="in use by an import: wait for its end to clone it"):
            await store.snapshots.clone("a", "", "b")
        assert next_layers(1) == before
    assert store.names() == ("a",)
    await store.close()


async def test_one_whose_snapshot_somebody_has_meanwhile_is_made(store: Store) -> None:
    """What it was made from goes later."""
    users = ["a@clone-under-way"]
    store.open_devices.clients_of = lambda name: ["a client"] if name in users else []
    await store.snapshots.clone("a", "", "b")
    assert snapshots(store) == ["clone-under-way"]
    assert await contents(store.device("b"), 0, BLOCK_BYTES) == BASE
    users.clear()
    store.snapshots.on_change()
    await nothing_left(store)
    await store.close()


async def test_one_whose_server_is_killed_in_between(place: Place, store: Store) -> None:
    cloning = asyncio.ensure_future(store.snapshots.clone("a", "", "b"))
    await until(lambda: bool(snapshots(store)))
    await store.flush()
    await kill(store)
    await asyncio.wait({cloning})
    assert cloning.exception() is not None
    store = await place.open()
    await nothing_left(store)
    await store.close()


async def test_one_that_is_refused_in_between(place: Place, store: Store) -> None:
    """Since what was written to a part of a sector cannot be completed, it can be neither made nor cleared away now."""
    await store.maintenance.flush()
    path, sound = damage(place.folder)
    await store.close()
    store = await place.open()
    store.device("a").write(100, b"piece")
    with pytest.raises(Unreadable):
        await store.snapshots.clone("a", "", "b")
    assert store.names() == ("a",)
    path.write_bytes(sound)
    await store.flush()
    await kill(store)
    store = await place.open()
    await nothing_left(store)
    assert await contents(store.device("a"), 0, 200) == BASE[:100] + b"piece" + BASE[105:200]
    await store.close()


def damage(folder: Path) -> tuple[Path, bytes]:
    """Flip a bit in the data of the store; where, and what it was."""
    path = max((folder / "compacted").iterdir(), key=lambda one: one.stat().st_size)
    sound = path.read_bytes()
    path.write_bytes(sound[:200] + bytes([sound[200] ^ 1]) + sound[201:])
    return path, sound


async def test_its_snapshot_is_kept_while_it_is_needed(store: Store) -> None:
    """What clears away what a clone has left is at work all the time."""
    for number in range(5):
        await asyncio.gather(*(store.snapshots.clone("a", "", f"{name}{number}") for name in "bcd"))
    assert len(store.names()) == 16
    await nothing_left(store)
    await store.close()


async def test_whoever_clears_away_is_told_that_it_is_needed(store: Store) -> None:
    """From the moment on at which it is there, until the clone is made."""
    seen = []
    layers = tree_of(store).namespace.layers

    def changed() -> None:
        seen.append([number in store.snapshots.pins for number, layer in layers().items() if layer.frozen])

    store.snapshots.on_change = changed
    await store.snapshots.clone("a", "", "b")
    assert seen[0] == [True], "taken, and not cloned yet"
    assert seen[-1] == [], "nobody needs it any more, and it is gone"
    await store.close()


async def test_a_device_may_get_another_name_meanwhile(store: Store) -> None:
    cloning = asyncio.ensure_future(store.snapshots.clone("a", "", "b"))
    await until(lambda: bool(snapshots(store)))
    await store.rename_device("a", "c")
    await cloning
    assert store.names() == ("b", "c")
    await nothing_left(store)
    await store.close()


async def test_a_rollback_that_is_refused_leaves_the_size(place: Place, store: Store) -> None:
    """Clients that attach meanwhile are told how large the device is."""
    await store.snapshots.create(["a"], "small")
    await store.resize_device("a", 8 * MIB)
    await store.maintenance.flush()
    damage(place.folder)
    await store.close()
    store = await place.open()
    store.device("a").write(100, b"piece")
    await store.snapshots.create(["a"], "kept")
    device = store.device("a")
    with pytest.raises(Unreadable):
        await store.snapshots.roll_back("a", "small")
    assert device.size == 8 * MIB
    await store.close()
