"""Which remains of a store are no store: each sign by itself. (All of them together: tests/crash/copies.py.)"""

import asyncio
from pathlib import Path

import pytest

from storage.check.findings import Kind
from storage.errors import Corrupt
from storage.format.frame import SECTOR_BYTES
from storage.format.names import MANIFESTS, SPARES, TABLES, WALS, manifest_name, sst_name
from storage.lsm.compaction.plan import WriteCheckpoint
from storage.lsm.engine import Engine
from storage.lsm.layer import Layer
from storage.lsm.recovery.anchor import HostState
from tests.storage.check.test_survey import at_rest
from tests.storage.lsm.worlds import World, durable, read, record
from tests.support.waiting import soon, until

A, B = b"a" * SECTOR_BYTES, b"b" * SECTOR_BYTES


async def refused(world: World, match: str, kind: Kind = Kind.INCOMPLETE) -> None:
    """By whoever comes, and untouched."""
    before = dict(world.store.objects)
    for read_only in (True, False):
        with pytest.raises(Corrupt, match=match):
            await world.open(read_only=read_only)
    assert kind in {finding.kind for finding in await at_rest(world)}, "a check says the same"
    assert world.store.objects == before


async def write(engine: Engine, layer: Layer, data: bytes) -> None:
    layer.write(0, data)
    await durable(engine, layer)


def forget_manifests(world: World, *, above: int) -> None:
    """Later manifests are gone, and their copies."""
    for name in world.store.names():
        if name.startswith(SPARES) or (name.startswith(MANIFESTS) and name > manifest_name(above)):
            del world.store.objects[name]


@pytest.mark.parametrize("left", [WALS, TABLES])
async def test_without_a_manifest_there_is_nothing_else(left: str) -> None:
    world = World()
    engine, layer = await world.start()
    await write(engine, layer, A)
    await engine.close()
    for name in world.store.names():
        if not name.startswith(left):
            del world.store.objects[name]
    await refused(
        world,
        f"{MANIFESTS} is damaged: there is no manifest, but {left}",
        Kind.LOG if left == WALS else Kind.INCOMPLETE,
    )


async def test_a_table_of_a_later_epoch_than_any_manifest() -> None:
    world = World()
    engine, _ = await world.start()
    await engine.close()
    number = engine.manifests.number
    engine = await world.open()
    await write(engine, engine.layers[1], A)
    await engine.close()
    forget_manifests(world, above=number)
    for name in world.store.names(WALS):
        del world.store.objects[name]
    await refused(world, "of epoch 2, and no manifest")


async def test_a_log_of_a_later_epoch_than_any_manifest() -> None:
    """A second writer of that epoch must not come to be."""
    world = World()
    engine, layer = await world.start()
    await write(engine, layer, A)
    number = engine.manifests.number
    await world.crash(engine)
    await world.crash(await world.open())
    forget_manifests(world, above=number)
    await refused(world, "epoch 2, and no manifest", Kind.LOG)


@pytest.mark.parametrize("kind", ["data", "tree"])
async def test_a_table_made_of_a_longer_log_than_there_is(kind: str) -> None:
    """An older manifest, and no log: as if all that came later were what a crash left."""
    world = World()
    engine, layer = await world.start()
    await engine.flush_memtable()
    number = engine.manifests.number
    copied = {name: world.store.objects[name] for name in world.store.names(TABLES)}
    if kind == "data":
        await write(engine, layer, A)
    else:
        await engine.change_tree(record("create", 2))
    await engine.close()
    world.store.objects.update(copied)  # the older tree too, before the writer deleted it
    forget_manifests(world, above=number)
    for name in world.store.names(WALS):
        del world.store.objects[name]
    await refused(world, "was made when the log was acknowledged up to number")


async def test_a_checkpoint_made_of_a_longer_log_than_there_is() -> None:
    """Of all that came later it alone is left."""
    world = World()
    engine, layer = await world.start()
    await engine.flush_memtable()
    number = engine.manifests.number
    older = set(world.store.names(TABLES))
    await write(engine, layer, A)
    await engine.flush_memtable()
    await engine.compactor.do(WriteCheckpoint("for the test"))
    checkpoint = engine.manifests.manifest.checkpoint
    assert checkpoint is not None
    await world.crash(engine)
    for name in world.store.names():
        newer = name.startswith(SPARES) or (name.startswith(MANIFESTS) and name > manifest_name(number))
        table = name.startswith(TABLES) and name not in {*older, sst_name(checkpoint.id)}
        if newer or table or name.startswith(WALS):
            del world.store.objects[name]
    await refused(world, "was made when the log was acknowledged up to number")


async def test_the_orphans_of_a_crash_are_no_sign() -> None:
    world = World()
    engine, layer = await world.start()
    await write(engine, layer, A)
    held = world.store.hold("create", MANIFESTS)
    flushing = asyncio.ensure_future(engine.flush_memtable())
    await held.someone_waits()
    assert world.store.names(TABLES)
    engine, layer = await world.reopen(engine)
    assert await read(layer, 0, SECTOR_BYTES) == A
    await world.crash(engine)
    await asyncio.gather(flushing, return_exceptions=True)


async def test_what_the_log_was_seen_to_hold_at_a_take_over_must_be_there() -> None:
    world = World()
    engine, layer = await world.start()
    await write(engine, layer, A)
    await world.crash(engine)
    last = world.store.names(WALS)[-1]
    await world.crash(await world.open())
    for name in world.store.names(WALS):
        if name >= last:
            del world.store.objects[name]
    await refused(world, f"{last} is damaged: it is missing, and it was acknowledged", Kind.LOG)


async def test_a_fence_proves_all_below_it() -> None:
    world = World()
    engine, layer = await world.start()
    await write(engine, layer, A)
    await world.crash(engine)
    last = world.store.names(WALS)[-1]
    number = engine.manifests.number
    await world.crash(await world.open())
    del world.store.objects[last]
    forget_manifests(world, above=number)
    await refused(world, f"{last} is damaged: it is missing, and it was acknowledged", Kind.LOG)


async def test_a_number_that_cannot_be_proven_is_no_sign() -> None:
    """A header is in the clear: only what is sealed with it makes it a witness."""
    world = World()
    engine, layer = await world.start()
    await write(engine, layer, A)
    held = world.store.hold("create", MANIFESTS)
    flushing = asyncio.ensure_future(engine.flush_memtable())
    await held.someone_waits()
    await world.crash(engine)
    await asyncio.gather(flushing, return_exceptions=True)
    for name in world.store.names(TABLES):
        content = bytearray(world.store.objects[name])
        content[72:80] = (10**6).to_bytes(8, "little")
        world.store.objects[name] = bytes(content)
    engine = await world.open()
    assert await read(engine.layers[1], 0, SECTOR_BYTES) == A
    await world.crash(engine)


async def test_a_writer_that_commits_is_superseded_by_nothing_it_lacks() -> None:
    """A reader sees a manifest, and then SSTs and a log that are newer: it looks again, and nothing is damaged."""
    world = World()
    engine, layer = await world.start()
    await engine.flush_memtable()
    held = world.store.hold("list", TABLES)
    reading = asyncio.ensure_future(world.open(read_only=True))
    await held.someone_waits()
    await write(engine, layer, B)
    await engine.flush_memtable()
    await write(engine, layer, A)
    held.release()
    reader = await soon(reading)
    assert await read(reader.layers[1], 0, SECTOR_BYTES) == A
    await world.crash(engine)


async def large_store(world: World) -> tuple[Engine, str]:
    """A store whose checkpoint holds all of its SSTs; one of them."""
    engine, layer = await world.start()
    before = set(world.store.names(TABLES))
    await write(engine, layer, A * 64)
    await engine.flush_memtable()
    (sst, *_) = sorted(set(world.store.names(TABLES)) - before, key=lambda name: -len(world.store.objects[name]))
    await engine.compactor.do(WriteCheckpoint("the test says so"))
    await engine.close()
    return engine, sst


async def test_a_host_that_wrote_last_serves_what_is_left_and_says_what_is_lost(tmp_path: Path) -> None:
    """One bad thing stops one thing. Nothing can be there that this host does not know of."""
    world = World(host=HostState(tmp_path, "memory://"))
    _, sst = await large_store(world)
    del world.store.objects[sst]
    engine = await world.open(take_over=False)
    await until(lambda: bool(engine.report().lost))
    assert engine.report().lost == [f"{sst} is missing, though the manifest names it"]
    with pytest.raises(Corrupt, match="missing"):
        await engine.layers[1].read(0, SECTOR_BYTES)
    engine.layers[1].write(0, B * 64)
    assert await read(engine.layers[1], 0, SECTOR_BYTES) == B
    await world.crash(engine)


@pytest.mark.parametrize("other", ["host", "life"])
async def test_any_other_asks_for_every_sst(other: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    world = World(host=HostState(tmp_path, "memory://"))
    _, sst = await large_store(world)
    del world.store.objects[sst]
    if other == "host":
        world.host = HostState(tmp_path / "other", "memory://")
    else:
        monkeypatch.setattr("storage.lsm.recovery.anchor.boot", lambda: "another life")
    await refused(world, f"{sst} is damaged: it is missing", Kind.MISSING)


async def test_a_host_that_wrote_before_another_asks_for_every_sst(tmp_path: Path) -> None:
    world = World(host=HostState(tmp_path, "memory://"))
    _, sst = await large_store(world)
    own, world.host = world.host, HostState(tmp_path / "other", "memory://")
    await (await world.open()).close()
    world.host = own
    del world.store.objects[sst]
    await refused(world, f"{sst} is damaged: it is missing", Kind.MISSING)


async def test_a_later_writer_whose_manifests_are_gone_is_seen_by_who_wrote_before(tmp_path: Path) -> None:
    world = World(host=HostState(tmp_path, "memory://"))
    engine, _ = await large_store(world)
    own, world.host = world.host, HostState(tmp_path / "other", "memory://")
    later = await world.open()
    await write(later, later.layers[1], B * 64)
    await later.close()
    world.host = own
    forget_manifests(world, above=engine.manifests.number)
    for name in world.store.names(WALS):
        del world.store.objects[name]
    await refused(world, "of epoch 2, and no manifest")
