"""The memtable flush: what was written becomes SSTs, and the log before it is truncated.

The order of steps is the promise, and a crash between any two of them loses nothing:

    1. every operation of the sealed memtable is acknowledged in the log    (else the replay point would pass over it)
    2. its SSTs are uploaded                                            (crash: orphans, the log still has everything)
    3. a manifest lists them, and the SSTs of its locators, and moves the replay point   (the commit)
    4. the index points to them, trunks are what they are now, then the memtable goes      (memory only)
    5. WAL objects below the replay point are garbage, fences never     (crash: leftovers, swept by the next writer)

Sectors written in part are completed between 1 and 2; what was written again there is acknowledged before 3.

What is done to trunks (`change_trunks`) is done in the active memtable, in one step, also beside a flush, and is in the
indexes when that memtable was flushed. Until then nothing else is done to trunks.
"""

import asyncio
import logging
from collections.abc import Awaitable, Callable
from functools import partial

from storage.cache.frame_cache import Decoded
from storage.errors import BrokenInvariant
from storage.format.blocks import RangeZero, SstRef
from storage.format.manifest import flushed
from storage.format.names import sst_name, wal_name
from storage.format.sst import SstBuilder
from storage.lsm.flush.complete import complete_sectors
from storage.lsm.flush.flush_plan import FlushPlan, add, plan_objects
from storage.lsm.gc.garbage import Garbage
from storage.lsm.index.install import FlushedEntries, Installer, Written
from storage.lsm.layer import Layer
from storage.lsm.layers import Layers
from storage.lsm.manifest.manifest_store import Manifests
from storage.lsm.memtable.memtable import Memtable
from storage.lsm.memtable.write_state import WriteState
from storage.lsm.options import FlushOptions
from storage.lsm.sst.fetch import FrameSource
from storage.lsm.sst.upload import SstWriter
from storage.lsm.wal.log_writer import LogWriter
from storage.lsm.wal.queue import LayerQueue

_log = logging.getLogger("nbdserver")


class MemtableFlush:
    """The flushes of one writer, one after the other. An exception out of `run` must poison the engine: after half a
    flush, the next one would move the replay point past what this one did not write.
    """

    def __init__(
        self,
        *,
        layers: Layers,
        writes: WriteState,
        log: LogWriter,
        manifests: Manifests,
        ssts: SstWriter,
        source: FrameSource,
        installer: Installer,
        garbage: Garbage,
        durable: Callable[[LayerQueue, int], Awaitable[None]],
        on_truncated: Callable[[], Awaitable[None]],
        on_listed: Callable[[int], None],
        installing: asyncio.Lock,
        cut: int,
        options: FlushOptions,
    ) -> None:
        """`on_listed` is told the bytes of SSTs that a flush has listed, when the index points to them."""
        self._layers = layers
        self._writes = writes
        self._log = log
        self._manifests = manifests
        self._ssts = ssts
        self._source = source
        self._installer = installer
        self._garbage = garbage
        self._durable = durable
        self._on_truncated = on_truncated
        self._on_listed = on_listed
        self._installing = installing
        """Held from a commit to the end of its install: nobody else commits meanwhile, and no map is frozen."""
        self.cut = cut
        """The sequence up to which everything written is in the index."""
        self._options = options
        self._one_at_a_time = asyncio.Lock()
        self._changing_trunks = asyncio.Lock()
        self._layers_kept: list[int] = []
        """The layers whose pieces of sectors were written again by the last flush, as the log was told."""
        self._ended = asyncio.Event()
        """Set when the flush under way has ended, if there is one."""
        self.waits_for: str | None = None
        """What the flush under way is busy with, for people; None if there is none."""

    async def change_trunks(self, change: Callable[[], None], keys_number: int) -> None:
        """Have `change` do something to trunks, when what that has to find in the indexes is there. A crash leaves it
        done or not, as the log has its record or not.
        """
        layers, writes = self._layers, self._writes
        async with self._changing_trunks:
            tried = False
            while True:
                if writes.sealed_has_to_be_installed:
                    await self._ended.wait()
                elif writes.memtable.changes_trunks or (layers.keeping(layers.heads()) and not tried):
                    # What snapshots keep may be had again by now.
                    tried = True
                    await self.run(keys_number=keys_number, closing=False, always=False)
                else:
                    break
            change()

    async def run(self, *, keys_number: int, closing: bool, always: bool) -> None:
        """Flush everything written so far. Without `closing` and `always` nothing happens if nothing was written."""
        async with self._one_at_a_time:
            if not (self._writes.memtable or self._layers.tree_changed or closing or always):
                return
            self._ended.clear()
            try:
                # One that was asked for later, and knew newer keys, may have come first.
                newest = max(keys_number, self._manifests.manifest.keys)
                await self._flush(keys_number=newest, closing=closing)
            finally:
                self.waits_for = None
                self._ended.set()

    async def _flush(self, *, keys_number: int, closing: bool) -> None:
        """One flush."""
        layers = self._layers
        sealed, living = await self._seal()
        self.waits_for = "what lies below sectors that were written in part"
        await self._complete(sealed, living)
        self.waits_for = "the upload of data"
        written = await self._write(sealed)
        tree = None if sealed.tree is None else await self._ssts.write_tree(sealed.tree)
        position = self._log.position
        replay = sealed.first_beyond or position.next_number
        if not self._log.is_acknowledged_below(replay):
            raise BrokenInvariant(f"the log below {replay} would be truncated, and is not acknowledged yet")
        self.waits_for = "the manifest"
        ssts = sealed.ssts + written.ssts
        async with self._installing:
            manifest = await self._ssts.encode(  # in a thread: with 100,000 SSTs it takes 10 ms
                partial(
                    flushed,
                    self._manifests.manifest,
                    closed=closing,
                    replay=replay,
                    replay_tag=position.tag_below(replay),
                    acknowledged=position.acknowledged,
                    sequence=sealed.sequence,
                    ssts=ssts,
                    tree=tree,
                    fences=list(position.fences),
                    keys=keys_number,
                    operations=sealed.operations,
                )
            )
            older = None if tree is None else self._manifests.manifest.tree
            await self._manifests.commit(manifest)
            self.waits_for = "the index in memory"
            for indexes in layers.installing(sealed):
                await asyncio.sleep(0)
                for _ in self._installer.steps(written, indexes):
                    await asyncio.sleep(0)
            layers.drop_sealed()
            self.cut = sealed.sequence
        del written
        self._on_listed(sum(sst.size for sst in ssts))
        await self._let_go(sealed, replay, older)

    async def _complete(self, sealed: Memtable, living: dict[int, Layer]) -> None:
        """Leave no piece of a sector in it; what was written again is acknowledged on return."""
        together = self._options.sectors_together
        again = await complete_sectors(sealed, living, self._source, self._writes, together=together)
        self._say_what_is_kept(sorted(again))
        for queue, sequence in again.values():
            # All before any is waited for: together they are one object of the log, which stays until they are read.
            queue.want_durable(sequence)
        for queue, sequence in again.values():
            await self._durable(queue, sequence)

    def _say_what_is_kept(self, layers: list[int]) -> None:
        """Once: it is the same at every flush until what lies below can be read, or is written over."""
        if layers and layers != self._layers_kept:
            _log.warning("pieces_over_unreadable_kept", extra={"layers": layers})
        self._layers_kept = layers

    async def _seal(self) -> tuple[Memtable, dict[int, Layer]]:
        """The memtable, sealed and all of it in the log, and the layers that live; of others it holds nothing."""
        layers = self._layers
        self.waits_for = "writes on their way to the log"
        sealed, queues = layers.seal()
        self._writes.flushing(0.0)
        for queue, sequence in queues:
            await self._durable(queue, sequence)
        living = dict(layers.by_number)
        if sealed.layers.keys() - living.keys():
            # A layer was dropped since: that must be durable before its operations leave the log without a trace.
            await self._durable(layers.tree_queue, layers.tree_queue.last_sequence)
        sealed.layers = {number: table for number, table in sealed.layers.items() if number in living}
        return sealed, living

    async def _write(self, sealed: Memtable) -> FlushedEntries:
        """Upload everything of a sealed, acknowledged and completed memtable."""
        planned = partial(
            plan_objects,
            sealed,
            full_sectors_min=self._options.full_sectors_min,
            object_bytes=self._ssts.pace.object_bytes,
        )
        groups, ranges, total = await self._ssts.encode(planned)
        written = []
        done = 0
        for position, (group, size) in enumerate(groups):
            spans = ranges if position == 0 else []
            builder = self._ssts.builder()
            frames: list[Decoded | None] = []

            def build(
                builder: SstBuilder = builder,
                group: list[FlushPlan] = group,
                spans: list[RangeZero] = spans,
                frames: list[Decoded | None] = frames,
            ) -> tuple[SstRef, bytearray]:
                builder.ranges += spans
                for planned in group:
                    add(builder, planned, frames)
                return builder.finish()

            sst, content = await self._ssts.encode(build)
            done += size
            self._writes.flushing(done / max(total, 1))
            await self._ssts.upload(sst, content, size)
            written.append(Written(sst, builder.entries, frames))
        return await self._ssts.encode(partial(FlushedEntries, sealed, ranges, written))

    async def _let_go(self, sealed: Memtable, replay: int, older: SstRef | None) -> None:
        """Give back the memory, and what no recovery will read again: of the log, and the `older` tree of names, in
        whose place the manifest names another. A crash in here leaves those to the sweep of the next writer.
        """
        if older is not None:
            self._garbage.add([sst_name(older.id)])
        for _ in sealed.free_steps():
            await asyncio.sleep(0)
        numbers = self._log.truncate(replay)
        self._garbage.add(wal_name(number) for number in numbers)
        self._garbage.add(self._manifests.take_old())
        self.waits_for = "the state folder of this host"
        await self._on_truncated()
