"""A store as server, command line and administrator see it: opened by password, with devices, closed and reopened."""

import asyncio
from collections.abc import Iterator
from pathlib import Path

import pytest

from storage.codec import BLOCK_BYTES, SECTOR_BYTES
from storage.env import RealEnv
from storage.errors import (
    AccessDenied,
    AlreadyExists,
    Closed,
    Conflict,
    Corrupt,
    Fenced,
    Invalid,
    NotFound,
    RolledBack,
    StorageError,
    Unsupported,
    WrongPassword,
)
from storage.fs.device import Device
from storage.fs.store import Store, StoreOptions, open_reader, open_store
from storage.keyslots import Cost
from storage.lsm.engine import EngineOptions
from storage.lsm.extents import State

MIB = 1024 * 1024
PASSWORD = b"a password"
DATA = b"some data that is not zero. " * 1000


class Place:
    """A folder store and a host that remembers it."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder / "store"
        self.state = folder / "state"
        self.env = RealEnv()

    @property
    def options(self) -> StoreOptions:
        return StoreOptions(engine=EngineOptions(cache_bytes=16 * MIB), state_folder=self.state, cost=Cost.for_tests())

    async def open(self, password: bytes = PASSWORD, *, create: bool = False, **how: bool) -> Store:
        return await open_store(str(self.folder), password, env=self.env, create=create, options=self.options, **how)

    async def reader(self, password: bytes = PASSWORD) -> Store:
        return await open_reader(str(self.folder), password, env=self.env, options=self.options)

    def files(self) -> dict[str, bytes]:
        return {
            str(path.relative_to(self.folder)): path.read_bytes()
            for path in self.folder.rglob("*")
            if path.is_file() and not path.name.startswith(".")
        }


@pytest.fixture
def place(tmp_path: Path) -> Iterator[Place]:
    made = Place(tmp_path)
    yield made
    made.env.close()


async def contents(device: Device, offset: int = 0, length: int | None = None) -> bytes:
    pieces = await device.read(offset, device.size if length is None else length)
    return b"".join(bytes(piece) for piece in pieces)


async def kill(store: Store) -> None:
    """As kill -9 does, except that this process lives on."""
    store._engine.fail(Closed("killed by the test"))
    await store.close()


async def test_a_new_store_has_nothing_and_keeps_what_is_written(place: Place) -> None:
    store = await place.open(create=True)
    assert store.created
    assert store.devices() == []
    await store.create_device("disk", 5 * MIB)
    device = store.device("disk")
    assert await contents(device) == bytes(5 * MIB)
    device.write(100, DATA)
    await store.close()
    store = await place.open()
    assert not store.created
    assert await contents(store.device("disk"), 100, len(DATA)) == DATA
    (info,) = store.devices()
    assert (info.name, info.size, info.read_only) == ("disk", 5 * MIB, False)
    assert info.created <= info.modified <= place.env.wall_clock()
    await store.close()


async def test_what_was_flushed_is_there_after_a_kill(place: Place) -> None:
    store = await place.open(create=True)
    await store.create_device("a", 4 * MIB)
    await store.create_device("dir/b", 8 * MIB)
    store.device("a").write(0, DATA)
    store.device("dir/b").zero(0, MIB, allocated=True)
    await store.flush()
    store.device("a").write(0, b"lost")
    await kill(store)
    store = await place.open()
    assert [device.name for device in store.devices()] == ["a", "dir/b"]
    assert await contents(store.device("a"), 0, len(DATA)) in (DATA, b"lost" + DATA[4:])
    assert store.device("dir/b").extents(0, 2 * MIB) == [(MIB, State.ZERO), (MIB, State.HOLE)]
    await store.close()


async def test_there_is_no_store_unless_it_is_created(place: Place) -> None:
    with pytest.raises(NotFound, match="nbdserver init"):
        await place.open()
    with pytest.raises(NotFound):
        await place.reader()
    assert place.files() == {}


async def test_a_wrong_password_opens_nothing_and_writes_nothing(place: Place) -> None:
    await (await place.open(create=True)).close()
    before = place.files()
    for opening in (place.open(b"another"), place.open(b"another", create=True), place.reader(b"another")):
        with pytest.raises(WrongPassword):
            await opening
    with pytest.raises(Invalid, match="empty"):
        await place.open(b"")
    assert place.files() == before


async def test_data_without_keys_is_not_taken_for_an_empty_place(place: Place) -> None:
    store = await place.open(create=True)
    await store.create_device("a", MIB)
    await store.close()
    keys = place.folder / "keys" / "00000000000000000001.keys"
    content = keys.read_bytes()
    keys.unlink()
    before = place.files()
    for opening in (place.open(create=True), place.open(create=True, accept_rollback=True), place.open()):
        with pytest.raises(Corrupt, match="restore the keys"):
            await opening
    assert place.files() == before
    keys.write_bytes(content)
    await (await place.open()).close()


async def test_an_emptied_place_is_noticed_by_the_host_that_knows_it(place: Place) -> None:
    await (await place.open(create=True)).close()
    for path in place.folder.rglob("*.*"):
        path.unlink()
    with pytest.raises(RolledBack, match="this host remembers a store there"):
        await place.open(create=True)
    with pytest.raises(NotFound):
        await place.open(accept_rollback=True)
    store = await place.open(create=True, accept_rollback=True)
    assert store.created
    await store.close()
    await (await place.open()).close()


async def test_a_damaged_anchor_is_said_and_accepted(place: Place) -> None:
    store = await place.open(create=True)
    await store.create_device("a", MIB)
    await store.close()
    (anchor,) = place.state.rglob("anchor-*.json")
    anchor.write_bytes(b"{")
    with pytest.raises(Corrupt, match="--accept-rollback"):
        await place.open()
    store = await place.open(accept_rollback=True)
    assert [device.name for device in store.devices()] == ["a"]
    await store.close()
    await (await place.open()).close()


async def test_two_openings_at_once_make_one_store(place: Place) -> None:
    outcomes = await asyncio.gather(*(place.open(create=True) for _ in range(3)), return_exceptions=True)
    stores = [outcome for outcome in outcomes if isinstance(outcome, Store)]
    assert len(stores) >= 1
    assert all(isinstance(outcome, (Store, StorageError)) for outcome in outcomes)
    for store in stores:
        store_id = store.status()["store_id"]
        assert store_id == stores[0].status()["store_id"]
    newest = max(stores, key=lambda store: store.epoch)
    for store in stores:
        if store is not newest:
            with pytest.raises(Fenced):
                await store.close()
    await newest.close()


async def test_a_store_in_use_is_refused_and_can_be_taken(place: Place) -> None:
    first = await place.open(create=True)
    await first.create_device("a", MIB)
    with pytest.raises(Fenced, match="holds"):
        await place.open()
    second = await place.open(take_over=True)
    second.device("a").write(0, DATA)
    await second.flush()
    first.device("a").write(0, b"of the first")
    with pytest.raises(Fenced):
        await first.flush()
    assert isinstance(await asyncio.wait_for(first.failed, 5), Fenced)
    await first.close()
    assert await contents(second.device("a"), 0, len(DATA)) == DATA
    await second.close()


async def test_a_failed_store_can_be_opened_again_by_the_same_process(place: Place) -> None:
    store = await place.open(create=True)
    await kill(store)
    await kill(store)
    store = await place.open()
    await store.close()
    with pytest.raises(Closed):
        await store.create_device("a", MIB)


async def test_a_password_change_changes_one_object_and_no_data(place: Place) -> None:
    store = await place.open(create=True)
    await store.create_device("a", MIB)
    store.device("a").write(0, DATA)
    await store.close()
    store = await place.open()
    with pytest.raises(WrongPassword):
        await store.change_password(b"another", b"new")
    with pytest.raises(Invalid):
        await store.change_password(PASSWORD, b"")
    old_keys = (place.folder / "keys" / "00000000000000000001.keys").read_bytes()
    await store.change_password(PASSWORD, b"new")
    await store.close()
    assert [name for name in place.files() if name.startswith("keys/")] == ["keys/00000000000000000002.keys"]
    with pytest.raises(WrongPassword):
        await place.open()
    store = await place.open(b"new")
    assert await contents(store.device("a"), 0, len(DATA)) == DATA
    await store.close()
    (place.folder / "keys" / "00000000000000000002.keys").unlink()
    (place.folder / "keys" / "00000000000000000001.keys").write_bytes(old_keys)
    with pytest.raises(Corrupt, match="older password was put back"):
        await place.open()


async def test_a_reader_takes_nothing_and_changes_nothing(place: Place) -> None:
    store = await place.open(create=True)
    await store.create_device("a", MIB)
    store.device("a").write(0, DATA)
    await store.flush()
    before = place.files()
    reader = await place.reader()
    device = reader.device("")
    assert device.read_only
    assert await contents(device, 0, len(DATA)) == DATA
    with pytest.raises(AccessDenied):
        device.write(0, b"x")
    with pytest.raises(AccessDenied):
        device.zero(0, 512, allocated=False)
    for awaited in (
        reader.create_device("b", MIB),
        reader.delete_device("a"),
        reader.rename_device("a", "b"),
        reader.resize_device("a", 2 * MIB),
        reader.change_password(PASSWORD, b"new"),
    ):
        with pytest.raises(AccessDenied):
            await awaited
    assert device.size == MIB
    assert [info.name for info in reader.devices()] == ["a"]
    await reader.close()
    assert place.files() == before
    store.device("a").write(0, b"still the writer")
    await store.close()


async def test_a_reader_needs_no_anchor_and_tests_nothing(place: Place, tmp_path: Path) -> None:
    """It may have no right to write: what it opens must not be probed."""
    store = await place.open(create=True)
    await store.close()
    before = place.files()
    place.state = tmp_path / "another host"
    reader = await place.reader()
    requests = reader.status()["requests"]
    assert isinstance(requests, dict)
    assert requests["create"] == requests["put"] == requests["delete"] == 0
    await reader.close()
    assert place.files() == before
    assert not place.state.exists()


# --- devices


async def test_devices_are_created_once_and_within_limits(place: Place) -> None:
    store = await place.open(create=True)
    await store.create_device("a", MIB)
    with pytest.raises(AlreadyExists):
        await store.create_device("a", MIB)
    for size in (0, 100, -512, 2**50):
        with pytest.raises(Invalid):
            await store.create_device("b", size)
    for name in ("", "..", "a\0b", "x" * 256, "/a"):
        with pytest.raises(Invalid):
            await store.create_device(name, MIB)
    with pytest.raises(Conflict):
        await store.create_device("a/b", MIB)
    assert [device.name for device in store.devices()] == ["a"]
    outcomes = await asyncio.gather(*(store.create_device("c", MIB) for _ in range(5)), return_exceptions=True)
    assert sum(outcome is None for outcome in outcomes) == 1
    await store.close()


async def test_a_device_is_found_by_name(place: Place) -> None:
    store = await place.open(create=True)
    with pytest.raises(NotFound, match="0 devices"):
        store.device("")
    await store.create_device("a", MIB)
    assert store.device("") is store.device("a")
    await store.create_device("b", MIB)
    with pytest.raises(NotFound, match="2 devices"):
        store.device("")
    for name in ("c", "a/b", "..", "/"):
        with pytest.raises(NotFound):
            store.device(name)
    assert store.device("a") is store.device("a"), "all clients share one"
    await store.close()


async def test_a_deleted_device_leaves_nothing_to_its_successor(place: Place) -> None:
    store = await place.open(create=True)
    for flushed in (False, True):
        await store.create_device("a", MIB)
        assert await contents(store.device("a")) == bytes(MIB)
        store.device("a").write(0, DATA)
        if flushed:
            await store._engine.flush_memtable()
        await store.delete_device("a")
        with pytest.raises(NotFound):
            store.device("a")
    await store.create_device("a", MIB)
    await kill(store)
    store = await place.open()
    assert await contents(store.device("a")) == bytes(MIB)
    await store.close()


async def test_a_renamed_device_keeps_its_data_and_its_clients_view(place: Place) -> None:
    store = await place.open(create=True)
    await store.create_device("a", MIB)
    device = store.device("a")
    device.write(0, DATA)
    await store.rename_device("a", "dir/b")
    assert store.device("dir/b") is device
    with pytest.raises(NotFound):
        store.device("a")
    await store.create_device("a", MIB)
    with pytest.raises(AlreadyExists):
        await store.rename_device("a", "dir/b")
    await store.flush()
    await kill(store)
    store = await place.open()
    assert await contents(store.device("dir/b"), 0, len(DATA)) == DATA
    await store.close()


async def test_an_attached_device_is_not_deleted_renamed_or_made_smaller(place: Place) -> None:
    store = await place.open(create=True)
    await store.create_device("a", 4 * MIB)
    store.attached = lambda name: ["client 1 (one)", "client 2 (other)"] if name == "a" else []
    for change in (
        store.delete_device("a"),
        store.rename_device("a", "b"),
        store.resize_device("a", MIB, shrink=True),
    ):
        with pytest.raises(Conflict, match=r"'a' is attached by client 1 \(one\) and 1 more"):
            await change
    await store.resize_device("a", 8 * MIB)
    assert store.device("a").size == 8 * MIB
    store.attached = lambda name: []
    await store.delete_device("a")
    await store.close()


@pytest.mark.parametrize("way", ["memory", "flushed", "killed"])
async def test_what_a_shrink_cut_off_reads_as_zeros_when_it_grows_again(place: Place, way: str) -> None:
    store = await place.open(create=True)
    await store.create_device("a", 4 * MIB)
    device = store.device("a")
    device.write(0, bytes(range(256)) * (4 * MIB // 256))
    if way == "flushed":
        await store._engine.flush_memtable()
    with pytest.raises(Conflict, match="--shrink"):
        await store.resize_device("a", MIB + 512)
    assert device.size == 4 * MIB
    await store.resize_device("a", MIB + 512, shrink=True)
    assert device.size == MIB + 512
    if way == "killed":
        await kill(store)
        store = await place.open()
        device = store.device("a")
        assert device.size == MIB + 512
    await store.resize_device("a", 3 * MIB)
    expected = (bytes(range(256)) * (MIB // 256 + 2))[: MIB + 512] + bytes(2 * MIB - 512)
    assert await contents(store.device("a")) == expected
    await store.close()
    store = await place.open()
    assert await contents(store.device("a")) == expected
    await store.close()


async def test_a_shrink_lands_in_the_log_behind_every_write(place: Place) -> None:
    """Writes that are not in the log yet when the shrink begins must not come back by a replay."""
    store = await place.open(create=True)
    await store.create_device("a", 8 * MIB)
    device = store.device("a")
    for at in range(0, 8 * MIB, 64 * 1024):
        device.write(at, b"x" * 64 * 1024)
    shrinking = asyncio.ensure_future(store.resize_device("a", MIB, shrink=True))
    await asyncio.sleep(0)
    device.write(7 * MIB, b"y" * BLOCK_BYTES)
    await shrinking
    await store.resize_device("a", 8 * MIB)
    assert await contents(device, MIB, 7 * MIB) == bytes(7 * MIB)
    await kill(store)
    store = await place.open()
    assert await contents(store.device("a"), MIB, 7 * MIB) == bytes(7 * MIB)
    await store.close()


async def test_a_name_change_is_durable_when_it_returns(place: Place) -> None:
    store = await place.open(create=True)
    await store.create_device("a", MIB)
    await store.create_device("b", MIB)
    await store.rename_device("a", "c")
    await store.delete_device("b")
    await store.resize_device("c", 2 * MIB)
    await kill(store)
    store = await place.open()
    assert [(device.name, device.size) for device in store.devices()] == [("c", 2 * MIB)]
    await kill(store)


async def test_the_status_can_be_shown(place: Place) -> None:
    store = await place.open(create=True)
    await store.create_device("a", MIB)
    store.device("a").write(0, DATA)
    before = store.status()
    assert before["unlogged_bytes"] == 7 * SECTOR_BYTES + 256, "seven sectors, and what goes with each write"
    assert before["devices"] == 1
    await store._engine.flush_memtable()
    after = store.status()
    assert (after["unlogged_bytes"], after["memtable_bytes"], after["wal_objects"]) == (0, 0, 0)
    assert after["tables"] == 1
    assert isinstance(after["bytes_up"], int)
    assert after["bytes_up"] > 0
    assert str(place.folder) in str(after["url"])
    await store.close()


async def test_damage_in_the_log_is_named(place: Place) -> None:
    store = await place.open(create=True)
    await store.create_device("a", MIB)
    store.device("a").write(0, DATA)
    await store.flush()
    await kill(store)
    path = sorted((place.folder / "wal").iterdir())[-1]
    path.write_bytes(path.read_bytes()[:-1] + b"!")
    with pytest.raises((Corrupt, Unsupported), match=path.name):
        await place.open()


async def test_what_is_held_is_not_deleted_renamed_or_made_smaller(place: Place) -> None:
    """An import writes for a while: whoever deleted its device meanwhile would pull the ground from under it."""
    store = await place.open(create=True)
    await store.create_device("a", 4 * MIB)
    with store.hold("a", "an import") as device:
        assert device is store.device("a")
        assert device.holder == "an import"
        for change in (
            store.delete_device("a"),
            store.rename_device("a", "b"),
            store.resize_device("a", MIB, shrink=True),
        ):
            with pytest.raises(Conflict, match="'a' is in use by an import: wait"):
                await change
        with pytest.raises(Conflict), store.hold("a", "another"):
            pass
    assert device.holder is None
    await store.rename_device("a", "b")
    await store.close()


async def test_a_deleted_device_takes_no_write_and_is_forgotten(place: Place) -> None:
    store = await place.open(create=True)
    await store.create_device("a", MIB)
    device = store.device("a")
    await store.delete_device("a")
    with pytest.raises(AccessDenied, match="deleted"):
        device.write(0, DATA)
    with pytest.raises(AccessDenied, match="deleted"):
        device.zero(0, 4096, allocated=False)
    assert not store._devices
    await store.close()


async def test_a_refused_resize_changes_nothing(place: Place) -> None:
    store = await place.open(create=True)
    await store.create_device("a", 4 * MIB)
    await store.close()
    reader = await place.reader()
    with pytest.raises(AccessDenied):
        await reader.resize_device("a", MIB, shrink=True)
    assert reader.device("a").size == 4 * MIB
    await reader.close()
