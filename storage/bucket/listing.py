"""What lies in the store's folders, by number or id. Names that are not ours are passed over, whatever they are."""

import asyncio
from collections.abc import Callable
from itertools import pairwise

from storage.format.names import (
    MANIFESTS,
    SPARES,
    TABLES,
    WALS,
    manifest_name,
    manifest_number,
    spare_manifest_number,
    sst_id,
    sst_name,
    wal_name,
    wal_number,
)
from storage.format.sst_list import Ids
from storage.objects.base import ObjectInfo, ObjectStore


async def list_manifests(store: ObjectStore, *, above: int = 0) -> dict[int, ObjectInfo]:
    """The manifests with numbers above `above`, ascending."""
    infos = await store.list(MANIFESTS, manifest_name(above))
    return {number: info for info in infos if (number := manifest_number(info.name)) is not None}


async def list_spare_manifests(store: ObjectStore) -> dict[int, ObjectInfo]:
    """The copies of manifests, by number."""
    infos = await store.list(SPARES)
    return {number: info for info in infos if (number := spare_manifest_number(info.name)) is not None}


async def list_manifests_and_copies(store: ObjectStore) -> tuple[dict[int, ObjectInfo], dict[int, ObjectInfo]]:
    """All manifests and all their copies, asked for at once."""
    copies = asyncio.ensure_future(list_spare_manifests(store))
    try:
        return await list_manifests(store), await copies
    finally:
        copies.cancel()
        await asyncio.gather(copies, return_exceptions=True)


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


async def list_known_ssts(store: ObjectStore, known: Ids, note: Callable[[list[ObjectInfo]], None]) -> None:
    """All that lies in the folder of SSTs, in parts, in no order; `known` are ids that are thought to lie there,
    ascending: those say where to begin, so that several parts are listed at once.
    """
    count = min(LISTINGS_AT_ONCE, len(known) // NAMES_APART_MIN) or 1
    cuts = [len(known) * part // count for part in range(count + 1)]
    names = ["", *(sst_name(known[cut - 1].decode()) for cut in cuts[1:-1]), None]

    async def between(after: str, last: str | None, expected: int) -> None:
        note(await _list_between(store, after, last, expected))

    sizes = (high - low for low, high in pairwise(cuts))
    await asyncio.gather(
        *(between(low or "", high, size) for (low, high), size in zip(pairwise(names), sizes, strict=True))
    )


async def list_all_ssts(store: ObjectStore) -> list[ObjectInfo]:
    """All that lies in the folder of SSTs, by name."""
    return await store.list(TABLES, "")


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
