"""What lies in the store's folders, by number or id. Names that are not ours are passed over, whatever they are."""

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
