"""Wiring: how an engine is put together, and the numbers of its parts. Nothing happens here; one sees who knows whom:

layers ── queues ──> commit ──> log            writes    sequence, memtables, pressure: shared by all that write
  │                    └─ bulk ──> ssts         source    frames from the store, through the cache
  ├── flush ──> ssts, manifests, index ──> garbage
  └── compactor ──> the same, and checkpoints
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from functools import partial
from typing import Protocol

from storage.bucket.pace import Pace
from storage.cache.frame_cache import FrameCache
from storage.crypto.data_key import DataKey
from storage.env import Env
from storage.format.frame import FrameCodec
from storage.format.names import manifest_name
from storage.journal.journal import Journal
from storage.lsm.compaction.compactor import Compactor
from storage.lsm.compaction.job_context import JobContext
from storage.lsm.compaction.usage import Meter
from storage.lsm.flush.flush import MemtableFlush
from storage.lsm.flush.trigger import FlushTrigger
from storage.lsm.gc.garbage import Garbage
from storage.lsm.gc.sweep import Sweeper
from storage.lsm.index.install import Installer
from storage.lsm.index.sst_numbers import SstNumbers
from storage.lsm.layers import Layers
from storage.lsm.manifest.manifest_store import Manifests
from storage.lsm.manifest.spare_copies import SpareCopies
from storage.lsm.memtable.backpressure import Pressure
from storage.lsm.memtable.gate import Gate
from storage.lsm.memtable.write_state import WriteState
from storage.lsm.options import EngineOptions
from storage.lsm.recovery.anchor import HostState
from storage.lsm.recovery.completeness import named_by, of_older_keys
from storage.lsm.recovery.log_replay import log_position
from storage.lsm.recovery.ownership import Ownership
from storage.lsm.recovery.take_over import Opened
from storage.lsm.sst.bulk import BulkWriter
from storage.lsm.sst.fetch import FrameSource
from storage.lsm.sst.upload import SstWriter
from storage.lsm.tree_state import TreeState
from storage.lsm.wal.group_commit import GroupCommit
from storage.lsm.wal.log_writer import LogSealer, LogWriter
from storage.lsm.wal.pacing import Pacing
from storage.lsm.wal.position import LogPosition
from storage.lsm.wal.queue import LayerQueue
from storage.objects.base import ObjectStore
from storage.stats import EngineNumbers


class Supervisor(Protocol):
    """What the parts of an engine tell it, and ask of it."""

    def fail(self, error: BaseException) -> None:
        """A part has failed: the engine is poisoned, and nothing is acknowledged any more."""

    async def look_for_newer(self) -> None:
        """An object is missing that the manifest or the log names. Fenced: a newer writer has deleted it."""

    async def durable(self, queue: LayerQueue, sequence: int) -> None:
        """Return when everything of this queue up to `sequence` is acknowledged."""

    async def to_its_end(self, name: str, work: Callable[[], Awaitable[None]]) -> None:
        """Do `work`, all of it, even if who asked for it gives up."""

    async def flush_memtable(self, *, always: bool) -> None:
        """Flush, and commit a manifest even (`always`) if there is nothing to flush."""


@dataclass(frozen=True, slots=True)
class Context:
    """What is given to an engine, and what was found when its store was opened."""

    opened: Opened
    store: ObjectStore
    single: ObjectStore
    """The same store, which tries each request once."""
    key: DataKey
    tree: TreeState
    env: Env
    options: EngineOptions
    host: HostState | None
    sst_numbers: SstNumbers
    cache: FrameCache
    read_only: bool


@dataclass(frozen=True, slots=True)
class Parts:
    """The parts that an engine speaks to itself."""

    ownership: Ownership
    writes: WriteState
    journal: Journal
    source: FrameSource
    log: LogWriter
    commit: GroupCommit
    layers: Layers
    garbage: Garbage
    copies: SpareCopies
    flush: MemtableFlush
    flush_trigger: FlushTrigger
    compactor: Compactor
    meter: Meter


def put_together(context: Context, engine: Supervisor) -> Parts:
    """The parts of one engine, each knowing those before it."""
    opened, manifests = context.opened, context.opened.manifests
    codec = FrameCodec(opened.ciphers.frames, context.key.store_id)
    writes, pace, journal = _writes(context)
    source = _source(context, codec, engine)
    position = log_position(opened, read_only=context.read_only)
    ownership = _ownership(context, position)
    ssts = _ssts(context, codec, position, pace)
    pacing, trigger = Pacing(pace, context.options), FlushTrigger(context.options)
    log = _log(context, trigger, position, ownership, writes, pace, pacing, journal)
    commit = GroupCommit(
        log=log,
        bulk=BulkWriter(ssts, context.sst_numbers.location),
        journal=journal,
        writes=writes,
        pace=pace,
        pacing=pacing,
        env=context.env,
        on_failure=engine.fail,
    )
    layers = _layers(context, writes, commit, source)
    garbage = Garbage(context.single, context.env, names_max=context.options.garbage_names_max)
    renew = partial(engine.flush_memtable, always=True)
    copies = SpareCopies(context.single, manifests, context.env, keep=garbage.held, discard=garbage.add, renew=renew)
    flush = MemtableFlush(
        layers=layers,
        writes=writes,
        log=log,
        manifests=manifests,
        ssts=ssts,
        source=source,
        installer=Installer(context.cache, context.sst_numbers.location, context.options.index.entries_in_step),
        garbage=garbage,
        durable=engine.durable,
        on_truncated=ownership.remember,
        on_listed=lambda size: compactor.grown(size),
        installing=(installing := asyncio.Lock()),
        cut=manifests.manifest.sequence,
        options=context.options.flush,
    )
    compactor = _compactor(context, engine, layers, writes, ssts, source, codec, garbage, flush, installing)

    def state() -> tuple[object, ...]:
        return manifests.number, flush.cut, writes.sequence, compactor.progress.jobs_done

    meter = Meter(layers, manifests, context.env, context.key.key_id, state)
    begun = ownership, writes, journal, source, log, commit, layers, garbage, copies
    return Parts(*begun, flush, trigger, compactor, meter)


def new_sweeper(context: Context, parts: Parts) -> Sweeper:
    """What finds leftovers; a reader's, what the next writer would. Made before a memtable with the log is sealed."""
    manifests, position = context.opened.manifests, parts.log.position
    return Sweeper(
        store=context.single,
        garbage=parts.garbage,
        env=context.env,
        store_id=context.key.store_id,
        epoch=context.opened.epoch + context.read_only,
        takeover=manifests.number,
        fence=position.next_number if context.read_only else position.fences[-1],
        listed=lambda: named_by(manifests),
        named=named_by(manifests, parts.writes.memtable.ssts),
        below=lambda: (manifests.manifest.replay, position.fences),
        spare=lambda: (manifests.number, manifests.manifest.keys),
        leftover_seconds=context.options.leftover_seconds,
    )


def _compactor(
    context: Context,
    engine: Supervisor,
    layers: Layers,
    writes: WriteState,
    ssts: SstWriter,
    source: FrameSource,
    codec: FrameCodec,
    garbage: Garbage,
    flush: MemtableFlush,
    installing: asyncio.Lock,
) -> Compactor:
    jobs = JobContext(
        layers=layers,
        manifests=context.opened.manifests,
        ssts=ssts,
        store=context.single,
        source=source,
        cache=source.cache,
        codec=codec,
        sst_numbers=context.sst_numbers,
        garbage=garbage,
        env=context.env,
        installing=installing,
        cut=lambda: flush.cut,
        tree_durable=lambda: engine.durable(layers.tree_queue, layers.tree_queue.last_sequence),
        to_its_end=engine.to_its_end,
        options=context.options,
    )
    return Compactor(jobs, written=lambda: writes.sequence, on_debt=writes.maintenance_is_behind)


def _writes(context: Context) -> tuple[WriteState, Pace, Journal]:
    options, opened = context.options, context.opened
    most, monotonic = options.unlogged_bytes_max, context.env.monotonic
    loop = asyncio.get_running_loop()
    gate = Gate(loop.call_soon)
    pressure = Pressure(
        gate,
        unlogged_max=most,
        memtable_max=options.memtable_bytes_max,
        log_objects_max=options.log_objects_max,
        log_bytes_max=options.log_bytes_max,
    )
    writes = WriteState(sequence=max(opened.manifests.manifest.sequence, opened.replay.sequence), pressure=pressure)
    journal = Journal(
        writes.unkept, bytes_max=most, on_size=writes.journal_holds, monotonic=monotonic, later=loop.call_later
    )
    return writes, Pace(monotonic, pressure.set_rate, options.sizes), journal


def _ownership(context: Context, position: LogPosition) -> Ownership:
    opened = context.opened
    return Ownership(
        context.host,
        opened.lock,
        context.env,
        store_id=context.key.store_id,
        epoch=opened.epoch,
        manifests=opened.manifests,
        position=position,
    )


def _log(
    context: Context,
    trigger: FlushTrigger,
    position: LogPosition,
    ownership: Ownership,
    writes: WriteState,
    pace: Pace,
    pacing: Pacing,
    journal: Journal,
) -> LogWriter:
    opened, store_id, env, options = context.opened, context.key.store_id, context.env, context.options
    sealer = LogSealer(opened.ciphers.wal, options, store_id=store_id, epoch=opened.epoch, env=env, position=position)
    return LogWriter(
        store=context.store,
        sealer=sealer,
        position=position,
        pace=pace,
        pacing=pacing,
        writes=writes,
        cache=context.cache,
        journal=journal,
        env=env,
        look_for_newer=opened.manifests.look_for_newer,
        on_acknowledged=ownership.note,
        on_progress=lambda: trigger.log_moved(position, writes.memtable),
    )


def _source(context: Context, codec: FrameCodec, engine: Supervisor) -> FrameSource:
    manifests = context.opened.manifests
    return FrameSource(
        store=context.single,
        codec=codec,
        cache=context.cache,
        sst_numbers=context.sst_numbers,
        env=context.env,
        on_missing=lambda _: engine.look_for_newer(),
        witness=lambda: context.single.get(manifest_name(manifests.number), 0, 1),
        patience_seconds=context.options.patience_seconds,
        gap_bytes_max=context.options.reads.gap_bytes_max,
        older=of_older_keys(manifests, context.key.key_id, (logged.sst for logged in context.opened.replay.ssts)),
    )


def _ssts(context: Context, codec: FrameCodec, position: LogPosition, pace: Pace) -> SstWriter:
    opened = context.opened
    return SstWriter(
        store=context.store,
        env=context.env,
        frames=codec,
        frame_cipher=opened.ciphers.frames,
        index_cipher=opened.ciphers.index,
        tree_cipher=opened.ciphers.tree,
        checkpoint_cipher=opened.ciphers.checkpoint,
        store_id=context.key.store_id,
        epoch=opened.epoch,
        acknowledged=lambda: position.acknowledged,
        look_for_newer=opened.manifests.look_for_newer,
        pace=pace,
        part_bytes=context.options.part_bytes,
    )


def _layers(context: Context, writes: WriteState, commit: GroupCommit, source: FrameSource) -> Layers:
    return Layers(
        tree=context.tree,
        tree_stored=(tree := context.opened.manifests.manifest.tree) is not None and tree.key_id == context.key.key_id,
        flushed=context.opened.manifests.manifest.sequence,
        forest=context.opened.forest,
        writes=writes,
        commit=commit,
        source=source,
        cache=context.cache,
        options=context.options,
    )


def numbers(parts: Parts, manifests: Manifests, env: Env) -> EngineNumbers:
    """What the engine counts, taken in one step of the event loop."""
    position, oldest = parts.log.position, parts.commit.oldest()
    log, ssts, used = position.snapshot(), parts.meter.ssts(), parts.meter.usage
    return EngineNumbers(
        unlogged_bytes=parts.writes.unlogged_bytes,
        unlogged_seconds=0.0 if oldest is None else round(env.monotonic() - oldest, 3),
        journal_bytes=parts.journal.bytes,
        memtable_bytes=parts.writes.memtable_bytes,
        kept_bytes=parts.writes.memtable.kept_bytes,
        cached_bytes=parts.source.cache.bytes,
        wal_acknowledged=log.acknowledged,
        wal_objects=log.objects,
        manifest=manifests.number,
        wal_bytes=position.logged_bytes,
        ssts=ssts.count,
        stored_bytes=ssts.size,
        live_bytes=used.live,
        dead_bytes=used.dead,
        written_bytes=parts.layers.written_bytes,
        unmerged_ssts=len(manifests.manifest.ssts),
        older_key_bytes=ssts.older_key,
        maintenance_bytes=parts.compactor.progress.uploaded_bytes,
        patches=sum(len(part.patches) for part in parts.layers.forest.maps().values()),
    )
