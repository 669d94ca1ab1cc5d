"""A store with every kind of object in it, and the truth about its disks, for tests that tamper with it."""

import random
from dataclasses import dataclass
from pathlib import Path

from storage.crypto import keys
from storage.crypto.keyslots import Cost
from storage.format.frame import BLOCK_BYTES, SECTOR_BYTES
from storage.format.names import MANIFESTS, SPARES, TABLES, WALS, sst_name, wal_number
from storage.lsm.compaction.plan import Consolidate, Drop, PatchedBlock, Repack, WriteCheckpoint
from storage.lsm.engine import Engine
from storage.lsm.recovery.anchor import HostState
from tests.storage.lsm.worlds import World, durable, join, record
from tests.support.inside import remember
from tests.support.nonces import Nonces

PASSWORD = b"a password"
COST = Cost.for_tests()
URL = "memory://"
SIZE = 60 * BLOCK_BYTES


@dataclass(repr=False)
class Sample:
    """A store as its killed writer left it, what it holds, and what its host remembers of it."""

    objects: dict[str, bytes]
    """All but the copies of keys and manifest: without those, damage is not survived."""
    copies: dict[str, bytes]
    truth: dict[int, bytes]
    state: Path
    irrelevant: dict[str, str]
    merged: set[str]
    """SSTs whose rows a checkpoint holds: only their frames are read."""

    def relevant(self) -> list[str]:
        return sorted(name for name in self.objects if name not in self.irrelevant)

    def some(self, *, of_each_kind: bool) -> list[str]:
        """The last relevant object of each kind, or all."""
        last = {(name.split("/")[0], self.objects[name][10]): name for name in self.relevant()}
        return sorted(last.values()) if of_each_kind else self.relevant()


async def compact(engine: Engine) -> None:
    """Every job of maintenance, on what was flushed."""
    compactor = engine.compactor
    await compactor.do(WriteCheckpoint("the test says so"))
    patched = tuple(PatchedBlock(1, block, 1, 1) for block in range(60) if engine.layers[1].index.is_patched(block))
    await compactor.do(Consolidate(patched))
    await compactor.do(WriteCheckpoint("of what was consolidated"))
    live = [sst for sst in (await compactor.look()).ssts if sst.live]
    await compactor.do(Repack(tuple(live[-1:]), "the test says so"))
    await compactor.do(WriteCheckpoint("of what was repacked"))
    await compactor.do(Drop(tuple(sst for sst in (await compactor.look()).ssts if sst.merged and not sst.live)))
    live = [sst for sst in (await compactor.look()).ssts if sst.live]
    await compactor.do(Repack(tuple(live[:1]), "and no checkpoint knows of it"))
    compactor.delete_replaced()
    await engine.garbage.finish()


async def make(state: Path, *, compacted: bool) -> Sample:
    chance = random.Random(5)
    world = World(host=HostState(state, URL))
    key = await keys.create(world.store, PASSWORD, world.env, COST)
    world.store.nonces = Nonces(key)
    engine = await world.open(key=key)
    await engine.change_tree(record("create", 1))
    layer = engine.layers[1]
    truth = bytearray(SIZE)

    def write(offset: int, data: bytes) -> None:
        layer.write(offset, data)
        truth[offset : offset + len(data)] = data

    def zero(offset: int, length: int, *, allocated: bool = False) -> None:
        layer.zero(offset, length, allocated=allocated)
        truth[offset : offset + length] = bytes(length)

    write(0, chance.randbytes(3 * BLOCK_BYTES))
    write(5 * BLOCK_BYTES, b"compresses well " * 20_000)
    for sector in (3, 9, 200, 201):
        write(10 * BLOCK_BYTES + sector * SECTOR_BYTES, chance.randbytes(SECTOR_BYTES))
    await engine.flush_memtable()
    await engine.change_tree(record("create", 2))
    write(4 * SECTOR_BYTES + 100, b"a patch over a full frame")
    zero(BLOCK_BYTES, SECTOR_BYTES, allocated=True)
    zero(7 * BLOCK_BYTES, 20 * BLOCK_BYTES)
    write(12 * BLOCK_BYTES, chance.randbytes(5 * SECTOR_BYTES))
    await engine.flush_memtable()
    if compacted:
        await compact(engine)
    await world.crash(engine)
    await engine.close()
    engine = await world.open(key=key)
    layer = engine.layers[1]
    await engine.change_tree(record("create", 3))
    await engine.flush_memtable()
    await engine.change_tree(record("create", 4))
    await engine.flush_memtable()
    await engine.change_tree(record("drop", 4))
    for at in range(3):
        write(at * BLOCK_BYTES + 5, b"in the log")
        write(20 * BLOCK_BYTES + at * 12345, chance.randbytes(3000))
        await durable(engine, layer)
    write(30 * BLOCK_BYTES, chance.randbytes(17 * BLOCK_BYTES))
    await durable(engine, layer)
    zero(31 * BLOCK_BYTES, 3 * BLOCK_BYTES)
    zero(77, 5000)
    await durable(engine, layer)
    await remember(engine)
    await world.crash(engine)
    await engine.close()
    manifest = engine.manifests.manifest
    irrelevant = dict.fromkeys(world.store.names(MANIFESTS)[:-1], "an older manifest")
    irrelevant |= {
        name: "a fence below the replay point"
        for name in world.store.names(WALS)
        if (wal_number(name) or 0) < manifest.replay
    }
    own = {sst.id for sst in manifest.ssts}
    listed = {sst_name(sst.id): sst.id not in own for sst in engine.manifests.listed()}
    named = {*listed, *(sst_name(sst.id) for sst in engine.writes.memtable.ssts)}
    assert manifest.tree is not None
    named.add(sst_name(manifest.tree.id))
    if compacted:
        assert manifest.checkpoint is not None
        named.add(sst_name(manifest.checkpoint.id))
    irrelevant |= {name: "an older tree" for name in world.store.names(TABLES) if name not in named}
    merged = {name for name, merged in listed.items() if merged}
    assert bool(merged) == compacted
    objects = dict(world.store.objects)
    copies = {name: objects.pop(name) for name in world.store.names(SPARES)}
    return Sample(objects, copies, {1: bytes(truth), 2: b"", 3: b""}, state, irrelevant, merged)


async def shown(world: World, *, writer: bool) -> dict[int, bytes]:
    """All that the store of a world shows to who opens it by its password, and is killed then."""
    key, number = await keys.load(world.store, PASSWORD, world.env, COST)
    engine = await world.open(key=key, keys_number=number, read_only=not writer)
    try:
        layers = engine.layers.items()
        found = {layer: join(await one.read(0, SIZE)) if layer == 1 else b"" for layer, one in layers}
        if writer:
            await engine.copies.settled()
        return found
    finally:
        await world.crash(engine)
