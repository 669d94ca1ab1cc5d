"""Background: named tasks, none of which can end unseen.

What goes on behind a running engine is started here by one line each: its name, what it does, and what its failure
means. A cancellation that nobody asked for is a failure as well: without that task the log would grow until writes
stall.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable

from storage import cancel


class Background:
    """Tasks that end together. Owned by the event loop."""

    def __init__(self) -> None:
        self._tasks: dict[asyncio.Task[None], None] = {}
        """In the order in which they were started: in that they end, and not in one that memory addresses decide."""

    def start(
        self, name: str, work: Callable[[], Awaitable[None]], *, on_failure: Callable[[BaseException], None]
    ) -> asyncio.Task[None]:
        """Do `work` beside everything else; `on_failure` is told whatever ends it but its own end or `cancel`."""
        task = asyncio.get_running_loop().create_task(_supervised(work, on_failure), name=name)
        self._tasks[task] = None
        task.add_done_callback(lambda done: self._tasks.pop(done, None))
        return task

    def cancel(self) -> None:
        """End all of them, but for the one that asks for it."""
        current = asyncio.current_task()
        for task in list(self._tasks):
            if task is not current:
                task.cancel()

    async def stop(self) -> None:
        """End all of them, and wait until they have ended."""
        tasks = list(self._tasks)
        self.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


async def _supervised(work: Callable[[], Awaitable[None]], on_failure: Callable[[BaseException], None]) -> None:
    try:
        await work()
    except BaseException as error:
        if isinstance(error, asyncio.CancelledError) and cancel.was_asked_for():
            raise
        on_failure(error)
