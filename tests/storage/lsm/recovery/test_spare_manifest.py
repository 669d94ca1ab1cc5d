"""The copy of the newest manifest: where its object is damaged or gone, all is as if it were there; and no copy lets a
store be older than it is, or lets two writers commit one number.
"""

import asyncio
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from storage.crypto.data_key import DataKey
from storage.errors import AccessDenied, Corrupt, Fenced, RolledBack, StorageError
from storage.format.names import MANIFESTS, SPARES, manifest_name, manifest_number, spare_manifest_name
from storage.lsm.recovery.anchor import HostState
from storage.secret import Secret
from tests.simulation.virtual import virtually
from tests.storage.lsm.recovery.sample_store import URL, Sample, make, shown
from tests.storage.lsm.worlds import KEY, World, durable, read
from tests.support.idle import idle
from tests.support.waiting import until

DATA = b"acknowledged" * 100

NEWER_KEY = DataKey(KEY.store_id, Secret(bytes(32)), 2, (KEY,))


@pytest.fixture(scope="module")
def sample(tmp_path_factory: pytest.TempPathFactory) -> Sample:
    return asyncio.run(make(tmp_path_factory.mktemp("state"), compacted=False))


def flip(content: bytes) -> bytes:
    changed = bytearray(content)
    changed[len(content) * 2 // 3] ^= 8
    return bytes(changed)


WAYS: dict[str, Callable[[bytes], bytes | None]] = {
    "flip": flip,
    "version": lambda content: content[:8] + b"\x07" + content[9:],
    "number": lambda content: content[:48] + b"\x01" + content[49:],
    "cut": lambda content: content[:-1],
    "header": lambda content: content[:40],
    "longer": lambda content: content + b"x",
    "empty": lambda _: b"",
    "replaced": lambda _: b"<html>gone</html>" * 50,
    "deleted": lambda _: None,
}


def damaged(objects: dict[str, bytes], name: str, way: str) -> dict[str, bytes]:
    content = WAYS[way](objects[name])
    rest = {other: kept for other, kept in objects.items() if other != name}
    return rest if content is None else {**rest, name: content}


async def look(objects: dict[str, bytes], host: HostState | None, *, writer: bool) -> tuple[dict[int, bytes], World]:
    """Open the store by its password, and read all of it; and its world, whose engine was killed."""
    world = World(host=host)
    world.store.objects.update(objects)
    return await shown(world, writer=writer), world


@pytest.mark.parametrize("writer", [False, True])
@pytest.mark.parametrize("part", ["keys/", "manifest/"])
async def test_keys_and_newest_manifest_may_be_damaged_in_any_way(
    sample: Sample, tmp_path: Path, part: str, *, writer: bool
) -> None:
    name = max(name for name in sample.objects if name.startswith(part))
    whole = sample.objects | sample.copies
    for way in WAYS:
        shutil.copytree(sample.state, tmp_path / way)
        for host in (HostState(tmp_path / way, URL), None):
            found, world = await look(damaged(whole, name, way), host, writer=writer)
            assert found == sample.truth, f"{name}, {way}"
            if writer:
                newest = max(world.store.names(MANIFESTS))
                assert world.store.objects[newest.replace(MANIFESTS, SPARES)] == world.store.objects[newest]
                assert (await look(dict(world.store.objects), None, writer=True))[0] == sample.truth


@pytest.mark.parametrize("part", ["keys/", "manifest/"])
async def test_without_a_sound_copy_nothing_older_is_opened(sample: Sample, tmp_path: Path, part: str) -> None:
    """Neither where the copy is damaged too, nor where it is that of another number under this name."""
    name = max(name for name in sample.objects if name.startswith(part))
    copy = SPARES + name.partition("/")[2]
    number = manifest_number(name)
    older = b"" if number is None else sample.objects[manifest_name(number - 1)]
    for at, way in enumerate(WAYS):
        whole = damaged(sample.objects | sample.copies, name, way)
        for wrong in (*({**damaged(whole, copy, other)} for other in WAYS), {**whole, copy: older}):
            shutil.copytree(sample.state, state := tmp_path / f"{at} {len(wrong)}", dirs_exist_ok=True)
            with pytest.raises(StorageError) as raised:
                await look(wrong, HostState(state, URL), writer=False)
            assert name in str(raised.value) or isinstance(raised.value, RolledBack) or way == "deleted"


async def test_a_copy_that_lies_beside_a_sound_manifest_is_not_read(sample: Sample) -> None:
    for name, content in sample.copies.items():
        for way in WAYS:
            found, _ = await look(damaged(sample.objects | sample.copies, name, way), None, writer=False)
            assert found == sample.truth, f"{name}, {way}"
        assert content == sample.objects[max(n for n in sample.objects if n.endswith(name[5:].lstrip("/")))]


async def test_a_deleted_take_over_manifest_is_put_back_before_anything_rests_on_its_copy() -> None:
    """A stalled writer has a PUT of that very number on its way: it must meet what it would have met."""
    world = World()
    engine, layer = await world.start()
    layer.write(0, DATA)
    await durable(engine, layer)
    held = world.store.hold("create", manifest_name(engine.manifests.number + 1))
    flushing = asyncio.ensure_future(engine.flush_memtable())
    await held.someone_waits()
    world.store.holds.remove(held)
    second = await world.open()
    number = second.manifests.number
    await second.copies.settled()
    second.fail(Fenced())
    await idle()
    taken = world.store.objects.pop(manifest_name(number))
    third = await world.open()
    assert world.store.objects[manifest_name(number)] == taken
    assert third.manifests.number == number + 1
    held.release()
    await asyncio.gather(flushing, return_exceptions=True)
    assert isinstance(engine.failed.result(), Fenced), "it has not committed"
    assert world.store.objects[manifest_name(number)] == taken
    assert await read(third.layers[1], 0, len(DATA)) == DATA
    await world.crash(third)


@pytest.mark.parametrize("key", [KEY, NEWER_KEY])
async def test_who_wins_a_number_that_was_won_before_leaves_the_copy_of_that_and_ends(key: DataKey) -> None:
    """The take-over manifest is deleted, and the stalled writer's PUT of its number lands: the copy, and the log that
    was not flushed by who took over, are all that is left of him. He may have a newer data key.
    """
    world = World()
    engine, layer = await world.start()
    layer.write(0, DATA)
    await durable(engine, layer)
    held = world.store.hold("create", manifest_name(engine.manifests.number + 1))
    flushing = asyncio.ensure_future(engine.flush_memtable())
    await held.someone_waits()
    world.store.holds.remove(held)
    second = await world.open(key=key)
    number = second.manifests.number
    await second.copies.settled()
    await world.crash(second)
    log = world.store.names("wal/")
    copy = world.store.objects[spare_manifest_name(number)]
    del world.store.objects[manifest_name(number)]
    held.release()
    await asyncio.gather(flushing, return_exceptions=True)
    assert isinstance(await engine.failed, Fenced)
    assert world.store.objects[spare_manifest_name(number)] == copy
    assert world.store.names("wal/") == log
    with pytest.raises(Corrupt):
        await world.open(key=key)
    del world.store.objects[manifest_name(number)]
    third = await world.open(key=key)
    assert await read(third.layers[1], 0, len(DATA)) == DATA
    await world.crash(third)


async def test_a_damaged_manifest_that_is_followed_meanwhile_is_not_missed() -> None:
    """The copy of it goes when the next one has its own."""
    world = World()
    engine, layer = await world.start()
    await engine.flush_memtable()
    await engine.copies.settled()
    number = engine.manifests.number
    world.store.objects[manifest_name(number)] = b"damaged"
    held = world.store.hold("head", spare_manifest_name(number))
    reading = asyncio.ensure_future(world.open(read_only=True))
    await held.someone_waits()
    layer.write(0, DATA)
    await engine.flush_memtable()
    await until(lambda: spare_manifest_name(number) not in world.store.objects)
    held.release()
    reader = await reading
    assert await read(reader.layers[1], 0, len(DATA)) == DATA
    await world.crash(reader)
    await world.crash(engine)


async def test_who_was_quicker_with_the_number_of_a_deleted_manifest_is_not_passed_over() -> None:
    """It was committed once, and then by another one: what the copy says is not what the store holds."""
    world = World()
    engine, layer = await world.start()
    await engine.flush_memtable()
    await engine.copies.settled()
    number = engine.manifests.number
    await world.crash(engine)
    del world.store.objects[manifest_name(number)]

    async def another() -> None:
        world.store.objects[manifest_name(number)] = b"of somebody else"

    with pytest.raises(Fenced, match="at this very moment"):
        await world.open(prepare=another)
    assert world.store.objects[manifest_name(number)] == b"of somebody else"
    assert not [name for name in world.store.names(MANIFESTS) if name > manifest_name(number)]
    assert layer is not None


async def test_a_late_copy_of_a_manifest_that_is_gone_is_not_the_newest() -> None:
    """What a stalled writer copied lands when its manifest was deleted as an old one."""
    world = World()
    engine, layer = await world.start()
    await engine.flush_memtable()
    await engine.copies.settled()
    number = engine.manifests.number
    late = world.store.objects[spare_manifest_name(number)]
    for round_ in range(20):
        layer.write(0, bytes([round_]) * 4096)
        await engine.flush_memtable()
    await until(lambda: manifest_name(number) not in world.store.objects)
    await engine.copies.settled()
    world.store.objects[spare_manifest_name(number)] = late
    newest = engine.manifests.number
    await world.crash(engine)
    reader = await world.open(read_only=True)
    assert reader.manifests.number == newest
    assert await read(reader.layers[1], 0, 4096) == bytes([19]) * 4096
    await world.crash(reader)
    engine = await world.open()
    assert engine.manifests.number == newest + 1
    assert await read(engine.layers[1], 0, 4096) == bytes([19]) * 4096
    await until(lambda: world.store.names(SPARES) == [spare_manifest_name(newest + 1)])
    await world.crash(engine)


@pytest.mark.parametrize("error", [AccessDenied("no"), StorageError("no")])
@virtually
async def test_a_store_that_takes_no_copies_delays_nothing(error: StorageError) -> None:
    world = World()
    world.store.deny("create", SPARES, error)
    engine, layer = await world.start()
    for round_ in range(20):
        layer.write(0, bytes([round_]) * 4096)
        await engine.flush_memtable()
    await until(lambda: engine.copies.failing is not None and world.store.count("delete", MANIFESTS) > 0)
    assert not world.store.names(SPARES)
    assert world.store.count("create", SPARES) <= 2, "it is asked again and again"
    await engine.close()
    engine, layer = await world.reopen(engine)
    assert await read(layer, 0, 4096) == bytes([19]) * 4096
    await world.crash(engine)


async def test_no_flush_and_no_client_waits_for_a_copy() -> None:
    world = World()
    engine, layer = await world.start()
    await engine.copies.settled()
    held = world.store.hold("create", SPARES)
    for round_ in range(5):
        layer.write(0, bytes([round_]) * 4096)
        await durable(engine, layer)
        await engine.flush_memtable()
    assert held.waiting == 1, "of several manifests one is copied at a time"
    assert not world.store.count("delete", "wal/"), "what the manifest gave up stays until it has a copy"
    held.release()
    await until(lambda: world.store.names(SPARES) == [spare_manifest_name(engine.manifests.number)])
    await until(lambda: world.store.count("delete", "wal/") > 0)
    await world.crash(engine)


async def test_a_stop_leaves_a_copy_of_the_last_manifest_and_of_no_other() -> None:
    world = World()
    engine, layer = await world.start()
    layer.write(0, DATA)
    await engine.close()
    name = manifest_name(engine.manifests.number)
    assert world.store.names(SPARES) == [spare_manifest_name(engine.manifests.number)]
    assert world.store.objects[spare_manifest_name(engine.manifests.number)] == world.store.objects[name]


async def test_what_lies_under_the_name_of_a_copy_is_replaced() -> None:
    world = World()
    engine, layer = await world.start()
    await engine.copies.settled()
    for content in (b"damaged", b""):
        name = spare_manifest_name(engine.manifests.number + 1)
        world.store.objects[name] = content
        layer.write(0, DATA)
        await engine.flush_memtable()
        await engine.copies.settled()
        assert world.store.objects[name] == world.store.objects[manifest_name(engine.manifests.number)]
    await world.crash(engine)


async def test_who_loses_the_race_for_a_number_copies_nothing() -> None:
    world = World()
    engine, layer = await world.start()
    await engine.copies.settled()
    number = engine.manifests.number + 1
    layer.write(0, DATA)
    world.store.objects[manifest_name(number)] = b"of another writer"
    with pytest.raises(Fenced):
        await engine.flush_memtable()
    await idle()
    assert spare_manifest_name(number) not in world.store.objects
    assert isinstance(engine.failed.result(), Fenced)


async def test_a_copy_is_begun_only_when_its_manifest_has_won() -> None:
    world = World()
    engine, layer = await world.start()
    await engine.copies.settled()
    number = engine.manifests.number + 1
    held = world.store.hold("create", manifest_name(number))
    layer.write(0, DATA)
    flushing = asyncio.ensure_future(engine.flush_memtable())
    await held.someone_waits()
    await idle()
    assert spare_manifest_name(number) not in world.store.objects
    held.release()
    await flushing
    await engine.copies.settled()
    assert spare_manifest_name(number) in world.store.objects
    await world.crash(engine)


async def test_a_damaged_manifest_without_a_copy_is_said_with_both_names() -> None:
    world = World()
    engine, _ = await world.start()
    await engine.close()
    name, copy = manifest_name(engine.manifests.number), spare_manifest_name(engine.manifests.number)
    world.store.objects[name] = b"damaged"
    del world.store.objects[copy]
    for read_only in (True, False):
        with pytest.raises(Corrupt, match=f"^{name} is damaged: .*, and its copy {copy} is missing$"):
            await world.open(read_only=read_only)
