"""Retries: a store that did not answer is asked again, and what became of the first attempt is found out.

`Unavailable` is tried again by everybody; by those who wait for ever also what a person can mend (MENDABLE), since the
same requests were answered before, and nothing that was written is lost while they wait: room, a key, a permission, a
clock, a certificate, a bucket, a gateway that refuses what it did yesterday. The pause doubles from 0.1 s to 10 s, is
drawn between nothing and that ("full jitter"), and is never shorter than what the store asked for.

A create that is tried again may find its own first attempt: "already exists" then says nothing. It is
settled by reading the object back. A small one is compared whole: two changes of one store's passwords begin alike, and
have one size. The first bytes of a large one hold what its writer drew at random, so they and the size are enough.
Where that is ours, the object is ours, and the create has succeeded. Where it is anything else or not there,
`AlreadyExists` stands, and the caller decides: of numbered objects `storage.bucket.create_once`, which compares all
bytes with those that an earlier request may have sent, and finds out whether another writer has the number. A large
object is looked for before it is sent again: a store that has it refuses the second before it has read it, which some
proxies make a connection that ends without an answer, for ever.
"""

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from typing import TypeVar

from storage.buffers import Buffer
from storage.env import Env
from storage.errors import (
    AccessDenied,
    AlreadyExists,
    Corrupt,
    NoBucket,
    NotFound,
    OutOfSpace,
    Unavailable,
    Unsupported,
    Untrusted,
)
from storage.objects.base import (
    ANSWER_BYTES_MAX,
    LIST_PAGE_MAX,
    Capabilities,
    Listing,
    ObjectInfo,
    ObjectStore,
)
from storage.objects.health import HUNG_SECONDS, SILENT_SECONDS, Health
from storage.objects.hedge import HEDGE_SECONDS_MIN, Hedge
from storage.units import KIB

T = TypeVar("T")

RETRY_SECONDS_MIN = 0.1
RETRY_SECONDS_MAX = 10.0

RETRY_AFTER_SECONDS_MAX = 60.0
"""A store that asks for a longer pause is asked earlier: it may be well again, and writers wait."""

MENDABLE = (AccessDenied, NoBucket, OutOfSpace, Unsupported, Untrusted)
"""Errors that end the opening of a store, and that an open one waits out."""

LISTED_AT_ONCE = 20 * LIST_PAGE_MAX
"""Names that one call lists. Within a listing a store gives the next page sooner than it begins another one behind a
name: MinIO, of 30,000 names, in 25 ms in place of 50.
"""

LARGE_BYTES_MIN = 256 * KIB
"""More than lies in the buffers on the way, and costs more to send than to look for."""

IDENTITY_BYTES = 128
"""The head of a large object that holds its writer's identity: magic, store, epoch, writer's nonce, number."""


class RetryingStore:
    """`inner`, with each call tried again for `deadline_seconds`, or for ever where that is None.

    At the deadline the last Unavailable is raised; what was under way then may still happen. A listing of many names
    is many calls: each has its own time, and what had an answer is not asked for again.
    """

    def __init__(
        self,
        inner: ObjectStore,
        env: Env,
        deadline_seconds: float | None,
        *,
        hedge_seconds_min: float = HEDGE_SECONDS_MIN,
    ) -> None:
        """Nothing is sent a second time before `hedge_seconds_min`: for worlds whose stores answer in their time."""
        self._inner = inner
        self._env = env
        self._deadline_seconds = deadline_seconds
        self._once = False
        self.health = Health(inner.url, env)
        self._creates = Hedge(env, hedge_seconds_min)
        self._gets = Hedge(env, hedge_seconds_min)

    def with_deadline(self, seconds: float | None) -> "RetryingStore":
        """The same store with another deadline; closing one of them closes it for all."""
        other = RetryingStore(self._inner, self._env, seconds)
        other.health, other._creates, other._gets = self.health, self._creates, self._gets
        return other

    def once(self) -> "RetryingStore":
        """The same store, each request tried a single time: for those who know what else to do meanwhile.

        What they are refused may be their object's fault, so it says nothing about the store; an answer does.
        """
        other = self.with_deadline(None)
        other._once = True
        return other

    @property
    def deadline_seconds(self) -> float | None:
        """For how long a call is tried again; None: for ever."""
        return self._deadline_seconds

    @property
    def url(self) -> str:
        return self._inner.url

    @property
    def capabilities(self) -> Capabilities:
        return self._inner.capabilities

    async def create(self, name: str, data: Buffer) -> None:
        unknown = False  # whether another attempt may have happened
        size = memoryview(data).nbytes

        def sent_twice() -> None:
            nonlocal unknown
            unknown = True

        async def attempt() -> None:
            nonlocal unknown
            try:
                if unknown and size >= LARGE_BYTES_MIN and await self._is_ours(name, data):
                    return
                if self.capabilities.remote:
                    await self._creates.run(lambda: self._inner.create(name, data), size, sent_twice)
                else:
                    await self._inner.create(name, data)
            except (Unavailable, *MENDABLE):
                unknown = True
                raise
            except AlreadyExists:
                if not unknown or not await self._is_ours(name, data):
                    raise

        await self._until_answered("create", name, attempt)

    async def put(self, name: str, data: Buffer) -> None:
        await self._until_answered("put", name, lambda: self._inner.put(name, data))

    async def get(self, name: str, offset: int = 0, length: int | None = None, limit: int = ANSWER_BYTES_MAX) -> bytes:
        async def attempt() -> bytes:
            if not self.capabilities.remote:
                return await self._inner.get(name, offset, length, limit)
            size = limit if length is None else length
            return await self._gets.run(lambda: self._inner.get(name, offset, length, limit), size)

        return await self._until_answered("get", name, attempt)

    async def head(self, name: str) -> ObjectInfo:
        return await self._until_answered("head", name, lambda: self._inner.head(name))

    async def delete(self, names: Sequence[str]) -> None:
        await self._until_answered("delete", " ".join(names[:1]), lambda: self._inner.delete(names))

    async def list(self, prefix: str, start_after: str = "", limit: int | None = None) -> Listing:
        if not self.capabilities.remote:
            return await self._list(prefix, start_after, limit)
        found: Listing = []
        while limit is None or len(found) < limit:
            wanted = LISTED_AT_ONCE if limit is None else min(limit - len(found), LISTED_AT_ONCE)
            some = await self._list(prefix, found[-1].name if found else start_after, wanted)
            found += some
            if len(some) < wanted:
                break
        return found

    async def _list(self, prefix: str, start_after: str, limit: int | None) -> Listing:
        return await self._until_answered("list", prefix, lambda: self._inner.list(prefix, start_after, limit))

    async def close(self) -> None:
        await self._inner.close()

    async def _is_ours(self, name: str, data: Buffer) -> bool:
        mine = memoryview(data).cast("B")
        compared = len(mine) if len(mine) < LARGE_BYTES_MIN else IDENTITY_BYTES
        try:
            if (await self._inner.head(name)).size != len(mine):
                return False
            head = await self._inner.get(name, 0, compared)
        except NotFound:
            return False
        return head == mine[:compared]

    async def _until_answered(self, verb: str, name: str, attempt: Callable[[], Awaitable[T]]) -> T:
        if self._deadline_seconds is None:
            return await self._keep_trying(verb, name, attempt)
        last: Unavailable | None = None

        async def remembering() -> T:
            nonlocal last
            try:
                return await attempt()
            except Unavailable as error:
                last = error
                raise

        loop = asyncio.get_running_loop()
        silence = loop.call_later(SILENT_SECONDS, self.health.silent, verb, name, self._env.monotonic())
        try:
            async with asyncio.timeout(self._deadline_seconds) as limit:
                return await self._keep_trying(verb, name, remembering)
        except TimeoutError:
            if not limit.expired():
                raise
            raise last or Unavailable(f"{self.url} did not answer within {self._deadline_seconds:g} s") from None
        finally:
            silence.cancel()

    async def _keep_trying(self, verb: str, name: str, attempt: Callable[[], Awaitable[T]]) -> T:
        ceiling = RETRY_SECONDS_MIN
        request = object()
        try:
            while True:
                asked = 0.0
                try:
                    result = await self._listening(verb, name, attempt)
                except Unavailable as error:
                    if self._once:
                        raise
                    self.health.failed(request, verb, name, error)
                    asked = min(error.retry_after or 0.0, RETRY_AFTER_SECONDS_MAX)
                except MENDABLE as error:
                    if self._once:
                        raise
                    self.health.failed(request, verb, name, error)
                    if self._deadline_seconds is not None:
                        raise
                except (NotFound, AlreadyExists, Corrupt):
                    self.health.answered(request)
                    raise
                else:
                    self.health.answered(request)
                    return result
                await asyncio.sleep(max(ceiling * self._env.jitter(), asked))
                ceiling = min(ceiling * 2, RETRY_SECONDS_MAX)
        finally:
            self.health.ended(request)

    async def _listening(self, verb: str, name: str, attempt: Callable[[], Awaitable[T]]) -> T:
        """What `attempt` gives. A folder has no time-outs: where it hangs, no error comes that would say so.

        What is remote has its own, and a large body on a slow way takes longer by design. What has a deadline is
        listened to for all of its attempts.
        """
        if self._deadline_seconds is not None or self._once or self.capabilities.remote:
            return await attempt()
        loop = asyncio.get_running_loop()
        asked = self._env.monotonic()
        silence: asyncio.TimerHandle

        def look() -> None:
            nonlocal silence
            since = self.health.quiet_since(asked)
            left = since + HUNG_SECONDS - self._env.monotonic()
            if left > 0:  # others had answers meanwhile
                silence = loop.call_later(left, look)
            else:
                self.health.silent(verb, name, since, HUNG_SECONDS)

        silence = loop.call_later(HUNG_SECONDS, look)
        try:
            return await attempt()
        finally:
            silence.cancel()
