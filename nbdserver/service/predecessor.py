"""The predecessor: a server of this host whose place a new one takes.

The new server gets ready first: its modules are loaded, its password is right, it could listen. Only then the
predecessor is asked to stop, as by SIGTERM, and the store is opened when that process has ended. So the store has one
writer at any time, and whatever keeps the new server from starting shows while the old one still serves.

What a crash leaves: of the new server before it asks, the old one, which serves; of either after that, a store that is
at rest or was not closed, as ever.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
from collections.abc import Iterator, Mapping
from pathlib import Path

from nbdserver.admin.client import find_server
from nbdserver.service.rehearsal import Listening
from storage.errors import AccessDenied, Unavailable


class Predecessor:
    """A running server, held by a descriptor of its process, so that no other process is ever meant."""

    def __init__(self, pid: int, held: Listening, descriptor: int) -> None:
        self.pid = pid
        self.held = held
        """What it listens on, and its successor will."""
        self._descriptor = descriptor

    async def stop(self) -> None:
        """Ask it to stop, and return when it has ended, which takes as long as its store does."""
        loop = asyncio.get_running_loop()
        ended = asyncio.Event()
        with contextlib.suppress(ProcessLookupError):
            signal.pidfd_send_signal(self._descriptor, signal.SIGTERM)
        loop.add_reader(self._descriptor, ended.set)
        try:
            await ended.wait()
        finally:
            loop.remove_reader(self._descriptor)


@contextlib.contextmanager
def predecessor(store: str, environ: Mapping[str, str]) -> Iterator[Predecessor | None]:
    """The server of a store on this host, if one runs. AccessDenied: it is another user's. Unavailable: it does not
    answer, or cannot be seen as a process from here."""
    server = find_server(store, environ)
    if server is None:
        yield None
        return
    about = server.process()
    pid, uid = about["pid"], about["uid"]
    if uid != os.geteuid():
        raise AccessDenied(f"the server of this store is process {pid} of user {uid}: take its place as that user")
    try:
        descriptor = os.pidfd_open(pid)
    except OSError as error:
        raise Unavailable(
            f"the server of this store cannot be seen from here as a process ({error.strerror})"
        ) from error
    try:
        if server.process()["pid"] != pid:
            raise Unavailable("the server of this store was exchanged just now: try again")
        unix = about["unix"]
        yield Predecessor(pid, Listening(about["port"], None if unix is None else Path(unix)), descriptor)
    finally:
        os.close(descriptor)
