"""This file knows how frames get from the store into memory: shared, coalesced, bounded.

A GET belongs to the cache and not to the request that caused it: concurrent misses of a frame wait for the same one,
and a request that goes away takes nothing with it. Misses of one pass of the event loop are collected first, so
neighbouring frames come in one ranged GET. A frame is authenticated and compared with the tag pinned by its index
before anyone sees it; one that fails is an error for those who asked for it, and for nobody else.
"""

import asyncio
from collections.abc import Awaitable, Callable, Iterable
from contextlib import suppress

from storage import cancel
from storage.cache.frames import Decoded, FrameCache
from storage.codec import SECTOR_BYTES, FrameCodec, Kind, sectors_of
from storage.crypto import TAG_BYTES, AuthenticationError
from storage.env import Env
from storage.errors import Corrupt, NotFound, StorageError, Unavailable
from storage.lsm.entries import FrameRef
from storage.lsm.missing import insist
from storage.lsm.names import table_name
from storage.objects.base import ObjectStore

GAP_BYTES_MAX = 64 * 1024
"""Bytes between two frames that are cheaper to read along than to ask for separately (2 ms at 30 MB/s)."""

GET_BYTES_MAX = 4 * 1024 * 1024 + 64 * 1024
"""Bytes of one ranged GET: sixteen whole blocks that do not compress, so that a deep queue still spreads over several
requests.
"""

GETS_IN_FLIGHT = 16
"""Half of the store's threads: reads can never keep a WAL PUT waiting."""

OFFSET_MASK = 2**32 - 1


class Slots:
    """Numbers SSTs within this process. A number is never used twice, so a location never changes its meaning."""

    def __init__(self) -> None:
        self._ids: list[str | None] = [None]
        self._slots: dict[str, int] = {}

    def slot(self, table_id: str) -> int:
        """The slot of an SST, given when first asked for."""
        found = self._slots.get(table_id)
        if found is None:
            found = self._slots[table_id] = len(self._ids)
            self._ids.append(table_id)
        return found

    def location(self, table_id: str, offset: int) -> int:
        """Where byte `offset` of an SST lies."""
        return self.slot(table_id) << 32 | offset

    def name(self, location: int) -> str:
        """The object that a location lies in."""
        table_id = self._ids[location >> 32]
        assert table_id is not None
        return table_name(table_id)


class FrameSource:
    """Fetches frames through the cache."""

    def __init__(
        self,
        *,
        store: ObjectStore,
        codec: FrameCodec,
        cache: FrameCache,
        slots: Slots,
        env: Env,
        on_missing: Callable[[str], Awaitable[None]],
    ) -> None:
        self._store = store
        self._codec = codec
        self._cache = cache
        self._slots = slots
        self._env = env
        self._on_missing = on_missing
        self._waiting: dict[int, asyncio.Future[Decoded]] = {}
        self._queue: list[FrameRef] = []
        """Frames that no GET brings yet, in order of asking."""
        self._scheduled = False
        self._tasks: set[asyncio.Task[None]] = set()

    async def fetch(self, refs: Iterable[FrameRef]) -> dict[int, Decoded]:
        """The decoded frames by location. Corrupt if one of them does not open or is not there."""
        futures = [(ref.location, self.request(ref)) for ref in refs]
        return {location: await asyncio.shield(future) for location, future in futures}

    async def fetch_sound(self, refs: Iterable[FrameRef]) -> dict[int, Decoded]:
        """The same without the frames that do not open or are not there."""
        futures = [(ref.location, self.request(ref)) for ref in refs]
        sound = {}
        for location, future in futures:
            with suppress(Corrupt):
                sound[location] = await asyncio.shield(future)
        return sound

    def request(self, ref: FrameRef) -> asyncio.Future[Decoded]:
        """Ask for one frame without waiting for it; used by itself this is a prefetch."""
        future = self._waiting.get(ref.location)
        if future is not None:
            return future
        loop = asyncio.get_running_loop()
        future = loop.create_future()
        cached = self._cache.get(ref.location)
        if cached is not None:
            future.set_result(cached)
            return future
        # A prefetch has no one who looks at its outcome; the next reader will meet the same error again.
        future.add_done_callback(lambda done: done.cancelled() or done.exception())
        self._waiting[ref.location] = future
        self._queue.append(ref)
        self._dispatch_soon()
        return future

    @property
    def loading(self) -> int:
        """Frames asked for and not here yet."""
        return len(self._waiting)

    def _dispatch_soon(self) -> None:
        if not self._scheduled and self._queue and len(self._tasks) < GETS_IN_FLIGHT:
            self._scheduled = True
            asyncio.get_running_loop().call_soon(self._dispatch)

    def _dispatch(self) -> None:
        """Start as many GETs as may be in flight; what has to wait goes later, together with what comes until then."""
        self._scheduled = False
        asked = {ref.location: place for place, ref in enumerate(self._queue)}
        groups = coalesce(sorted(self._queue, key=lambda ref: ref.location))
        groups.sort(key=lambda group: min(asked[ref.location] for ref in group))
        room = GETS_IN_FLIGHT - len(self._tasks)
        self._queue = [ref for group in groups[room:] for ref in group]
        for group in groups[:room]:
            task = asyncio.get_running_loop().create_task(self._load(group))
            self._tasks.add(task)
            task.add_done_callback(self._done)

    def _done(self, task: asyncio.Task[None]) -> None:
        self._tasks.discard(task)
        self._dispatch_soon()

    async def _load(self, group: list[FrameRef]) -> None:
        results: list[Decoded | Exception]
        try:
            results = [*await self._answers(group)]
        except (Exception, asyncio.CancelledError) as error:
            if isinstance(error, asyncio.CancelledError) and cancel.was_asked_for():
                for ref in group:
                    self._waiting.pop(ref.location).cancel()
                raise
            # Whatever it is, also what nobody foresaw: who asked must hear of it, or would wait for ever.
            failure = error if isinstance(error, Exception) else Unavailable("a GET was given up")
            results = [failure] * len(group)
        for ref, result in zip(group, results, strict=True):
            future = self._waiting.pop(ref.location)
            if isinstance(result, Exception):
                if not future.done():
                    future.set_exception(result)
                continue
            self._cache.put(ref.location, result)
            if not future.done():
                future.set_result(result)

    async def _answers(self, group: list[FrameRef]) -> list[Decoded | StorageError]:
        name = self._slots.name(group[0].location)
        start = group[0].location & OFFSET_MASK
        end = (group[-1].location & OFFSET_MASK) + group[-1].length
        try:
            raw = await insist(
                self._store,
                lambda: self._store.get(name, start, end - start),
                on_missing=lambda: self._on_missing(name),
            )
        except NotFound:
            raise Corrupt(name, "it is missing though the newest manifest names it") from None
        return await self._env.run("codec", self._decode, name, raw, start, group)

    def _decode(self, name: str, raw: bytes, start: int, group: list[FrameRef]) -> list[Decoded | StorageError]:
        view = memoryview(raw)
        return [
            decode_frame(self._codec, name, ref, view[(ref.location & OFFSET_MASK) - start :][: ref.length])
            for ref in group
        ]


def decode_frame(codec: FrameCodec, name: str, ref: FrameRef, sealed: memoryview) -> Decoded | StorageError:
    """One frame opened and checked against its pinned tag; an error is returned, since it concerns this frame alone."""
    where = f"the frame of block {ref.block} at byte {ref.location & OFFSET_MASK}"
    if len(sealed) != ref.length or sealed[-TAG_BYTES : -TAG_BYTES + 8] != ref.tag:
        return Corrupt(name, f"{where} is not the one its index names")
    try:
        mask, data = codec.decode(sealed, block=ref.block, kind=Kind.FULL if ref.full else Kind.PATCH)
    except AuthenticationError:
        return Corrupt(name, f"{where} fails authentication")
    except ValueError as error:
        return Corrupt(name, f"{where} is malformed: {error}")
    if ref.full:
        return data
    view = memoryview(data)
    return {sector: view[at * SECTOR_BYTES : (at + 1) * SECTOR_BYTES] for at, sector in enumerate(sectors_of(mask))}


def coalesce(refs: list[FrameRef]) -> list[list[FrameRef]]:
    """Cut frames sorted by location into groups that one ranged GET can bring."""
    groups: list[list[FrameRef]] = []
    for ref in refs:
        if groups:
            group = groups[-1]
            end = group[-1].location + group[-1].length
            near = 0 <= ref.location - end <= GAP_BYTES_MAX
            if near and ref.location + ref.length - group[0].location <= GET_BYTES_MAX:
                group.append(ref)
                continue
        groups.append([ref])
    return groups
