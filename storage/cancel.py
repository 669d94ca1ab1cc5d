"""Cancellation: one that was asked for is told from one that came up from below.

A task that is cancelled from outside ends and says nothing. But a CancelledError also comes out of whatever was awaited
and was itself cancelled, by a library or by a mistake; taken for the first kind, work would go missing without a word.
"""

import asyncio
from collections.abc import Awaitable, Coroutine, Iterable
from typing import Any, TypeVar

T = TypeVar("T")


def was_asked_for() -> bool:
    """Whether somebody has cancelled the current task; for use where a CancelledError was caught."""
    task = asyncio.current_task()
    return task is not None and task.cancelling() > 0


async def when_ended(work: Coroutine[Any, Any, T]) -> T:
    """The result of something that cannot be cut short, as a thread cannot: who gives up waits for its end all the
    same, since it looks at what may change behind that.
    """
    running = asyncio.ensure_future(work)
    gave_up: asyncio.CancelledError | None = None
    while not running.done():
        try:
            await asyncio.wait({running})
        except asyncio.CancelledError as error:
            gave_up = error
    if gave_up is not None:
        if not running.cancelled():
            running.exception()  # nobody asks for it any more
        raise gave_up
    return running.result()


async def do_all(work: Iterable[Awaitable[None]]) -> None:
    """Do all of it; the first error ends the rest, and is raised when all have ended."""
    tasks = [asyncio.ensure_future(one) for one in work]
    try:
        await asyncio.gather(*tasks)
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
