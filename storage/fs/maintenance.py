"""Maintenance that somebody asks for: the same jobs as in the background, more thoroughly, and garbage deleted now.

Each can be ended at any moment: what was done is done, and a job that is cut short leaves at most objects that nothing
names, which a later writer sweeps.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Collection, Iterable

import msgspec

from storage.check.read_times import StoredReadTimes
from storage.env import Env, written_at
from storage.fs.name_tree import NameTree
from storage.lsm.compaction.forecast import Forecast
from storage.lsm.compaction.plan import next_drop
from storage.lsm.compaction.sst_table import SstFacts, SstTable
from storage.lsm.engine import Engine
from storage.lsm.gc.sweep import Leftovers
from storage.objects.base import ObjectInfo
from storage.units import MIB


class CompactionStep(msgspec.Struct, frozen=True):
    """One job of a compaction."""

    job: str | None
    """The kind of job that was done; None: nothing is left to do."""
    what: str
    """What that job did and why, in words for people."""
    stored_bytes: int
    """Bytes of all SSTs that the manifest lists after it."""
    uploaded_bytes: int
    """Bytes that this job put into the store."""
    left: int
    """SSTs and blocks that are left as they are: they are damaged, or the store withholds them."""


class Retained(msgspec.Struct, frozen=True):
    """Objects that were not deleted."""

    objects: int
    bytes: int
    """0 where nobody knows."""
    reason: str


class GarbageCollection(msgspec.Struct, frozen=True):
    """What was deleted, or would be, and what was kept."""

    dropped: int
    """SSTs that no device shows anything of, which left the list."""
    dropped_bytes: int
    leftovers: int
    """Objects of earlier writers that nothing names."""
    leftover_bytes: int
    deleted: int
    """Objects that are deleted since the store was opened; 0 of a dry run."""
    waiting: int
    """Objects that nothing needs, and that are not deleted yet."""
    refused: bool
    """The store refuses to delete something."""
    kept: list[Retained]


class ReadSince(msgspec.Struct, frozen=True):
    """SSTs that were last read, to their end and sound, at about one time."""

    since: str
    ssts: int
    bytes: int


class ReadReport(msgspec.Struct, frozen=True):
    """When the data of a store was last read and opened, by a scrub or a check, as far as this host knows."""

    last_read: list[ReadSince]
    oldest: float | None
    """When the SST was written, or last read, of which that is longest ago; seconds since 1970."""
    damaged: list[str]
    """A sentence for each SST that was not sound when it was last read."""


READ_AGES = (("within a day", 1.0), ("within 7 days", 7.0), ("within 30 days", 30.0), ("longer ago", float("inf")))
"""In days; an SST counts where it fits first."""


REPORTED_AT_ONCE = 512
"""SSTs that a report of what was read looks at between two turns of the event loop: two milliseconds."""

AHEAD_FLUSHES_MAX = 3
"""While one lasts clients write: what that leaves is about a tenth of what the one before had, or they write as fast as
it is flushed, and more of them would leave no less."""

AHEAD_REST_SECONDS = 15.0
"""What a successor reads of a terabyte takes a few, and has to be read again if a job commits behind that."""

JOB_SECONDS_MAX = 5.0
"""Most jobs take less."""

AHEAD_BYTES = 4 * MIB
"""What is left then takes no longer than the rest of a close."""


class Maintenance:
    """Does the maintenance of one open store that somebody asks for. Owned by the event loop."""

    def __init__(self, engine: Engine, tree: NameTree, reads: StoredReadTimes, env: Env) -> None:
        self._engine = engine
        self._reads = reads
        self._env = env
        self._tree = tree
        self._resting: asyncio.Task[None] | None = None
        """While that lasts no job is begun in the background."""

    async def plan_compaction(self, device: str | None) -> Forecast:
        """What `compact_step`, again and again, would do; of one device, or of all. Nothing is written. NotFound."""
        return await self._engine.compactor.forecast(self._layer(device))

    async def compact_step(self, device: str | None) -> CompactionStep:
        """Do the job that is worth most at the strictest thresholds. NotFound: there is no such device."""
        engine = self._engine
        engine.check_alive()
        engine.check_writer()
        layer = self._layer(device)
        before = engine.compactor.progress.uploaded_bytes
        job = await engine.compactor.thorough_step(layer)
        return CompactionStep(
            None if job is None else type(job).__name__,
            "nothing is left to do" if job is None else job.words(),
            engine.meter.ssts().size,
            engine.compactor.progress.uploaded_bytes - before,
            engine.compactor.left,
        )

    async def read_report(self) -> ReadReport:
        """When what lies in the store was last read."""
        reads, now = await self._reads.load(), self._env.wall_clock()
        counts = {age: [0, 0] for age, _ in READ_AGES} | {"never": [0, 0]}
        oldest = None
        for number, ref in enumerate(self._engine.manifests.listed(), 1):
            if number % REPORTED_AT_ONCE == 0:
                await asyncio.sleep(0)
            read = reads.read_by(ref.id, now)
            days = None if read is None else (now - read) / 86400
            count = counts["never" if days is None else next(age for age, most in READ_AGES if days <= most)]
            count[0] += 1
            count[1] += ref.size
            seen = written_at(ref.id) if read is None else read
            oldest = seen if oldest is None else min(oldest, seen)
        return ReadReport([ReadSince(age, *count) for age, count in counts.items()], oldest, self._reads.damaged)

    def _layer(self, device: str | None) -> int | None:
        return None if device is None else self._tree.namespace.device(device)[1].layer

    async def flush(self) -> None:
        """Put what is in memory into SSTs, so that maintenance sees it."""
        await self._engine.flush_memtable()

    async def flush_ahead(self) -> None:
        """The same while clients write, until there is little left: a close right behind it has no more to do.
        Maintenance rests meanwhile and for AHEAD_REST_SECONDS, so that what somebody reads of the store now is what a
        close leaves, but for what is written. AccessDenied: it is open to be read only.
        """
        self._engine.check_writer()
        await self._rest()
        for _ in range(AHEAD_FLUSHES_MAX):
            await self._engine.flush_memtable()
            if self._engine.writes.memtable.bytes < AHEAD_BYTES:
                break

    async def _rest(self) -> None:
        """Have maintenance rest, from the end of its job, for which nobody waits longer than JOB_SECONDS_MAX."""
        rests = asyncio.Event()

        async def rest() -> None:
            async with self._engine.compactor.working:
                rests.set()
                await asyncio.sleep(AHEAD_REST_SECONDS)

        if self._resting is None or self._resting.done():
            self._resting = self._engine.background.start("rest of maintenance", rest, on_failure=self._engine.fail)
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(JOB_SECONDS_MAX):
                    await rests.wait()

    async def collect(self, *, dry_run: bool) -> GarbageCollection:
        """Delete what nothing needs, now. REFUSALS: the store does not say what there is. A dry run writes nothing."""
        engine = self._engine
        engine.check_alive()
        await engine.copies.settled()  # until then nothing is deleted
        if dry_run:
            snapshot = await engine.compactor.look()
            found = await engine.sweeper.find()
            return self._collected(snapshot.ssts.unused, found, deleted=0)
        engine.check_writer()
        dropped, left = await self._drop_all()
        await engine.copies.settled()
        engine.compactor.delete_replaced()
        engine.garbage.add(engine.manifests.take_old())
        found = await engine.sweeper.sweep()
        await engine.garbage.delete_now()
        return self._collected(dropped, found, left, deleted=engine.garbage.deleted)

    async def _drop_all(self) -> tuple[list[SstFacts], SstTable]:
        """Drop what nothing refers to, a part at a time, and delete that where the next part has to wait for it. Gives
        what was dropped, and what still waits.
        """
        compactor, dropped = self._engine.compactor, list[SstFacts]()
        while True:
            async with compactor.working:
                await compactor.make_room()
                seen = await compactor.look()
                job = next_drop(seen)
                if job is None:
                    return dropped, seen.ssts.unused
                await compactor.do(job)
                dropped += job.ssts

    def _collected(
        self,
        dropped: Collection[SstFacts] | SstTable,
        found: Leftovers,
        left: Collection[SstFacts] | SstTable = (),
        *,
        deleted: int,
    ) -> GarbageCollection:
        """`left`: of what nothing refers to, what is still on the list."""
        garbage = self._engine.garbage
        kept = [
            Retained(len(infos), _size(infos), reason)
            for infos, reason in (
                (found.young, "nothing names them, and they are younger than a day: what is too young is not swept"),
                (found.unclear, "nothing names them, and the store does not give their header"),
                (found.foreign, "they are of a history that this store never had: somebody copies into it"),
            )
            if infos
        ]
        if garbage.failing is not None:
            kept.append(Retained(len(garbage), 0, f"the store refuses to delete them: {garbage.failing.reason}"))
        if self._engine.compactor.waiting_deletions:
            count = self._engine.compactor.waiting_deletions
            kept.append(Retained(count, 0, "a read under way wants something of them"))
        if left:
            kept.append(Retained(len(left), _size(left), "what left the list before them is to be deleted first"))
        return GarbageCollection(
            dropped=len(dropped),
            dropped_bytes=_size(dropped),
            leftovers=len(found.old),
            leftover_bytes=_size(found.old),
            deleted=deleted,
            waiting=len(garbage),
            refused=garbage.failing is not None,
            kept=kept,
        )


def _size(infos: Iterable[ObjectInfo | SstFacts]) -> int:
    return sum(info.size for info in infos)
