"""The live share of each listed SST, for people: what of it some layer still shows."""

import asyncio
from functools import partial

from storage.lsm.compaction.census import ListedSsts, look_up_live
from storage.lsm.compaction.job_context import JobContext
from storage.lsm.compaction.sst_table import SstTable


async def live_shares(context: JobContext) -> SstTable:
    """All listed SSTs with what is live of each, oldest first. 60 ms of the loop for a terabyte of mapped blocks, in
    steps; the rest in threads.
    """
    async with context.installing:
        manifest, table = context.manifests.manifest, context.manifests.merged_ssts
        referred = await look_up_live(context.layers.forest, len(context.sst_numbers))
    await asyncio.sleep(0)
    live = await context.ssts.encode(referred.live)
    found = await context.ssts.encode(
        partial(ListedSsts(context.sst_numbers, context.ssts.key_id).table, manifest, table, live)
    )
    return found
