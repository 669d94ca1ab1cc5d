"""The predecessor: a server of this host whose place a new one takes.

The new server gets ready first: its modules are loaded, its password is right, it could listen. Only then the
predecessor is asked to stop, and the store is opened when that process has ended. So the store has one
writer at any time, and whatever keeps the new server from starting shows while the old one still serves.

What a crash leaves: of the new server before it asks, the old one, which serves; of either after that, a store that is
at rest or was not closed, as ever.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
from collections.abc import Iterator
from pathlib import Path

from nbdserver.admin.asked import Answer
from nbdserver.admin.client import AdminClient
from nbdserver.service.rehearsal import Listening
from storage.errors import AccessDenied, Unavailable


class Predecessor:
    """A running server, held by a descriptor of its process, so that no other process is ever meant."""

    def __init__(self, server: AdminClient, pid: int, held: Listening, descriptor: int) -> None:
        self.pid = pid
        self._server = server
        self.held = held
        """What it listens on, and its successor will."""
        self._descriptor = descriptor

    async def stop(self) -> None:
        """Ask it to stop, and return when it has ended, which takes as long as its store does.

        Not by a signal: the second one that a server gets ends it where it stands, and somebody may have sent one.
        """
        loop = asyncio.get_running_loop()
        ended = asyncio.Event()
        with contextlib.suppress(Unavailable):  # it may end before it has answered
            await asyncio.to_thread(self._server.stop)
        loop.add_reader(self._descriptor, ended.set)
        try:
            await ended.wait()
        finally:
            loop.remove_reader(self._descriptor)


@contextlib.contextmanager
def predecessor(server: AdminClient | None) -> Iterator[Predecessor | None]:
    """The process of a server of this host, if there is one. AccessDenied: it is another user's. Unavailable: it does
    not answer, or cannot be seen as a process from here."""
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
        yield Predecessor(server, pid, listening_of(about), descriptor)
    finally:
        os.close(descriptor)


def listening_of(about: Answer) -> Listening:
    """Where a server listens, by what it says of its process."""
    unix = about["unix"]
    return Listening(about["port"], None if unix is None else Path(unix))
