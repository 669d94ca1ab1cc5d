"""This file knows how to ask a store again that did not answer, and what then became of the first attempt.

Only `Unavailable` is tried again, and by those who wait for ever `OutOfSpace` and `AccessDenied` too, since a
person can make room, or mend a key, a permission or a clock, while nothing that was written is lost. The pause
doubles from 0.1 s to 10 s, is drawn between nothing and that ("full jitter"), and is never shorter than what the
store asked for.

A create that is tried again may find its own first attempt: "already exists" then says nothing. It is
settled by reading the object back. Its first bytes hold what its writer drew at random, so where they and
the size are ours, the object is ours, and the create has succeeded. Where it is anything else or not there,
`AlreadyExists` stands, and the caller decides.
"""

import asyncio
import logging
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from typing import TypeVar

from storage.env import Env
from storage.errors import AccessDenied, AlreadyExists, NotFound, OutOfSpace, StorageError, Unavailable
from storage.objects.base import ANSWER_BYTES_MAX, Buffer, Capabilities, Listing, ObjectInfo, ObjectStore

T = TypeVar("T")

PAUSE_SECONDS_MIN = 0.1
PAUSE_SECONDS_MAX = 10.0

RETRY_AFTER_SECONDS_MAX = 60.0
"""A store that asks for a longer pause is asked earlier: it may be well again, and writers wait."""

IDENTITY_BYTES = 128
"""The head of an object that holds its writer's identity: magic, store, epoch, writer's nonce, number."""

_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Failing:
    """A store that does not do what it is asked: since when (`Env.monotonic`), and the newest reason."""

    since: float
    reason: str


class Health:
    """Whether the store answers; one for all who share a store. Its log is told when that changes."""

    def __init__(self, url: str, env: Env) -> None:
        self._url = url
        self._env = env
        self.failing: Failing | None = None
        """None while requests are answered."""

    def failed(self, verb: str, error: StorageError) -> None:
        """A request got no answer, or was refused in a way that somebody can mend."""
        if self.failing is None:
            _log.warning("store_failing", extra={"url": self._url, "request": verb, "error": str(error)})
        since = self._env.monotonic() if self.failing is None else self.failing.since
        self.failing = Failing(since, str(error))

    def answered(self) -> None:
        """A request was answered."""
        if self.failing is not None:
            self.failing = None
            _log.warning("store_recovered", extra={"url": self._url})


class RetryingStore:
    """`inner`, with each call tried again for `deadline_seconds`, or for ever where that is None.

    At the deadline the last Unavailable is raised; what was under way then may still happen.
    """

    def __init__(self, inner: ObjectStore, env: Env, deadline_seconds: float | None) -> None:
        self._inner = inner
        self._env = env
        self._deadline_seconds = deadline_seconds
        self.health = Health(inner.url, env)

    def with_deadline(self, seconds: float | None) -> "RetryingStore":
        """The same store with another deadline; closing one of them closes it for all."""
        other = RetryingStore(self._inner, self._env, seconds)
        other.health = self.health
        return other

    @property
    def url(self) -> str:
        return self._inner.url

    @property
    def capabilities(self) -> Capabilities:
        return self._inner.capabilities

    async def create(self, name: str, data: Buffer) -> None:
        unknown = False  # whether an earlier attempt may have happened

        async def attempt() -> None:
            nonlocal unknown
            try:
                await self._inner.create(name, data)
            except (Unavailable, OutOfSpace, AccessDenied):
                unknown = True
                raise
            except AlreadyExists:
                if not unknown or not await self._is_ours(name, data):
                    raise

        await self._until_answered("create", attempt)

    async def put(self, name: str, data: Buffer) -> None:
        await self._until_answered("put", lambda: self._inner.put(name, data))

    async def get(self, name: str, offset: int = 0, length: int | None = None, limit: int = ANSWER_BYTES_MAX) -> bytes:
        return await self._until_answered("get", lambda: self._inner.get(name, offset, length, limit))

    async def head(self, name: str) -> ObjectInfo:
        return await self._until_answered("head", lambda: self._inner.head(name))

    async def delete(self, names: Sequence[str]) -> None:
        await self._until_answered("delete", lambda: self._inner.delete(names))

    async def list(self, prefix: str, start_after: str = "", limit: int | None = None) -> Listing:
        return await self._until_answered("list", lambda: self._inner.list(prefix, start_after, limit))

    async def close(self) -> None:
        await self._inner.close()

    async def _is_ours(self, name: str, data: Buffer) -> bool:
        mine = memoryview(data).cast("B")
        try:
            if (await self._inner.head(name)).size != len(mine):
                return False
            head = await self._inner.get(name, 0, min(len(mine), IDENTITY_BYTES))
        except NotFound:
            return False
        return head == mine[:IDENTITY_BYTES]

    async def _until_answered(self, verb: str, attempt: Callable[[], Awaitable[T]]) -> T:
        if self._deadline_seconds is None:
            return await self._keep_trying(verb, attempt)
        last: Unavailable | None = None

        async def remembering() -> T:
            nonlocal last
            try:
                return await attempt()
            except Unavailable as error:
                last = error
                raise

        try:
            async with asyncio.timeout(self._deadline_seconds) as limit:
                return await self._keep_trying(verb, remembering)
        except TimeoutError:
            if not limit.expired():
                raise
            raise last or Unavailable(f"{self.url} did not answer within {self._deadline_seconds:g} s") from None

    async def _keep_trying(self, verb: str, attempt: Callable[[], Awaitable[T]]) -> T:
        ceiling = PAUSE_SECONDS_MIN
        while True:
            try:
                result = await attempt()
            except Unavailable as error:
                self.health.failed(verb, error)
                asked = min(error.retry_after or 0.0, RETRY_AFTER_SECONDS_MAX)
            except (OutOfSpace, AccessDenied) as error:
                self.health.failed(verb, error)
                if self._deadline_seconds is not None:
                    raise
                asked = 0.0
            else:
                self.health.answered()
                return result
            await asyncio.sleep(max(ceiling * self._env.jitter(), asked))
            ceiling = min(ceiling * 2, PAUSE_SECONDS_MAX)
