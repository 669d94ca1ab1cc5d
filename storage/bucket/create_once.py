"""Objects with a number, created once: when the name is taken, find out by whom.

A number is bound for ever to one sealed byte string. A reply may be lost, and the same bytes may be sent any number of
times: if they are there, it was us. Anything else under the name is another writer's, and never ours to overwrite:
`Taken`, with which the caller stops (`Fenced`).

A lost reply within one request is settled below this, by `storage.objects.retry`, for objects of any kind: its own
first attempt is known by its size and first bytes. What that still calls taken is decided here: it is read whole and
compared, since these bytes may have been sent before, by a request that was given up.
"""

import asyncio
from collections.abc import Awaitable, Callable, Iterator

from storage.errors import AlreadyExists, NotFound, Unavailable
from storage.objects.base import ObjectStore

CREATE_TRIES_MAX = 10
"""Times that something is tried which only others who are quicker can prevent, before that counts as no answer."""

CREATE_PAUSE_SECONDS_MIN = 0.1
"""Before the second try: about a round trip, in which who was quicker gets on with what it does."""

CREATE_PAUSE_SECONDS_MAX = 5.0
"""Between two later tries, so that all of them take half a minute: long for a race, and short for an operator."""


def pauses(tries: int = CREATE_TRIES_MAX) -> Iterator[float]:
    """How long to wait before each of so many tries, in seconds: not at all, then 0.1 s, doubling to 5 s."""
    yield 0.0
    for number in range(tries - 1):
        yield min(CREATE_PAUSE_SECONDS_MIN * 2**number, CREATE_PAUSE_SECONDS_MAX)


class Taken(Exception):
    """Another object has the name."""


async def create_once(
    store: ObjectStore, name: str, data: bytes | bytearray, *, on_gone: Callable[[], Awaitable[None]]
) -> None:
    """Return when exactly `data` lies under `name`, created by this call or by a lost earlier attempt.

    Taken: another writer's object lies there. `on_gone` is awaited when the name was taken and then was not there:
    only a newer writer that truncated the log can do that, so it looks for one (and raises Fenced) before the bytes
    are sent again. Unavailable: the store goes on saying both.
    """
    for pause in pauses():
        if pause:
            await asyncio.sleep(pause)
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
    raise Unavailable(f"{store.url} says that {name} is there when it is created, and is not when it is read")
