"""How a server's process comes to its end: by a signal, or since somebody asked for it over the admin socket."""

import asyncio
import os
import signal
from collections.abc import Coroutine
from typing import TypeVar

from nbdserver.service import logs

ENDED_BY_SIGNAL = 128 + signal.SIGINT
"""The exit status of what a signal has ended, as shells give it of Ctrl-C."""

T = TypeVar("T")


class EndOfService:
    """How this process is to end."""

    def __init__(self) -> None:
        self.stopped = asyncio.Event()
        """It is to end."""
        self.replaced = False
        """A successor on this host has asked for that."""

    def stop(self) -> None:
        """Somebody asked for it over the admin socket, which successors do."""
        self.replaced = True
        self.stopped.set()


def end_by_signals(stopped: asyncio.Event) -> None:
    """The first SIGTERM or SIGINT sets it, if nobody else has; the second ends the process."""
    signalled = False

    def on_signal() -> None:
        nonlocal signalled
        if signalled:
            os._exit(ENDED_BY_SIGNAL)
        signalled = True
        stopped.set()

    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, on_signal)
    # Until there is more to read again. A handler, since "ignored" would be inherited by the command of --run.
    loop.add_signal_handler(signal.SIGHUP, logs.reopen_files)


async def unless(stopped: asyncio.Event, work: Coroutine[None, None, T]) -> T | None:
    """The result of `work`, or None if a signal came first."""
    task = asyncio.create_task(work)
    signalled = asyncio.create_task(stopped.wait())
    try:
        await asyncio.wait({task, signalled}, return_when=asyncio.FIRST_COMPLETED)
        return task.result() if task.done() else None
    finally:
        task.cancel()
        signalled.cancel()
        await asyncio.wait({task, signalled})
