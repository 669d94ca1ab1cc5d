"""This file knows the running engine: layers, memtable flushes, the watch for a newer writer, and the end.

It owns all mutable state on the event loop; threads get immutable bytes and give back bytes. Any unexpected exception
in one of its tasks poisons it: nothing is acknowledged any more, and `failed` says why. A failed step is never
retried into a success.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable
from typing import Any

import msgspec
from ulid import ULID

from storage.cache.frames import FrameCache
from storage.codec import FrameCodec
from storage.crypto import PREFIX_BYTES
from storage.env import Env, object_id
from storage.errors import AccessDenied, Closed, StorageError, Unavailable
from storage.keys import DataKey
from storage.lsm.anchor import Anchor, HostState
from storage.lsm.bulk import BulkWriter
from storage.lsm.commit import GroupCommit, LoggedObject, LogPosition
from storage.lsm.entries import FrameRef, TableRef
from storage.lsm.envelope import NO_LINK, Header, ObjectKind, seal_object
from storage.lsm.fetch import FrameSource, Slots
from storage.lsm.flush import Flusher, complete_sectors
from storage.lsm.index import BlockMap
from storage.lsm.layer import Layer
from storage.lsm.log import TREE, LayerLog
from storage.lsm.manifest import checkpoint
from storage.lsm.memtable import OPERATION_OVERHEAD, Memtable
from storage.lsm.names import wal_name
from storage.lsm.opening import Opened, Opener
from storage.lsm.presence import Presence
from storage.lsm.pressure import LOG_BYTES_MAX, Pressure
from storage.lsm.records import Located, Meta
from storage.lsm.recovery import RESUME, highest_sequence, sequence_of
from storage.lsm.sweep import sweep_log, sweep_tables
from storage.lsm.tables import TableWriter
from storage.lsm.tree import TreeEffects, TreeState
from storage.lsm.writes import Writes
from storage.objects.base import ObjectStore

_log = logging.getLogger(__name__)

MIB = 1024 * 1024

LOG_OBJECTS_MAX = 1000
"""WAL objects that start a memtable flush: a replay of that many takes about a second."""

FLUSH_SECONDS = 60.0
"""A memtable is flushed when its oldest operation is this old, so an idle store needs no replay."""

WATCH_SECONDS = 10.0
"""How often a writer asks for the next manifest number: for so long a superseded one may serve its older view."""


class EngineOptions(msgspec.Struct, frozen=True):
    """Sizes in bytes."""

    cache_bytes: int = 1024 * MIB
    flush_bytes: int = 64 * MIB
    unlogged_bytes_max: int = 256 * MIB
    memtable_bytes_max: int = 256 * MIB


class Engine:
    """A store opened by this process, as its writer or (`read_only`) to read it."""

    def __init__(
        self,
        *,
        opened: Opened,
        store: ObjectStore,
        key: DataKey,
        keys_number: int,
        tree: TreeState,
        env: Env,
        options: EngineOptions,
        host: HostState | None,
        slots: Slots,
        read_only: bool,
    ) -> None:
        self.key = key
        self.keys_number = keys_number
        self.epoch = opened.epoch
        self.read_only = read_only
        self.manifests = opened.manifests
        self.cache = FrameCache(options.cache_bytes)
        self.failed: asyncio.Future[StorageError] = asyncio.get_running_loop().create_future()
        self._store = store
        self._tree = tree
        self._env = env
        self._options = options
        self._presence = Presence(host, opened.lock, env)
        self._slots = slots
        self._tree_cipher = opened.ciphers.tree
        codec = FrameCodec(opened.ciphers.frames, key.store_id)
        self._source = FrameSource(
            store=store,
            codec=codec,
            cache=self.cache,
            slots=slots,
            env=env,
            on_missing=lambda _: self.manifests.look_for_newer(),
        )
        pressure = Pressure(unlogged_max=options.unlogged_bytes_max, memtable_max=options.memtable_bytes_max)
        self.tables = TableWriter(
            store=store,
            env=env,
            frames=codec,
            frame_cipher=opened.ciphers.frames,
            index_cipher=opened.ciphers.index,
            store_id=key.store_id,
            epoch=opened.epoch,
            look_for_newer=self.manifests.look_for_newer,
            on_rate=pressure.set_rate,
        )
        sequence = max(self.manifests.manifest.sequence, highest_sequence(opened.records))
        self.writes = Writes(sequence=sequence, pressure=pressure)
        fence = opened.replay.end
        position = LogPosition(
            next_number=fence + RESUME,
            tail_tag=NO_LINK,
            acknowledged=max(fence if not read_only else 0, self.manifests.manifest.acknowledged),
            fences=sorted({*self.manifests.manifest.fences, *opened.replay.fences}),
        )
        for item in opened.replay.objects:
            position.add(LoggedObject(item.number, item.size, item.tag))
        self.commit = GroupCommit(
            store=store,
            cipher=opened.ciphers.wal,
            store_id=key.store_id,
            epoch=opened.epoch,
            env=env,
            writes=self.writes,
            position=position,
            bulk=BulkWriter(self.tables, self._location),
            cache=self.cache,
            look_for_newer=self.manifests.look_for_newer,
            on_acknowledged=self._presence.note,
            on_failure=self.fail,
            on_progress=self._on_progress,
        )
        self._flusher = Flusher(self.tables, self.cache, self._location)
        self._flushing = asyncio.Lock()
        self._flush_wanted = asyncio.Event()
        self._tree_changed = self.manifests.manifest.tree is None
        self._tree_log = LayerLog(TREE, self.commit, sequence=sequence)
        self._tasks: list[asyncio.Task[None]] = []
        self._flushes: set[asyncio.Task[None]] = set()
        self._leaving: list[LayerLog] = []
        """Queues of layers dropped since the last memtable was sealed: what they hold is still on its way."""
        self.layers: dict[int, Layer] = {}
        for number in tree.layers():
            self._add_layer(number, opened.maps.get(number))
        self._replay(opened)

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
        take_over: bool = False,
        accept_rollback: bool = False,
        read_only: bool = False,
        opening_store: ObjectStore | None = None,
    ) -> Engine:
        """Open a store whose keys are known. `opening_store` is the same store with a deadline, for opening only."""
        slots = Slots()
        opener = Opener(opening_store or store, key, keys_number, env, host, slots)
        if read_only:
            opened = await opener.open_reader(tree)
        else:
            opened = await opener.open_writer(tree, take_over=take_over, accept_rollback=accept_rollback)
        opened.manifests.use(store)
        engine = cls(
            opened=opened,
            store=store,
            key=key,
            keys_number=keys_number,
            tree=tree,
            env=env,
            options=options,
            host=host,
            slots=slots,
            read_only=read_only,
        )
        if not read_only:
            await engine._presence.begin(engine._anchor())
            engine._start()
        return engine

    # --- building

    def _location(self, table_id: str, offset: int) -> int:
        return self._slots.slot(table_id) << 32 | offset

    def _add_layer(self, number: int, index: BlockMap | None = None) -> None:
        log = LayerLog(number, self.commit, sequence=self.writes.sequence)
        self.layers[number] = Layer(
            number,
            writes=self.writes,
            log=log,
            index=index or BlockMap(),
            source=self._source,
            cache=self.cache,
        )

    def _replay(self, opened: Opened) -> None:
        """Put what the log says on top of the index, in order of sequence: the log keeps it for each queue only.

        What the manifest's SSTs hold already is passed over: the first object at the replay point may hold the last
        operations of the flushed memtable beside the first ones of the next, and a tree change fits only once.
        Operations of layers that were dropped later find no layer.
        """

        def reference(located: Located) -> FrameRef:
            entry = located.entry
            return FrameRef(
                self._location(located.table, entry.offset), entry.length, entry.tag, entry.block, full=True
            )

        done = self.manifests.manifest.sequence
        for number, record in sorted(opened.records, key=lambda item: sequence_of(item[1])):
            if isinstance(record, TableRef):
                self.writes.memtable.tables.append(record)
            elif sequence_of(record) <= done:
                continue
            elif isinstance(record, Meta):
                self._take_effect(self._tree.apply(record.record), record.sequence)
                self._tree_changed = True
            elif number in self.layers:
                self.layers[number].replay(record, reference)
        for layer in self.layers.values():
            layer.log.replayed()
        self.writes.pressure.memtable = self.writes.memtable.bytes
        self.writes.pressure.update()

    def _start(self) -> None:
        # Taken now: a flush may seal this memtable before the sweep begins.
        manifest = self.manifests.manifest
        named = {table.id for table in manifest.tables + self.writes.memtable.tables}
        if manifest.tree is not None:
            named.add(manifest.tree.id)
        self._tasks = [
            self._spawn(self._flush_forever),
            self._spawn(self._watch),
            self._spawn(lambda: self._sweep(named)),
        ]
        self._on_progress()

    def _spawn(self, work: Callable[[], Awaitable[None]]) -> asyncio.Task[None]:
        async def guarded() -> None:
            try:
                await work()
            except asyncio.CancelledError:
                raise
            except BaseException as error:
                self.fail(error)

        return asyncio.get_running_loop().create_task(guarded())

    # --- the tree of names

    async def change_tree(self, record: bytes) -> None:
        """Apply one record to the tree; durable on return."""
        self.check_alive()
        self.check_writer()
        self.writes.sequence += 1
        sequence = self.writes.sequence
        self._take_effect(self._tree.apply(record), sequence)
        self._tree_changed = True
        self._tree_log.append(Meta(sequence, record), len(record) + OPERATION_OVERHEAD)
        await self.durable(self._tree_log, sequence)

    def _take_effect(self, effects: TreeEffects, sequence: int) -> None:
        for number in self._tree.layers():
            if number not in self.layers:
                self._add_layer(number)
        for number, offset, length in effects.zeroed:
            self.layers[number].zero_for_tree(offset, length, sequence)
        for number in effects.dropped:
            layer = self.layers.pop(number, None)
            if layer is not None:
                self._leaving.append(layer.log)
                table = self.writes.memtable.layers.pop(number, None)
                if table is not None:
                    self.writes.release(sum(entry.charged for entry in table.blocks.values()))

    # --- durability

    async def durable(self, log: LayerLog, sequence: int) -> None:
        """Return when everything of this queue up to `sequence` is acknowledged; Closed if the engine fails before."""
        done = asyncio.get_running_loop().create_future()

        def finish() -> None:
            if not done.done():
                done.set_result(None)

        if log.when_durable(sequence, finish):
            return
        await asyncio.wait({done, self.failed}, return_when=asyncio.FIRST_COMPLETED)
        self.check_alive()

    async def flush(self) -> None:
        """Return when everything written so far, to any layer, is acknowledged."""
        for log in [layer.log for layer in self.layers.values()] + [self._tree_log]:
            await self.durable(log, log.last_sequence)

    def check_alive(self) -> None:
        """Raise what ended this engine, if anything did."""
        if self.failed.done():
            raise self.failed.result()

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
            error = Closed(
                f"an internal error stopped this store ({type(error).__name__}): nothing more is acknowledged"
            )
        self.failed.set_result(error)
        self.commit.stop()
        current = asyncio.current_task()
        for task in (*self._tasks, *self._flushes):
            if task is not current:
                task.cancel()

    async def close(self) -> None:
        """Flush everything and mark the store as closed, so that the next server needs no replay and asks nobody."""
        try:
            if not self.read_only and not self.failed.done():
                for task in self._tasks:
                    task.cancel()
                await asyncio.gather(*self._tasks, return_exceptions=True)
                await self.flush_memtable(closing=True)
                self.fail(Closed("the store was closed"))
                await self._presence.leave()
        finally:
            self._presence.end()

    # --- memtable flush

    def _on_progress(self) -> None:
        """The log moved: is it time to flush the memtable?"""
        position = self.commit.position
        long = len(position.objects) >= LOG_OBJECTS_MAX or position.logged_bytes >= LOG_BYTES_MAX // 4
        if long or self.writes.memtable.bytes >= self._options.flush_bytes:
            self._flush_wanted.set()

    async def _flush_forever(self) -> None:
        while True:
            try:
                async with asyncio.timeout(FLUSH_SECONDS):
                    await self._flush_wanted.wait()
            except TimeoutError:
                pass
            self._flush_wanted.clear()
            await self.flush_memtable()

    async def flush_memtable(self, *, closing: bool = False, always: bool = False) -> None:
        """Move everything written so far into SSTs and truncate the log; the steps are explained in `flush`.

        It goes on to its end if who asked for it goes away, and poisons the engine if it fails: after half a flush,
        the next one would move the replay point past what this one did not write.
        """
        self.check_writer()
        task = self._spawn(lambda: self._flush_once(closing=closing, always=always))
        self._flushes.add(task)
        task.add_done_callback(self._flushes.discard)
        waited: set[asyncio.Future[Any]] = {task, self.failed}
        await asyncio.wait(waited, return_when=asyncio.FIRST_COMPLETED)
        self.check_alive()

    async def _flush_once(self, *, closing: bool, always: bool) -> None:
        async with self._flushing:
            if not (self.writes.memtable or self._tree_changed or closing or always):
                return
            sealed, logs = self._seal_memtable()
            for log, sequence in logs:
                await self.durable(log, sequence)
            indexes = {number: layer.index for number, layer in self.layers.items()}
            if sealed.layers.keys() - indexes.keys():
                # A layer was dropped since: that must be durable before its operations leave the log without a trace.
                await self.durable(self._tree_log, self._tree_log.last_sequence)
            sealed.layers = {number: table for number, table in sealed.layers.items() if number in indexes}
            await complete_sectors(sealed, indexes, self._source)
            result = await self._flusher.write(sealed)
            tree = None if sealed.tree is None else await self._write_tree(sealed.tree)
            position = self.commit.position
            replay = sealed.first_beyond or position.next_number
            await self.manifests.commit(
                checkpoint(
                    self.manifests.manifest,
                    closed=closing,
                    replay=replay,
                    replay_tag=position.tag_below(replay),
                    acknowledged=position.acknowledged,
                    sequence=sealed.sequence,
                    tables=sealed.tables + result.tables,
                    tree=tree,
                    fences=position.fences,
                    keys=self.keys_number,
                )
            )
            for _ in self._flusher.repoint(result, sealed, indexes):
                await asyncio.sleep(0)
            self._drop_sealed(sealed)
            await self._truncate(replay)

    def _seal_memtable(self) -> tuple[Memtable, list[tuple[LayerLog, int]]]:
        """Put a new memtable in place. A cut never spans two, so everything queued is cut first."""
        self.commit.cut_all()
        writes = self.writes
        sealed = writes.memtable
        sealed.sequence = writes.sequence
        if self._tree_changed:
            sealed.tree = self._tree.encode()
            self._tree_changed = False
        writes.sealed = sealed
        writes.memtable = Memtable()
        for layer in self.layers.values():
            layer.rotate()
        leaving, self._leaving = self._leaving, []
        logs = [layer.log for layer in self.layers.values()] + [self._tree_log, *leaving]
        return sealed, [(log, log.last_sequence) for log in logs]

    def _drop_sealed(self, sealed: Memtable) -> None:
        for layer in self.layers.values():
            layer.drop_sealed()
        self.writes.sealed = None
        self.writes.pressure.memtable -= sealed.bytes
        self.writes.pressure.update()

    async def _write_tree(self, image: bytes) -> TableRef:
        table_id = object_id(self._env, self.epoch)
        header = Header(
            kind=ObjectKind.METADATA,
            epoch=self.epoch,
            store_id=self.key.store_id,
            nonce=self._env.random_bytes(PREFIX_BYTES),
            link=ULID.from_str(table_id).bytes,
        )
        content, tag = seal_object(self._tree_cipher, header, image)
        await self.tables.create(table_id, content)
        return TableRef(table_id, len(content), 0, tag, 0)

    async def _truncate(self, replay: int) -> None:
        """Delete what no recovery will read again. A crash in here leaves objects that the next writer sweeps."""
        position = self.commit.position
        numbers = position.truncate(replay)
        self.writes.pressure.set_log(len(position.objects), position.logged_bytes)
        await self._store.delete([wal_name(number) for number in numbers])
        await self.manifests.delete_old()
        await self._presence.remember(self._anchor())

    def _anchor(self) -> Anchor:
        """What this host is to remember of the store now."""
        manifests = self.manifests
        return Anchor(
            store_id=self.key.store_id,
            manifest_number=manifests.number,
            manifest_tag=manifests.tag,
            epoch=self.epoch,
            wal_number=self.commit.position.acknowledged,
            probed=True,
        )

    # --- other writers

    async def _watch(self) -> None:
        while True:
            await asyncio.sleep(WATCH_SECONDS)
            try:
                await self.manifests.probe_newer()
            except Unavailable:
                continue

    async def _sweep(self, named: set[str]) -> None:
        """Delete what earlier writers left. A crash in here leaves it to the next writer."""
        await sweep_tables(self._store, epoch=self.epoch, named=named)
        await sweep_log(
            self._store, replay=self.manifests.manifest.replay, fences=frozenset(self.commit.position.fences)
        )
        await self.manifests.delete_old()
