"""A running writer, held at one moment for a check: its clients and its maintenance go on."""

from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager

from storage.check.read_data import DataReader
from storage.check.subject import Moment
from storage.lsm.compaction.job_context import JobContext


@asynccontextmanager
async def held(its: JobContext) -> AsyncIterator[Moment]:
    """The writer's newest manifest and its index at one moment. Until the end nothing is deleted, so all that the
    manifest names stays; and the pages of the index that are written to are copied first.
    """
    with its.garbage.held():
        async with its.installing:
            indexes = its.maps()
            manifests = its.manifests
            moment = Moment(
                number=manifests.number,
                manifest=manifests.manifest,
                tag=manifests.tag,
                table=tuple(manifests.merged_ssts),
                frozen={number: index.freeze() for number, index in indexes.items()},
                trunks=its.layers.forest.refs(),
                sst_numbers=its.sst_numbers,
            )
        try:
            yield moment
        finally:
            for index in indexes.values():
                index.thaw()


def reader(its: JobContext, witness: Callable[[], Awaitable[object]]) -> DataReader:
    """Reads the data of a running writer. `witness` waits until the store gives something."""

    async def is_listed(sst: str) -> bool:
        return any(ref.id == sst for ref, _ in its.manifests.listed())

    return DataReader(
        store=its.store,
        witness=witness,
        index_cipher=its.ssts.index_cipher,
        codec=its.codec,
        store_id=its.ssts.store_id,
        env=its.env,
        sst_numbers=its.sst_numbers,
        forest=lambda: its.layers.forest,
        is_listed=is_listed,
    )
