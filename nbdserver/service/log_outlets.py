"""Outlets of the log to other processes: standard error, and the system's log; and of what a server says beside it.

Promise: who reads them is not waited for. It may be halted, hung, or itself wait for a disk that this process serves,
and the event loop with all disks would stand still for a word about them. Only one who has taken all so far, and is
behind in a burst (the system's log holds ten lines), has a moment. What nobody takes in time is left out, whole lines
of it, and counted: the next line that is taken comes behind one that says how many were lost.
"""

import contextlib
import logging
import os
import select
import socket
import stat
import sys
from collections.abc import Callable
from functools import partial
from typing import TextIO

LOST = "log_lines_lost"

MOMENT_SECONDS = 0.01
"""How long a reader is waited for with a line: as long as it takes every one in that time."""

DAEMON = 3
"""The facility of services (RFC 3164)."""

_SEVERITIES = {"DEBUG": 7, "INFO": 6, "WARNING": 4, "ERROR": 3, "CRITICAL": 2}

Send = Callable[[bytes], int]
"""Takes some of these bytes and gives how many. BlockingIOError: none now. OSError."""

Rendering = Callable[[logging.LogRecord], str]
"""A record as a line."""


class _Losses:
    """How many lines of an outlet were left out and not told of yet, and what its reader is waited for until then."""

    def __init__(self, moment: float) -> None:
        self.count = 0
        self._moment = moment

    def has_room(self, descriptor: int) -> bool:
        """Whether there is room now or in a moment; never waits where lines are lost already."""
        return not self.count and _has_room(descriptor, self._moment)

    def record(self) -> logging.LogRecord:
        """The line that tells of them."""
        told = {"name": "nbdserver", "msg": LOST, "levelno": logging.WARNING, "levelname": "WARNING"}
        return logging.makeLogRecord({**told, "count": self.count})


class Lines:
    """Whole lines for one outlet: what is not taken is left out, counted, and told of before the next line."""

    def __init__(self, moment: float) -> None:
        self._losses = _Losses(moment)
        self._rest = b""
        """Of a line of which a part was taken."""

    def add(self, record: logging.LogRecord, shown: Rendering, descriptor: int, send: Send) -> None:
        """Give the record as a line; `send` writes to `descriptor`."""
        if self._losses.count and self._give(shown(self._losses.record()), descriptor, send):
            self._losses.count = 0
        if self._losses.count or not self._give(shown(record), descriptor, send):
            self._losses.count += 1

    def begin_anew(self) -> None:
        """Another takes the lines from here on: the rest of one, without what went before, is no use there."""
        if self._rest:
            self._rest = b""
            self._losses.count += 1

    def _give(self, text: str, descriptor: int, send: Send) -> bool:
        """Whether the line was taken; if only a part of it was, the rest goes before the next one."""
        line = f"{text}\n".encode(errors="backslashreplace")
        if not self._push(descriptor, send):
            return False
        self._rest = line
        if not self._push(descriptor, send) and len(self._rest) == len(line):
            self._rest = b""
            return False
        return True

    def _push(self, descriptor: int, send: Send) -> bool:
        """Whether all was taken. Whoever read it may be gone, and another one come, who gets what still lies there."""
        with contextlib.suppress(OSError):
            while self._rest:
                try:
                    sent = send(self._rest)
                except BlockingIOError:
                    if not self._losses.has_room(descriptor):
                        break
                    sent = send(self._rest)
                self._rest = self._rest[sent:]
        return not self._rest


class StandardError(logging.StreamHandler[TextIO]):
    """Lines on standard error."""

    def __init__(self, *, moment: float = MOMENT_SECONDS) -> None:
        super().__init__(sys.stderr)
        self._lines = Lines(moment)
        self._undo = contextlib.ExitStack()
        self._send: Send | None = None
        """None: it cannot be written to in another way than as a stream."""
        with contextlib.suppress(OSError, ValueError, AttributeError):
            self._send = _sender(self.stream.fileno(), self._undo)

    def emit(self, record: logging.LogRecord) -> None:
        if self._send is None:
            super().emit(record)
            return
        try:
            self._lines.add(record, self.format, self.stream.fileno(), self._send)
        except Exception:
            self.handleError(record)

    def close(self) -> None:
        if self._send is not None:
            self._send = _take_nothing  # a thread may still have a line for it
        self._undo.close()
        super().close()


class SystemLog(logging.Handler):
    """The system's log, which listens on a Unix socket: RFC 3164 without a time, which it adds by itself."""

    def __init__(self, path: str, *, moment: float = MOMENT_SECONDS) -> None:
        super().__init__()
        self._path = path
        self._socket: socket.socket | None = None
        self._losses = _Losses(moment)

    def emit(self, record: logging.LogRecord) -> None:
        try:
            if self._losses.count and self._give(self._losses.record()):
                self._losses.count = 0
            if self._losses.count or not self._give(record):
                self._losses.count += 1
        except OSError:
            self._losses.count += 1
        except Exception:
            self.handleError(record)

    def close(self) -> None:
        self._disconnect()
        super().close()

    def _give(self, record: logging.LogRecord) -> bool:
        """Whether it was taken, all of it. OSError: nobody listens."""
        priority = DAEMON << 3 | _SEVERITIES.get(record.levelname, _SEVERITIES["WARNING"])
        message = f"<{priority}>nbdserver: {self.format(record)}\0".encode(errors="backslashreplace")
        try:
            sent = self._send(message)
        except BlockingIOError:
            return False
        except OSError:  # it was started anew
            self._disconnect()
            sent = self._send(message)
        if sent < len(message):
            self._disconnect()  # of a stream: else the next line would be taken for the rest of this one
        return sent == len(message)

    def _send(self, message: bytes) -> int:
        """BlockingIOError: there is no room. OSError."""
        if self._socket is None:
            self._socket = _connect(self._path)
        try:
            return self._socket.send(message)
        except BlockingIOError:
            if not self._losses.has_room(self._socket.fileno()):
                raise
            return self._socket.send(message)

    def _disconnect(self) -> None:
        if self._socket is not None:
            self._socket.close()
            self._socket = None


def say(descriptor: int, text: bytes, *, moment: float = MOMENT_SECONDS) -> None:
    """Write lines there which are no log: what there is to attach, why a start waits. They go past what Python keeps
    for the stream, whose lock a thread that waits for a reader would have until the end. From the first one that is not
    taken in its moment they are left out.
    """
    with contextlib.ExitStack() as undo, contextlib.suppress(OSError):
        send: Send | None = None
        with contextlib.suppress(OSError):
            send = _sender(descriptor, undo)
        send = send or partial(os.write, descriptor)
        while text and _has_room(descriptor, moment):
            # Whole lines, as many as a pipe takes at once: few of them come together.
            whole = text.rfind(b"\n", 0, select.PIPE_BUF) + 1
            text = text[send(text[: whole or select.PIPE_BUF]) :]


def _take_nothing(_: bytes) -> int:
    raise BlockingIOError


def _connect(path: str) -> socket.socket:
    """To the system's log, by datagrams if it takes them. OSError."""
    try:
        return _connect_as(socket.SOCK_DGRAM, path)
    except OSError:
        return _connect_as(socket.SOCK_STREAM, path)


def _connect_as(kind: socket.SocketKind, path: str) -> socket.socket:
    sock = socket.socket(socket.AF_UNIX, kind)
    try:
        sock.setblocking(False)
        sock.connect(path)
    except BaseException:
        sock.close()
        raise
    return sock


def _sender(descriptor: int, undo: contextlib.ExitStack) -> Send:
    """What writes there without waiting for a reader. OSError: it cannot be."""
    mode = os.fstat(descriptor).st_mode
    if stat.S_ISSOCK(mode):
        sock = undo.enter_context(socket.socket(fileno=os.dup(descriptor)))
        return lambda data: sock.send(data, socket.MSG_DONTWAIT)
    if not (stat.S_ISCHR(mode) or stat.S_ISFIFO(mode)):
        return partial(os.write, descriptor)  # a file has no reader, but its disk may be full
    # Opened anew: what is set on a descriptor holds for all that share it, the shell's too.
    try:
        own = os.open(f"/proc/self/fd/{descriptor}", os.O_WRONLY | os.O_NONBLOCK | os.O_NOCTTY | os.O_CLOEXEC)
    except OSError:  # it belongs to another user, or nobody reads it now
        if stat.S_ISFIFO(mode):
            return partial(_send_to_pipe, descriptor)
        raise
    undo.callback(os.close, own)
    return partial(os.write, own)


def _send_to_pipe(descriptor: int, data: bytes) -> int:
    """Where there is room at all there is room for so many bytes, if nobody else fills it between look and write."""
    if not _has_room(descriptor, 0.0):
        raise BlockingIOError
    return os.write(descriptor, data[: select.PIPE_BUF])


def _has_room(descriptor: int, seconds: float) -> bool:
    """Whether something can be written there, or is heard to fail, within so long."""
    room = select.poll()
    room.register(descriptor, select.POLLOUT)
    return bool(room.poll(seconds * 1000))
