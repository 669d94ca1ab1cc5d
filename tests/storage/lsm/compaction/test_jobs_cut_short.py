"""Jobs that fail or are cut short: what they put into the store is deleted again, unless a manifest may name it."""

import asyncio
import random

import pytest

from storage.bucket.pace import ObjectSizes
from storage.errors import AccessDenied
from storage.format.frame import BLOCK_BYTES
from storage.lsm.compaction.plan import Consolidate, Defragment, Job, PatchedBlock, Repack, StoreFacts, WriteCheckpoint
from storage.lsm.engine import Engine
from storage.lsm.layer import Layer
from storage.lsm.options import EngineOptions, MaintenanceOptions, thorough
from storage.units import MIB
from tests.storage.lsm.compaction.test_fragments import BLOCKS, scatter
from tests.storage.lsm.worlds import World, durable, read
from tests.support.waiting import soon, until

pytestmark = pytest.mark.fast

OPTIONS = MaintenanceOptions(look_seconds=3600.0, rest_seconds=0.0, pack_count=1 << 30)
"""Of several SSTs for each job: objects are small."""

KINDS = ["Defragment", "Consolidate", "Repack", "WriteCheckpoint"]


async def scattered() -> tuple[World, Engine, Layer, bytearray]:
    world = World(options=EngineOptions(maintenance=OPTIONS, sizes=ObjectSizes(sst_bytes_max=MIB), cache_bytes=0))
    engine, layer = await world.start()
    return world, engine, layer, await scatter(engine, layer, random.Random(6))


async def job_of(engine: Engine, kind: str) -> Job:
    """One that writes much."""
    if kind == "WriteCheckpoint":
        return WriteCheckpoint("for the test")
    await engine.compactor.do(WriteCheckpoint("for the test"))
    seen: StoreFacts = await engine.compactor.look(thorough(OPTIONS))
    if kind == "Repack":
        return Repack(tuple(sst for sst in seen.ssts if sst.live), "for the test")
    if kind == "Consolidate":
        return Consolidate(tuple(PatchedBlock(1, block, 0, 0) for block in range(BLOCKS)))
    assert len(seen.fragmented) > 1
    return Defragment(tuple(seen.fragmented))


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("arrives", [False, True], ids=["refused", "its answer is lost"])
async def test_what_a_job_that_fails_has_uploaded_is_deleted(kind: str, arrives: bool) -> None:
    world, engine, layer, content = await scattered()
    job = await job_of(engine, kind)
    await engine.garbage.delete_now()
    before, uploads = world.store.names("compacted/"), 0
    create = world.store.create

    async def fails(name: str, data: bytes) -> None:
        nonlocal uploads
        if name.startswith("compacted/"):
            uploads += 1
            if kind == "WriteCheckpoint" or uploads > 2:
                if arrives:
                    await create(name, data)
                raise AccessDenied("a policy denies it")
        await create(name, data)

    world.store.create = fails  # type: ignore[method-assign, assignment]
    with pytest.raises(AccessDenied):
        await engine.compactor.do(job)
    assert uploads > (0 if kind == "WriteCheckpoint" else 2)
    await engine.garbage.delete_now()
    assert world.store.names("compacted/") == before
    world.store.create = create  # type: ignore[method-assign]
    assert await read(layer, 0, len(content)) == content
    await engine.close()


async def test_a_defragmentation_that_fails_counts_for_what_may_be_written_anew() -> None:
    world, engine, layer, _ = await scattered()
    job = await job_of(engine, "Defragment")
    listed = (await engine.compactor.look()).listed_bytes
    hold = world.store.hold("create", "compacted/")
    doing = asyncio.ensure_future(engine.compactor.do(job))
    await hold.someone_waits(2)
    world.store.deny("create", "compacted/", AccessDenied("a policy denies it"))
    hold.release()
    with pytest.raises(AccessDenied):
        await doing
    world.store.denials.clear()
    left = (await engine.compactor.look()).listed_bytes
    assert left <= listed - 2 * 3 * BLOCK_BYTES, "the next one may write as much again in vain"
    assert await read(layer, 0, BLOCK_BYTES)
    await engine.close()


@pytest.mark.parametrize("kind", KINDS)
async def test_what_a_manifest_on_its_way_names_stays(kind: str) -> None:
    """Whoever asked for the job goes away meanwhile, and the manifest lands."""
    world, engine, layer, content = await scattered()
    job = await job_of(engine, kind)
    number = engine.manifests.number
    hold = world.store.hold("create", "manifest/")
    doing = asyncio.ensure_future(engine.compactor.do(job))
    await hold.someone_waits()
    doing.cancel()
    with pytest.raises(asyncio.CancelledError):
        await doing
    await soon(asyncio.ensure_future(engine.garbage.delete_now()))
    hold.release()
    await until(lambda: engine.manifests.number > number)
    await durable(engine, layer)
    await engine.garbage.delete_now()
    assert await read(layer, 0, len(content)) == content
    engine, layer = await world.reopen(engine)
    assert await read(layer, 0, len(content)) == content
    await engine.close()
