"""Signs of life: what a writer puts into the store each second, for a server elsewhere that stands by.

They begin with the take-over, before anything else is done, and end behind the manifest that closes the store. A sign
that does not land is given up after two seconds, and the next one is tried: nothing waits for them, and nothing ends
for them. Each says how long it is to be believed, its *lease*: four seconds, or three times the longest pause between
two that landed in the last minute, up to a minute. So a writer on a bad line asks for more patience before it needs it.

Nothing that was written rests on them, nor on any clock: two writers are kept apart by the take-over manifest and the
fence (`storage.lsm.recovery.take_over`), and who is superseded has nothing acknowledged, whatever the signs said.
"""

import asyncio
import contextlib
import logging
from collections import deque
from collections.abc import Callable
from functools import partial

from storage.bucket.outage import REFUSALS
from storage.crypto.cipher import PREFIX_BYTES
from storage.crypto.data_key import DataKey
from storage.env import Env
from storage.errors import Fenced, StorageError
from storage.format.names import WRITERS, sign_epoch, sign_name
from storage.format.sign import WRITER_PURPOSE, Sign, Word, seal_sign
from storage.lsm.background import Background
from storage.lsm.manifest.manifest_store import Manifests
from storage.objects.base import ObjectStore

SIGN_SECONDS = 1.0
"""A month of them is 2.6 million PUTs."""

SIGN_SECONDS_MAX = 2.0
"""How long one may take."""

LEASE_SECONDS_MIN = 4.0
LEASE_SECONDS_MAX = 60.0
LEASE_PAUSES = 3
"""A lease is so many times the longest pause of late."""

PAUSES_SECONDS = 60.0
"""For so long a pause counts."""

SAID_FROM = 2
"""So many in a row that do not land are said."""

SAY_SECONDS = 2.0
"""How long a stop waits for its word to be in the store."""

_log = logging.getLogger("nbdserver")


class SignsOfLife:
    """Those of one writer. Owned by the event loop."""

    def __init__(self, store: ObjectStore, env: Env) -> None:
        """`store` tries each request once."""
        self._store = store
        self._env = env
        self._background = Background()
        self._epoch = 0
        self._manifests: Manifests | None = None
        self._count = 0
        self._word = Word.SERVES
        self._wake = asyncio.Event()
        self._said = asyncio.Event()
        self._landed: float | None = None
        self._pauses: deque[tuple[float, float]] = deque()
        """When, and how long: of the last minute."""
        self._failing = 0
        """So many in a row did not land."""

    @property
    def age_seconds(self) -> float | None:
        """Since the last one landed; None: none has."""
        return None if self._landed is None else self._env.monotonic() - self._landed

    def begin(self, key: DataKey, manifests: Manifests) -> None:
        """The store is this writer's, whose manifests these are."""
        self._manifests, self._epoch = manifests, manifests.manifest.epoch
        epoch = self._epoch
        seal = partial(seal_sign, key.cipher(WRITER_PURPOSE), epoch=epoch, store_id=key.store_id)
        self._background.start("signs of life", partial(self._give, seal), on_failure=self._failed)
        self._background.start("deletion of earlier signs", self._tidy, on_failure=self._failed)

    async def say(self, word: Word) -> None:
        """From now on they say this too. Returns when one that does has landed, or after a while."""
        self._word = word
        self._wake.set()
        try:
            async with asyncio.timeout(SAY_SECONDS):
                await self._said.wait()
        except TimeoutError:
            _log.warning("word_not_given", extra={"word": word.name.lower()})

    async def stop(self) -> None:
        """Give no more of them."""
        await self._background.stop()

    def _failed(self, error: BaseException) -> None:
        """A mistake of this program: the store is served all the same, and a standby takes it, as if this one hung."""
        _log.error("signs_failed", exc_info=error)

    async def _give(self, seal: Callable[..., bytes]) -> None:
        while True:
            began = self._env.monotonic()
            self._wake.clear()
            await self._give_one(seal)
            rest = SIGN_SECONDS - (self._env.monotonic() - began)
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(max(rest, 0.0)):
                    await self._wake.wait()

    async def _give_one(self, seal: Callable[..., bytes]) -> None:
        self._count += 1
        word, now = self._word, self._env.monotonic()
        manifest = 0 if self._manifests is None else self._manifests.number
        sign = Sign(self._count, manifest, int(self._lease(now) * 1000), word)
        sealed = seal(sign, nonce=self._env.random_bytes(PREFIX_BYTES))
        try:
            async with asyncio.timeout(SIGN_SECONDS_MAX):
                await self._store.put(sign_name(self._epoch), sealed)
        except (TimeoutError, StorageError) as error:
            self._failing += 1
            # One alone is no news: some stores take one write a second to a name, and refuse what comes a moment early.
            if self._failing == SAID_FROM:
                _log.warning("sign_not_given", extra={"reason": str(error) or "no answer in time"})
            return
        self._failing = 0
        now = self._env.monotonic()
        if self._landed is not None:
            self._pauses.append((now, now - self._landed))
        self._landed = now
        if word is self._word and word is not Word.SERVES:
            self._said.set()

    def _lease(self, now: float) -> float:
        """For how long the sign that is made now is to be believed."""
        while self._pauses and self._pauses[0][0] < now - PAUSES_SECONDS:
            self._pauses.popleft()
        longest = max((pause for _, pause in self._pauses), default=0.0)
        if self._landed is not None:
            longest = max(longest, now - self._landed)
        return min(max(LEASE_SECONDS_MIN, LEASE_PAUSES * longest), LEASE_SECONDS_MAX)

    async def _tidy(self) -> None:
        """Delete the signs of other writers, each of which has its own: of earlier ones, and of later ones, for a store
        that was set back will have those epochs again. A crash leaves them; a successor gives another one.

        Behind the list it is asked whether this is the newest writer yet: by the sign of one that has followed, and
        died, a standby knows that it may take the store.
        """
        manifests = self._manifests
        if manifests is None:
            return
        with contextlib.suppress(*REFUSALS, Fenced):
            names = [info.name for info in await self._store.list(WRITERS)]
            old = [name for name in names if (epoch := sign_epoch(name)) is not None and epoch != self._epoch]
            if old:
                await manifests.look_for_newer()
                await self._store.delete(old)
