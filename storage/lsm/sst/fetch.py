"""The way of frames from the store into memory: shared, coalesced, bounded, and past objects that cannot be read.

A GET belongs to the cache and not to the request that caused it: concurrent misses of a frame wait for the same one,
and a request that goes away takes nothing with it. Misses of one pass of the event loop are collected first, so
neighbouring frames come in one ranged GET. A frame is authenticated and compared with the tag pinned by its index
before anyone sees it; one that fails is an error for those who asked for it, and for nobody else.

A GET is tried once and then gives its slot back, also while what is said not to be there is asked for again, and while
it is found out why it failed. For that the store is asked for something else:

- It gives nothing: the store is away. Everybody waits, for ever, and all try again together after a pause.
- It gives other objects: this one is a suspect. What is wanted of suspects waits apart, goes by few slots of its own,
  and is tried again with pauses. Who has waited for a frame as long as its patience, and it was tried again in vain, is
  told that it cannot be read; a client's is a minute. So a bad object takes nothing from the others but few slots.

The memtable flush has a slot of its own, and little patience: what it cannot have now it does without.
"""

import asyncio
import logging
from collections.abc import Awaitable, Callable, Collection, Iterable, Mapping

from storage import cancel
from storage.bucket.outage import REFUSALS, Outage
from storage.cache.frame_cache import Decoded, FrameCache
from storage.env import Env
from storage.errors import Corrupt, StorageError, Unavailable, Unreadable
from storage.fetch_times import FetchTimes
from storage.format.blocks import FrameRef
from storage.format.frame import FrameCodec
from storage.lsm.index.sst_numbers import SstNumbers
from storage.lsm.options import GAP_BYTES_MAX
from storage.lsm.sst.frame_reader import FrameReader
from storage.lsm.sst.get_slots import GetSlot, GetSlots
from storage.lsm.sst.quarantine import NOBODY, Quarantine
from storage.lsm.sst.ranges import FRAMES_AT_ONCE_MAX, coalesce
from storage.lsm.sst.suspects import Suspects
from storage.lsm.sst.wanted import Waiter, Wanted, in_turns, note_times
from storage.objects.base import ObjectStore

READ_SECONDS_MAX = 60.0
"""How long a read waits for an object that is withheld while others are given; then its client gets an error."""

FLUSH_SECONDS_MAX = 10.0
"""How long a memtable flush does: longer than a store asks for a pause, and writers do not notice."""

_log = logging.getLogger("nbdserver")


class FrameSource:
    """Fetches frames through the cache. Owned by the event loop."""

    def __init__(
        self,
        *,
        store: ObjectStore,
        codec: FrameCodec,
        cache: FrameCache,
        sst_numbers: SstNumbers,
        env: Env,
        on_missing: Callable[[str], Awaitable[None]],
        witness: Callable[[], Awaitable[object]],
        patience_seconds: float | None = None,
        gap_bytes_max: int = GAP_BYTES_MAX,
        older: Mapping[str, int] | None = None,
    ) -> None:
        """`store` tries each request once. `witness` asks it for a byte of an object that is there. `patience_seconds`
        is how long a read waits for a store that is away; None: for ever. `older` names the objects that an older data
        key sealed, and that key's id.
        """
        self.cache = cache
        self.older = older or {}
        """The objects that an older data key sealed when the store was opened."""
        self._reader = FrameReader(store, codec, sst_numbers, env, on_missing, self.older)
        self._sst_numbers = sst_numbers
        self._env = env
        self._patience = patience_seconds
        self._gap_bytes_max = gap_bytes_max
        self._quarantine = Quarantine(env, self._end, gap_bytes_max)
        self._waiting: dict[int, Wanted] = {}
        """All that is wanted, by location."""
        self._queue: list[FrameRef] = []
        """Frames that no GET brings yet, in order of asking."""
        self._urgent: set[int] = set()
        """Locations of frames that the memtable flush asked for."""
        self._scheduled = False
        self._timer: asyncio.TimerHandle | None = None
        self._gets: set[asyncio.Task[None]] = set()
        """All that are under way, and those that wait to be asked again or to know why they failed."""
        self._slots = GetSlots()
        self._outage = Outage(witness, env)
        self._stopped: StorageError | None = None

    # --- asking

    async def fetch(self, layer: int, refs: Iterable[FrameRef], times: FetchTimes | None = None) -> dict[int, Decoded]:
        """The decoded frames by location. Corrupt if one of them does not open or is not there; Unreadable if its
        object is withheld for a minute while the store gives others. In `times` it is noted where the time went.
        """
        asked = self._env.monotonic()
        waiters = [(ref.location, self._wait_for(ref, layer, READ_SECONDS_MAX)) for ref in refs]
        waited = [self._waiting[location] for location, _ in waiters if location in self._waiting]
        try:
            return {location: await waiter.future for location, waiter in waiters}
        finally:
            if times is not None:
                note_times(times, waited, asked, self._env.monotonic())
            for _, waiter in waiters:
                waiter.future.cancel()

    async def fetch_sound(self, refs: Iterable[tuple[int, FrameRef]], asked: set[str]) -> dict[int, Decoded]:
        """For the memtable flush: frames of any layers, without those that cannot be had now. `asked` are the objects
        that this flush has asked for: one that is known to be withheld is waited for once, and not for each frame.
        """
        now = self._env.monotonic()
        wanted = [
            (layer, ref)
            for layer, ref in refs
            if self._sst_numbers.name(ref.location) not in asked or not self._is_withheld(ref.location, now)
        ]
        asked.update(self._sst_numbers.name(ref.location) for _, ref in wanted)
        waiters = [(ref.location, self._wait_for(ref, layer, FLUSH_SECONDS_MAX, urgent=True)) for layer, ref in wanted]
        sound = {}
        try:
            for location, waiter in waiters:
                try:
                    sound[location] = await waiter.future
                except (Corrupt, Unreadable) as error:
                    _log.info("frame_done_without", extra={"error": str(error)})
        finally:
            for _, waiter in waiters:
                waiter.future.cancel()
        return sound

    def _is_withheld(self, location: int, now: float) -> bool:
        """Whether a frame has been withheld for longer than a flush waits."""
        since = self.suspects.withheld_since(self._sst_numbers.name(location), location, now)
        return now - since >= FLUSH_SECONDS_MAX

    def prefetch(self, ref: FrameRef) -> None:
        """Fetch a frame ahead; not from a suspect, and not again if that fails: the next reader will see."""
        if ref.location not in self._waiting and self._stopped is None:
            name = self._sst_numbers.name(ref.location)
            if name not in self.suspects:
                self._want(ref, name)

    def wanted(self) -> Collection[int]:
        """The locations of all frames that somebody waits for, or that a GET under way brings."""
        return self._waiting.keys()

    @property
    def loading(self) -> int:
        """Frames asked for and not here yet, less those of suspects."""
        return len(self._waiting) - len(self._quarantine)

    @property
    def suspects(self) -> Suspects:
        """The objects that the store withholds, while it gives others."""
        return self._quarantine.suspects

    def stop(self, error: StorageError) -> None:
        """Fetch nothing more; who waits, or asks later, is told `error`."""
        self._stopped = error
        for task in self._gets:
            task.cancel()
        if self._timer is not None:
            self._timer.cancel()
        for wanted in list(self._waiting.values()):
            self._end(wanted, error)
        self._queue.clear()

    def _wait_for(self, ref: FrameRef, layer: int, patience: float, *, urgent: bool = False) -> Waiter:
        future: asyncio.Future[Decoded] = asyncio.get_running_loop().create_future()
        # Of several frames the first that fails is an error for all; nobody looks at the others then.
        future.add_done_callback(lambda done: done.cancelled() or done.exception())
        waiter = Waiter(future, self._env.monotonic(), min(patience, self._patience or patience), layer, urgent)
        if self._stopped is not None:
            future.set_exception(self._stopped)
            return waiter
        wanted = self._waiting.get(ref.location)
        if wanted is None:
            cached = self.cache.get(ref.location)
            if cached is not None:
                future.set_result(cached)
                return waiter
            wanted = self._want(ref, self._sst_numbers.name(ref.location))
        wanted.waiters.append(waiter)
        if urgent:
            self._urgent.add(ref.location)
        return waiter

    def _want(self, ref: FrameRef, name: str) -> Wanted:
        wanted = self._waiting[ref.location] = Wanted(ref, name)
        self._queue.append(ref)
        self._dispatch_soon()
        return wanted

    def _end(self, wanted: Wanted, outcome: Decoded | Exception) -> None:
        """Tell all who wait."""
        self._waiting.pop(wanted.ref.location, None)
        self._urgent.discard(wanted.ref.location)
        self._quarantine.let_go(wanted)
        for waiter in wanted.waiters:
            if waiter.future.done():
                continue
            if isinstance(outcome, Exception):
                waiter.future.set_exception(outcome)
            else:
                waiter.future.set_result(outcome)

    # --- what goes next

    def _dispatch_soon(self) -> None:
        if not self._scheduled and (self._queue or self._quarantine) and self._stopped is None:
            self._scheduled = True
            asyncio.get_running_loop().call_soon(self._dispatch)

    def _dispatch(self) -> None:
        """Start as many GETs as may be in flight; what has to wait goes later, together with what comes until then."""
        self._scheduled = False
        if self._stopped is not None:
            return
        now = self._env.monotonic()
        if self.suspects:
            asked, self._queue = self._queue, []
            self._queue += [ref for ref in asked if not self._quarantine.takes(self._waiting[ref.location], now)]
        if self._queue and now >= self._outage.until and self._slots.has_room(urgent=bool(self._urgent)):
            self._start_gets()
        if self._quarantine:
            self._quarantine.expire(now)
            for group in self._quarantine.next(now, self._slots.retries_left):
                self._start(group, self._slots.take_retry(group[0].name))
        self._arm(now)

    def _start_gets(self) -> None:
        asked = {ref.location: place for place, ref in enumerate(self._queue)}
        groups = coalesce(sorted(self._queue, key=lambda ref: ref.location), self._gap_bytes_max, FRAMES_AT_ONCE_MAX)
        groups.sort(key=lambda group: min(asked[ref.location] for ref in group))
        self._queue = []
        for wanted in in_turns([[self._waiting[ref.location] for ref in group] for group in groups]):
            for abandoned in [w for w in wanted if w.abandoned]:
                wanted.remove(abandoned)
                self._end(abandoned, NOBODY)
            if not wanted:
                continue
            slot = self._slots.take(wanted[0].name, urgent=any(w.urgent for w in wanted))
            if slot is None:
                self._queue += [w.ref for w in wanted]
            else:
                self._start(wanted, slot)

    def _start(self, group: list[Wanted], slot: GetSlot) -> None:
        now = self._env.monotonic()
        for wanted in group:
            wanted.under_way = True
            wanted.gets += 1
            wanted.began = now

        def done(task: asyncio.Task[None]) -> None:
            slot.end()
            self._gets.discard(task)
            self._dispatch_soon()  # also where it left before: what was refused then is to be asked for again

        task = asyncio.get_running_loop().create_task(self._load(group, slot))
        self._gets.add(task)
        task.add_done_callback(done)

    def _arm(self, now: float) -> None:
        """Come back when something is due."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        due = self._quarantine.due(now, may_retry=self._slots.retries_left > 0)
        if self._queue and self._outage.until > now:
            due.append(self._outage.until)
        if due:
            delay = max(min(due) - now, 0.001)
            self._timer = asyncio.get_running_loop().call_later(delay, self._dispatch_soon)

    # --- one GET

    async def _load(self, group: list[Wanted], slot: GetSlot) -> None:
        def absent() -> None:
            slot.end()
            self._dispatch_soon()

        def answered() -> None:
            for wanted in group:
                wanted.answered = self._env.monotonic()

        began = self._env.monotonic()
        results: list[Decoded | StorageError] | list[Exception]
        try:
            try:
                results = await self._reader.read([wanted.ref for wanted in group], absent, answered)
            except REFUSALS as error:
                slot.leave()  # why it was refused may take seconds to find out, which others need not wait for
                self._dispatch_soon()
                return await self._refused(group, error, began)
        except (Exception, asyncio.CancelledError) as error:
            if isinstance(error, asyncio.CancelledError) and cancel.was_asked_for():
                raise
            # Whatever it is, also what nobody foresaw: who asked must hear of it, or would wait for ever.
            failure = error if isinstance(error, Exception) else Unavailable("a GET was given up")
            results = [failure] * len(group)
        else:
            self._given(group)
        for wanted, result in zip(group, results, strict=True):
            if not isinstance(result, Exception):
                self.cache.put(wanted.ref.location, result)
            self._end(wanted, result)

    async def _refused(self, group: list[Wanted], error: StorageError, began: float) -> None:
        """Is it these frames alone, or everything? They wait accordingly."""
        gives = await self._outage.gives_others(began)
        for wanted in group:
            wanted.under_way = False
        if gives:
            self._quarantine.failed(group, error, began)
        else:
            self._wait_for_store(group, error)

    # --- what became of it

    def _given(self, group: list[Wanted]) -> None:
        self._outage.gave()
        self._let_back(self._quarantine.gave(group))

    def _wait_for_store(self, group: list[Wanted], error: StorageError) -> None:
        """The store is away: all wait, and are asked for again together."""
        self._outage.goes_on(error)
        if self._patience is not None:
            final, now = not isinstance(error, Unavailable), self._env.monotonic()
            for waiter in [waiter for wanted in group for waiter in wanted.waiters if not waiter.future.done()]:
                if final or now - waiter.asked >= self._patience:
                    waiter.future.set_exception(error)
        self._let_back([*dict.fromkeys([*self._quarantine.dissolve(), *group])])

    def _let_back(self, group: list[Wanted]) -> None:
        """To all others, as far as anybody waits for it."""
        for wanted in group:
            self._quarantine.let_go(wanted)
            if wanted.under_way:
                continue
            if wanted.missed:
                self._queue.append(wanted.ref)
            else:
                self._end(wanted, NOBODY)
