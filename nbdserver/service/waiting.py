"""While a process waits, it says for what: after `FIRST_SECONDS`, and then every `REPEAT_SECONDS`.

A store may be away for hours, and nothing is lost meanwhile: but who waits is to know.
"""

import asyncio
import contextlib
from collections.abc import AsyncIterator, Callable

FIRST_SECONDS = 2.5
"""A little behind the moment at which a store that does not answer is known to (`SILENT_SECONDS`)."""

REPEAT_SECONDS = 5.0


@contextlib.asynccontextmanager
async def saying(say: Callable[[str], None], describe: Callable[[float], str]) -> AsyncIterator[None]:
    """While the block runs, say again and again what `describe`, told how many seconds it is now, gives.

    Nothing is said where that is nothing.
    """

    def say_it(waited: float) -> None:
        if sentence := describe(waited):
            say(sentence)

    async with repeating(say_it, first=FIRST_SECONDS, pause=REPEAT_SECONDS):
        yield


@contextlib.asynccontextmanager
async def repeating(act: Callable[[float], None], *, first: float, pause: float) -> AsyncIterator[None]:
    """While the block runs, `act` after `first` seconds and then every `pause` seconds, told how many it is by then."""

    async def repeat() -> None:
        waited = first
        await asyncio.sleep(first)
        while True:
            act(waited)
            await asyncio.sleep(pause)
            waited += pause

    task = asyncio.create_task(repeat())
    try:
        yield
    finally:
        task.cancel()
        await asyncio.wait({task})
