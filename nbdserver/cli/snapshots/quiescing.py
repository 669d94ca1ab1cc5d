"""Quiescing: filesystems are frozen, and commands run, around a snapshot; and released, whatever becomes of who asked.

A process of its own does it (a *guard*), which the command that wants the snapshot speaks to through a socket. It thaws
what it froze, and runs the command for afterwards, when it is told to, when the other end is gone (killed, say), and
at last when FROZEN_SECONDS_MAX are over: a snapshot that hangs must not hang every program that writes. It is deaf to
the signals that end its caller. Only if the guard itself is killed does a filesystem stay frozen.

The guard is forked, so this must be used before a thread is started.
"""

from __future__ import annotations

import fcntl
import json
import os
import select
import signal
import socket
import subprocess
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path

from nbdserver.cli.shared.standard import ERROR
from storage.errors import AccessDenied, Conflict, Invalid, StorageError
from storage.secret import without_secrets

FROZEN_SECONDS_MAX = 60.0

FIFREEZE, FITHAW = 0xC0045877, 0xC0045878
"""linux/fs.h: _IOWR('X', 119, int) and 120."""

DEAF_TO = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGQUIT)


class HookFailed(StorageError):
    """A command that was to run before or after did not end with 0."""


class Quiesced:
    """What is frozen now; `release` thaws it."""

    def __init__(self, guard: socket.socket) -> None:
        self._guard = guard
        self._released = False

    def release(self) -> bool:
        """Thaw, and run what is to run afterwards, which must come to its end. Gives whether all was still frozen.
        HookFailed.
        """
        if self._released:
            return True
        self._released = True
        with suppress(OSError):  # it does not wait for us any more
            self._guard.sendall(b"release")
        return bool(_answer(self._guard)["frozen"])


@contextmanager
def quiesced(mounts: Sequence[Path], before: str | None, after: str | None) -> Iterator[Quiesced]:
    """Run `before` in a shell, freeze the filesystems, and hand over; in the end thaw them and run `after`. What fails
    on the way undoes what was done, and is raised: HookFailed, AccessDenied, Conflict (it is frozen already), Invalid
    (it is no filesystem that can be frozen).
    """
    own, guards = socket.socketpair()
    child = os.fork()
    if not child:
        status = 1
        try:
            own.close()
            _guard(guards, mounts, before, after)
            status = 0
        finally:
            os._exit(status)
    guards.close()
    try:
        _answer(own)
        state = Quiesced(own)
        yield state
        state.release()
    finally:
        own.close()
        os.waitpid(child, 0)


def _answer(guard: socket.socket) -> Mapping[str, object]:
    """What the guard says next. Its error is raised."""
    line = bytearray()
    while not line.endswith(b"\n"):
        part = b""
        with suppress(ConnectionResetError):  # it was killed, and had not read all
            part = guard.recv(65536)
        if not part:
            raise StorageError("the process that freezes filesystems has ended: look whether one is still frozen")
        line += part
    answer: dict[str, object] = json.loads(line)
    kinds = {kind.__name__: kind for kind in (HookFailed, AccessDenied, Conflict, Invalid)}
    if "error" in answer:
        raise kinds[str(answer["error"])](answer["sentence"])
    return answer


def _guard(caller: socket.socket, mounts: Sequence[Path], before: str | None, after: str | None) -> None:
    """The life of a guard."""
    os.setsid()
    for number in DEAF_TO:
        signal.signal(number, lambda *_: None)  # not ignored: what it runs would inherit that
    frozen: list[tuple[Path, int]] = []
    failure: StorageError | None = None
    on_time = True
    try:
        if before is not None:
            _run(before, "--before")
        for mount in mounts:
            frozen.append((mount, _freeze(mount)))
        _say(caller, {"frozen": True})
        on_time = bool(select.select([caller], [], [], FROZEN_SECONDS_MAX if frozen else None)[0])
    except StorageError as error:
        failure = error
    finally:
        thawed = [_thaw(descriptor) for _, descriptor in reversed(frozen)]
    if after is not None:
        try:
            _run(after, "--after")
        except HookFailed as error:
            late = "" if on_time and all(thawed) else "; what was frozen was not any more when it was known to be taken"
            failure = failure or HookFailed(f"{error}{late}")
    if failure is not None:
        _say(caller, {"error": type(failure).__name__, "sentence": str(failure)})
    else:
        _say(caller, {"frozen": on_time and all(thawed)})


def _say(caller: socket.socket, answer: Mapping[str, object]) -> None:
    with suppress(OSError):  # who asked is gone
        caller.sendall(json.dumps(answer).encode() + b"\n")


def _run(command: str, option: str) -> None:
    """HookFailed. It finds no secrets of the store. What comes in on standard input is for whoever called us, as a list
    that a loop of a shell reads; and what goes out on standard output is the answer alone.
    """
    status = subprocess.run(
        ["/bin/sh", "-c", command], stdin=subprocess.DEVNULL, stdout=ERROR, env=without_secrets(os.environ)
    ).returncode
    if status:
        raise HookFailed(f"the command of {option} ended with {status}: {command}")


def _freeze(mount: Path) -> int:
    """A descriptor by which it can be thawed."""
    reasons: dict[type[OSError], Callable[[str], StorageError]] = {PermissionError: AccessDenied}
    descriptor = -1
    try:
        descriptor = os.open(mount, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        fcntl.ioctl(descriptor, FIFREEZE, 0)
    except OSError as error:
        if descriptor >= 0:
            os.close(descriptor)
        if error.errno == 16:  # EBUSY
            raise Conflict(f"{mount} is frozen already, by somebody else") from error
        kind = reasons.get(type(error), Invalid)
        raise kind(f"{mount} cannot be frozen: {error.strerror}") from error
    return descriptor


def _thaw(descriptor: int) -> bool:
    """Whether it was still frozen."""
    try:
        fcntl.ioctl(descriptor, FITHAW, 0)
    except OSError:
        return False
    finally:
        os.close(descriptor)
    return True
