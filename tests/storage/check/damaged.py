"""A maintained store in memory with every kind of object, ways to damage it, and what a device shows of the damage."""

import random

from storage.errors import StorageError
from storage.format.names import sst_id, sst_name, wal_name
from storage.lsm.compaction.plan import WriteCheckpoint
from storage.lsm.options import EngineOptions, MaintenanceOptions
from tests.storage.lsm.compaction.test_jobs import SECTOR, SIZE, Disk
from tests.storage.lsm.worlds import MIB, World, durable

Objects = dict[str, bytes]


async def maintained(seed: int = 3) -> World:
    """A store whose writer was killed: with a checkpoint, merged and unmerged SSTs, repacked ones, a tree, a log. No
    writer of it does a job unasked, however long a test takes.
    """
    world = World(options=EngineOptions(cache_bytes=16 * MIB, maintenance=MaintenanceOptions(look_seconds=1e9)))
    engine, layer = await world.start()
    disk = Disk(world, engine, layer, seed)
    chance = random.Random(seed)
    for _ in range(30):
        await chance.choice([disk.flush, disk.job, disk.job])()
    await disk.flush()
    await disk.engine.compactor.do(WriteCheckpoint("the test says so"))
    for number in range(3):
        # Little, so that what the checkpoint holds still shows.
        disk.layer.write(number * 70 * SECTOR, bytes([number + 1]) * SECTOR)
        await durable(disk.engine, disk.layer)
        await disk.engine.flush_memtable(always=True)
    await disk.crash()
    disk.layer.write(5 * SECTOR, b"the log" * 100)
    await durable(disk.engine, disk.layer)
    await disk.engine.copies.settled()
    await disk.engine.garbage.finish()
    await world.crash(disk.engine)
    return world


async def unmerged_in(world: World) -> set[str]:
    """The SSTs whose rows no checkpoint holds."""
    reader = await world.open(read_only=True)
    return {sst_name(ref.id) for ref in reader.manifests.manifest.ssts}


async def checkpoint_of(world: World) -> str:
    reader = await world.open(read_only=True)
    ref = reader.manifests.manifest.checkpoint
    assert ref is not None
    return sst_name(ref.id)


async def log_needed(world: World) -> set[str]:
    """The objects of the log that a start reads, and all fences."""
    reader = await world.open(read_only=True)
    manifest = reader.manifests.manifest
    names = {wal_name(number) for number in manifest.fences}
    return names | {
        name for name in world.store.objects if name.startswith("wal/") and name >= wal_name(manifest.replay)
    }


def tables(objects: Objects) -> list[str]:
    return sorted(name for name in objects if sst_id(name))


async def unreadable_sectors(world: World, change: Objects) -> set[int]:
    """The sectors of layer 1 that cannot be read when the objects change so under the eyes of a reader."""
    sound = dict(world.store.objects)
    reader = await world.open(read_only=True)
    world.store.objects.clear()
    world.store.objects.update(change)
    lost = set()
    try:
        for sector in range(SIZE // SECTOR):
            try:
                await reader.layers[1].read(sector * SECTOR, SECTOR)
            except StorageError:
                lost.add(sector)
    finally:
        world.store.objects.clear()
        world.store.objects.update(sound)
    return lost
