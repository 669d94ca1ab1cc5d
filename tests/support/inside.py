"""What tests look into that is private in `storage`: each thing has a name here, and is reached for nowhere else.

A test goes through the public face where there is one. What is here has none, since no other code wants it.
"""

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from numpy.typing import NDArray

from storage.cache.frame_cache import FrameCache
from storage.crypto import keyslots
from storage.crypto.keyslots import Cost
from storage.env import Env, RealEnv
from storage.format.journal_batch import Memory
from storage.fs.devices.device import Device
from storage.fs.name_tree import NameTree
from storage.fs.store import Store
from storage.journal.files import FolderFiles
from storage.journal.journal import Journal, JournalPlace
from storage.lsm.compaction.job_context import JobContext
from storage.lsm.engine import Engine
from storage.lsm.index.block_map import BlockMap
from storage.lsm.layers import Layers
from storage.lsm.memtable.gate import Gate
from storage.lsm.options import MaintenanceOptions
from storage.lsm.read.read_ahead import ReadAhead
from storage.lsm.wal.group_commit import GroupCommit
from storage.objects.memory import MemoryStore
from storage.objects.retry import RetryingStore
from storage.secret import Secret


def engine_of(store: Store) -> Engine:
    """Below a store."""
    return store._engine


async def at_rest(store: Store) -> None:
    """Return when what a commit leaves to be done behind it is done: its copy is there, and its garbage is gone."""
    await store._engine.copies.settled()
    await store._engine.garbage.delete_now()


def tree_of(store: Store) -> NameTree:
    """The tree of names of a store."""
    return store._tree


def objects_of(store: Store) -> RetryingStore:
    """Where a store keeps its objects."""
    return store._objects


def env_of(store: Store) -> Env:
    return store._env


def open_devices(store: Store) -> Mapping[str, Device]:
    return store.open_devices._devices


def contents(store: MemoryStore) -> dict[str, bytes]:
    """Name to bytes: to look at, and to tamper with."""
    return store._objects


def forget_when_written(store: MemoryStore, name: str) -> None:
    """The store says no more when this object was written."""
    del store._modified[name]


async def remember(engine: Engine) -> None:
    """The host notes now how far its writer has come."""
    await engine._ownership.remember()


def layers_of(engine: Engine) -> Layers:
    return engine._layers


def flush_of(engine: Engine) -> Any:
    """What carries out a memtable flush."""
    return engine._flush


def outage_of(engine: Engine) -> Any:
    """What asks, when an object is refused, whether the store gives others."""
    return engine.source._outage


def sst_of(engine: Engine, location: int) -> str:
    """Name of the object in which a frame lies."""
    return engine.source._sst_numbers.name(location)


def debt_of(engine: Engine) -> float:
    """How much writers are held back for what maintenance owes."""
    return engine.writes._pressure.debt


def forget_usage(engine: Engine) -> None:
    """What is used is counted anew."""
    engine.meter._counted = None


def jobs_of(engine: Engine) -> tuple[JobContext, MaintenanceOptions]:
    """What maintenance works with."""
    return engine.compactor.context, engine.compactor._options


def is_at_rest(engine: Engine) -> bool:
    """Whether maintenance has found that there is nothing to do."""
    return engine.compactor._nothing_at == engine.compactor._state()


def each_pass(commit: GroupCommit, before: Callable[[], None]) -> None:
    """Call this before each pass of a group commit."""
    pump = commit._pump

    def counted() -> None:
        before()
        pump()

    commit._pump = counted  # type: ignore[method-assign]


def give_turns(gate: Gate) -> None:
    """One pass of a gate, without its timer."""
    gate._give_turns()


def place_of(journal: Journal) -> JournalPlace | None:
    """Where a journal is written; None: it is off."""
    return journal._place


def next_batch(journal: Journal) -> tuple[int, int, Memory, int] | None:
    """Of the next batch, if there is a segment that grows: its number, the place in it, a copy of it, its end."""
    if journal._active is None or journal._memory is None:
        return None
    copy = Memory(-1, len(journal._memory))
    copy[:] = journal._memory[:]
    return journal._active.number, journal._batches, copy, journal._end


def folder_of(files: FolderFiles) -> Path:
    """Where the segments of a journal lie."""
    return files._folder


def streams_of(ahead: ReadAhead) -> int:
    """Readers in order that are remembered."""
    return len(ahead._streams)


def masks(index: BlockMap) -> "NDArray[Any] | Any":
    """The sectors of each patch, by row."""
    return index._mask


def queues(cache: FrameCache) -> tuple[int, set[int], set[int], int, int]:
    """Of a cache: bytes that are new; what its small and its main queue hold; lengths of the ghost and of both."""
    small, main = cache._small, cache._main
    return cache._small_bytes, set(small), set(main), len(cache._ghost), len(small) + len(main)


def stretch(password: bytes | bytearray, salt: bytes, cost: Cost) -> tuple[bytes, Secret]:
    """What becomes of a password."""
    return keyslots._stretch(password, salt, cost)


def end_threads(env: RealEnv) -> None:
    """Wait for all threads of a closed environment."""
    for pool in env._pools.values():
        pool.shutdown(wait=True)
