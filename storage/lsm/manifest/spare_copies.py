"""Spare copies: the newest manifest a second time, under a name of its own, for the day on which its object is damaged
or gone.

    1. the manifest is created under its number                   (crash: it has no copy; the next writer's has one)
    2. no newer one is there, so it was won
    3. its bytes are created under its copy's name                             (crash: the copy of before is left)
    4. copies of older manifests are garbage                                   (crash: leftovers, swept)

So a copy never says anything that its manifest did not say first: whoever loses the race for a number writes none. The
bytes of a number are bound to it for ever, and a copy that lands late is an old one, which nothing reads. A sound copy
of another manifest of that number says that this one should not have won it: its writer ends, and deletes nothing.

Nobody waits for a copy, but the deletion of what the manifest gave up, and the end of the process, each for a while.
One that the store refuses is tried again, more and more seldom; `failing` says why there is none.

A store that nobody changes keeps its newest manifest and the copy for long, so now and then both are read. A copy that
is damaged or gone is written anew. A manifest that is stays as it is, and its copy too: another one is committed, which
has both; a crash before that leaves the copy, which stands in for it.
"""

import asyncio
import logging
from collections.abc import Awaitable, Callable, Iterable
from contextlib import AbstractContextManager, ExitStack, suppress

from storage.env import Env
from storage.errors import AlreadyExists, Closed, Fenced, NotFound, StorageError
from storage.format.names import manifest_name, spare_manifest_name
from storage.lsm.manifest.manifest_store import Manifests, SealedManifest
from storage.objects.base import ObjectStore

_log = logging.getLogger("nbdserver")

HOLD_SECONDS_MAX = 10.0
"""How long nothing is deleted because a copy is on its way; twice as long where newer manifests come meanwhile."""

FINISH_SECONDS_MAX = 5.0
"""How long the end of a process may be spent on a copy."""

COPY_PAUSE_SECONDS_MIN = 1.0
COPY_PAUSE_SECONDS_MAX = 300.0
"""Between two tries, doubling, where copies are refused."""


VERIFY_SECONDS = 24 * 3600.0
"""After which the newest manifest and its copy are read again, if they are still those."""


class SpareCopies:
    """Copies what one writer commits: of several, the newest. Owned by the event loop."""

    def __init__(
        self,
        store: ObjectStore,
        manifests: Manifests,
        env: Env,
        *,
        keep: Callable[[], AbstractContextManager[None]],
        discard: Callable[[Iterable[str]], None],
        renew: Callable[[], Awaitable[None]],
    ) -> None:
        """`store` tries each request once. In the context that `keep` gives nothing is deleted; what is told to
        `discard` is garbage; `renew` commits another manifest.
        """
        self._store = store
        self._manifests = manifests
        self._keep = keep
        self._discard = discard
        self._renew = renew
        self._renewing: asyncio.Future[None] | None = None
        self._env = env
        self._won = asyncio.Event()
        """There is a manifest without a copy."""
        self._settled = asyncio.Event()
        """There is none, or the last try failed."""
        self._settled.set()
        self._hold = ExitStack()
        self._held_at = 0.0
        """When it began, by the loop's clock."""
        self._hold_ends: asyncio.TimerHandle | None = None
        self._older = set(manifests.copies)
        """Numbers of the copies that may lie there."""
        self.written = 0
        self.failing: str | None = None
        """Why the newest manifest has no copy; None: it has one, or it is on its way."""
        self.failing_since = 0.0
        """Since when, by the monotonic clock."""
        manifests.on_won = self._begin
        if manifests.uncopied is not None:
            self._begin()

    def _begin(self) -> None:
        """A manifest was won. What it gave up stays until it has a copy, unless copies are refused."""
        if self.failing is None:
            self._hold_garbage()
        self._won.set()

    def _hold_garbage(self) -> None:
        """For a while from now on. Who commits without a pause holds it only so long: garbage has to go as well."""
        loop = asyncio.get_running_loop()
        if self._hold_ends is not None:
            self._hold_ends.cancel()
        else:
            self._settled.clear()
            self._hold.enter_context(self._keep())
            self._held_at = loop.time()
        ends = min(loop.time() + HOLD_SECONDS_MAX, self._held_at + 2 * HOLD_SECONDS_MAX)
        self._hold_ends = loop.call_at(ends, self._settle)

    async def run(self) -> None:
        """Copy what is won, for ever; where nothing is, see whether it is still there."""
        pause = COPY_PAUSE_SECONDS_MIN
        while True:
            if not await self._is_won_within(VERIFY_SECONDS):
                await self._verify()
                continue
            # From here on once more: it may have been won long ago, before there was anybody to copy it.
            if self.failing is None:
                self._hold_garbage()
            if await self._copy():
                pause = COPY_PAUSE_SECONDS_MIN
                if self._manifests.uncopied is None:  # else what a newer one gave up waits for the copy of that one
                    self._settle()
                continue
            self._settle()
            await asyncio.sleep(pause * (0.5 + self._env.jitter() / 2))
            pause = min(pause * 2, COPY_PAUSE_SECONDS_MAX)

    async def _is_won_within(self, seconds: float) -> bool:
        with suppress(TimeoutError):
            async with asyncio.timeout(seconds):
                await self._won.wait()
        return self._won.is_set()

    async def _verify(self) -> None:
        """Read the newest manifest and its copy. What is not as it was written is said, and written anew."""
        manifests = self._manifests
        number, manifest, tag, reader = manifests.number, manifests.manifest, manifests.tag, manifests.reader()
        try:
            async with asyncio.timeout(HOLD_SECONDS_MAX):
                content, own = await reader.misfit(manifest_name(number), number, tag)
                _, copy = await reader.misfit(spare_manifest_name(number), number, tag)
        except (Fenced, Closed):
            raise
        except (TimeoutError, StorageError):
            return  # the store is not well: another time
        if not number or manifests.number != number:
            return
        if own:
            what = {"object": manifest_name(number), "finding": own}
            _log.error("manifest_found_damaged", extra={**what, "copy": copy or "it is sound"})
            self._renewing = asyncio.ensure_future(self._renew())
            self._renewing.add_done_callback(lambda done: done.cancelled() or done.exception())
        elif copy:
            _log.error("spare_copy_damaged", extra={"object": spare_manifest_name(number), "finding": copy})
            manifests.won(SealedManifest(number, manifest, content, tag))

    async def settled(self) -> None:
        """Return when the newest manifest has its copy, or the store refuses it or takes long."""
        await self._settled.wait()

    async def finish(self) -> None:
        """Copy what was won last, or try for a few seconds; `run` has ended."""
        try:
            async with asyncio.timeout(FINISH_SECONDS_MAX):
                if self._won.is_set():
                    await self._copy()
        except TimeoutError:
            self._failed("the store did not take it in time")
        finally:
            self._settle()

    def _settle(self) -> None:
        if self._hold_ends is not None:
            self._hold_ends.cancel()
            self._hold_ends = None
        self._settled.set()
        self._hold.close()

    async def _copy(self) -> bool:
        """Copy the newest manifest that was won. False: the store refuses it. A crash in here leaves the copy or none,
        and older ones.
        """
        sealed = self._manifests.uncopied
        if sealed is None:
            self._won.clear()
            return True
        try:
            await self._create(sealed)
        except (Fenced, Closed):
            raise
        except StorageError as error:
            self._failed(str(error))
            return False
        self._discard(spare_manifest_name(number) for number in sorted(self._older) if number < sealed.number)
        self._older = {sealed.number}
        self.written += 1
        if self.failing is not None:
            self.failing = None
            _log.warning("spare_copy_written", extra={"object": spare_manifest_name(sealed.number)})
        if self._manifests.uncopied is sealed:
            self._manifests.uncopied = None
            self._won.clear()
        return True

    async def _create(self, sealed: SealedManifest) -> None:
        name = spare_manifest_name(sealed.number)
        try:
            await self._store.create(name, sealed.content)
            return
        except AlreadyExists:
            pass
        try:
            info = await self._store.head(name)
            if info.size == len(sealed.content) and await self._store.get(name, limit=info.size) == sealed.content:
                return  # an earlier try of ours that had no answer
            await self._manifests.check_copy(sealed)
            # The number is ours: what else lies under its copy's name was put there, or is damaged.
            await self._store.delete([name])
        except NotFound:
            pass
        await self._store.create(name, sealed.content)

    def _failed(self, reason: str) -> None:
        if self.failing is None:
            self.failing_since = self._env.monotonic()
            number = 0 if self._manifests.uncopied is None else self._manifests.uncopied.number
            _log.warning("spare_copy_failed", extra={"object": spare_manifest_name(number), "error": reason})
        self.failing = reason
