"""Counters of a store: how many requests it was asked, and how many bytes went either way."""

import logging
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, field
from typing import TypeVar

from storage.buffers import Buffer
from storage.errors import AlreadyExists, NotFound, StorageError
from storage.histogram import Histogram
from storage.objects.base import (
    ANSWER_BYTES_MAX,
    DELETE_BATCH_MAX,
    LIST_PAGE_MAX,
    Capabilities,
    Listing,
    ObjectInfo,
    ObjectStore,
)

T = TypeVar("T")

_log = logging.getLogger("nbdserver")

VERBS = ("create", "put", "get", "head", "list", "delete")


@dataclass(slots=True)
class RequestStats:
    """Counters that only grow; plain numbers, owned by the event loop.

    `requests` by verb: every attempt, a listing per page, a deletion per 1,000 names. Bytes are those of objects that
    arrived.
    """

    requests: dict[str, int] = field(default_factory=lambda: dict.fromkeys(VERBS, 0))
    failed: dict[str, int] = field(default_factory=lambda: dict.fromkeys(VERBS, 0))
    """By verb: those that failed, "not found" and "already exists" being answers and not failures."""
    seconds: dict[str, Histogram] = field(default_factory=lambda: {verb: Histogram() for verb in VERBS})
    """How long they took by verb, all pages or names of one call together, those that failed too."""
    answered: dict[str, float] = field(default_factory=dict)
    """By verb: when the last one was answered that did not fail, by the monotonic clock; only verbs that had one."""
    bytes_up: int = 0
    bytes_down: int = 0

    @property
    def errors(self) -> int:
        """Attempts that failed."""
        return sum(self.failed.values())


class CountingStore:
    """`inner`, with what goes to it counted in `stats`; below the retries, so that each attempt counts."""

    def __init__(self, inner: ObjectStore, stats: RequestStats, clock: Callable[[], float]) -> None:
        self._inner = inner
        self._stats = stats
        self._clock = clock

    @property
    def url(self) -> str:
        return self._inner.url

    @property
    def capabilities(self) -> Capabilities:
        return self._inner.capabilities

    async def create(self, name: str, data: Buffer) -> None:
        await self._counted("create", name, self._inner.create(name, data))
        self._stats.bytes_up += memoryview(data).nbytes

    async def put(self, name: str, data: Buffer) -> None:
        await self._counted("put", name, self._inner.put(name, data))
        self._stats.bytes_up += memoryview(data).nbytes

    async def get(self, name: str, offset: int = 0, length: int | None = None, limit: int = ANSWER_BYTES_MAX) -> bytes:
        data = await self._counted("get", name, self._inner.get(name, offset, length, limit))
        self._stats.bytes_down += len(data)
        return data

    async def head(self, name: str) -> ObjectInfo:
        return await self._counted("head", name, self._inner.head(name))

    async def delete(self, names: Sequence[str]) -> None:
        await self._counted(
            "delete", " ".join(names[:1]), self._inner.delete(names), requests=-(-len(names) // DELETE_BATCH_MAX)
        )

    async def list(self, prefix: str, start_after: str = "", limit: int | None = None) -> Listing:
        found = await self._counted("list", prefix, self._inner.list(prefix, start_after, limit))
        self._stats.requests["list"] += max(len(found) - 1, 0) // LIST_PAGE_MAX
        return found

    async def close(self) -> None:
        await self._inner.close()

    async def _counted(self, verb: str, name: str, answer: Awaitable[T], *, requests: int = 1) -> T:
        self._stats.requests[verb] += requests
        began = self._clock()
        outcome, answered = "answered", False
        try:
            found = await answer
            answered = True
            return found
        except BaseException as error:
            outcome = type(error).__name__
            answered = isinstance(error, NotFound | AlreadyExists)
            if isinstance(error, StorageError) and not answered:
                self._stats.failed[verb] += 1
            raise
        finally:
            now = self._clock()
            self._stats.seconds[verb].add(now - began)
            if answered:
                self._stats.answered[verb] = now
            if _log.isEnabledFor(logging.DEBUG):
                _log.debug("object_request", extra={"verb": verb, "object": name, "outcome": outcome})
