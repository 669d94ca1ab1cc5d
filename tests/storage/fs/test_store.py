"""The life of a store as server, command line and administrator see it: created, opened by password, taken over,
killed, opened again, and read beside its writer."""

import asyncio
from pathlib import Path

import pytest

from storage.errors import AccessDenied, Closed, Corrupt, Fenced, Invalid, NotFound, StorageError, WrongPassword
from storage.format.frame import SECTOR_BYTES
from storage.fs.store import Store
from storage.lsm.engine import Engine
from storage.lsm.read.extents import ExtentState
from tests.storage.fs.places import DATA, MIB, PASSWORD, Place, contents, kill
from tests.support.inside import at_rest, engine_of


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
    assert store.device("dir/b").extents(0, 2 * MIB) == [(MIB, ExtentState.ZERO), (MIB, ExtentState.HOLE)]
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


async def test_two_openings_at_once_make_one_store(place: Place) -> None:
    outcomes = await asyncio.gather(*(place.open(create=True) for _ in range(3)), return_exceptions=True)
    stores = [outcome for outcome in outcomes if isinstance(outcome, Store)]
    assert len(stores) >= 1
    assert all(isinstance(outcome, (Store, StorageError)) for outcome in outcomes)
    for store in stores:
        store_id = store.status().store_id
        assert store_id == stores[0].status().store_id
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
        await store.passwords.change(b"another", b"new")
    with pytest.raises(Invalid):
        await store.passwords.change(PASSWORD, b"")
    old_keys = (place.folder / "keys" / "00000000000000000001.keys").read_bytes()
    await store.passwords.change(PASSWORD, b"new")
    await store.close()
    assert [name for name in place.files() if name.startswith("keys/")] == ["keys/00000000000000000002.keys"]
    with pytest.raises(WrongPassword):
        await place.open()
    store = await place.open(b"new")
    assert await contents(store.device("a"), 0, len(DATA)) == DATA
    await store.close()
    for folder in ("keys", "spare"):
        (place.folder / folder / "00000000000000000002.keys").unlink()
    (place.folder / "keys" / "00000000000000000001.keys").write_bytes(old_keys)
    with pytest.raises(Corrupt, match="older password was put back"):
        await place.open()


async def test_a_reader_takes_nothing_and_changes_nothing(place: Place) -> None:
    store = await place.open(create=True)
    await store.create_device("a", MIB)
    store.device("a").write(0, DATA)
    await store.flush()
    await at_rest(store)
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
        reader.passwords.change(PASSWORD, b"new"),
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
    requests = reader.status().requests
    assert requests["create"] == requests["put"] == requests["delete"] == 0
    await reader.close()
    assert place.files() == before
    assert not place.state.exists()


async def test_the_status_can_be_shown(place: Place) -> None:
    store = await place.open(create=True)
    await store.create_device("a", MIB)
    store.device("a").write(0, DATA)
    before = store.status()
    assert before.unlogged_bytes == 7 * SECTOR_BYTES + 256, "seven sectors, and what goes with each write"
    assert before.devices == 1
    await engine_of(store).flush_memtable()
    after = store.status()
    assert (after.unlogged_bytes, after.memtable_bytes, after.wal_objects) == (0, 0, 0)
    assert after.ssts == 1
    assert after.bytes_up > 0
    assert str(place.folder) in after.url
    await store.close()


async def test_a_store_that_is_being_closed_begins_nothing(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    """A configuration may be read again while the close takes long."""
    store = await place.open(create=True)
    close, begun = Engine.close, set[asyncio.Task[object]]()

    async def change_first(self: Engine) -> None:
        before = asyncio.all_tasks()
        store.upkeep.change({"hourly": 2}, 86400.0)
        begun.update(asyncio.all_tasks() - before)
        await close(self)

    monkeypatch.setattr(Engine, "close", change_first)
    await store.close()
    assert not begun
