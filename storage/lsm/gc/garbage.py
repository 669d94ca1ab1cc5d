"""The garbage of a store: objects that nothing needs any more, deleted in the background.

Nobody waits for a deletion. One that the store refuses or does not answer (a policy that denies it, a lock on objects,
one file that cannot be removed) is tried again later, more and more seldom, and is counted; it holds no lock, no flush
and no exit. What is still here at the end of a process is left to the sweep of the next writer.

Who adds names has made sure, before, that nothing needs them: a manifest without them is committed, and no newer one
was there. That stays true however late the deletion is, also of a writer that was superseded meanwhile: numbers and
names are given once, and replay points only move forward.
"""

import asyncio
import logging
from collections import OrderedDict
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from itertools import islice

from storage.env import Env
from storage.errors import Closed, Fenced, StorageError
from storage.lsm.options import GARBAGE_NAMES_MAX
from storage.objects.base import DELETE_BATCH_MAX, ObjectStore

_log = logging.getLogger("nbdserver")

DELETE_PAUSE_SECONDS_MIN = 1.0
DELETE_PAUSE_SECONDS_MAX = 300.0
"""Between two tries, doubling, where deletions fail."""

STUCK_FAILURES = 8
"""So many deletions in a row that fail are no moment in which the store is slow: two minutes, by their pauses."""

ROOM_SECONDS_MAX = 60.0
"""How long who wants room waits for those who want garbage to stay: a check, or who writes the copy of a manifest."""

CLOSE_SECONDS_MAX = 5.0
"""How long the end of a process may be spent on garbage that is deleted well."""


@dataclass(frozen=True, slots=True)
class FailingDeletion:
    """Deletions fail: since when (`Env.monotonic`), and the newest reason."""

    since: float
    reason: str


class Garbage:
    """Names to delete, and the one task that does it. Owned by the event loop."""

    def __init__(self, store: ObjectStore, env: Env, *, names_max: int = GARBAGE_NAMES_MAX) -> None:
        """`store` tries each request once."""
        self._store = store
        self.names_max = names_max
        """Names that are remembered at most."""
        self._env = env
        self._names: OrderedDict[str, None] = OrderedDict()
        """To be deleted, in the order in which to try. (The first ones of a plain dictionary are looked for behind all
        that went before them.)
        """
        self._batch = DELETE_BATCH_MAX
        """Names in the next request. Halved by a failure, so that one object that stays does not keep others."""
        self._added = asyncio.Event()
        self._holds = 0
        self._free = asyncio.Event()
        """Nobody wants what there is to stay."""
        self._free.set()
        self._deleting = asyncio.Lock()
        self.deleted = 0
        """Objects that were deleted, or were gone already."""
        self.forgotten = 0
        """Names that there was no room for: left to the next writer."""
        self.failing: FailingDeletion | None = None
        self._failures = 0
        """In a row."""

    def __len__(self) -> int:
        """Objects known to be garbage, and not deleted yet."""
        return len(self._names) + self.forgotten

    @property
    def is_stuck(self) -> bool:
        """Whether nothing was deleted for long: who waits for it would wait for ever."""
        return self._failures >= STUCK_FAILURES

    @property
    def room_at_half(self) -> int:
        """Names that may come until half of those that can be remembered are; below 0 beyond that."""
        return self.names_max // 2 - len(self._names)

    def add(self, names: Iterable[str]) -> None:
        """Nothing needs these objects any more."""
        self._names.update(dict.fromkeys(names))
        while len(self._names) > self.names_max:
            self._names.popitem(last=False)
            self.forgotten += 1
        if self._names:
            self._added.set()

    @contextmanager
    def held(self) -> Iterator[None]:
        """Nothing is deleted meanwhile, but by the request that is under way already, and at the end of the process."""
        self._holds += 1
        self._free.clear()
        try:
            yield
        finally:
            self._holds -= 1
            if not self._holds:
                self._free.set()

    async def collect(self) -> None:
        """Delete what is added, for ever."""
        pause = DELETE_PAUSE_SECONDS_MIN
        while True:
            await self._added.wait()
            await self._free.wait()
            if await self._delete_some():
                pause = DELETE_PAUSE_SECONDS_MIN
                continue
            await asyncio.sleep(pause * (0.5 + self._env.jitter() / 2))
            pause = min(pause * 2, DELETE_PAUSE_SECONDS_MAX)

    async def delete_now(self) -> None:
        """Delete all there is, until one deletion fails, and nothing while somebody wants it to stay."""
        while self._names and not self._holds and await self._delete_some():
            pass

    async def make_room(self) -> None:
        """The same once nobody wants it to stay, for whom this waits a while."""
        with suppress(TimeoutError):
            async with asyncio.timeout(ROOM_SECONDS_MAX):
                await self._free.wait()
        await self.delete_now()

    async def finish(self) -> None:
        """Delete what there is until one deletion fails, or for a few seconds; the next writer finds the rest."""
        try:
            async with asyncio.timeout(CLOSE_SECONDS_MAX):
                while self._names and await self._delete_some():
                    pass
        except TimeoutError:
            pass
        if self._names:
            _log.warning("garbage_left", extra={"objects": len(self)})

    async def _delete_some(self) -> bool:
        """One request. False if it failed: its names are tried again, after all others.

        A crash in here leaves objects that nothing names, wholly or in part.
        """
        async with self._deleting:
            return not self._names or await self._delete_batch()

    async def _delete_batch(self) -> bool:
        names = list(islice(self._names, self._batch))
        try:
            await self._store.delete(names)
        except (Fenced, Closed):
            raise
        except StorageError as error:
            self._failed(str(error))
            self._batch = max(len(names) // 2, 1)
            for name in names:
                if name in self._names:  # it may have been forgotten meanwhile
                    self._names.move_to_end(name)
            return False
        for name in names:
            self._names.pop(name, None)
        self.deleted += len(names)
        self._failures = 0
        self._batch = min(self._batch * 2, DELETE_BATCH_MAX)
        if not self._names:
            self._added.clear()
            self._mended()
        return True

    def _failed(self, reason: str) -> None:
        if self.failing is None:
            _log.warning("garbage_kept", extra={"objects": len(self), "error": reason})
        self._failures += 1
        since = self._env.monotonic() if self.failing is None else self.failing.since
        self.failing = FailingDeletion(since, reason)

    def _mended(self) -> None:
        if self.failing is not None:
            self.failing = None
            _log.warning("garbage_deleted")
