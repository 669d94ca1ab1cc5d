"""The probe: whether a store does what the engine's safety rests on.

A store that takes a condition and ignores it, or checks it and then races, would let two writers both
believe that they own the disk. So would one whose listings lag. Neither shows in normal work, until data
are lost. The probe is a race and not a sequence, because there are stores that pass the sequence and fail
the race.

Some stores answer only some of what comes at once: Cloudflare R2 takes one write a second to a name, and refuses the
others with 429. Racers without an answer are sent again, all together, a few times; then it is enough that two have
one. That finds no less than to ask until all have theirs: the name is taken by then, so those who are asked again race
with nobody, and what they show, that a name which is taken is refused, one later create shows as well. And what a race
is for is asked of all: no two may be told of a success, and what lies there must be the winner's, or, where nobody was
told of one, that of a racer who had no answer, since it may have been carried out. It is never that of a loser, nor of
somebody without an answer where another has won. Where nobody has an answer yet, they go on racing with each other.

It shows what it finds at this moment and cannot prove what a store will do under load: which stores are supported is
documentation.
"""

import asyncio
import contextlib
import logging

from storage.cancel import do_all
from storage.env import Env
from storage.errors import AccessDenied, AlreadyExists, NotFound, OutOfSpace, StorageError, Unavailable, Unsupported
from storage.objects.base import ObjectInfo, ObjectStore
from storage.objects.retry import RetryingStore
from storage.units import MIB

_log = logging.getLogger("nbdserver")

PREFIX = "probe/"

RACERS = 16
"""Creates of one name at a time: with 8, stores are known whose race is lost in one round of two."""

ROUNDS = 3

ANSWERS_MIN = 2
"""Of a race: one who won, and one who was told that the name is taken."""

BURSTS = 4
"""So often those that had no answer are sent again in the hope that all have one."""

BURST_SECONDS = 1.2
"""Between two: a store that takes one write a second to a name takes the next one then."""

BURST_SECONDS_MAX = 10.0
"""Between two of the later ones, where the store answers nobody."""

OBJECT_BYTES = 5000
"""Not a multiple of any block, so that a range that is rounded shows."""

LARGE_BYTES = MIB + 1
"""A byte more than the limit of nginx, unless it is told another. Objects of the log may be so large, and the first is
only once a disk is used: a limit that is not found here has a flush wait for ever."""


async def probe(store: ObjectStore, env: Env) -> None:
    """Raise Unsupported, with the reason, where the store must not be written to. Leaves nothing behind, unless the
    store does not let us delete: such a one only grows, and is warned of.
    """
    if not store.capabilities.conditional_create:
        raise _unfit(store, "it has no way to create an object only where there is none")
    root = f"{PREFIX}{env.random_bytes(8).hex()}-"
    races = [f"{root}race-{number}" for number in range(ROUNDS)]
    one, other, large = f"{root}one", f"{root}other", f"{root}of-{LARGE_BYTES}-bytes"
    try:
        # All at once: a store that is 25 ms away would take as long as all else of a start.
        # None goes on behind its end: what they create is deleted then.
        await do_all(_Race(store, env, name).run() for name in races)
        await _ranges(store, env, other)
        await _listing(store, root, one, known=[*races, other])
        await _deletion(store, root, one)
        if store.capabilities.remote:
            await _large(store, env, large)
    finally:
        with contextlib.suppress(StorageError):  # what was found out counts, not whether it could be tidied
            await store.delete([*races, one, other, large])


class _Race:
    """Creates of one name at once, and what became of them."""

    def __init__(self, store: ObjectStore, env: Env, name: str) -> None:
        self._store, self._name = store, name
        self._objects = [env.random_bytes(OBJECT_BYTES) for _ in range(RACERS)]
        self._late = env.random_bytes(OBJECT_BYTES)
        # With its own retries each racer would come again at a time of its own, until the last one has its answer.
        self._sender = store.once() if isinstance(store, RetryingStore) else store
        self._waiting = set(range(RACERS))
        """Those that had no answer yet."""
        self._unknown: set[int] = set()
        """Those of whose requests one had no answer, and may have been carried out."""
        self._won: list[int] = []
        self._refusal: Unavailable | None = None

    async def run(self) -> None:
        """Of creates that race and a later one exactly one wins, and what is there is its object."""
        seconds = self._store.deadline_seconds if isinstance(self._store, RetryingStore) else None
        try:
            async with asyncio.timeout(seconds) as limit:
                await self._send_all()
        except TimeoutError:
            if not limit.expired():
                raise
            if not self._enough:
                raise self._refusal or Unavailable(f"{self._store.url} did not answer within {seconds:g} s") from None
        if len(self._won) > 1 or not (self._won or self._unknown):
            raise self._unfit(f"of {RACERS} racing creates of one object {len(self._won)} succeeded, not one")
        with contextlib.suppress(AlreadyExists):
            await self._store.create(self._name, self._late)
            raise self._unfit("an object was created where one was already (If-None-Match)")
        found = await self._store.get(self._name)
        if not any(found == self._objects[number] for number in self._won or self._unknown):
            raise self._unfit("an object read back at once is not the one that was created")

    async def _send_all(self) -> None:
        """Until all had an answer, or, after a few times, enough of them."""
        pause, bursts = BURST_SECONDS, 0
        while True:
            outcomes = await asyncio.gather(*map(self._send, sorted(self._waiting)), return_exceptions=True)
            for outcome in outcomes:
                if outcome is not None:
                    raise outcome
            bursts += 1
            if not self._waiting or (self._enough and bursts >= BURSTS):
                return
            if self._refusal is not None and self._sender is self._store:
                raise self._refusal
            asked = 0.0 if self._refusal is None else self._refusal.retry_after or 0.0
            await asyncio.sleep(max(pause, min(asked, BURST_SECONDS_MAX)))
            if bursts >= BURSTS:
                pause = min(2 * pause, BURST_SECONDS_MAX)

    @property
    def _enough(self) -> bool:
        return RACERS - len(self._waiting) >= ANSWERS_MIN

    async def _send(self, number: int) -> None:
        try:
            await self._sender.create(self._name, self._objects[number])
            self._won.append(number)
        except Unavailable as error:
            self._unknown.add(number)
            self._refusal = error
            return
        except AlreadyExists:
            pass  # a loser, unless an earlier request of its own was carried out
        self._waiting.discard(number)

    def _unfit(self, reason: str) -> Unsupported:
        return _unfit(self._store, reason)


async def _ranges(store: ObjectStore, env: Env, name: str) -> None:
    data = env.random_bytes(OBJECT_BYTES)
    await store.create(name, data)
    ranges = ((0, 1), (1, 1000), (4095, 2), (OBJECT_BYTES - 1, 1), (0, OBJECT_BYTES))
    found = await asyncio.gather(*(store.get(name, offset, length) for offset, length in ranges))
    for (offset, length), part in zip(ranges, found, strict=True):
        if part != data[offset : offset + length]:
            raise _unfit(store, f"a read of {length} bytes from {offset} gave other bytes")
    if await store.head(name) != ObjectInfo(name, OBJECT_BYTES):
        raise _unfit(store, "it does not tell the size of an object")


async def _listing(store: ObjectStore, root: str, name: str, *, known: list[str]) -> None:
    """What was just created is listed at once, in order with the objects `known`, also from a name on."""
    await store.create(name, b"listed")
    names = sorted([*known, name])
    starts = ("", names[1])
    for start, found in zip(starts, await asyncio.gather(*(store.list(root, start) for start in starts)), strict=True):
        if [item.name for item in found] != [expected for expected in names if expected > start]:
            raise _unfit(store, "a listing does not show, in order, exactly what was just created")


async def _deletion(store: ObjectStore, root: str, name: str) -> None:
    try:
        await store.delete([name])
    except AccessDenied as error:
        # Safety does not rest on it: what is deleted is what nothing needs any more.
        _log.warning("store_does_not_delete", extra={"url": store.url, "error": str(error)})
        return
    try:
        await store.get(name)
    except NotFound:
        pass
    else:
        raise _unfit(store, "an object can still be read after it was deleted")
    if name in [item.name for item in await store.list(root)]:
        raise _unfit(store, "an object is still listed after it was deleted")


async def _large(store: ObjectStore, env: Env, name: str) -> None:
    """Nothing on the way to the store refuses what is larger than all that was sent so far.

    Sent once, behind all else, so that a slow way has it to itself. Where it has no answer nothing is concluded: slow
    is not unfit, and a server asks again for as long as it takes. Nor is a full bucket, where a server may make room.
    """
    try:
        await (store.once() if isinstance(store, RetryingStore) else store).create(name, env.random_bytes(LARGE_BYTES))
    except Unavailable as error:
        if error.too_large:
            raise
    except OutOfSpace:
        pass


def _unfit(store: ObjectStore, reason: str) -> Unsupported:
    return Unsupported(f"{store.url} cannot hold a disk safely: {reason}")
