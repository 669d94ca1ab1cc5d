"""Objects that something names and that the store says are not there: asked for again before that is believed.

What a manifest or the log names was there when it was named, so its absence is damage, or a newer writer's doing, or
an answer of a store at a bad moment (a gateway that starts, a node that has not caught up). The first two last.
"""

import asyncio
from collections.abc import Awaitable, Callable
from typing import TypeVar

from storage.bucket.create_once import pauses
from storage.errors import NotFound
from storage.objects.base import ObjectStore

T = TypeVar("T")

LOST_TRIES = 8
"""With the pauses of `pauses` these take 11 s."""


async def get_despite_missing(
    store: ObjectStore, ask: Callable[[], Awaitable[T]], *, on_missing: Callable[[], Awaitable[None]]
) -> T:
    """What `ask` gives. NotFound: it is not there, and was not for 11 s.

    `on_missing` is awaited whenever it is not there: it looks for a newer writer, which would explain it, and raises
    Fenced if there is one. A folder of this machine is believed at once.
    """
    for pause in pauses(LOST_TRIES if store.capabilities.remote else 1):
        if pause:
            await asyncio.sleep(pause)
        try:
            return await ask()
        except NotFound as error:
            missing = error
        await on_missing()
    raise missing
