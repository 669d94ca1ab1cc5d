"""A command's end of the admin API: HTTP over the server's Unix socket, nothing
asynchronous.

It imports little, so that `nbdserver status` is quick.
"""

from __future__ import annotations

import contextlib
import http.client
import json
import os
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import quote, unquote, urlsplit

import msgspec

from nbdserver.admin.asked import RELEASED, Answer
from nbdserver.admin.checking import Line, decode
from nbdserver.admin.client_operations import AcceptClients
from nbdserver.admin.content_frames import FRAME_HEADER, Decoder, Piece, SenderFailed, TooLong, Truncated
from nbdserver.admin.error_transfer import Failure, to_error
from nbdserver.admin.key_operations import KEY_OPERATIONS
from nbdserver.admin.operations import (
    FlushAhead,
    Operation,
    PlanCollection,
    PlanCompaction,
    encode_operation,
)
from nbdserver.admin.password_operations import PASSWORD_OPERATIONS
from nbdserver.admin.replica_operations import FindHeld
from nbdserver.admin.snapshot_stream import SourceFailed, StreamDecoder
from nbdserver.admin.sockets import servers_trusted_in, socket_name, sockets_to_try
from nbdserver.admin.unix_http import CONNECT_SECONDS, UnixConnection, translating_errors
from nbdserver.unix_sockets import connect, peer
from storage.errors import AccessDenied, Corrupt, StorageError, Unavailable
from storage.lsm.recovery.locks import read_note
from storage.trusted_files import trusted_folder, trusted_users, user_name

if TYPE_CHECKING:
    from storage import CheckOptions

ANSWER_SECONDS = 10.0
"""How long what a server knows by itself, such as its status, may take. What the store must answer may take for ever.
"""

AHEAD_SECONDS = 30.0
"""How long a flush before a stop is waited for: the store may be away."""

STREAM_PART_BYTES = 1 << 18
"""Of a stream, handed on at once."""

PATIENT_SECONDS = 60.0
"""How long what tries passwords, or needs one answer of the store, may take: sixteen on a slow machine take 20 s.
"""

_SLOW = (FindHeld, PlanCollection, PlanCompaction)
"""What changes nothing, and asks the store, reads or counts for long."""

_PATIENT = (AcceptClients, *PASSWORD_OPERATIONS, *KEY_OPERATIONS)
"""What changes nothing in the store, and has PATIENT_SECONDS."""


class AdminClient:
    """The admin API of one running server, which is a process of one of `users`: this user and root, unless given."""

    def __init__(self, path: Path, users: frozenset[int] | None = None) -> None:
        self.path = path
        self._users = users or trusted_users()

    def status(self, *, seconds: float = ANSWER_SECONDS) -> Answer:
        """What the server serves, to whom, and how its store is doing. Unavailable: no answer within `seconds`."""
        return self._ask("GET", "/v1/status", seconds=seconds)

    def metrics(self) -> str:
        """All metrics as they are now, in the text format of Prometheus. Unavailable: no answer in time."""
        with self._request("GET", "/metrics", seconds=ANSWER_SECONDS) as response, translating_errors():
            return response.read().decode()

    def process(self) -> Answer:
        """How the server was started (`service.launch`), and with that `pid` and `uid` as the kernel knows them here.
        Unavailable: no answer."""
        with translating_errors(), contextlib.closing(connect(self.path, self._users, CONNECT_SECONDS)) as sock:
            pid, uid = peer(sock)
        return {**self._ask("GET", "/v1/process", seconds=ANSWER_SECONDS), "pid": pid, "uid": uid}

    def dashboard(self) -> Answer:
        """Where the server's dashboard is: `url`, and the tokens `full` and `read_only`. Conflict: it has none."""
        return self._ask("GET", "/v1/dashboard", seconds=ANSWER_SECONDS)

    def stop(self) -> Callable[[], None]:
        """Have the server end as by SIGTERM; one that is stopping goes on with that. Unavailable: no answer in time.

        What this gives returns, called once, when the server has let go of its store and of all that it listened on,
        though its process may need a moment more. Unavailable: that ended without saying so."""
        asked = contextlib.ExitStack()
        response = asked.enter_context(self._request("POST", "/v1/stop", b"", ANSWER_SECONDS, patient=True))

        def word() -> None:
            with asked, translating_errors():
                if response.read() != RELEASED:
                    raise Unavailable("the server of this store ends, and has not said that it has let go of it")

        return word

    def flush_ahead(self) -> None:
        """Have the server put into SSTs what a stop would. Unavailable: not within AHEAD_SECONDS. Any StorageError."""
        self._ask("POST", "/v1/operations", encode_operation(FlushAhead()), seconds=AHEAD_SECONDS)

    def perform(self, operation: Operation) -> Answer:
        """Have the server carry out an operation of `operations`. Its StorageError is raised here.

        What changes the store is waited for as long as that takes, what tries passwords for PATIENT_SECONDS, everything
        else for ANSWER_SECONDS (Unavailable). A password is told to nobody but a server of this user's, of root's, or
        of the system's own service.
        """
        if isinstance(operation, (*PASSWORD_OPERATIONS, *KEY_OPERATIONS)) and not trusted_users() & self._users:
            (user,) = self._users
            raise AccessDenied(f"the server of this store is {user_name(user)}'s: change its passwords as that user")
        allowed = PATIENT_SECONDS if isinstance(operation, _PATIENT) else ANSWER_SECONDS
        seconds = None if operation.writes or isinstance(operation, _SLOW) else allowed
        return self._ask("POST", "/v1/operations", encode_operation(operation), seconds=seconds)

    def write_content(self, name: str, frames: Iterable[bytes], *, size: int | None, overwrite: bool) -> Answer:
        """Fill a device with encoded frames; durable on return. `frames` must raise no OSError of its own.

        `size` is that of the source, if it is known; a device that is not there is made for it.
        """
        query = f"overwrite={int(overwrite)}" + ("" if size is None else f"&size={size}")
        return self._ask("PUT", f"/v1/content/{quote(name)}?{query}", frames)

    @contextmanager
    def read_content(self, name: str) -> Iterator[tuple[int, Iterator[Piece]]]:
        """The size of a device and its data in ascending order."""
        with self._request("GET", f"/v1/content/{quote(name)}") as response:
            size = int(response.headers["X-Device-Size"])
            yield size, _pieces(response, size)

    @contextmanager
    def read_stream(self, device: str, snapshot: str, since: str | None) -> Iterator[Iterator[bytes]]:
        """A snapshot as a stream, in pieces of any size, each of them checked."""
        query = "" if since is None else f"?since={quote(since, safe='')}"
        with self._request("GET", f"/v1/stream/{quote(device)}@{quote(snapshot)}{query}") as response:
            yield _checked(response)

    def write_stream(self, name: str, parts: Iterable[bytes]) -> Answer:
        """Make of a device what a stream holds; durable on return. `parts` must raise no OSError of its own."""
        return self._ask("PUT", f"/v1/stream/{quote(name)}", parts)

    def check(self, options: CheckOptions, tell: Callable[[Line], None]) -> Answer:
        """Have the server check its store; `tell` is told how far it is. Its report."""
        query = f"read_data={int(options.read_data)}&rate={options.rate:.0f}&resume={int(options.resume)}"
        with self._request("GET", f"/v1/check?{query}") as response:
            while True:
                with translating_errors():
                    raw = response.readline()
                if not raw:
                    raise Unavailable("the server of this store stopped in the midst of the check")
                line = decode(raw)
                if line.report is not None:
                    return line.report
                tell(line)

    def _ask(
        self, method: str, path: str, body: bytes | Iterable[bytes] | None = None, *, seconds: float | None = None
    ) -> Answer:
        with self._request(method, path, body, seconds) as response, translating_errors():
            answer: Answer = json.loads(response.read())
            return answer

    @contextmanager
    def _request(
        self,
        method: str,
        path: str,
        body: bytes | Iterable[bytes] | None = None,
        seconds: float | None = None,
        *,
        patient: bool = False,
    ) -> Iterator[http.client.HTTPResponse]:
        """`patient`: once it has begun to answer that may take for ever."""
        connection = UnixConnection(self.path, self._users, seconds)
        try:
            with translating_errors(connection):
                # The server may refuse before it has read all: what it says is in its answer.
                with contextlib.suppress(BrokenPipeError, ConnectionResetError):
                    connection.request(method, path, body)
                response = connection.getresponse()
                if response.status != 200:
                    raise _error(response.read())
                if patient and connection.sock is not None:
                    connection.sock.settimeout(None)
            yield response
        finally:
            connection.close()


def find_server(store: str, environ: Mapping[str, str]) -> AdminClient | None:
    """The server of a store that runs on this machine, or None: by the place where it would have its admin socket, or
    by what it left beside a store that is a folder.

    AccessDenied: there is one, but it belongs to another user, or somebody else could have put its socket there.
    """
    for path in sockets_to_try(environ, store):
        try:
            return _server_at(path)
        except PermissionError:
            if _is_socket(path):
                raise AccessDenied(f"a server of this store runs as another user; its socket is {path}") from None
        except (TimeoutError, BlockingIOError):  # nobody takes connections, or too many wait for that
            raise Unavailable(f"the server of this store does not answer on {path}: is it stopped?") from None
        except OSError:
            pass  # no such socket, or its server is gone
    return _server_beside(store)


def find_reader(store: str, environ: Mapping[str, str]) -> AdminClient | None:
    """A server of this machine that serves a store which somebody else writes, or None."""
    for path in sockets_to_try(environ, store, role="follower"):
        with contextlib.suppress(OSError, AccessDenied):
            return _server_at(path)
    return None


def find_standby(store: str, environ: Mapping[str, str]) -> AdminClient | None:
    """A server of this machine that stands by beside the writer of this store, or None."""
    for path in sockets_to_try(environ, store, role="standby"):
        with contextlib.suppress(OSError, AccessDenied):
            return _server_at(path)
    return None


def _server_beside(store: str) -> AdminClient | None:
    """The server that left a note in the folder of a store. None: there is no note, or the writer has no socket yet, or
    no more, or is a command; whoever opens the store then is told who holds it.

    Root asked for a store of its owner's, so to root that user's server may answer: as that user and nobody else, and
    under the name that only this store has, so that the note cannot lead to the server of another one.
    """
    parts = urlsplit(store)
    folder = Path(unquote(parts.path))
    found = read_note(folder) if parts.scheme == "file" else None
    if found is None or not found[1] or found[0].socket is None:
        return None
    note, path = found[0], Path(found[0].socket)
    user = folder.stat().st_uid if os.geteuid() == 0 else os.geteuid()
    elsewhere = f"the server of this store is process {note.pid} of {user_name(note.uid)}"
    if note.uid != user:
        raise AccessDenied(f"{elsewhere}: ask as that user{'' if os.geteuid() == 0 else ', or as root'}")
    if path.name != socket_name(store):
        return None
    try:
        real = trusted_folder(path.parent, users=frozenset((user,))) / path.name
        connect(real, {user}, CONNECT_SECONDS).close()
    except AccessDenied as error:
        raise AccessDenied(f"{elsewhere}, and is not trusted: {error}") from error
    except (TimeoutError, BlockingIOError):
        raise Unavailable(f"{elsewhere} and does not answer on {path}: is it stopped?") from None
    except OSError:
        return None
    return AdminClient(real, frozenset((user,)))


def _server_at(path: Path) -> AdminClient:
    """The server whose socket is there. OSError: there is none. AccessDenied: it is not one to talk to."""
    try:
        users = servers_trusted_in(path.parent)
    except AccessDenied as error:
        with contextlib.suppress(AccessDenied):
            connect(path, trusted_users(), CONNECT_SECONDS).close()
        raise AccessDenied(f"a server listens on {path}, and is not trusted: {error}") from error
    connect(path, users, CONNECT_SECONDS).close()
    return AdminClient(path, users)


def _is_socket(path: Path) -> bool:
    try:
        return path.is_socket()
    except PermissionError:
        return False  # not even to be seen; opening the store will tell whether it is held


def _error(body: bytes) -> StorageError:
    try:
        return to_error(msgspec.json.decode(body, type=Failure))
    except msgspec.MsgspecError:
        return StorageError(f"the server answered with nonsense: {body[:100]!r}")


def _checked(response: http.client.HTTPResponse) -> Iterator[bytes]:
    decoder = StreamDecoder()
    try:
        while True:
            with translating_errors():
                part = response.read1(STREAM_PART_BYTES)
            if not part:
                decoder.finish()
                return
            decoder.feed(part)
            yield part
    except SourceFailed as failed:
        raise _error(failed.args[0]) from None
    except Corrupt as error:
        raise Unavailable(f"the server of this store stopped in the middle of its answer: {error}") from error


def _pieces(response: http.client.HTTPResponse, size: int) -> Iterator[Piece]:
    decoder = Decoder(size)
    while True:
        with translating_errors():
            header = response.read(FRAME_HEADER.size)
        try:
            length = decoder.body_length(header)
            if not length:
                return
            with translating_errors():
                body = response.read(length)
            piece = decoder.piece(header, body)
        except SenderFailed as failed:
            raise _error(failed.args[0]) from None
        except (Truncated, TooLong) as error:
            raise Unavailable(f"the server of this store stopped in the middle of its answer: {error}") from error
        yield piece
