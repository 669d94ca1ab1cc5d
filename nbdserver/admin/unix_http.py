"""HTTP over a Unix socket, to a process of certain users and no other; what went wrong is a StorageError that says who
does not answer.
"""

from __future__ import annotations

import http.client
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from nbdserver.unix_sockets import connect, peer
from storage.errors import Unavailable

CONNECT_SECONDS = 10.0
"""To a process on this machine; it answers within milliseconds unless it is stopped."""


class UnixConnection(http.client.HTTPConnection):
    """HTTP over a Unix socket, to a process of one of `users`."""

    def __init__(self, path: Path, users: frozenset[int], seconds: float | None) -> None:
        """`seconds` is how long an answer may take."""
        super().__init__("localhost")
        self._path = path
        self._users = users
        self._seconds = seconds

    def connect(self) -> None:
        self.sock = connect(self._path, self._users, CONNECT_SECONDS)
        self.sock.settimeout(self._seconds)

    def server_name(self) -> str:
        """Which process is on the other side, for people."""
        if self.sock is None:
            return "the server of this store"
        return f"the server of this store (process {peer(self.sock)[0]})"


@contextmanager
def translating_errors(connection: UnixConnection | None = None) -> Iterator[None]:
    """Unavailable in place of what the socket and HTTP raise."""
    try:
        yield
    except TimeoutError as error:
        server_name = "the server of this store" if connection is None else connection.server_name()
        raise Unavailable(f"{server_name} does not answer: it is stopped, or hangs; its log may say why") from error
    except (OSError, http.client.HTTPException) as error:
        raise Unavailable(f"the server of this store stopped before it had answered ({error})") from error
