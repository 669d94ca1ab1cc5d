"""The mark of a server that opens its store, or makes it, and cannot answer yet: a locked file beside its admin socket.

It tells a command that looks too early why there is nothing to see; nothing else rests on it. The lock ends with the
process, so a crash leaves a file that says nothing, and that the next server of the store removes.
"""

import contextlib
import fcntl
import os
import re
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

from nbdserver.admin.sockets import make_runtime_folder, runtime_folder, socket_name, sockets_to_try
from storage.lsm.recovery.locks import is_locked
from storage.trusted_files import create_new


@contextmanager
def starting(store: str, environ: Mapping[str, str]) -> Iterator[Callable[[], None]]:
    """Marked as starting until what this yields is called, or the block ends. AccessDenied: as `make_runtime_folder`.

    Each process has a file of its own: of two that start at once neither hides the other.
    """
    folder = runtime_folder(environ)
    make_runtime_folder(folder)
    for pid, path in _marks(folder, store):
        if pid == os.getpid() or not _is_alive(path):
            path.unlink(missing_ok=True)
    path = folder / f"{socket_name(store)}.{os.getpid()}.starting"
    descriptor = -1
    # Without room for it, a command that looks too early is told less.
    with contextlib.suppress(OSError):
        descriptor = create_new(path, 0o600)
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)

    def started() -> None:
        nonlocal descriptor
        if descriptor >= 0:
            path.unlink(missing_ok=True)
            os.close(descriptor)
            descriptor = -1

    try:
        yield started
    finally:
        started()


def find_starting(store: str, environ: Mapping[str, str]) -> int | None:
    """The process of a server of this store that is starting, as far as this user may see it."""
    for socket in sockets_to_try(environ, store):
        for pid, path in _marks(socket.parent, store):
            if _is_alive(path):
                return pid
    return None


def _marks(folder: Path, store: str) -> Iterator[tuple[int, Path]]:
    pattern = re.compile(rf"{re.escape(socket_name(store))}\.(\d{{1,10}})\.starting")
    try:
        names = os.listdir(folder)
    except OSError:
        return
    for name in names:
        if match := pattern.fullmatch(name):
            yield int(match[1]), folder / name


def _is_alive(path: Path) -> bool:
    try:
        return is_locked(path)
    except OSError:
        return False
