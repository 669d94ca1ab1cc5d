"""The indexes of SSTs as they are fetched when a store is opened: many at a time, each checked."""

import asyncio
from collections.abc import Awaitable, Callable
from functools import partial

from storage.bucket.missing import insist
from storage.crypto.cipher import Cipher
from storage.env import Env
from storage.errors import Corrupt, NotFound
from storage.format.blocks import SstRef
from storage.format.names import sst_name
from storage.format.sst import SstIndex, open_index
from storage.objects.base import ObjectStore

INDEX_READS_IN_FLIGHT = 32


async def read_indexes(
    ssts: list[SstRef],
    *,
    store: ObjectStore,
    cipher: Cipher,
    store_id: bytes,
    env: Env,
    on_missing: Callable[[], Awaitable[None]],
) -> list[SstIndex]:
    """The index of each SST, fetched in parallel and checked. Corrupt if one is missing or not the one that is
    named.
    """
    room = asyncio.Semaphore(INDEX_READS_IN_FLIGHT)

    async def read(sst: SstRef) -> SstIndex:
        name = sst_name(sst.id)
        async with room:
            try:
                length = sst.size - sst.index_offset
                end = await insist(store, partial(store.get, name, sst.index_offset, length), on_missing=on_missing)
            except NotFound:
                raise Corrupt(name, "it is missing, though the manifest or the log names it") from None
        return await env.run("codec", lambda: open_index(cipher, sst, end, store_id=store_id))

    return list(await asyncio.gather(*(read(sst) for sst in ssts)))
