"""A checkpoint of many SSTs: its trailer lists them all, and is longer than what is asked of a store at once."""

import pytest

from storage.errors import Corrupt
from storage.lsm.compaction.plan import WriteCheckpoint
from storage.lsm.options import EngineOptions, MaintenanceOptions
from storage.lsm.recovery.completeness import Census, check_census
from storage.lsm.recovery.derived_ciphers import Ciphers
from storage.objects.base import ANSWER_BYTES_MAX
from tests.storage.check.test_survey import at_rest
from tests.storage.lsm.worlds import KEY, StageStore, World, read

pytestmark = pytest.mark.fast

SSTS = 200
SECTOR = 4096
ANSWER = 5 * 1024
"""Less than a trailer that lists so many."""


class ShortAnswers(StageStore):
    """As a store of millions of SSTs is: what it answers to somebody who names no limit is shorter than the trailer."""

    async def get(self, name: str, offset: int = 0, length: int | None = None, limit: int = ANSWER_BYTES_MAX) -> bytes:
        return await super().get(name, offset, length, ANSWER if limit == ANSWER_BYTES_MAX else limit)


async def a_large_one() -> World:
    """A store with a checkpoint of so many SSTs; its writer has crashed."""
    world = World(options=EngineOptions(maintenance=MaintenanceOptions(look_seconds=3600.0)))
    world.store = ShortAnswers(world.store.inner)
    engine, layer = await world.start()
    for number in range(SSTS):
        layer.write(number * SECTOR, number.to_bytes(2) * (SECTOR // 2))
        await engine.flush_memtable()
    await engine.compactor.do(WriteCheckpoint("for the test"))
    ref = engine.manifests.manifest.checkpoint
    assert ref is not None
    assert ref.size - ref.index_offset > ANSWER
    await engine.copies.settled()
    await world.crash(engine)
    return world


async def test_it_is_opened_and_has_no_finding() -> None:
    world = await a_large_one()
    engine = await world.open()
    for number in (0, SSTS - 1):
        assert await read(engine.layers[1], number * SECTOR, SECTOR) == number.to_bytes(2) * (SECTOR // 2)
    await engine.copies.settled()
    await world.crash(engine)
    assert await at_rest(world) == []


async def test_it_proves_that_something_is_missing() -> None:
    """One that nothing names, of a writer that knew of more than the log holds."""
    world = await a_large_one()
    engine = await world.open()
    ref = engine.manifests.manifest.checkpoint
    assert ref is not None
    ciphers = Ciphers.derive(KEY)
    with pytest.raises(Corrupt, match="restore them"):
        await check_census(
            Census({ref.id: 10**6}),
            lambda _: 0,
            store=world.store,
            manifests=engine.manifests,
            store_id=KEY.store_id,
            index=ciphers.index,
            tree=ciphers.tree,
            checkpoint=ciphers.checkpoint,
        )
    await world.crash(engine)
