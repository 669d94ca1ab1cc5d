"""Group commit: cuts of queues become numbered WAL objects, and these count in the order of their numbers.

What it guarantees: a layer's waiters are answered only when the WAL object that holds their operations exists and so
do all objects with lower numbers. At any moment the log holds, per layer, a prefix of its operations. A number is
bound for ever to one sealed byte string; after a lost reply the same bytes are sent again, for ever.

When a queue is cut and an object sent, `pacing` decides. Cuts with bulk go to data SSTs first and join the log when
those are confirmed, while other layers go on.
"""

import asyncio
from collections import deque
from collections.abc import Awaitable, Callable
from dataclasses import dataclass

from storage import cancel
from storage.bucket.create_once import Taken, create_once
from storage.bucket.pace import Pace
from storage.cache.frame_cache import FrameCache
from storage.crypto.cipher import PREFIX_BYTES, Cipher
from storage.env import Env
from storage.errors import Fenced
from storage.format.envelope import NO_LINK, Header, ObjectKind, seal_object
from storage.format.names import wal_name
from storage.format.wal import TREE, encode
from storage.journal.journal import Journal
from storage.lsm.memtable.write_state import WriteState
from storage.lsm.sst.bulk import BulkWriter
from storage.lsm.wal.locate import locate
from storage.lsm.wal.pacing import Flight, Pacing
from storage.lsm.wal.position import LoggedObject, LogPosition
from storage.lsm.wal.queue import Cut, LayerQueue
from storage.objects.base import ObjectStore
from storage.units import KIB

TIMER_SECONDS_MIN = 0.0005
"""What is due is looked at no more often, so that a clock that stands still makes nobody spin."""

SEAL_INLINE_BYTES_MAX = 64 * KIB
"""Smaller batches are sealed on the event loop: 30 us there cost less than a trip to a thread."""


@dataclass(slots=True)
class Batch:
    """One WAL object on its way."""

    number: int
    cuts: list[Cut]
    sent_at: float
    written: int
    """Bytes of operations in it."""
    landed: bool = False
    size: int = 0
    tag: bytes = NO_LINK


class GroupCommit:
    """Turns queues into WAL objects. Owned by the event loop; stops for good at its first failure."""

    def __init__(
        self,
        *,
        store: ObjectStore,
        cipher: Cipher,
        store_id: bytes,
        epoch: int,
        env: Env,
        writes: WriteState,
        pace: Pace,
        push_seconds: float,
        position: LogPosition,
        bulk: BulkWriter,
        cache: FrameCache,
        journal: Journal,
        look_for_newer: Callable[[], Awaitable[None]],
        on_acknowledged: Callable[[int], None],
        on_failure: Callable[[BaseException], None],
        on_progress: Callable[[], None],
    ) -> None:
        self.writes = writes
        self.pace = pace
        self.pacing = Pacing(pace, push_seconds=push_seconds)
        self.position = position
        """Where the log stands. The group commit alone changes it; others read a snapshot."""
        self._store = store
        self._cipher = cipher
        self._store_id = store_id
        self._epoch = epoch
        self._env = env
        self._bulk = bulk
        self._cache = cache
        self._journal = journal
        self._look_for_newer = look_for_newer
        self._on_acknowledged = on_acknowledged
        self._on_failure = on_failure
        self._on_progress = on_progress
        self._loop = asyncio.get_running_loop()
        self._dirty: dict[LayerQueue, None] = {}
        """Queues with pending operations or cuts that are not in a batch yet."""
        self._in_flight: deque[Batch] = deque()
        self._sealing = asyncio.Lock()
        self._scheduled = False
        self._timer: asyncio.TimerHandle | None = None
        self._tasks: set[asyncio.Task[None]] = set()
        self._stopped = False

    # --- called by queues

    def wake(self, queue: LayerQueue) -> None:
        """A queue got its first pending operation, now. It is cut `push_seconds` from now at the latest."""
        queue.waits_from(self._env.monotonic())
        self._dirty[queue] = None
        if self._timer is None and not self._stopped:
            self._timer = self._loop.call_later(self.pacing.push_at(queue) - queue.since, self._on_timer)

    def kick(self) -> None:
        """Something may be due to be cut or sent: decided once, later in this pass of the event loop, however often
        this is called.
        """
        if not self._scheduled and not self._stopped:
            self._scheduled = True
            self._loop.call_soon(self._pump)

    def cut_all(self) -> None:
        """Cut every queue now, before a memtable is sealed (Q2)."""
        for queue in list(self._dirty):
            while queue.pending:
                self._start(queue.cut(self.writes.memtable))
        self.kick()

    def under_way(self) -> list[LayerQueue]:
        """The queues that hold anything unacknowledged, also those of layers that were dropped."""
        sent = [cut.queue for batch in self._in_flight for cut in batch.cuts]
        return list(dict.fromkeys([*self._dirty, *sent]))

    def oldest(self) -> float | None:
        """When the oldest operation came that is not acknowledged yet (`Env.monotonic`); None if all are."""
        cuts = [cut for batch in self._in_flight for cut in batch.cuts]
        cuts += [cut for queue in self._dirty for cut in queue.cuts]
        times = [cut.since for cut in cuts] + [queue.since for queue in self._dirty if queue.pending]
        return min(times, default=None)

    def is_acknowledged_below(self, number: int) -> bool:
        """Whether no object with a lower number is on its way."""
        return not self._in_flight or self._in_flight[0].number >= number

    def truncate(self, replay: int) -> list[int]:
        """The objects below `replay` are needed no more; gives their numbers, to be deleted. Whoever deletes them has
        committed a manifest with that replay point.
        """
        numbers = self.position.truncate(replay)
        self.writes.log_holds(len(self.position.objects), self.position.logged_bytes)
        return numbers

    def stop(self) -> None:
        """Send nothing more and answer nobody."""
        self._stopped = True
        if self._timer is not None:
            self._timer.cancel()
        for task in self._tasks:
            task.cancel()

    # --- deciding

    def _on_timer(self) -> None:
        self._timer = None
        self.kick()

    def _pump(self) -> None:
        self._scheduled = False
        if self._stopped:
            return
        try:
            self._cut_and_send()
        except BaseException as error:
            # What was taken off a queue and not sent must never be overtaken by an acknowledgement.
            self._fail(error)

    def _cut_and_send(self) -> None:
        now = self._env.monotonic()
        flight = self._flight()
        for queue in list(self._dirty):
            while queue.pending and self.pacing.is_due(queue, flight, now):
                self._start(queue.cut(self.writes.memtable))
        while self.pacing.may_send(self._flight()) and (cuts := self._take_ready()):
            self._send(cuts, now)
        self._arm(now)

    def _flight(self) -> Flight:
        flight = self._in_flight
        number = self.position.next_number
        if not flight:
            return Flight(0, 0, number, number, 0.0)
        written = sum(batch.written for batch in flight)
        return Flight(len(flight), written, flight[0].number, number, flight[-1].sent_at)

    def _take_ready(self) -> list[Cut]:
        """The cuts of the next object. A queue that had its turn goes behind the others, so none can fill them all.

        The tree of names is always first: what was written to a layer that it made is never in the log before that.
        """
        cuts: list[Cut] = []
        size = 0
        most = self.pace.inline_bytes
        for queue in sorted(self._dirty, key=lambda queue: queue.layer != TREE):
            if size >= most:
                break
            while queue.cuts and queue.cuts[0].ready and size < most:
                cut = queue.cuts.popleft()
                cuts.append(cut)
                size += cut.size
            del self._dirty[queue]
            if queue.cuts or queue.pending:
                self._dirty[queue] = None
        return cuts

    def _arm(self, now: float) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        due = self.pacing.look_again_at(self._dirty, self._flight())
        if due is not None:
            self._timer = self._loop.call_later(max(due - now, TIMER_SECONDS_MIN), self._on_timer)

    # --- acting

    def _start(self, cut: Cut) -> None:
        if self._journal.pending:
            self._journal.keep()
        if cut.blocks:
            self._spawn(lambda: self._upload(cut))
        else:
            self.kick()

    async def _upload(self, cut: Cut) -> None:
        upload = await self._bulk.upload(cut.records.layer, cut.blocks)
        cut.confirmed(upload)
        self.kick()

    def _send(self, cuts: list[Cut], now: float) -> None:
        number = self.position.take_number()
        batch = Batch(number, cuts, now, sum(cut.size for cut in cuts))
        self.writes.sent(number, (cut.memtable for cut in cuts))
        self._in_flight.append(batch)
        self._spawn(lambda: self._commit(batch))

    async def _commit(self, batch: Batch) -> None:
        async with self._sealing:  # each is linked to the one before it (P4)
            content = await self._seal(batch)
        batch.size = len(content)
        started = batch.sent_at = self._env.monotonic()
        self.pace.sent(batch.written)
        try:
            await create_once(self._store, wal_name(batch.number), content, on_gone=self._look_for_newer)
        except Taken:
            raise Fenced from None
        self.pacing.measured(self._env.monotonic() - started, batch.size)
        self.pace.confirmed(batch.written)
        batch.landed = True
        self._acknowledge()

    async def _seal(self, batch: Batch) -> bytes:
        header = Header(
            kind=ObjectKind.WAL,
            epoch=self._epoch,
            store_id=self._store_id,
            nonce=self._env.random_bytes(PREFIX_BYTES),
            number=batch.number,
            link=self.position.tail_tag,
            acknowledged=self.position.acknowledged,
        )

        def seal() -> tuple[bytes, bytes]:
            body = encode([cut.records for cut in batch.cuts], [meta for cut in batch.cuts for meta in cut.metas])
            return seal_object(self._cipher, header, body)

        small = sum(cut.size for cut in batch.cuts) <= SEAL_INLINE_BYTES_MAX
        content, batch.tag = seal() if small else await self._env.run("codec", seal)
        self.position.sealed(batch.tag)
        return content

    def _acknowledge(self) -> None:
        """Acknowledge what is in the store with all before it: objects in order of number, so cuts in theirs (Q4)."""
        while self._in_flight and self._in_flight[0].landed:
            batch = self._in_flight.popleft()
            self.position.acknowledge(batch.number)
            # Before anybody is told: after a crash this host knows that the log once reached this far.
            self._on_acknowledged(batch.number)
            self.position.add(LoggedObject(batch.number, batch.size, batch.tag))
            for cut in batch.cuts:
                self.writes.logged(cut.charge)
                if cut.upload is not None:
                    locate(cut, cut.upload, self.writes, self._cache)
                cut.queue.acknowledge(cut.last_sequence)
        self.writes.log_holds(len(self.position.objects), self.position.logged_bytes)
        self._journal.logged(everything=not self.writes.unlogged_bytes)
        self._on_progress()
        self.kick()

    def _spawn(self, work: Callable[[], Awaitable[None]]) -> None:
        task = self._loop.create_task(self._guard(work))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _guard(self, work: Callable[[], Awaitable[None]]) -> None:
        """Any failure in here poisons the store: a failed step of a commit is never retried into a success."""
        try:
            await work()
        except BaseException as error:
            if isinstance(error, asyncio.CancelledError) and cancel.was_asked_for():
                raise
            self._fail(error)

    def _fail(self, error: BaseException) -> None:
        self.stop()
        self._on_failure(error)
