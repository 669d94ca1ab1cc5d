"""This file knows what a new writer sweeps: what earlier writers left behind and nothing names.

No clock decides. The name of an SST holds its writer's epoch, and a writer of a lower epoch can name nothing any more.
Objects whose names this program does not give are none of its business.
"""

from collections.abc import Collection

from storage.env import epoch_of
from storage.errors import Corrupt
from storage.lsm.names import TABLES, WALS, number_of, ulid_of
from storage.objects.base import ObjectStore


async def sweep_tables(store: ObjectStore, *, epoch: int, named: Collection[str]) -> None:
    """Delete the SSTs of epochs below `epoch` whose ids are not in `named`: orphans of crashed or fenced writers."""
    doomed = []
    for info in await store.list(TABLES):
        table_id = ulid_of(info.name)
        try:
            orphan = table_id not in named and epoch_of(table_id) < epoch
        except ValueError:
            continue
        if orphan:
            doomed.append(info.name)
    await store.delete(doomed)


async def sweep_log(store: ObjectStore, *, replay: int, fences: Collection[int]) -> None:
    """Delete the objects of the log below the replay point, but never a fence."""
    doomed = []
    for info in await store.list(WALS):
        try:
            number = number_of(info.name)
        except Corrupt:
            continue
        if number < replay and number not in fences:
            doomed.append(info.name)
    await store.delete(doomed)
