"""The log as it is found again: where it ends, what it must still hold, and whose turn it is."""

import asyncio
from collections.abc import Callable
from pathlib import Path

import pytest

from storage.errors import Corrupt, RolledBack
from storage.format.envelope import Header, ObjectKind, seal_object
from storage.format.frame import SECTOR_BYTES
from storage.format.names import WALS, manifest_name, spare_manifest_name, wal_name, wal_number
from storage.format.wal import Meta, encode
from storage.lsm.layer import Layer
from storage.lsm.recovery.anchor import HostState
from storage.lsm.recovery.derived_ciphers import Ciphers
from storage.lsm.wal.reader import RESUME
from storage.objects.base import Listing
from tests.storage.lsm.worlds import KEY, World, durable, join, read
from tests.support.inside import remember
from tests.support.waiting import soon


def sector(number: int) -> bytes:
    return bytes([number]) * SECTOR_BYTES


async def written(world: World, count: int) -> list[int]:
    """A store that crashed with `count` objects of one sector each in its log; gives their numbers."""
    engine, layer = await world.start()
    await engine.flush_memtable()
    for number in range(1, count + 1):
        layer.write(number * SECTOR_BYTES, sector(number))
        await durable(engine, layer)
    await world.crash(engine)
    return sorted(wal_number(name) or 0 for name in world.store.names(WALS))[-count:]


async def contents(layer: Layer, count: int) -> list[int]:
    data = await read(layer, SECTOR_BYTES, count * SECTOR_BYTES)
    return [data[at * SECTOR_BYTES] for at in range(count)]


async def test_the_log_is_replayed_to_its_end() -> None:
    world = World()
    numbers = await written(world, 5)
    engine = await world.open()
    assert await contents(engine.layers[1], 5) == [1, 2, 3, 4, 5]
    assert engine.log.position.fences[-1] == numbers[-1] + 1
    assert engine.log.position.next_number == numbers[-1] + 1 + RESUME
    await world.crash(engine)


async def test_a_second_crash_before_anything_was_written_changes_nothing() -> None:
    world = World()
    await written(world, 3)
    for _ in range(3):
        engine = await world.open()
        assert await contents(engine.layers[1], 3) == [1, 2, 3]
        await world.crash(engine)
    engine = await world.open()
    engine.layers[1].write(4 * SECTOR_BYTES, sector(4))
    await durable(engine, engine.layers[1])
    engine, layer = await world.reopen(engine)
    assert await contents(layer, 4) == [1, 2, 3, 4]
    await engine.close()
    engine = await world.open(take_over=False)
    assert await contents(engine.layers[1], 4) == [1, 2, 3, 4]
    await world.crash(engine)


@pytest.mark.parametrize("spoil", [lambda raw: raw[:-1] + bytes([raw[-1] ^ 1]), lambda raw: raw[:-7], lambda raw: b"?"])
async def test_what_lies_behind_a_fence_and_counts_for_nothing_may_be_damaged(spoil: Callable[[bytes], bytes]) -> None:
    """It was written too late by a writer that had lost the store, and nobody needs it."""
    world = World()
    numbers = await written(world, 3)
    engine = await world.open()
    fence = engine.log.position.fences[-1]
    await world.crash(engine)
    world.store.objects[wal_name(fence + 2)] = spoil(world.store.objects[wal_name(numbers[-1])])
    engine = await world.open()
    assert await contents(engine.layers[1], 3) == [1, 2, 3]
    engine.layers[1].write(4 * SECTOR_BYTES, sector(4))
    await durable(engine, engine.layers[1])
    await world.crash(engine)
    engine = await world.open()
    assert await contents(engine.layers[1], 4) == [1, 2, 3, 4]
    await world.crash(engine)


@pytest.mark.parametrize("position", [0, 1, 2])
async def test_a_damaged_object_is_never_the_end_of_the_log(position: int) -> None:
    """Not the last one either, of which nothing else says that it was acknowledged."""
    world = World()
    numbers = await written(world, 3)
    name = wal_name(numbers[position])
    world.store.objects[name] = world.store.objects[name][:-1] + bytes([world.store.objects[name][-1] ^ 1])
    with pytest.raises(Corrupt) as caught:
        await world.open()
    assert caught.value.object_name == name


@pytest.mark.parametrize("position", [0, 1, 2, 3])
async def test_an_object_missing_below_an_acknowledged_one_is_a_loss(position: int) -> None:
    world = World()
    numbers = await written(world, 5)
    name = wal_name(numbers[position])
    del world.store.objects[name]
    for _ in range(3):  # a loss is not forgotten by trying again
        with pytest.raises(Corrupt) as caught:
            await world.open()
        assert caught.value.object_name == name


async def test_the_last_object_missing_is_noticed_by_the_host_that_has_seen_it(tmp_path: Path) -> None:
    """Also when tried again: the first attempt must not put a fence into the gap it complains of."""
    world = World(host=HostState(tmp_path, "memory://"))
    numbers = await written(world, 3)
    anchor = HostState(tmp_path, "memory://").load()
    assert anchor is not None
    assert anchor.wal_number == numbers[-1], "noted with each acknowledgement, not with each manifest"
    del world.store.objects[wal_name(numbers[-1])]
    for _ in range(3):
        with pytest.raises(Corrupt, match="lost writes"):
            await world.open()


async def test_an_object_cut_off_the_end_of_a_log_that_the_anchor_knows_is_a_loss(tmp_path: Path) -> None:
    world = World(host=HostState(tmp_path, "memory://"))
    engine, layer = await world.start()
    layer.write(0, sector(1))
    await durable(engine, layer)
    await remember(engine)
    last = world.store.names(WALS)[-1]
    await world.crash(engine)
    del world.store.objects[last]
    for _ in range(3):
        with pytest.raises(Corrupt, match="lost writes"):
            await world.open()


async def test_a_listing_that_shows_what_is_gone_does_not_hold_an_opening_up() -> None:
    """A writer may delete an object of the log between a reader's listing and its reading."""
    world = World()
    numbers = await written(world, 3)
    listing = world.store.list

    async def stale(prefix: str, start_after: str = "", limit: int | None = None) -> Listing:
        found = await listing(prefix, start_after, limit)
        if prefix == WALS:
            last = max(found, key=lambda info: info.name)
            found.append(type(last)(wal_name(numbers[-1] + 1), last.size))
        return found

    world.store.list = stale  # type: ignore[method-assign]
    engine = await soon(asyncio.ensure_future(world.open()), 5)
    assert await contents(engine.layers[1], 3) == [1, 2, 3]
    await world.crash(engine)


async def test_a_reader_that_meets_a_truncated_log_looks_again() -> None:
    world = World()
    engine, layer = await world.start()
    await engine.flush_memtable()
    layer.write(SECTOR_BYTES, sector(1))
    await durable(engine, layer)
    held = world.store.hold("get", WALS)
    opening = asyncio.ensure_future(world.open(read_only=True))
    await held.someone_waits()
    await engine.flush_memtable()
    layer.write(2 * SECTOR_BYTES, sector(2))
    await durable(engine, layer)
    held.release()
    reader = await soon(opening, 5)
    assert await contents(reader.layers[1], 2) == [1, 2]
    await world.crash(engine)


async def test_a_listing_that_hides_the_end_of_the_log_hides_nothing() -> None:
    world = World()
    await written(world, 4)
    listing = world.store.list

    async def stale(prefix: str, start_after: str = "", limit: int | None = None) -> Listing:
        found = await listing(prefix, start_after, limit)
        return found[:1] if limit is None else found

    world.store.list = stale  # type: ignore[method-assign]
    engine = await world.open()
    assert await contents(engine.layers[1], 4) == [1, 2, 3, 4]
    await world.crash(engine)


async def test_the_chain_of_the_log_is_checked() -> None:
    """An object of the same number, epoch and key, but of another history: that of a bucket that was set back."""
    world = World()
    await world.crash((await world.start())[0])
    before = dict(world.store.objects)
    histories = []
    for values in ((1,), (2, 3)):
        world.store.objects.clear()
        world.store.objects.update(before)
        engine = await world.open()
        for value in values:
            engine.layers[1].write(0, sector(value))
            await durable(engine, engine.layers[1])
        await world.crash(engine)
        histories.append(dict(world.store.objects))
    first, second = histories
    name = world.store.names(WALS)[-2]
    assert name in first
    assert first[name] != second[name]
    assert len(set(second) - set(first)) == 1
    world.store.objects[name] = first[name]
    with pytest.raises(Corrupt, match="does not follow"):
        await world.open()
    world.store.objects[name] = second[name]
    engine = await world.open()
    assert await read(engine.layers[1], 0, SECTOR_BYTES) == sector(3)
    await world.crash(engine)


async def test_an_object_of_an_earlier_writer_does_not_follow_a_later_one() -> None:
    world = World()
    engine, layer = await world.start()
    layer.write(0, sector(1))
    await durable(engine, layer)
    position = engine.log.position
    header = Header(
        kind=ObjectKind.WAL,
        epoch=engine.epoch - 1,
        store_id=KEY.store_id,
        nonce=bytes(16),
        number=position.next_number,
        link=position.tail_tag,
        acknowledged=position.acknowledged,
    )
    content, _ = seal_object(Ciphers.derive(KEY).wal, header, bytes(encode([], [Meta(99, b"x")])))
    await world.store.create(wal_name(position.next_number), content)
    await world.crash(engine)
    with pytest.raises(Corrupt, match="earlier writer"):
        await world.open()


async def test_an_older_manifest_is_not_opened_by_a_host_that_saw_the_newer_one(tmp_path: Path) -> None:
    world = World(host=HostState(tmp_path, "memory://"))
    engine, layer = await world.start()
    layer.write(0, sector(1))
    await engine.flush_memtable()
    number = engine.manifests.number
    await world.crash(engine)
    newest = world.store.objects.pop(manifest_name(number))
    world.store.objects.pop(spare_manifest_name(number))
    with pytest.raises(RolledBack, match="older than this host remembers"):
        await world.open()
    world.store.objects[manifest_name(number)] = newest
    engine = await world.open()
    assert join(await engine.layers[1].read(0, SECTOR_BYTES)) == sector(1)
    await world.crash(engine)
