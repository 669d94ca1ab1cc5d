"""The devices of a store: created, found, renamed, resized and deleted, durably, and never under the feet of those
who use them."""

import asyncio

import pytest

from storage.errors import AccessDenied, AlreadyExists, Conflict, Invalid, NotFound
from storage.format.frame import BLOCK_BYTES
from tests.storage.fs.places import DATA, MIB, Place, contents, kill, nothing
from tests.support.inside import engine_of, open_devices
from tests.support.waiting import until


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
    one, other = store.device("a"), store.device("b")
    assert store.open_devices.has([one, object()])
    assert store.open_devices.has([other])
    assert not store.open_devices.has([object()])
    assert not store.open_devices.has([])
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


@pytest.mark.parametrize("known", [False, True], ids=["first seen while it grows", "known before"])
async def test_a_disk_grows_though_who_asked_for_it_has_gone(place: Place, known: bool) -> None:
    """Its new size is in the log; clients see it from the moment it is durable, and not before."""
    store = await place.open(create=True)
    await store.create_device("a", MIB)
    device = store.device("a") if known else None
    growing = asyncio.ensure_future(store.resize_device("a", 2 * MIB))
    await asyncio.sleep(0)
    assert store.device("a").size == MIB
    growing.cancel()
    with pytest.raises(asyncio.CancelledError):
        await growing
    await store.flush()
    await until(lambda: store.device("a").size == 2 * MIB)
    assert device in (None, store.device("a")), "who had it before sees it too"
    await store.resize_device("a", MIB, shrink=True)
    assert store.device("a").size == MIB
    await store.close()


async def test_a_disk_that_is_cut_off_ends_there_at_once(place: Place) -> None:
    """What a client writes behind its new end from then on would be in the log behind the record that cuts it off."""
    store = await place.open(create=True)
    await store.create_device("a", 4 * MIB)
    device = store.device("a")
    shrinking = asyncio.ensure_future(store.resize_device("a", MIB, shrink=True))
    await asyncio.sleep(0)
    assert device.size == MIB
    assert not shrinking.done()
    await shrinking
    await store.close()


async def test_of_two_sizes_one_behind_the_other_each_is_seen_when_it_is_durable(place: Place) -> None:
    """Or what is written behind the end of the first one, and flushed, is gone after a crash."""
    store = await place.open(create=True)
    await store.create_device("a", MIB)
    device = store.device("a")
    queue = engine_of(store).compactor.context.layers.tree_queue
    for turn in range(1, 13):
        first = asyncio.ensure_future(store.resize_device("a", 2 * turn * MIB))
        for _ in range(turn):
            await asyncio.sleep(0)  # the first one is on its way to the log when the other comes
        second = asyncio.ensure_future(store.resize_device("a", (2 * turn + 1) * MIB))
        while not (first.done() and second.done()):
            assert device.size <= 2 * turn * MIB or queue.is_durable
            await asyncio.sleep(0)
        assert device.size == (2 * turn + 1) * MIB
    await store.close()


async def test_growing_and_shrinking_at_once_end_with_the_last(place: Place) -> None:
    store = await place.open(create=True)
    await store.create_device("a", MIB)
    await asyncio.gather(
        store.resize_device("a", 4 * MIB),
        store.resize_device("a", 2 * MIB, shrink=True),
        store.resize_device("a", 3 * MIB),
    )
    (info,) = store.devices()
    assert store.device("a").size == info.size
    growing = asyncio.ensure_future(store.resize_device("a", 8 * MIB))
    await asyncio.sleep(0)
    await store.delete_device("a")
    await growing
    await store.close()


@pytest.mark.parametrize("size", [MIB, 3 * MIB], ids=["cut off", "grown"])
async def test_a_disk_that_is_rolled_back_while_it_gets_another_size_has_that_of_its_snapshot(
    place: Place, size: int
) -> None:
    """The other size is durable later than the rollback is shown, and is not that of the disk any more."""
    store = await place.open(create=True)
    await store.create_device("a", 4 * MIB)
    await store.snapshots.create(["a"], "one")
    await store.resize_device("a", 2 * MIB, shrink=True)
    await store.maintenance.flush()  # the rollback waits for nothing: the indexes have the snapshot
    device = store.device("a")
    await asyncio.gather(store.resize_device("a", size, shrink=True), store.snapshots.roll_back("a", "one", keep=False))
    (info,) = store.devices()
    assert (info.size, device.size) == (4 * MIB, 4 * MIB)
    await store.close()


async def test_a_deleted_device_leaves_nothing_to_its_successor(place: Place) -> None:
    store = await place.open(create=True)
    for flushed in (False, True):
        await store.create_device("a", MIB)
        assert await contents(store.device("a")) == bytes(MIB)
        store.device("a").write(0, DATA)
        if flushed:
            await engine_of(store).flush_memtable()
        await store.delete_device("a")
        with pytest.raises(NotFound):
            store.device("a")
    await store.create_device("a", MIB)
    await kill(store)
    store = await place.open()
    assert await contents(store.device("a")) == bytes(MIB)
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
    assert not open_devices(store)
    await store.close()


async def test_a_device_whose_deletion_is_refused_is_what_it_was(place: Place) -> None:
    """Also to who has it already."""
    store = await place.open(create=True)
    await store.create_device("a", MIB)
    device = store.device("a")
    await store.snapshots.create(["a"], "one")
    with pytest.raises(Conflict, match="1 snapshots"):
        await store.delete_device("a")
    assert store.device("a") is device
    device.write(0, DATA)
    await store.close()
    reader = await place.reader()
    device = reader.device("a")
    with pytest.raises(AccessDenied):
        await reader.delete_device("a")
    assert reader.device("a") is device
    assert await contents(device, 0, len(DATA)) == DATA
    await reader.close()


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
    store.open_devices.clients_of = lambda name: ["client 1 (one)", "client 2 (other)"] if name == "a" else []
    for change in (
        store.delete_device("a"),
        store.rename_device("a", "b"),
        store.resize_device("a", MIB, shrink=True),
    ):
        with pytest.raises(Conflict, match=r"'a' is attached by client 1 \(one\) and 1 more"):
            await change
    await store.resize_device("a", 4 * MIB)
    await store.resize_device("a", 8 * MIB)
    assert store.device("a").size == 8 * MIB
    store.open_devices.clients_of = lambda name: []
    await store.delete_device("a")
    await store.close()


async def test_what_is_held_is_not_deleted_renamed_or_resized(place: Place) -> None:
    """An import writes for a while: whoever deleted its device meanwhile would pull the ground from under it."""
    store = await place.open(create=True)
    await store.create_device("a", 4 * MIB)
    async with store.filling.over("a", "an import", nothing) as device:
        assert device is store.device("a")
        assert device.exclusive_user == "an import"
        for change in (
            store.delete_device("a"),
            store.rename_device("a", "b"),
            store.resize_device("a", MIB, shrink=True),
            store.resize_device("a", 5 * MIB),
        ):
            with pytest.raises(Conflict, match="'a' is in use by an import: wait"):
                await change
        with pytest.raises(Conflict):
            async with store.filling.over("a", "another", nothing):
                pass
    assert store.device("a").exclusive_user is None
    await store.rename_device("a", "b")
    await store.close()


@pytest.mark.parametrize("way", ["memory", "flushed", "killed"])
async def test_what_a_shrink_cut_off_reads_as_zeros_when_it_grows_again(place: Place, way: str) -> None:
    store = await place.open(create=True)
    await store.create_device("a", 4 * MIB)
    device = store.device("a")
    device.write(0, bytes(range(256)) * (4 * MIB // 256))
    if way == "flushed":
        await engine_of(store).flush_memtable()
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


async def test_a_refused_resize_changes_nothing(place: Place) -> None:
    store = await place.open(create=True)
    await store.create_device("a", 4 * MIB)
    await store.close()
    reader = await place.reader()
    with pytest.raises(AccessDenied):
        await reader.resize_device("a", MIB, shrink=True)
    assert reader.device("a").size == 4 * MIB
    await reader.close()
