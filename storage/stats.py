"""The one list of counters and gauges of an open store: name, unit and meaning of each. Nothing is counted here.

The numbers are put together by `storage.lsm.wiring` and `storage.fs.current_status`, in one step on the event loop;
requests are counted by `storage.objects.counting`. What is shown of a store, as status, metrics or a dashboard, has its
names and units from here. `EngineNumbers` and `storage.fs.status.StoreStatus` have the same names as fields: a new
number is added in all three, which tests compare.
"""

from dataclasses import dataclass
from enum import Enum

import msgspec


class StatKind(Enum):
    """How a number moves."""

    COUNTER = "counter"
    """It only grows, from 0 when the process opened the store."""
    GAUGE = "gauge"
    """A state of this moment, which goes up and down."""


@dataclass(frozen=True, slots=True)
class Stat:
    """One number."""

    name: str
    kind: StatKind
    unit: str
    meaning: str
    formula: str = ""
    """What a derived one is made of; empty for what is counted itself."""


_COUNTER, _GAUGE = StatKind.COUNTER, StatKind.GAUGE

ENGINE_STATS = (
    Stat("unlogged_bytes", _GAUGE, "bytes", "written and not durable yet"),
    Stat("journal_bytes", _GAUGE, "bytes", "size of the journal in memory: what a killed server leaves to the next"),
    Stat("memtable_bytes", _GAUGE, "bytes", "written and not in SSTs yet, less what no flush can take"),
    Stat("kept_bytes", _GAUGE, "bytes", "parts of sectors over what cannot be read: they stay in the log"),
    Stat("cached_bytes", _GAUGE, "bytes", "decoded frames in memory"),
    Stat("wal_acknowledged", _GAUGE, "number", "highest number of the log that is acknowledged"),
    Stat("wal_objects", _GAUGE, "objects", "data objects of the log that a replay would read"),
    Stat("wal_bytes", _GAUGE, "bytes", "size of those data objects of the log"),
    Stat("manifest", _GAUGE, "number", "number of the newest manifest"),
    Stat("ssts", _GAUGE, "objects", "SSTs that the manifest lists"),
    Stat(
        "stored_bytes", _GAUGE, "bytes", "stored: size of those SSTs: live, dead, headers and indexes", "sum of sizes"
    ),
    Stat("live_bytes", _GAUGE, "bytes", "live: of frames in SSTs that some device shows something of"),
    Stat("dead_bytes", _GAUGE, "bytes", "dead: of frames in SSTs that no device shows anything of", "frames - live"),
    Stat("written_bytes", _COUNTER, "bytes", "written: by clients, also what was overwritten since"),
    Stat("unmerged_ssts", _GAUGE, "objects", "SSTs beside the newest checkpoint: what a start reads one by one"),
    Stat("older_key_bytes", _GAUGE, "bytes", "SSTs that a rotated data key sealed: maintenance seals them anew"),
    Stat("maintenance_bytes", _COUNTER, "bytes", "uploaded by checkpoints, repacking and consolidation"),
    Stat("patches", _GAUGE, "entries", "entries of the index over the base of a block", "sum over all layers"),
    Stat(
        "unlogged_seconds",
        _GAUGE,
        "seconds",
        "age of the oldest operation that is not durable; 0 if all are",
        "now - when it came",
    ),
)
"""What the engine counts."""


class EngineNumbers(msgspec.Struct, frozen=True, kw_only=True):
    """All of `ENGINE_STATS` at one moment, under their names and in their units."""

    unlogged_bytes: int
    unlogged_seconds: float
    journal_bytes: int
    memtable_bytes: int
    kept_bytes: int
    cached_bytes: int
    wal_acknowledged: int
    wal_objects: int
    wal_bytes: int
    manifest: int
    ssts: int
    stored_bytes: int
    live_bytes: int
    dead_bytes: int
    written_bytes: int
    unmerged_ssts: int
    older_key_bytes: int
    maintenance_bytes: int
    patches: int


REQUEST_STATS = (
    Stat("requests", _COUNTER, "requests", "attempts by verb; a listing counts per page, a deletion per 1,000 names"),
    Stat("request_errors", _COUNTER, "requests", "attempts that failed; not found and already there are answers"),
    Stat("bytes_up", _COUNTER, "bytes", "uploaded: of objects that arrived in the store"),
    Stat("bytes_down", _COUNTER, "bytes", "fetched: of objects that arrived from it"),
)
"""What goes to the store and comes from it."""

STORE_STATS = (
    Stat("devices", _GAUGE, "devices", "device files in the tree of names"),
    Stat("logical_bytes", _GAUGE, "bytes", "logical: what clients may write", "sum of the sizes of all devices"),
    Stat("allocated_bytes", _GAUGE, "bytes", "allocated: written to devices and not discarded since, in whole sectors"),
    Stat("garbage_objects", _GAUGE, "objects", "that nothing needs, waiting to be deleted"),
    Stat("uptime_seconds", _GAUGE, "seconds", "since the process opened the store", "now - when it was opened"),
    Stat(
        "space_amplification",
        _GAUGE,
        "ratio",
        "stored for each live byte; 0 if nothing is live",
        "stored_bytes / live_bytes",
    ),
    Stat(
        "write_amplification",
        _GAUGE,
        "ratio",
        "uploaded for each byte that clients wrote; 0 if they wrote nothing",
        "bytes_up / written_bytes",
    ),
)
"""What is known above the engine."""

STATS = (*STORE_STATS, *ENGINE_STATS, *REQUEST_STATS)

COST_STATS = (
    Stat(
        "requests_cost",
        _COUNTER,
        "currency",
        "what requests to the store cost at the price list",
        "price of a write * (create + put + list) + of a read * (get + head) + of a deletion * delete",
    ),
    Stat("fetched_cost", _COUNTER, "currency", "what fetching cost at the price list", "bytes_down * price of a GiB"),
    Stat(
        "stored_month_cost",
        _GAUGE,
        "currency",
        "what a month costs of what is stored now",
        "(stored_bytes + wal_bytes) * price of a GiB and month",
    ),
    Stat(
        "month_cost",
        _GAUGE,
        "currency",
        "what a month costs, if it goes on as since the process opened the store",
        "stored_month_cost + (requests_cost + fetched_cost) / max(uptime_seconds, 1 hour) * 730 hours",
    ),
)
"""There with a price list only (see `storage.prices`): without one nobody knows."""

BUDGET_STATS = (
    Stat("request_budget", _GAUGE, "requests", "what a month may have (serve --request-budget)"),
    Stat("month_requests", _GAUGE, "requests", "since the month began (UTC), as this host has counted them"),
    Stat(
        "month_requests_projected",
        _GAUGE,
        "requests",
        "of the whole month, if it goes on as in the last six hours",
        "month_requests + requests of six hours / six hours * what is left of the month",
    ),
    Stat(
        "background_slowdown",
        _GAUGE,
        "ratio",
        "how many times longer background work that can wait takes, so that the budget will do",
        "2 ^ ((month_requests_projected / request_budget - 1) / 0.05), from 1 to 16",
    ),
)
"""There with a budget of requests only (see `storage.request_budget`)."""

DEVICE_STATS = (
    Stat("logical_bytes", _GAUGE, "bytes", "logical: the size of the device"),
    Stat("allocated_bytes", _GAUGE, "bytes", "allocated: written and not discarded since, in whole sectors"),
    Stat("live_bytes", _GAUGE, "bytes", "live: of frames in SSTs that it shows something of"),
    Stat("memtable_bytes", _GAUGE, "bytes", "waiting: written and not in SSTs yet, in whole sectors"),
    Stat("unlogged_bytes", _GAUGE, "bytes", "waiting: written and not durable yet, with what it costs in memory"),
    Stat("written_bytes", _COUNTER, "bytes", "written: by clients, also what was overwritten since"),
)
"""Of one device. What is stored, dead, uploaded and fetched has no device: an SST holds frames of several."""
