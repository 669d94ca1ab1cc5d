"""The log writer: cuts become numbered WAL objects, and these count in the order of their numbers.

What it guarantees: a layer's waiters are answered only when the WAL object that holds their operations exists and so
do all objects with lower numbers. At any moment the log holds, per layer, a prefix of its operations. A number is
bound for ever to one sealed byte string; after a lost reply the same bytes are sent again, for ever. A crash at any
moment leaves objects that were never acknowledged, which count as far as they follow on each other without a gap.

What it is given, and when, the group commit decides.
"""

import asyncio
from collections import deque
from collections.abc import Awaitable, Callable
from dataclasses import dataclass

from storage.bucket.create_once import Taken, create_once
from storage.bucket.pace import Pace
from storage.cache.frame_cache import FrameCache
from storage.crypto.cipher import PREFIX_BYTES, Cipher
from storage.env import Env
from storage.errors import Fenced
from storage.format.envelope import NO_LINK, Header, ObjectKind, seal_object
from storage.format.names import wal_name
from storage.format.wal import encode
from storage.journal.journal import Journal
from storage.lsm.memtable.write_state import WriteState
from storage.lsm.options import EngineOptions
from storage.lsm.wal.locate import locate
from storage.lsm.wal.pacing import Flight, Pacing
from storage.lsm.wal.position import LoggedObject, LogPosition
from storage.lsm.wal.queue import Cut
from storage.objects.base import ObjectStore


@dataclass(slots=True)
class Batch:
    """One WAL object on its way."""

    number: int
    cuts: list[Cut]
    sent_at: float
    written: int
    """Bytes of operations in it."""
    awaited: bool = False
    """Whether somebody waited for it when it was sent."""
    landed: bool = False
    size: int = 0
    tag: bytes = NO_LINK


class LogSealer:
    """Makes the bytes of WAL objects, each linked to the one before it. One at a time, in order of number (P4)."""

    def __init__(
        self, cipher: Cipher, options: EngineOptions, *, store_id: bytes, epoch: int, env: Env, position: LogPosition
    ) -> None:
        self._cipher = cipher
        self._store_id = store_id
        self._epoch = epoch
        self._env = env
        self._position = position
        self._inline_bytes_max = options.log.seal_inline_bytes_max
        self._part_bytes = options.part_bytes
        self._sealing = asyncio.Lock()

    async def seal(self, batch: Batch) -> bytes:
        """The object of a batch, for ever: its number stands in it. Nothing was sent yet: a crash leaves nothing."""
        async with self._sealing:
            header = Header(
                kind=ObjectKind.WAL,
                epoch=self._epoch,
                store_id=self._store_id,
                nonce=self._env.random_bytes(PREFIX_BYTES),
                number=batch.number,
                link=self._position.tail_tag,
                acknowledged=self._position.acknowledged,
            )

            def seal() -> tuple[bytes, bytes]:
                body = encode([cut.records for cut in batch.cuts], [meta for cut in batch.cuts for meta in cut.metas])
                return seal_object(self._cipher, header, body, self._part_bytes)

            small = sum(cut.size for cut in batch.cuts) <= self._inline_bytes_max
            content, batch.tag = seal() if small else await self._env.run("log", seal)
            self._position.sealed(batch.tag)
            batch.size = len(content)
            return content


class LogWriter:
    """Writes the log of one writer. Owned by the event loop; whoever awaits `write` stops all at its first failure."""

    def __init__(
        self,
        *,
        store: ObjectStore,
        sealer: LogSealer,
        position: LogPosition,
        pace: Pace,
        pacing: Pacing,
        writes: WriteState,
        cache: FrameCache,
        journal: Journal,
        env: Env,
        look_for_newer: Callable[[], Awaitable[None]],
        on_acknowledged: Callable[[int], None],
        on_progress: Callable[[], None],
    ) -> None:
        """`on_acknowledged` is told a number before anybody is answered, `on_progress` when all were."""
        self.position = position
        """Changed here and by the sealer only."""
        self._store = store
        self._sealer = sealer
        self._pace = pace
        self._pacing = pacing
        self._writes = writes
        self._cache = cache
        self._journal = journal
        self._env = env
        self._look_for_newer = look_for_newer
        self._on_acknowledged = on_acknowledged
        self._on_progress = on_progress
        self._in_flight: deque[Batch] = deque()

    def begin(self, cuts: list[Cut], now: float, *, awaited: bool) -> Batch:
        """The next object of the log: it has its number (P1), and must be written."""
        number = self.position.take_number()
        batch = Batch(number, cuts, now, sum(cut.size for cut in cuts), awaited)
        self._writes.sent(number, (cut.memtable for cut in cuts))
        self._in_flight.append(batch)
        return batch

    async def write(self, batch: Batch) -> None:
        """Return when it exists, and is acknowledged if all before it are. Fenced: another writer has its number."""
        content = await self._sealer.seal(batch)
        started = batch.sent_at = self._env.monotonic()
        self._pace.sent(batch.written)
        try:
            await create_once(self._store, wal_name(batch.number), content, on_gone=self._look_for_newer)
        except Taken:
            raise Fenced from None
        self._pacing.measured(self._env.monotonic() - started, batch.size)
        self._pace.confirmed(batch.written)
        batch.landed = True
        self._acknowledge()

    def _acknowledge(self) -> None:
        """Acknowledge what is in the store with all before it: objects in order of number, so cuts in theirs (Q4)."""
        while self._in_flight and self._in_flight[0].landed:
            batch = self._in_flight.popleft()
            self.position.acknowledge(batch.number)
            # Before anybody is told: after a crash this host knows that the log once reached this far.
            self._on_acknowledged(batch.number)
            self.position.add(LoggedObject(batch.number, batch.size, batch.tag))
            for cut in batch.cuts:
                self._writes.logged(cut.charge)
                if cut.upload is not None:
                    locate(cut, cut.upload, self._writes, self._cache)
                cut.queue.acknowledge(cut.last_sequence)
        self._writes.log_holds(len(self.position.objects), self.position.logged_bytes)
        self._journal.logged(everything=not self._writes.unlogged_bytes)
        self._on_progress()

    def flight(self) -> Flight:
        """The PUTs under way now."""
        flight = self._in_flight
        number = self.position.next_number
        if not flight:
            return Flight(0, 0, number, number, None)
        written = sum(batch.written for batch in flight)
        awaited = max((batch.sent_at for batch in flight if batch.awaited), default=None)
        return Flight(len(flight), written, flight[0].number, number, awaited)

    def cuts(self) -> list[Cut]:
        """What is in objects that are not acknowledged yet."""
        return [cut for batch in self._in_flight for cut in batch.cuts]

    def is_acknowledged_below(self, number: int) -> bool:
        """Whether no object with a lower number is on its way."""
        return not self._in_flight or self._in_flight[0].number >= number

    def truncate(self, replay: int) -> list[int]:
        """The objects below `replay` are needed no more; gives their numbers, to be deleted. Whoever deletes them has
        committed a manifest with that replay point.
        """
        numbers = self.position.truncate(replay)
        self._writes.log_holds(len(self.position.objects), self.position.logged_bytes)
        return numbers
