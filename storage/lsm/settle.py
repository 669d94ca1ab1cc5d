"""This file knows how an object with a number comes to be: create it, and when the name is taken find out by whom.

A number is bound for ever to one sealed byte string. A reply may be lost, and the same bytes may be sent any number
of times:
if they are there, it was us. Anything else under the name is another writer's, and never ours to overwrite.
"""

from collections.abc import Awaitable, Callable

from storage.errors import AlreadyExists, NotFound
from storage.objects.base import ObjectStore


class Taken(Exception):
    """Another object has the name."""


async def create_or_settle(
    store: ObjectStore, name: str, data: bytes | bytearray, *, on_gone: Callable[[], Awaitable[None]]
) -> None:
    """Return when exactly `data` lies under `name`, created by this call or by a lost earlier attempt.

    Taken: another writer's object lies there. `on_gone` is awaited when the name was taken and then was not there:
    only a newer writer that truncated the log can do that, so it looks for one (and raises Fenced) before the bytes
    are sent again.
    """
    while True:
        try:
            await store.create(name, data)
            return
        except AlreadyExists:
            pass
        try:
            # The size first: what another writer put there may be far larger than ours.
            same = (await store.head(name)).size == len(data) and await store.get(name, limit=len(data)) == data
        except NotFound:
            await on_gone()
            continue
        if not same:
            raise Taken(name)
        return
