"""Group commit: when queues are cut, and which of the cuts go into the next object of the log.

When a queue is cut and an object sent, `pacing` decides. Cuts with bulk go to data SSTs first and join the log when
those are confirmed, while other layers go on. How an object of the log is written, and who is told of it when, is in
`log_writer`.
"""

import asyncio
from collections.abc import Awaitable, Callable

from storage import cancel
from storage.bucket.pace import Pace
from storage.env import Env
from storage.format.wal import TREE
from storage.journal.journal import Journal
from storage.lsm.memtable.write_state import WriteState
from storage.lsm.sst.bulk import BulkWriter
from storage.lsm.wal.log_writer import Batch, LogWriter
from storage.lsm.wal.pacing import Pacing
from storage.lsm.wal.queue import Cut, LayerQueue

TIMER_SECONDS_MIN = 0.0005
"""What is due is looked at no more often, so that a clock that stands still makes nobody spin."""


class GroupCommit:
    """Turns queues into WAL objects. Owned by the event loop; stops for good at its first failure."""

    def __init__(
        self,
        *,
        log: LogWriter,
        bulk: BulkWriter,
        journal: Journal,
        writes: WriteState,
        pace: Pace,
        pacing: Pacing,
        env: Env,
        on_failure: Callable[[BaseException], None],
    ) -> None:
        self.writes = writes
        self.pace = pace
        self.pacing = pacing
        self._log = log
        self._bulk = bulk
        self._journal = journal
        self._env = env
        self._on_failure = on_failure
        self._loop = asyncio.get_running_loop()
        self._dirty: dict[LayerQueue, None] = {}
        """Queues with pending operations or cuts that are not in a batch yet."""
        self._scheduled = False
        self._timer: asyncio.TimerHandle | None = None
        self._tasks: set[asyncio.Task[None]] = set()
        self._stopped = False

    # --- called by queues

    def wake(self, queue: LayerQueue) -> None:
        """A queue got its first pending operation, now. It is cut `push_seconds` from now at the latest."""
        now = self._env.monotonic()
        queue.waits_from(now)
        queue.full_bytes = self.pacing.inline_bytes(queue, now)
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
        return list(dict.fromkeys([*self._dirty, *(cut.queue for cut in self._log.cuts())]))

    def oldest(self) -> float | None:
        """When the oldest operation came that is not acknowledged yet (`Env.monotonic`); None if all are."""
        cuts = self._log.cuts()
        cuts += [cut for queue in self._dirty for cut in queue.cuts]
        times = [cut.since for cut in cuts] + [queue.since for queue in self._dirty if queue.pending]
        return min(times, default=None)

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
        flight = self._log.flight()
        for queue in self._dirty:
            if queue.is_awaited:
                self.pacing.waits(queue, now)
        for queue in list(self._dirty):
            queue.full_bytes = self.pacing.inline_bytes(queue, now)
            while queue.pending and self.pacing.is_due(queue, flight, now):
                self._start(queue.cut(self.writes.memtable))
        while True:
            awaited = any(queue.is_awaited and queue.cuts and queue.cuts[0].ready for queue in self._dirty)
            if not self.pacing.may_send(self._log.flight(), now, awaited=awaited) or not (cuts := self._take_ready()):
                break
            self._send(cuts, now, awaited=awaited)
        self._arm(now)

    def _take_ready(self) -> list[Cut]:
        """The cuts of the next object. A queue that had its turn goes behind the others, so none can fill them all.

        The tree of names is always first: what was written to a layer that it made is never in the log before that.
        Then come those that somebody waits for; others come along as far as the object is small even so.
        """
        cuts: list[Cut] = []
        size = 0
        most = self.pace.inline_bytes
        if any(queue.cuts and queue.cuts[0].ready for queue in self._dirty):
            for tree in [queue for queue in self._dirty if queue.layer == TREE]:
                while tree.pending:  # of a device that nobody waits for, and that is written to already
                    self._start(tree.cut(self.writes.memtable))
        for queue in sorted(self._dirty, key=lambda queue: (queue.layer != TREE, not queue.is_awaited)):
            if size >= most:
                break
            while queue.cuts and queue.cuts[0].ready and size < most:
                # All of the tree that there is room for, or what follows it would go before the rest of it.
                waits = queue.is_awaited or queue.layer == TREE
                if size and not waits and size + queue.cuts[0].size > queue.full_bytes:
                    break
                cut = queue.cuts.popleft()
                queue.sent_sequence = cut.last_sequence
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
        due = self.pacing.look_again_at(self._dirty, self._log.flight(), now)
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

    def _send(self, cuts: list[Cut], now: float, *, awaited: bool) -> None:
        batch = self._log.begin(cuts, now, awaited=awaited)
        self._spawn(lambda: self._write(batch))

    async def _write(self, batch: Batch) -> None:
        await self._log.write(batch)
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
