"""Who gives up a job that waits for the tree, before it commits: what it has uploaded is deleted again."""

import asyncio

import pytest

from storage.format.names import TABLES, WALS, sst_name
from tests.storage.lsm.compaction.test_jobs_cut_short import KINDS, job_of, scattered
from tests.storage.lsm.worlds import read, record
from tests.support.idle import idle
from tests.support.waiting import until

pytestmark = pytest.mark.fast


@pytest.mark.parametrize("kind", KINDS)
async def test_what_was_uploaded_before_it_waited_for_the_tree_is_deleted(kind: str) -> None:
    world, engine, layer, content = await scattered()
    job = await job_of(engine, kind)
    await engine.copies.settled()
    held = world.store.hold("create", WALS)
    changing = asyncio.ensure_future(engine.change_tree(record("create", 2)))
    await held.someone_waits()
    uploads = world.store.count("create", TABLES)
    doing = asyncio.ensure_future(engine.compactor.do(job))
    await until(lambda: world.store.count("create", TABLES) > uploads)
    await idle()
    doing.cancel()
    with pytest.raises(asyncio.CancelledError):
        await doing
    held.release()
    await changing
    await engine.flush_memtable()
    await engine.copies.settled()
    engine.compactor.delete_replaced()
    await engine.garbage.delete_now()
    manifest = engine.manifests.manifest
    refs = (manifest.tree, manifest.checkpoint, *engine.manifests.listed())
    assert set(world.store.names(TABLES)) == {sst_name(ref.id) for ref in refs if ref is not None}
    assert await read(layer, 0, len(content)) == content
    await engine.close()
