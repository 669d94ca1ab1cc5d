"""Maintenance of a running writer: one job at a time, for as long as the plan has one.

Jobs read and write beside flushes and clients. What they have in common with a flush is a lock, `installing`: between a
commit and the end of its install, nobody else commits, and no map is frozen. Before each commit the changes of the tree
that the maps show are made durable: else a crash could bring a device back whose frames are gone.

A job that meets damage leaves it where it is, and what it concerns is passed over from then on; an object that the
store refuses is left alone for a while, and so keeps no others. Anything unforeseen is an error of the engine.

A budget of requests slows jobs that can wait (`slowdown`). Those that keep a store from growing cannot (`can_wait`).
"""

import asyncio
import contextlib
import logging
from collections.abc import Callable
from functools import partial

from storage.bucket.outage import REFUSALS
from storage.errors import Closed, Corrupt, Fenced, NotFound, StorageError
from storage.format.manifest import dropped
from storage.format.names import sst_name
from storage.lsm.compaction.consolidate import consolidate
from storage.lsm.compaction.forecast import Forecast, forecast
from storage.lsm.compaction.fragments import blocks_of
from storage.lsm.compaction.job_context import JobContext
from storage.lsm.compaction.plan import (
    Decision,
    Defragment,
    Drop,
    Job,
    Repack,
    StoreFacts,
    WriteCheckpoint,
    decide,
    next_job,
)
from storage.lsm.compaction.repack import repack
from storage.lsm.compaction.slowing import can_wait
from storage.lsm.compaction.sst_table import SstFacts
from storage.lsm.compaction.store_look import LeftAlone, StoreLook, Turns
from storage.lsm.compaction.write_checkpoint import write_checkpoint
from storage.lsm.options import MaintenanceOptions, thorough
from storage.request_budget import rest_after
from storage.units import MIB

_log = logging.getLogger("nbdserver")

RETRY_SECONDS = 30.0
"""After a job that the store refused."""

GROWN_BYTES_MIN = 32 * MIB
GROWN_SHARE = 1 / 32
"""When the store has grown by so much, its debt is counted anew, also in the midst of a job or of a pause."""

JOB_PAUSE_SECONDS_MAX = 60.0
"""Between two jobs, however long the first one had to wait for the store."""


class Compactor:
    """Does the jobs of one writer, one after the other. Owned by the event loop."""

    def __init__(
        self,
        context: JobContext,
        *,
        written: Callable[[], int],
        on_debt: Callable[[float], None],
    ) -> None:
        """`written` gives the sequence of the newest operation; `on_debt` is told how far the store is beyond its
        space target.
        """
        self.context = context
        """What its jobs work with."""
        self._options = context.options.maintenance
        self.thorough = thorough(self._options)
        """The thresholds of somebody who asks for maintenance now."""
        self._written = written
        self._on_debt = on_debt
        self._left = LeftAlone(context.env.monotonic)
        self._turns = Turns()
        self._looks = StoreLook(context, self._left, self._at_rest)
        self._grown = 0
        """Bytes that flushes have listed since the debt was counted."""
        self._stored = 0
        """What the store held then."""
        self._is_refused = False
        """The last job failed: the store did not let it be done."""
        self._tried: str | None = None
        """The kind of the last job that was begun."""
        self._has_grown = asyncio.Event()
        self._hurry = asyncio.Event()
        """It is over its target: a pause ends."""
        self._seen = (0, 0.0)
        """Sequence of the newest operation at some moment, and since when it is that."""
        self._over_target = False
        self.slowdown = 1.0
        """So many times longer jobs take that can wait, with the rests behind them."""
        self._deferrable_at = float("-inf")
        """When jobs that can wait may begin again."""
        self._last_was_deferrable = False
        """The last job that was done here."""
        self._deferred_at: tuple[object, ...] | None = None
        """What the store was like when the job that was worth most had to wait."""
        self._nothing_at: tuple[object, ...] | None = None
        """What the store was like (`_state`) when nothing was worth doing."""
        self.progress = context.progress
        self.working = asyncio.Lock()
        """Held from a look at the store to the end of the job that was chosen then: one at a time."""

    async def run(self) -> None:
        """Do what is worth doing, for ever, with pauses while clients write. Its failure is the engine's."""
        context, refusal = self.context, ""
        while True:
            began = context.env.monotonic()
            try:
                pause = self._options.look_seconds if not await self.step() else 0.0
                self._is_refused, refusal = False, ""
            except (Fenced, Closed):
                raise
            except StorageError as error:
                self._is_refused = True
                self._on_debt(0.0)  # Writers do not wait for what cannot be done.
                if str(error) != refusal:
                    _log.warning("maintenance_failed", extra={"job": self._tried, "error": str(error)})
                refusal = str(error)
                pause = RETRY_SECONDS
            if not pause:
                now = context.env.monotonic()
                took = min(now - began, JOB_PAUSE_SECONDS_MAX)
                # Clients come first: half of the time is theirs alone.
                rest = rest_after(took, 0.0 if self._over_target or self._at_rest() else took, self.slowdown)
                pause = rest.usual_seconds
                # Behind those only: what cannot wait is so frequent that nothing else would ever have its turn.
                if self._last_was_deferrable:
                    self._deferrable_at = now + rest.slowed_seconds
            self.delete_replaced()
            self._hurry.clear()
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(pause):
                    await self._hurry.wait()

    def grown(self, size: int) -> None:
        """A flush has listed SSTs of `size` bytes."""
        self._grown += size
        self._turns.listed_bytes += size
        if self._grown >= max(GROWN_BYTES_MIN, self._stored * GROWN_SHARE):
            self._has_grown.set()

    async def watch(self) -> None:
        """Count the debt whenever the store has grown, for ever: a job, or the pause after it, takes seconds, in which
        clients may write as much as there is.
        """
        while True:
            await self._has_grown.wait()
            snapshot = await self.look()
            decision = await self.context.ssts.encode(partial(decide, snapshot, self._options))
            self._note(snapshot, decision)
            if decision.over_target:
                self._hurry.set()

    def _note(self, snapshot: StoreFacts, decision: Decision) -> None:
        """What follows for writers, and for the next pause."""
        self._over_target = decision.over_target
        self._on_debt(0.0 if self._is_refused else decision.debt)
        self._grown, self._stored = 0, snapshot.stored
        self._has_grown.clear()

    def finish(self) -> None:
        """The engine closes: nobody reads any more."""
        self.context.garbage.add(sst_name(sst) for sst in sorted(self.context.awaiting_deletion))
        self.context.awaiting_deletion.clear()

    def delete_replaced(self) -> None:
        """Delete what left the list and no read wants any more."""
        self.context.delete_replaced()

    async def step(self) -> bool:
        """Do the job that is worth most; False if none is, or it is to wait."""
        state = self._state()
        if state == self._nothing_at or (self._must_defer() and state == self._deferred_at):
            return False  # to count a store of terabytes takes 50 ms
        async with self.working:
            snapshot = await self.look()
            decision = await self.context.ssts.encode(partial(decide, snapshot, self._options))
            self._note(snapshot, decision)
            # Room for a drop may have come or gone while the store was looked at.
            state = (*state[:-1], bool(snapshot.drop_max))
            self._nothing_at = state if decision.job is None else None
            self._deferred_at = state if self._must_defer() and can_wait(decision) else None
            if decision.job is None or self._deferred_at is not None:
                return False
            self._last_was_deferrable = can_wait(decision)
            await self.do(decision.job)
            return True

    async def thorough_step(self, layer: int | None) -> Job | None:
        """The same as `step` at the strictest thresholds, of one layer or of all, for somebody who asked for it; the
        job that was done. A job that leaves something as it is, since the store refuses it, is done as well.
        """
        async with self.working:
            await self.make_room()
            snapshot = await self.look(self.thorough, layer)
            job = await self.context.ssts.encode(partial(next_job, snapshot, self.thorough))
            if job is None:
                return None
            left = self.left
            try:
                await self.do(job)
            except (NotFound, *REFUSALS):
                if self.left == left:
                    raise
        self.delete_replaced()
        return job

    async def make_room(self) -> None:
        """If drops wait for what is to be deleted, so does whoever asked for one. The caller holds `working`, so that
        nobody else takes the room.
        """
        self.delete_replaced()
        if not self.context.drop_max():
            await self.context.garbage.make_room()

    async def forecast(self, layer: int | None) -> Forecast:
        """What `thorough_step`, again and again, would do."""
        snapshot = await self.look(self.thorough, layer, to_the_end=True)
        return await self.context.ssts.encode(partial(forecast, snapshot, self.thorough))

    @property
    def left(self) -> int:
        """SSTs and blocks that are left as they are: damaged, or withheld by the store."""
        return len(self._left)

    def may_be_read(self, sst: str) -> bool:
        """Whether a read may still ask for an SST that left the list: its id waits for one, or a commit is under way,
        behind which it will wait, and maps may lead there yet.
        """
        return self.context.installing.locked() or sst in self.context.awaiting_deletion

    @property
    def waiting_deletions(self) -> int:
        """SSTs that left the list, and that a read under way may still want."""
        return len(self.context.awaiting_deletion)

    def _state(self) -> tuple[object, ...]:
        """What the next job depends on. The index changes when a flush or a job is installed, some time after its
        manifest, and when a disk goes.
        """
        context = self.context
        left = self._left.waiting()
        often = sum(len(layer.gathered.often) for layer in context.layers.by_number.values())
        manifest, tree = context.manifests.number, context.layers.tree_queue.last_sequence
        return manifest, context.cut(), tree, self._at_rest(), left, often, bool(context.drop_max())

    def _must_defer(self) -> bool:
        return self.context.env.monotonic() < self._deferrable_at

    def _at_rest(self) -> bool:
        sequence, since = self._seen
        now = self.context.env.monotonic()
        if self._written() != sequence:
            self._seen = (self._written(), now)
            return False
        return now - since >= self._options.rest_seconds

    async def look(
        self, options: MaintenanceOptions | None = None, only: int | None = None, *, to_the_end: bool = False
    ) -> StoreFacts:
        """What is known of the store now (see `StoreLook.take`)."""
        return await self._looks.take(options or self._options, self._turns, only, to_the_end=to_the_end)

    async def do(self, job: Job) -> None:
        """Carry out one job. A crash anywhere in it leaves orphans, and a store that says the same."""
        name, previous = type(job).__name__, self.progress.job
        self.progress.job = self._tried = name
        try:
            await self._carry_out(job, name)
        finally:
            self.progress.job = previous

    async def _carry_out(self, job: Job, name: str) -> None:
        began, before = self.context.env.monotonic(), self.progress.uploaded_bytes
        if isinstance(job, Drop):
            await self._drop(job.ssts)
        elif isinstance(job, WriteCheckpoint):
            await write_checkpoint(self.context)
        elif isinstance(job, Repack):
            await self._repack(job.ssts)
        elif isinstance(job, Defragment):
            self._turns.defragmented = job.windows[-1].layer, job.windows[-1].first
            blocks = blocks_of(job.windows, self.context.heads())
            try:
                await consolidate(self.context, blocks, on_unreadable=self._left.unreadable_block)
            finally:
                # Also of one that failed: the next one, of other windows, may fail as well, again and again.
                self._turns.listed_bytes -= self.progress.uploaded_bytes - before
        else:
            last = job.blocks[-1]
            self._turns.consolidated = last.layer, last.block
            await consolidate(self.context, job.blocks, on_unreadable=self._left.unreadable_block)
        self.progress.jobs[name] = self.progress.jobs.get(name, 0) + 1
        seconds = round(self.context.env.monotonic() - began, 3)
        uploaded = self.progress.uploaded_bytes - before
        _log.info("maintenance_done", extra={"job": name, "seconds": seconds, "uploaded_bytes": uploaded})

    async def _drop(self, ssts: tuple[SstFacts, ...]) -> None:
        """Take SSTs off the list that nothing refers to. They are in the checkpoint, which has their rows; so no start
        asks for them again.
        """
        context = self.context
        ids = {sst.id for sst in ssts}

        async def commit() -> None:
            old, table = context.manifests.manifest, context.manifests.merged_ssts
            # In a thread: each SST of the table is looked at. Nobody else commits meanwhile.
            await context.commit_manifest(await context.ssts.encode(partial(dropped, old, table=table, ids=ids)))
            context.awaiting_deletion |= ids

        await context.commit(commit)

    async def _repack(self, victims: tuple[SstFacts, ...]) -> None:
        try:
            await repack(self.context, victims, on_withheld=self._left.withheld_sst)
        except Corrupt as error:
            for victim in victims:
                if sst_name(victim.id) == error.object_name:
                    self._left.damaged_sst(victim.id)
            _log.warning("repack_left", extra={"object": error.object_name, "error": error.detail})
