"""Whoever runs a simulated store has its data key rotated now and then, beside everything else."""

import asyncio
import random
from collections.abc import Mapping
from typing import Protocol

from storage.errors import (
    AccessDenied,
    Closed,
    Conflict,
    Corrupt,
    Fenced,
    KeyChanged,
    OutOfSpace,
    StorageError,
    Unavailable,
    Unfinished,
)
from storage.fs.store import Store
from tests.simulation.keyring import PASSWORD, keys_in

REFUSALS = (AccessDenied, Closed, Conflict, Fenced, OutOfSpace, Unavailable, Unfinished)
"""What an attempt may end with: another one was begun, or the store misbehaves, or is somebody else's by now."""


class Rotated(Protocol):
    """A server whose store has its key rotated."""

    store: Store

    def note(self, text: str) -> None: ...


async def rotate_now_and_then(server: Rotated, seconds: float, chance: random.Random) -> None:
    """Until it is cancelled; `seconds` between two attempts, on the average."""
    while True:
        await asyncio.sleep(seconds * chance.expovariate(1.0))
        try:
            rotated = await server.store.passwords.rotate_key(PASSWORD, [], drop_others=False)
        except REFUSALS as error:
            server.note(f"key not rotated: {type(error).__name__}: {error}")
        else:
            server.note(f"data key {rotated.key_id} drawn")


def has_ended(server: Rotated, objects: Mapping[str, bytes]) -> bool:
    """Whether no older data key is left, or this server, which has one itself, does not end the rotation."""
    newest, _ = keys_in(objects)
    return not newest.older or newest.key_id != server.store.key_id


def came_too_late(error: StorageError) -> bool:
    """Whether somebody could not open a store for another key than the one that it had asked for."""
    return isinstance(error, KeyChanged) or (isinstance(error, Corrupt) and error.object_name.startswith("keys"))
