"""What lies in the store's folders, by number or id. Names that are not ours are passed over, whatever they are."""

import asyncio
from collections.abc import Collection
from itertools import pairwise

from storage.format.names import (
    MANIFESTS,
    TABLES,
    WALS,
    manifest_name,
    manifest_number,
    sst_id,
    sst_name,
    wal_name,
    wal_number,
)
from storage.objects.base import ObjectInfo, ObjectStore


async def list_manifests(store: ObjectStore, *, above: int = 0) -> dict[int, ObjectInfo]:
    """The manifests with numbers above `above`, ascending."""
    infos = await store.list(MANIFESTS, manifest_name(above))
    return {number: info for info in infos if (number := manifest_number(info.name)) is not None}


async def list_log(store: ObjectStore, *, above: int = 0) -> dict[int, ObjectInfo]:
    """The objects of the log with numbers above `above`, ascending."""
    infos = await store.list(WALS, wal_name(above))
    return {number: info for info in infos if (number := wal_number(info.name)) is not None}


async def list_ssts(store: ObjectStore, *, above: str | None = None) -> dict[str, ObjectInfo]:
    """The SSTs, checkpoints and images of the tree, by id; `above`: those with later ids only."""
    infos = await store.list(TABLES, "" if above is None else sst_name(above))
    return {ulid: info for info in infos if (ulid := sst_id(info.name)) is not None}


LISTINGS_AT_ONCE = 4
"""Of one folder. Each page of 1,000 names is a request, and a store gives the next one only when it has given the one
before. MinIO, which walks through the folder from its beginning for each, is no faster with more than that.
"""

PAGE_NAMES = 1000

NAMES_APART_MIN = 2 * PAGE_NAMES
"""So many names are listed by one."""


async def list_known_ssts(store: ObjectStore, known: Collection[str]) -> dict[str, ObjectInfo]:
    """All that `list_ssts` gives, where many of them are known: those say where to begin, so that several parts are
    listed at once.
    """
    ids = sorted(known)
    count = min(LISTINGS_AT_ONCE, len(ids) // NAMES_APART_MIN) or 1
    cuts = [len(ids) * part // count for part in range(count + 1)]
    parts = (
        _list_between(
            store,
            sst_name(ids[low - 1]) if low else "",
            sst_name(ids[high - 1]) if high < len(ids) else None,
            high - low,
        )
        for low, high in pairwise(cuts)
    )
    found: dict[str, ObjectInfo] = {}
    for infos in await asyncio.gather(*parts):
        found |= {ulid: info for info in infos if (ulid := sst_id(info.name)) is not None}
    return found


async def _list_between(store: ObjectStore, after: str, last: str | None, expected: int) -> list[ObjectInfo]:
    """What has names after `after`, up to `last`, of which `expected` are known; all further ones if that is None."""
    if last is None:
        return await store.list(TABLES, after)
    found: list[ObjectInfo] = []
    while not found or found[-1].name < last:
        limit = max(expected - len(found), PAGE_NAMES)
        some = await store.list(TABLES, found[-1].name if found else after, limit)
        found += some
        if not some:
            break
    return [info for info in found if info.name <= last]
