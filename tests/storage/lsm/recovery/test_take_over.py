"""Whose turn it is: closed, crashed, held and foreign stores, and stores that are not what this host remembers."""

import asyncio
import os
from pathlib import Path

import msgspec
import pytest

from storage.crypto.data_key import DataKey
from storage.errors import AccessDenied, Corrupt, Fenced, OutOfSpace, RolledBack, StorageError, Unavailable
from storage.format.frame import SECTOR_BYTES
from storage.format.names import MANIFESTS, WALS, manifest_name
from storage.lsm.engine import Engine
from storage.lsm.recovery.anchor import HostState
from storage.lsm.recovery.locks import WriterLock
from storage.lsm.recovery.log_replay import LogReplay
from storage.objects.base import Listing, ObjectInfo
from storage.secret import Secret
from tests.simulation.virtual import virtually
from tests.storage.lsm.worlds import World, durable, read
from tests.support.waiting import soon, until

URL = f"memory://{os.getpid()}"
"""As no other process has it: what those of this host have open is looked at."""
A = b"a" * SECTOR_BYTES
B = b"b" * SECTOR_BYTES


@pytest.fixture
def world(tmp_path: Path) -> World:
    return World(host=HostState(tmp_path / "here", URL))


async def die(world: World, engine: Engine) -> None:
    """The process is killed: its lock goes with it, its file stays."""
    await world.crash(engine)
    await engine.close()


async def begin(world: World) -> Engine:
    engine, layer = await world.start()
    layer.write(0, A)
    await durable(engine, layer)
    return engine


async def test_a_new_store_is_opened_by_whoever_comes(world: World) -> None:
    engine = await world.open(take_over=False)
    assert engine.epoch == 1
    assert not engine.layers
    await engine.close()
    assert await anybody(world) == 2


async def anybody(world: World) -> int:
    engine = await world.open(take_over=False)
    await engine.close()
    return engine.epoch


async def test_a_closed_store_is_opened_by_any_host(world: World, tmp_path: Path) -> None:
    engine = await begin(world)
    await engine.close()
    for host in (world.host, HostState(tmp_path / "there", URL), None):
        world.host = host
        engine = await world.open(take_over=False)
        assert await read(engine.layers[1], 0, SECTOR_BYTES) == A
        await engine.close()


async def test_a_store_whose_server_was_killed_is_opened_again_by_its_own_host(world: World) -> None:
    engine = await begin(world)
    await die(world, engine)
    engine = await world.open(take_over=False)
    assert engine.epoch == 2
    assert await read(engine.layers[1], 0, SECTOR_BYTES) == A
    await die(world, engine)


async def test_a_store_in_use_is_refused_and_the_process_named(world: World) -> None:
    engine = await begin(world)
    before = dict(world.store.objects)
    with pytest.raises(Fenced, match=rf"process {os.getpid()}\).*: stop it first$"):
        await world.open(take_over=False)
    assert world.store.objects == before, "who is refused writes nothing"
    engine.layers[1].write(0, B)
    await durable(engine, engine.layers[1])
    await engine.close()


@pytest.mark.parametrize("knows", [True, False])
async def test_a_store_that_was_not_closed_elsewhere_is_refused(world: World, tmp_path: Path, knows: bool) -> None:
    engine = await begin(world)
    await die(world, engine)
    before = dict(world.store.objects)
    world.host = HostState(tmp_path / "there", URL) if knows else None
    with pytest.raises(Fenced, match=r"ran elsewhere.*--take-over"):
        await world.open(take_over=False)
    assert world.store.objects == before
    engine = await world.open(take_over=True)
    assert await read(engine.layers[1], 0, SECTOR_BYTES) == A
    await die(world, engine)


async def test_who_is_taken_over_acknowledges_nothing_more(world: World, tmp_path: Path) -> None:
    old = await begin(world)
    world.host = HostState(tmp_path / "there", URL)
    new = await world.open(take_over=True)
    old.layers[1].write(0, B)
    with pytest.raises(Fenced):
        await durable(old, old.layers[1])
    assert await read(new.layers[1], 0, SECTOR_BYTES) == A
    await old.close()
    await new.close()


async def test_a_host_that_was_taken_over_is_no_longer_its_owner(world: World, tmp_path: Path) -> None:
    """Its own process is gone, and so is its turn: the newest epoch belongs to another."""
    here = world.host
    await die(world, await begin(world))
    world.host = HostState(tmp_path / "there", URL)
    await die(world, await world.open(take_over=True))
    world.host = here
    with pytest.raises(Fenced, match="elsewhere"):
        await world.open(take_over=False)


async def test_an_opening_that_fails_is_no_holder(world: World) -> None:
    engine = await begin(world)
    await die(world, engine)
    name = world.store.names(WALS)[-1]
    content = world.store.objects[name]
    world.store.objects[name] = content[:-1]
    for _ in range(2):
        with pytest.raises(Corrupt, match=name):
            await world.open(take_over=False)
    world.store.objects[name] = content
    engine = await world.open(take_over=False)
    assert await read(engine.layers[1], 0, SECTOR_BYTES) == A
    await engine.close()


async def test_a_store_set_back_is_refused_until_it_is_accepted(world: World) -> None:
    engine = await begin(world)
    await engine.close()
    old = dict(world.store.objects)
    engine = await world.open()
    engine.layers[1].write(0, B)
    await engine.close()
    world.store.objects.clear()
    world.store.objects.update(old)
    for take_over in (False, True):
        with pytest.raises(RolledBack, match=r"older than this host remembers.*--accept-rollback"):
            await world.open(take_over=take_over)
    assert world.store.objects == old
    with pytest.raises(RolledBack):
        await world.open(read_only=True)
    engine = await world.open(take_over=False, accept_rollback=True)
    assert await read(engine.layers[1], 0, SECTOR_BYTES) == A
    engine.layers[1].write(SECTOR_BYTES, B)
    await engine.close()
    engine = await world.open(take_over=False)
    assert await read(engine.layers[1], 0, 2 * SECTOR_BYTES) == A + B
    await engine.close()


async def test_another_history_of_the_same_length_is_refused(world: World, tmp_path: Path) -> None:
    engine = await begin(world)
    await engine.close()
    old = dict(world.store.objects)
    engine = await world.open()
    await engine.close()
    world.store.objects.clear()
    world.store.objects.update(old)
    here = world.host
    world.host = HostState(tmp_path / "there", URL)
    engine = await world.open()
    await engine.close()
    world.host = here
    with pytest.raises(RolledBack, match="another manifest"):
        await world.open()


async def test_another_store_in_its_place_is_refused(world: World) -> None:
    await (await begin(world)).close()
    other = DataKey(store_id=b"another store id", key=Secret(bytes(32)))
    world.store.objects.clear()
    with pytest.raises(RolledBack, match="another store"):
        await world.open(key=other)
    engine = await world.open(key=other, accept_rollback=True)
    await engine.close()


async def test_an_emptied_bucket_is_refused(world: World) -> None:
    await (await begin(world)).close()
    world.store.objects.clear()
    with pytest.raises(RolledBack):
        await world.open()
    assert world.store.objects == {}


async def test_an_older_keys_object_is_refused(world: World) -> None:
    engine = await world.open(keys_number=3)
    await engine.close()
    for read_only in (False, True):
        with pytest.raises(Corrupt, match="keys object 3 is missing"):
            await world.open(keys_number=2, read_only=read_only)
    engine = await world.open(keys_number=4)
    await engine.close()
    with pytest.raises(Corrupt, match="keys object 4"):
        await world.open(keys_number=3)


async def test_the_newest_manifest_is_found_behind_an_old_listing(world: World) -> None:
    engine = await begin(world)
    for _ in range(4):
        engine.layers[1].write(0, A)
        await engine.flush_memtable()
    await engine.close()
    newest = engine.manifests.number
    listing = world.store.list

    async def stale(prefix: str, start_after: str = "", limit: int | None = None) -> Listing:
        found = await listing(prefix, start_after, limit)
        return [info for info in found if not info.name.startswith(MANIFESTS) or info.name < manifest_name(newest - 2)]

    world.store.list = stale  # type: ignore[method-assign]
    engine = await world.open(take_over=False)
    assert engine.manifests.manifest.takeovers[-1] == newest + 1
    assert await read(engine.layers[1], 0, SECTOR_BYTES) == A
    await die(world, engine)


async def test_take_over_manifests_and_the_newest_sixteen_stay(world: World) -> None:
    engine = await begin(world)
    takeovers = []
    for _ in range(3):
        takeovers.append(engine.manifests.manifest.takeovers[-1])
        for _ in range(20):
            engine.layers[1].write(0, A)
            await engine.flush_memtable()
        await die(world, engine)
        engine = await world.open(take_over=False)
    takeovers.append(engine.manifests.manifest.takeovers[-1])
    kept = {int(name.split("/")[1].split(".")[0]) for name in world.store.names(MANIFESTS)}
    newest = engine.manifests.number
    assert set(takeovers) <= kept
    assert set(range(newest - 15, newest + 1)) <= kept
    assert len(kept) <= 16 + len(takeovers) + 20
    await engine.flush_memtable(always=True)
    assert len(world.store.names(MANIFESTS)) <= 16 + len(takeovers)
    fences = engine.log.position.fences
    assert len(fences) == 4
    assert set(world.store.names(WALS)) >= {f"wal/{number:020}.sst" for number in fences}
    await engine.close()


async def test_what_a_reader_does_takes_nothing_from_the_writer(world: World) -> None:
    engine = await begin(world)
    before = dict(world.store.objects)
    reader = await world.open(read_only=True, take_over=False)
    assert await read(reader.layers[1], 0, SECTOR_BYTES) == A
    await reader.close()
    assert world.store.objects == before
    engine.layers[1].write(0, B)
    await durable(engine, engine.layers[1])
    await engine.close()


async def test_a_reader_cannot_change_anything(world: World) -> None:
    await (await begin(world)).close()
    reader = await world.open(read_only=True)
    before = dict(world.store.objects)
    with pytest.raises(AccessDenied):
        await reader.change_tree(b"")
    with pytest.raises(AccessDenied):
        await reader.flush_memtable(always=True)
    await reader.flush()
    await reader.close()
    assert world.store.objects == before


@pytest.mark.parametrize("step", ["the take-over", "its confirmation", "the replay", "the anchor"])
async def test_an_opening_that_fails_holds_nothing(world: World, step: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whoever opens it next in this process must not be told that this process holds it."""
    await die(world, await begin(world))

    def failing(*_: object, **__: object) -> None:
        raise OutOfSpace("no room on this host")

    if step == "the take-over":
        world.store.fail_once("create", MANIFESTS, Unavailable("gone"))
    elif step == "its confirmation":
        monkeypatch.setattr(WriterLock, "confirm", failing)
    elif step == "the replay":
        monkeypatch.setattr(LogReplay, "replay", failing)
    else:
        monkeypatch.setattr(HostState, "mark", failing)
    with pytest.raises(StorageError):
        await world.open(take_over=False)
    monkeypatch.undo()
    engine = await world.open(take_over=False)
    assert await read(engine.layers[1], 0, SECTOR_BYTES) == A
    await engine.close()


@virtually
async def test_a_store_that_lists_manifests_it_does_not_have_is_not_asked_for_ever(
    world: World,
) -> None:
    await (await begin(world)).close()
    listing = world.store.list
    ghost = ObjectInfo(manifest_name(99), 300)

    async def wrong(prefix: str, start_after: str = "", limit: int | None = None) -> Listing:
        found = await listing(prefix, start_after, limit)
        return [*found, ghost] if prefix == MANIFESTS else found

    world.store.list = wrong  # type: ignore[method-assign]
    with pytest.raises(Unavailable, match="lists manifests that are gone"):
        await world.open()


async def test_a_take_over_that_lands_under_a_number_given_before_puts_no_fence(
    world: World,
) -> None:
    """Its manifest was on the way while the writer committed, and deleted, that number and more: the name was free."""
    world.options = msgspec.structs.replace(world.options, manifests_kept=1)
    writer = await begin(world)
    number = writer.manifests.number + 1
    held = world.store.hold("create", manifest_name(number))
    opening = asyncio.ensure_future(world.open())
    await held.someone_waits()
    world.store.holds.clear()  # the writer's own request goes through
    for _ in range(3):
        await writer.flush_memtable(always=True)
    await until(lambda: manifest_name(number) not in world.store.objects)
    before = world.store.names(WALS)
    held.release()
    with pytest.raises(Fenced):
        await soon(opening)
    assert manifest_name(number) in world.store.objects, "it did land"
    assert world.store.names(WALS) == before, "it put a fence before the writer"
    writer.layers[1].write(0, B)
    await durable(writer, writer.layers[1])
    await writer.close()
