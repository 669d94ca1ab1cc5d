"""A running writer, held at one moment for a check: its clients and its maintenance go on."""

from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager

from storage.check.read_data import DataReader
from storage.check.subject import Moment
from storage.lsm.compaction.job_context import JobContext


@asynccontextmanager
async def held(context: JobContext) -> AsyncIterator[Moment]:
    """The writer's newest manifest and its index at one moment. Until the end nothing is deleted, so all that the
    manifest names stays; and the pages of the index that are written to are copied first.
    """
    with context.garbage.held():
        async with context.installing:
            manifests = context.manifests
            moment = Moment(
                number=manifests.number,
                manifest=manifests.manifest,
                tag=manifests.tag,
                table=manifests.merged_ssts,
                frozen={number: index.freeze() for number, index in context.maps().items()},
                trunks=context.layers.forest.refs(),
                sst_numbers=context.sst_numbers,
            )
        try:
            yield moment
        finally:
            for frozen in moment.frozen.values():
                frozen.thaw()


def reader(context: JobContext, witness: Callable[[], Awaitable[object]]) -> DataReader:
    """Reads the data of a running writer. `witness` waits until the store gives something."""

    async def is_listed(sst: str) -> bool:
        return context.manifests.listed().has(sst)

    return DataReader(
        store=context.store,
        witness=witness,
        index_cipher=context.ssts.index_cipher,
        codec=context.codec,
        store_id=context.ssts.store_id,
        env=context.env,
        sst_numbers=context.sst_numbers,
        forest=lambda: context.layers.forest,
        is_listed=is_listed,
    )
