"""The running engine: its start (take-over, then the log, then the journal, then the first client), its durability, its
memtable flushes, its watch for a newer writer, and its end.

It owns all mutable state on the event loop; threads read what nobody writes any more (buffers once linked, a sealed
memtable once complete) and give back bytes. Any unexpected exception in one of its tasks poisons it: nothing is
acknowledged any more, and `failed` says why. A failed step is never retried into a success.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from functools import partial
from typing import Any

from storage.cache.frame_cache import FrameCache
from storage.crypto.data_key import DataKey
from storage.env import Env
from storage.errors import AccessDenied, BrokenInvariant, Closed, Fenced, StorageError
from storage.journal.files import JournalFiles
from storage.lsm.background import Background
from storage.lsm.gc.sweep import Sweeper
from storage.lsm.index.image import check_listed
from storage.lsm.index.sst_numbers import SstNumbers
from storage.lsm.options import EngineOptions
from storage.lsm.recovery.anchor import HostState
from storage.lsm.recovery.journal_replay import FoundJournal, OpeningReport, go_on, in_turns, restore
from storage.lsm.recovery.journal_replay import read as read_journal
from storage.lsm.recovery.log_replay import replay_log
from storage.lsm.recovery.take_over import OnTaken, Opened, Opener
from storage.lsm.recovery.turn import Force
from storage.lsm.recovery.view import Frames
from storage.lsm.sst.suspects import Suspect
from storage.lsm.tree_state import TreeChange, TreeState, TrunkChange, TrunkPlan
from storage.lsm.wal.queue import LayerQueue
from storage.lsm.wiring import Context, new_sweeper, numbers, put_together
from storage.objects.base import ObjectStore
from storage.stats import EngineNumbers

_log = logging.getLogger("nbdserver")


@dataclass(frozen=True, slots=True)
class EngineReport:
    """What an engine says of itself at one moment, for people."""

    numbers: EngineNumbers
    """What it counts."""
    suspects: list[Suspect]
    """The objects that the store withholds, while it gives others."""
    lost: list[str]
    """What the manifest names and the store does not have, as the last sweep saw it: a sentence for each."""
    flushing: str | None
    """What the memtable flush under way waits for; None if there is none."""
    maintenance_job: str | None
    """The job that maintenance is busy with; None if there is none."""


class Engine:
    """A store opened by this process, as its writer or (`read_only`) to read it."""

    def __init__(self, context: Context, keys_number: int) -> None:
        opened = context.opened
        self.key = context.key
        self.keys_number = keys_number
        self.epoch = opened.epoch
        self.host, self.read_only = context.host, context.read_only
        self.manifests = opened.manifests
        self.log_end = opened.replay.end
        """Where the log ended that was found: with the manifest, what a reader's view is of."""
        self.collected = False
        """Whether a reader met something that the store's writer has put elsewhere since."""
        self.failed: asyncio.Future[StorageError] = asyncio.get_running_loop().create_future()
        self.closing = False
        self._single = context.single
        self._env = context.env
        self.options = context.options
        self.background = Background()
        """What goes on until the engine ends."""
        self._flushes = Background()
        """Memtable flushes and commits under way: each goes on to its end, whoever asked for it."""
        parts = self._parts = put_together(context, self)
        self.cache, self.writes = context.cache, parts.writes
        self.journal = parts.journal
        self.opening = OpeningReport(0, None)
        self.source = parts.source
        self.log, self.commit = parts.log, parts.commit
        self.layers, self.forest = parts.layers.by_number, parts.layers.forest
        self.garbage, self.copies = parts.garbage, parts.copies
        self._ownership = parts.ownership
        self._layers = parts.layers
        self._flush = parts.flush
        self.flush_trigger, self.compactor = parts.flush_trigger, parts.compactor
        self._new_sweeper = partial(new_sweeper, context, parts)
        self.sweeper: Sweeper
        self.meter = parts.meter

    @classmethod
    async def open(
        cls,
        *,
        store: ObjectStore,
        key: DataKey,
        keys_number: int,
        tree: TreeState,
        env: Env,
        options: EngineOptions,
        host: HostState | None = None,
        take_over: Force = False,
        accept_rollback: bool = False,
        adopt: bool = False,
        read_only: bool = False,
        opening_store: ObjectStore | None = None,
        prepare: Callable[[], Awaitable[None]] | None = None,
        single_store: ObjectStore | None = None,
        journal: JournalFiles | None = None,
        frames: Frames | None = None,
        taken: OnTaken | None = None,
    ) -> Engine:
        """Open a store whose keys are known: by `opening_store`, which has a deadline, and `single_store`, which tries
        once. `prepare` is awaited when all was read, before anything is written. `journal`: where this host's journals
        lie. `frames`: another view's, or with one read ahead. `taken` is told that the store is this writer's."""
        frames = frames or Frames(SstNumbers(), FrameCache(options.cache_bytes))
        sst_numbers, cache = frames.sst_numbers, frames.cache
        opener = Opener(opening_store or store, key, keys_number, env, host, frames, options, journal, taken)
        opened: Opened | None = None
        try:
            if read_only:
                opened = await opener.open_reader(tree)
            else:
                terms = {"accept_rollback": accept_rollback, "adopt": adopt}
                opened = await opener.open_writer(tree, take_over=take_over, prepare=prepare, **terms)
            opened.manifests.use(store)
            single = single_store or store
            context = Context(opened, store, single, key, tree, env, options, host, sst_numbers, cache, read_only)
            engine = cls(context, max(keys_number, opened.manifests.manifest.keys))
            await engine._replay(opened, sst_numbers)
            if not read_only:
                await engine._begin(opened)
        except BaseException:
            if journal is not None:
                journal.leave()
            if opened is not None and opened.lock is not None:
                opened.lock.release()
            raise
        return engine

    @classmethod
    async def on_damaged(cls, context: Context, keys_number: int) -> Engine:
        """Read what is left of a store whose data is damaged; what is not there is an error for who reads it."""
        engine = cls(context, keys_number)
        await engine._replay(context.opened, context.sst_numbers, insist=False)
        return engine

    async def _replay(self, opened: Opened, sst_numbers: SstNumbers, *, insist: bool = True) -> None:
        """Put the log on top of the index (see `log_replay`); `insist` that this refers to nothing that is gone."""
        store_id, layers, writes = self.key.store_id, self._layers, self.writes
        await replay_log(opened, layers, writes, store_id=store_id, sst_numbers=sst_numbers, env=self._env)
        self.sweeper = self._new_sweeper()  # now: a flush may seal this memtable before the sweep begins
        gone = sst_numbers.numbers(self.manifests.gone().ids).tolist()
        for part in self._layers.forest.maps().values() if gone and insist else ():
            check_listed(part, gone)

    async def _begin(self, opened: Opened) -> None:
        """Become a writer that serves, once the log is replayed: with what the journal of the last one of this host
        holds beyond it, which is in the log when this returns.
        """
        found = FoundJournal(None)
        if opened.journal is not None and opened.lock is not None:
            host = opened.journal, opened.lock
            found = await read_journal(*host, self._layers, self.manifests, self.key, self._env)
        await self._ownership.begin()
        self.opening = OpeningReport(len(found.beyond), found.problem)
        try:
            *ahead, last = in_turns(found.beyond, self._layers)
            for beyond in ahead:
                restore(beyond, self._layers)
                await self.flush()
            restore(last, self._layers)
            go_on(found, self._layers, self.journal)
            self._start()
            if found.beyond:
                await self.flush()
        except BaseException as error:
            self.fail(error if isinstance(error, Exception) else Closed("the opening of this store was given up"))
            raise

    def _start(self) -> None:
        self.garbage.add(self.manifests.take_old())
        start = partial(self.background.start, on_failure=self.fail)
        start("memtable flushes", partial(self.flush_trigger.run, self.flush_memtable))
        start("watch for a newer writer", partial(self.manifests.watch, self.options.watch_seconds))
        start("copies of manifests", self.copies.run)
        start("deletion of garbage", self.garbage.collect)
        start("maintenance", self.compactor.run)
        start("watch of the space", self.compactor.watch)
        start("sweep of leftovers", partial(self.sweeper.run, self.options.sweep_seconds))
        self.flush_trigger.log_moved(self.log.position, self.writes.memtable)

    async def look_for_newer(self) -> None:
        """Something is missing that should be there. Fenced: a newer writer has taken it away, which is the end of this
        one, and not an error of whoever looked. Closed, for a reader: its writer has put it elsewhere.
        """
        try:
            await self.manifests.look_for_newer()
        except Fenced as error:
            if self.read_only:
                self.collected = True
                raise Closed(
                    f"{self._single.url} is read as it was, and a part of that was deleted by its writer"
                ) from None
            self.fail(error)
            raise

    def change_tree(self, record: bytes) -> TreeChange:
        """Apply one record to the tree, now; it is durable when what this returns was awaited."""
        self.check_alive()
        self.check_writer()
        try:
            sequence = self._layers.change_tree(record)
        except StorageError:
            raise  # the record does not fit, and nothing has changed
        except BaseException as error:
            # The tree in memory may know what the log does not: a later record would rest on it.
            self.fail(error)
            raise
        return TreeChange(partial(self.durable, self._layers.tree_queue, sequence))

    async def change_trunks(self, plan: TrunkPlan, applied: Callable[[], None] | None = None) -> None:
        """Do something to trunks: durable when this returns, and in the indexes with the flush that follows."""
        self.check_alive()
        self.check_writer()
        change = TrunkChange(plan, self._layers.change_trunks, applied)

        async def make() -> None:
            await self._flush.change_trunks(change, self.keys_number)
            if change.is_made:
                self.flush_trigger.pull()

        await self.to_its_end("change of trunks", make)
        for queue, sequence in change.logged():
            await self.durable(queue, sequence)

    def keys_are(self, number: int) -> None:
        """The keys object in force has another number, which the next manifest says. Of two any may be said first."""
        self.keys_number = max(self.keys_number, number)

    # --- durability

    async def durable(self, queue: LayerQueue, sequence: int) -> None:
        """Return when everything of this queue up to `sequence` is acknowledged; Closed if the engine fails before."""
        if queue.want_durable(sequence):
            return
        done = asyncio.get_running_loop().create_future()

        def acknowledged(upto: int) -> None:
            if upto >= sequence and not done.done():
                done.set_result(None)

        queue.listen(acknowledged)
        try:
            await asyncio.wait({done, self.failed}, return_when=asyncio.FIRST_COMPLETED)
        finally:
            queue.unlisten(acknowledged)
        self.check_alive()

    async def flush(self) -> None:
        """Return when everything written so far, to any layer, is acknowledged."""
        for queue in self._layers.queues():
            if not queue.is_durable:
                await self.durable(queue, queue.last_sequence)

    def check_alive(self) -> None:
        """Raise what ended this engine, if anything did."""
        if self.failed.done():
            raise self.failed.result().with_traceback(None)  # it is raised again and again, and would grow

    def identity(self, disk: Callable[[], str]) -> str:
        """What a disk is known by: to a reader also by the moment that it shows it at."""
        name = disk()
        return f"{name}.{self.manifests.number}.{self.log_end}" if name and self.read_only else name

    def check_writer(self) -> None:
        """Raise AccessDenied if this engine may not change its store."""
        if self.read_only:
            raise AccessDenied("this store was opened to be read only: open it as its writer to change it")

    def fail(self, error: BaseException) -> None:
        """Poison the engine: nothing more is acknowledged, all its tasks end."""
        if self.failed.done():
            return
        if not isinstance(error, StorageError):
            _log.error("engine_failed", exc_info=error)
            what = f"{type(error).__name__}: {error}" if isinstance(error, BrokenInvariant) else type(error).__name__
            error = Closed(f"an internal error stopped this store ({what}): nothing more is acknowledged")
        self.failed.set_result(error)
        self.commit.stop()
        self.source.stop(error)
        self.background.cancel()
        self._flushes.cancel()

    async def close(self) -> None:
        """Flush everything and mark the store as closed, so that the next server needs no replay and asks nobody."""
        self.closing = True
        try:
            if not self.read_only and not self.failed.done():
                await self.background.stop()
                await self.flush_memtable(closing=True)
                self.compactor.finish()
                await self.copies.finish()
                await self.garbage.finish()
                self.fail(Closed("the store was closed"))
                self.journal.close(clean=not self.writes.unlogged_bytes)
                await self._ownership.leave()
        finally:
            self.journal.close(clean=False)
            self._ownership.end()

    # --- memtable flush

    async def flush_memtable(self, *, closing: bool = False, always: bool = False) -> None:
        """Move everything written so far into SSTs and truncate the log (see `flush`), to the end, whoever gives up."""
        self.check_writer()
        flush = partial(self._flush.run, keys_number=self.keys_number, closing=closing, always=always)
        await self.to_its_end("memtable flush", flush)

    async def to_its_end(self, name: str, work: Callable[[], Awaitable[None]]) -> None:
        """Do what must not be left half done: it goes on if who asked goes away; its failure is the engine's."""
        self.check_alive()
        task = self._flushes.start(name, work, on_failure=self.fail)
        waited: set[asyncio.Future[Any]] = {task, self.failed}
        await asyncio.wait(waited, return_when=asyncio.FIRST_COMPLETED)
        self.check_alive()

    @property
    def store_id(self) -> bytes:
        """What the store is known by: for its whole life, unless it is a copy that was adopted."""
        return self.manifests.manifest.identity or self.key.store_id

    def report(self) -> EngineReport:
        """What it says of itself, as it is now."""
        return EngineReport(
            numbers=numbers(self._parts, self.manifests, self._env),
            suspects=self.source.suspects.all(),
            lost=self.sweeper.lost,
            flushing=self._flush.waits_for,
            maintenance_job=self.compactor.progress.job,
        )
