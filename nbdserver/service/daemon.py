"""A process in the background: how it comes to leave the terminal, and say who it is."""

import contextlib
import os
import sys
from collections.abc import Callable
from pathlib import Path

from storage.errors import AccessDenied
from storage.trusted_files import open_own, replace_file, trusted_folder


def detach(child: Callable[[Callable[[], None]], int]) -> int:
    """Run `child` in a process that has no terminal, and return when it is ready or has failed.

    `child` gets a function to call when it is ready: from then on it has no standard input, output or error, and this
    call returns 0; to the child it raises BrokenPipeError if who made this call was ended meanwhile. If it returns or
    dies before, its exit status is returned. Must be called before any thread, event loop or key exists: a fork copies
    locks in whatever state they are, and nothing is encrypted in a forked process with inherited randomness.
    """
    reader, writer = os.pipe()
    sys.stdout.flush()
    sys.stderr.flush()
    first = os.fork()
    if first:
        os.close(writer)
        os.waitpid(first, 0)
        with os.fdopen(reader, "rb") as pipe:
            said = pipe.read(1)
        return said[0] if said else 1
    os.close(reader)
    os.setsid()
    if os.fork():
        os._exit(0)
    status = 1
    told = False

    def ready() -> None:
        nonlocal told
        _flush()
        os.chdir("/")
        nothing = os.open(os.devnull, os.O_RDWR)
        for standard in (0, 1, 2):
            os.dup2(nothing, standard)
        os.close(nothing)
        told = True
        try:
            os.write(writer, b"\0")
        finally:
            os.close(writer)

    try:
        status = child(ready)
    finally:
        if not told:
            _flush()
            with contextlib.suppress(BrokenPipeError):
                os.write(writer, bytes([status]))
        os._exit(status)


def _flush() -> None:
    """Write what was printed, if anybody reads it: the terminal may be gone, and the process goes on."""
    for stream in (sys.stdout, sys.stderr):
        with contextlib.suppress(OSError):
            stream.flush()


def write_pid_file(path: Path) -> None:
    """Write this process's id, all of it or nothing, into a file that everybody may read.

    AccessDenied: other users could exchange it, and with it whom a `kill` of its reader ends.
    """
    replace_file(check_pid_file(path) / path.name, f"{os.getpid()}\n".encode(), 0o644)


def check_pid_file(path: Path) -> Path:
    """The folder that it is to be in. AccessDenied, as `write_pid_file`."""
    try:
        return trusted_folder(path.parent, shared=True)
    except AccessDenied as error:
        raise AccessDenied(f"the pid file {path} would not be safe: {error}; choose another path") from error


def remove_pid_file(path: Path) -> None:
    """Remove the file unless another process has written it meanwhile."""
    try:
        descriptor = open_own(path, os.O_RDONLY)
        with os.fdopen(descriptor, "rb") as file:
            ours = file.read() == f"{os.getpid()}\n".encode()
        if ours:
            path.unlink()
    except (OSError, AccessDenied):
        pass  # it is gone, or not ours to remove
