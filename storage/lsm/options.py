"""What may be set of an engine. Sizes in bytes, times in seconds; the defaults are those that servers run with."""

import msgspec

from storage.units import GIB, MIB


class EngineOptions(msgspec.Struct, frozen=True):
    """How much an engine keeps, and how often it does what nobody asks it for."""

    cache_bytes: int = GIB
    """Decoded frames in memory."""
    unlogged_bytes_max: int = 256 * MIB
    """Written and not in the log yet; on a slow link less."""
    memtable_bytes_max: int = 256 * MIB
    """Written and not in SSTs yet."""
    kept_bytes_max: int = 32 * MIB
    """Parts of sectors over what cannot be read that are kept for a layer (see `complete`): 8,000 of them. They are in
    memory and in the log until they can be completed, so further ones are refused.
    """
    flush_bytes: int = 64 * MIB
    """A memtable of this size is flushed."""
    flush_objects: int = 1000
    """WAL objects that start a memtable flush: a replay of that many takes about a second."""
    flush_seconds: float = 60.0
    """A memtable is flushed when its oldest operation is this old, so an idle store needs no replay."""
    push_seconds: float = 1.0
    """Operations nobody flushes go to the log after this long."""
    watch_seconds: float = 10.0
    """How often a writer asks for the next manifest number: for so long a superseded one may serve its older view."""
    sweep_seconds: float = 3600.0
    """How often a writer looks for leftovers that have become old enough, and for what landed late."""
    patience_seconds: float | None = None
    """How long a read waits for a store that is away; None, for servers: for ever."""
