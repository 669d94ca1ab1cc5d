"""The numbers of a running engine, taken in one step of the event loop: all of `ENGINE_STATS`."""

from storage.env import Env
from storage.lsm.compaction.usage import Meter
from storage.lsm.manifest.manifest_store import Manifests
from storage.lsm.wiring import Parts


def numbers(parts: Parts, manifests: Manifests, meter: Meter, env: Env) -> dict[str, int | float]:
    """The numbers as they are now, by name."""
    position = parts.commit.position
    log = position.snapshot()
    ssts, used = meter.ssts(), meter.usage
    oldest = parts.commit.oldest()
    return {
        "unlogged_bytes": parts.writes.unlogged_bytes,
        "unlogged_seconds": 0.0 if oldest is None else round(env.monotonic() - oldest, 3),
        "journal_bytes": parts.journal.bytes,
        "memtable_bytes": parts.writes.memtable_bytes,
        "kept_bytes": parts.writes.memtable.kept,
        "cached_bytes": parts.cache.bytes,
        "wal_acknowledged": log.acknowledged,
        "wal_objects": log.objects,
        "manifest": manifests.number,
        "wal_bytes": position.logged_bytes,
        "ssts": ssts.count,
        "stored_bytes": ssts.size,
        "live_bytes": used.live,
        "dead_bytes": used.dead,
        "written_bytes": parts.layers.written_bytes,
        "unmerged_ssts": len(manifests.manifest.ssts),
        "maintenance_bytes": parts.compactor.progress.uploaded_bytes,
        "patches": sum(len(part.patches) for part in parts.layers.forest.maps().values()),
    }
