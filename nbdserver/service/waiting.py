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

    async def repeat() -> None:
        waited = pause = FIRST_SECONDS
        while True:
            await asyncio.sleep(pause)
            if sentence := describe(waited):
                say(sentence)
            pause = REPEAT_SECONDS
            waited += pause

    task = asyncio.create_task(repeat())
    try:
        yield
    finally:
        task.cancel()
        await asyncio.wait({task})
