"""Unix sockets as files: how one comes to its name, and which user is at the other end.

A socket is bound and listened on under a hidden name and gets its own name then, so that whoever finds it finds
somebody at home; it is born with mode 0600, whatever the umask. No lock is taken that another user could hold. What a
crash leaves: the hidden socket, or the socket under its name, on which nobody listens; the next server replaces that.
"""

import contextlib
import os
import socket
import stat
import struct
from collections.abc import Collection
from pathlib import Path

from storage.errors import AccessDenied, Conflict, Invalid
from storage.trusted_files import trusted_folder

BACKLOG = 1024
"""Connections the kernel keeps until they are accepted; a client with 16 connections opens them at once."""

SOCKET_PATH_BYTES_MAX = 107
"""Longest path of a Unix socket on Linux (unix(7): 108 with the final NUL)."""

ATTEMPTS_MAX = 16
"""Times in a row that another server may take a name between our look and our try."""

Identity = tuple[int, int]
"""Device and inode of a file: whether it is the same one."""


def listen(path: Path, unique: str, *, replace: bool = False) -> tuple[socket.socket, Path]:
    """A socket on which only this user and root can connect, listening at `path`, and the real path it has.

    A socket that is left over there is replaced, with `replace` one in use too. `unique` is part of a name that nobody
    else uses. Conflict: another program listens there, or it is no socket. AccessDenied: other users could put their
    own in its place. Invalid: the path is too long. OSError.
    """
    sock, hidden, real = _bind(path, unique)
    try:
        try:
            sock.listen(BACKLOG)
            if replace:
                hidden.rename(real)
            else:
                _claim(hidden, real)
        except BaseException:
            hidden.unlink(missing_ok=True)
            raise
    except BaseException:
        sock.close()
        raise
    return sock, real


def rehearse(path: Path, unique: str) -> None:
    """Raise what `listen` would, and leave everything as it is: nobody finds a socket at `path` by this."""
    sock, hidden, real = _bind(path, unique)
    sock.close()
    hidden.unlink()
    with contextlib.suppress(FileNotFoundError):
        _refuse_in_use(real)


def connect(path: Path, users: Collection[int], seconds: float) -> socket.socket:
    """A connection to the server at `path`, once the kernel has said that it is a process of one of `users`.

    AccessDenied: it is somebody else's, and was told nothing. OSError: nobody is there.
    """
    sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    try:
        sock.settimeout(seconds)
        sock.connect(os.fsencode(path))
        pid, uid = peer(sock)
        if uid not in users:
            raise AccessDenied(f"process {pid} of user {uid} listens on {path}: nothing was sent to it")
    except BaseException:
        sock.close()
        raise
    return sock


def peer(sock: socket.socket) -> tuple[int, int]:
    """Process and user at the other end, as the kernel knows them (SO_PEERCRED): of a server, who called listen."""
    pid, uid, _ = struct.unpack("iII", sock.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, 12))
    return pid, uid


def identity(path: Path) -> Identity:
    """Which file is there, not followed if it is a link."""
    found = path.lstat()
    return found.st_dev, found.st_ino


def remove(path: Path, ours: Identity) -> None:
    """Remove our socket, unless something else has taken its place."""
    try:
        if identity(path) == ours:
            path.unlink()
    except FileNotFoundError:
        pass


def _bind(path: Path, unique: str) -> tuple[socket.socket, Path, Path]:
    """A socket that is bound under a hidden name beside `path`, that name, and the real path. Raises as `listen`."""
    try:
        real = trusted_folder(path.parent, shared=True) / path.name
    except AccessDenied as error:
        raise AccessDenied(f"the socket {path} would not be safe: {error}; choose another path") from error
    hidden = real.with_name(f".{unique}")
    if max(len(os.fsencode(each)) for each in (path, real, hidden)) > SOCKET_PATH_BYTES_MAX:
        raise Invalid(
            f"the socket path {path} is too long: it may have {SOCKET_PATH_BYTES_MAX} bytes, choose a shorter one"
        )
    sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    try:
        # On Linux a socket's file is made with the mode that the socket has then: there is no moment with another.
        os.fchmod(sock.fileno(), 0o600)
        sock.bind(os.fsencode(hidden))
    except BaseException:
        sock.close()
        raise
    return sock, hidden, real


def _claim(hidden: Path, path: Path) -> None:
    """Give the socket at `hidden` its own name, which nobody else may have."""
    for _ in range(ATTEMPTS_MAX):
        try:
            os.link(hidden, path, follow_symlinks=False)
        except FileExistsError:
            _clear_stale(path, hidden.with_name(f"{hidden.name}-"))
        else:
            hidden.unlink()
            return
    raise Conflict(f"other servers are starting on {path}: stop them or choose another path")


def _clear_stale(path: Path, aside: Path) -> None:
    """Take away a socket that nobody listens on; Conflict if somebody does, or if it is something else."""
    try:
        found = _refuse_in_use(path)
        path.rename(aside)
    except FileNotFoundError:
        return
    try:
        moved = aside.lstat()
        # The time tells it from a new one with the number of an old one that is gone.
        if (moved.st_ino, moved.st_mtime_ns) != (found.st_ino, found.st_mtime_ns):
            # Between look and rename another server had put its own there. A crash here leaves that under the other
            # name: its clients stay, new ones do not find it.
            os.link(aside, path, follow_symlinks=False)
    except FileExistsError:
        pass
    finally:
        aside.unlink()


def _refuse_in_use(path: Path) -> os.stat_result:
    """Of a socket that nobody listens on. Conflict: somebody does, or it is something else. FileNotFoundError."""
    found = path.lstat()
    if not stat.S_ISSOCK(found.st_mode):
        raise Conflict(f"{path} is there already and is not a socket: choose another path or remove it")
    if _is_listened_on(path):
        raise Conflict(f"another program listens on {path}: stop it or choose another path")
    return found


def _is_listened_on(path: Path) -> bool:
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as probe:
        probe.setblocking(False)
        try:
            probe.connect(os.fsencode(path))
        except ConnectionRefusedError:
            return False
        except BlockingIOError:
            pass  # its queue is full, so it has one
    return True
