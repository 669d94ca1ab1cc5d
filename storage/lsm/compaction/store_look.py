"""A look at the store: what of it is live, patched and fragmented at one moment, by which a job is chosen.

It is taken from the index in memory and asks the store for nothing. What jobs could not read is in it as something to
leave alone, and each kind of job that goes round the disk goes on where the last one ended.
"""

import asyncio
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

from storage.cancel import when_ended
from storage.lsm.compaction.census import ListedSsts, Patched, count_patches, look_up_live
from storage.lsm.compaction.fragments import find_fragmented
from storage.lsm.compaction.job_context import JobContext
from storage.lsm.compaction.plan import PatchedBlock, StoreFacts
from storage.lsm.options import MaintenanceOptions

LEFT_SECONDS = 600.0
"""For so long what could not be read is not tried again: the next job is another's."""

DAMAGED_SECONDS = 24 * 3600.0
"""And for so long what was damaged: somebody may have put it back from a copy."""


class LeftAlone:
    """What jobs leave as it is: SSTs with damage for a day, and for a while what the store refused."""

    def __init__(self, monotonic: Callable[[], float]) -> None:
        self._monotonic = monotonic
        self.damaged: dict[str, float] = {}
        """SSTs with damage, and until when each is left alone."""
        self.withheld: dict[str, float] = {}
        """SSTs that the store refused, and until when each is left alone."""
        self.unreadable: dict[tuple[int, int], float] = {}
        """Blocks (layer, block) of which the store refused something, and until when each is left alone."""

    def __len__(self) -> int:
        return len(self.damaged) + len(self.withheld) + len(self.unreadable)

    def damaged_sst(self, sst: str) -> None:
        """Something in it is not as it was written."""
        self.damaged[sst] = self._monotonic() + DAMAGED_SECONDS

    def withheld_sst(self, sst: str) -> None:
        """The store refused it."""
        self.withheld[sst] = self._monotonic() + LEFT_SECONDS

    def unreadable_block(self, block: PatchedBlock) -> None:
        """The store refused something of it."""
        self.unreadable[block.layer, block.block] = self._monotonic() + LEFT_SECONDS

    def waiting(self) -> int:
        """How many are left alone for a while that is not over."""
        now = self._monotonic()
        return sum(until > now for until in (*self.withheld.values(), *self.unreadable.values()))

    def expire(self) -> None:
        """Those whose time is over may be tried again."""
        now = self._monotonic()
        self.damaged = {sst: until for sst, until in self.damaged.items() if until > now}
        self.withheld = {sst: until for sst, until in self.withheld.items() if until > now}
        self.unreadable = {block: until for block, until in self.unreadable.items() if until > now}


@dataclass(slots=True)
class Turns:
    """Where jobs that go round the disk have got to."""

    consolidated: tuple[int, int] = (0, 0)
    """Layer and block of the last one that was consolidated."""
    defragmented: tuple[int, int] = (0, 0)
    """Layer and first block of the last window that was defragmented."""
    listed_bytes: int = 0
    """That flushes have listed, less what defragmentations have uploaded."""


class StoreLook:
    """Takes looks, one at a time. Owned by the event loop."""

    def __init__(self, context: JobContext, left: LeftAlone, at_rest: Callable[[], bool]) -> None:
        self._context = context
        self._left = left
        self._at_rest = at_rest
        self._listed = ListedSsts(context.sst_numbers, context.ssts.key_id)
        self._looking = asyncio.Lock()

    async def take(
        self, options: MaintenanceOptions, turns: Turns, only: int | None = None, *, to_the_end: bool = False
    ) -> StoreFacts:
        """What is known of the store now; with `only`, all but one layer is left as it is. `to_the_end`: all that is
        fragmented, not what a job may have of it.
        """
        async with self._looking:
            return await self._take(options, turns, only, to_the_end=to_the_end)

    async def _take(
        self, options: MaintenanceOptions, turns: Turns, only: int | None, *, to_the_end: bool
    ) -> StoreFacts:
        context, left = self._context, self._left
        others: set[str] = set()
        async with context.installing:
            # As listed when the count began: what is committed meanwhile is another look's.
            manifest, table = context.manifests.manifest, context.manifests.merged_ssts
            numbers = len(context.sst_numbers)
            referred = await look_up_live(context.layers.forest, numbers)
            own_referred = None if only is None else await look_up_live(context.layers.forest, numbers, only=only)
        live = await context.ssts.encode(referred.live)
        own = None if own_referred is None else await context.ssts.encode(own_referred.live)
        patched = await self._patched(options)
        left.expire()
        # To its end, also if who asked goes away: of two threads one would give the other a table of another moment.
        ssts = await when_ended(context.ssts.encode(partial(self._listed.table, manifest, table, live)))
        if own is not None:
            others = {sst.id for sst in ssts if not (sst.number < len(own) and own[sst.number])}
            patched = Patched([block for block in patched.worth if block.layer == only], patched.covered)
        fragmented = await find_fragmented(
            [trunk for trunk in context.layers.forest.trunks() if only in (None, trunk.head)],
            pieces=options.window_pieces_max if options.defragment_always or self._at_rest() else None,
            behind=turns.defragmented,
            bytes_max=None if to_the_end else options.job_bytes_max,
            object_bytes=context.ssts.pace.object_bytes,
            gap_bytes_max=context.options.reads.gap_bytes_max,
            skipped=left.unreadable.keys(),
            run=context.ssts.encode,
        )
        return StoreFacts(
            ssts=ssts,
            patched=patched.worth,
            consolidated=turns.consolidated,
            covered=patched.covered,
            checkpoint_rows=0 if manifest.checkpoint is None else manifest.checkpoint.entries,
            at_rest=self._at_rest(),
            object_bytes=context.ssts.pace.object_bytes,
            skipped=left.damaged.keys() | left.withheld.keys() | others,
            skipped_blocks=left.unreadable.keys(),
            fragmented=fragmented,
            listed_bytes=turns.listed_bytes,
            drop_max=context.drop_max(),
            operations=len(manifest.operations),
            checkpoint_older_key=manifest.checkpoint is not None and manifest.checkpoint.key_id != context.ssts.key_id,
        )

    async def _patched(self, options: MaintenanceOptions) -> Patched:
        context = self._context
        patches, sectors = options.patches_max_at_rest, options.patched_sectors_max
        often = {number: layer.gathered.often for number, layer in context.layers.by_number.items()}
        return await count_patches(
            context.layers.forest.trunks(), patches=patches, sectors=sectors, often=often, run=context.ssts.encode
        )
