"""The probe: whether a store does what the engine's safety rests on.

A store that takes a condition and ignores it, or checks it and then races, would let two writers both
believe that they own the disk. So would one whose listings lag. Neither shows in normal work, until data
are lost. The probe is a race and not a sequence, because there are stores that pass the sequence and fail
the race. It shows what it finds at this moment and cannot prove what a store will do under load: which
stores are supported is documentation.
"""

import asyncio
import contextlib
import logging

from storage.env import Env
from storage.errors import AccessDenied, AlreadyExists, NotFound, StorageError, Unsupported
from storage.objects.base import ObjectInfo, ObjectStore

_log = logging.getLogger("nbdserver")

PREFIX = "probe/"

RACERS = 16
"""Creates of one name at a time: with 8, stores are known whose race is lost in one round of two."""

ROUNDS = 3

OBJECT_BYTES = 5000
"""Not a multiple of any block, so that a range that is rounded shows."""


async def probe(store: ObjectStore, env: Env) -> None:
    """Raise Unsupported, with the reason, where the store must not be written to. Leaves nothing behind, unless the
    store does not let us delete: such a one only grows, and is warned of.
    """
    if not store.capabilities.conditional_create:
        raise _unfit(store, "it has no way to create an object only where there is none")
    root = f"{PREFIX}{env.random_bytes(8).hex()}-"
    races = [f"{root}race-{number}" for number in range(ROUNDS)]
    one, other = f"{root}one", f"{root}other"
    try:
        # All at once: a store that is 25 ms away would take as long as all else of a start.
        await asyncio.gather(*(_race(store, env, name) for name in races))
        await _ranges(store, env, other)
        await _listing(store, root, one, known=[*races, other])
        await _deletion(store, root, one)
    finally:
        with contextlib.suppress(StorageError):  # what was found out counts, not whether it could be tidied
            await store.delete([*races, one, other])


async def _race(store: ObjectStore, env: Env, name: str) -> None:
    """Of creates that race and a later one exactly one wins, and what is there is its object."""
    objects = [env.random_bytes(OBJECT_BYTES) for _ in range(RACERS)]

    async def create(data: bytes) -> bool:
        try:
            await store.create(name, data)
        except AlreadyExists:
            return False
        return True

    won = await asyncio.gather(*map(create, objects), return_exceptions=True)
    for outcome in won:
        if isinstance(outcome, BaseException):
            raise outcome
    winners = won.count(True)
    if winners != 1:
        raise _unfit(store, f"of {RACERS} racing creates of one object {winners} succeeded, not one")
    if await create(env.random_bytes(OBJECT_BYTES)):
        raise _unfit(store, "an object was created where one was already (If-None-Match)")
    if await store.get(name) != objects[won.index(True)]:
        raise _unfit(store, "an object read back at once is not the one that was created")


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


def _unfit(store: ObjectStore, reason: str) -> Unsupported:
    return Unsupported(f"{store.url} cannot hold a disk safely: {reason}")
