"""Deadlines of blocking calls: the socket of a call that takes longer than it may is shut down.

A socket's own time-out bounds a single `recv`, not an answer: a peer that sends a byte a second keeps it content for
hours. So while calls are under way one thread looks at all of them a few times a second, and shuts down the sockets of
those that are late; whoever waits there gets an error at once and its thread is free again. Calls that nobody waits for
any more are ended in the same way, and so are those that a silence has swallowed: when something that was asked later
is answered, what was asked before it and has not moved a byte for a while will not be, or not soon.

What was sent may have arrived: to end a call says nothing about its outcome.
"""

import contextlib
import socket
import struct
import threading
import time
from collections.abc import Callable, Iterator
from typing import TypeVar

T = TypeVar("T")

LOOK_SECONDS = 0.25
"""How often the thread looks, and so how late it may be."""

STILL_SECONDS = 2.0
"""A call of which no byte moved for so long is taken for swallowed, where others are answered."""

DOUBTED_MAX = 1024
"""What was late, or swallowed, and was not answered since: of so many it is remembered."""

_MOVED = struct.Struct("@QQ")
_MOVED_OFFSET = 120
"""Of tcpi_bytes_acked and tcpi_bytes_received in the kernel's `struct tcp_info` (Linux 4.1)."""


class Call:
    """One blocking call about what is called `name`, which may make several requests one after the other."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.is_late = False
        """Whether it was ended because it took longer than it might."""
        self._deadline = float("inf")
        self._asked_at = float("inf")
        self._moved = -1
        """Bytes that its connection had moved in all when it was last looked at; -1: it had none."""
        self._moved_at = float("inf")
        self.is_ended = False
        """Whether it was ended, for that or another reason."""
        self._sock: socket.socket | None = None
        self._lock = threading.Lock()

    def asks(self, now: float) -> None:
        """A request begins, in the calling thread."""
        self._asked_at = self._moved_at = now

    def must_end_by(self, deadline: float) -> None:
        """Allow what is done from now on, in the calling thread, until `deadline` on the clock of `Deadlines`."""
        self._deadline = deadline

    def end(self, *, late: bool = False) -> None:
        """Shut its connection down, now or as soon as it has one. From any thread."""
        with self._lock:
            if self.is_ended:
                return
            self.is_ended = True
            self.is_late = late
            _shut_down(self._sock)

    def travels_on(self, sock: socket.socket | None) -> None:
        """What it asks next goes over `sock`; None: it asks nothing more."""
        with self._lock:
            self._sock = sock
            if self.is_ended:
                _shut_down(sock)

    def is_due(self, now: float) -> bool:
        """Whether it has taken longer than it may, and was not ended yet."""
        return self._deadline <= now and not self.is_ended

    def look(self, now: float) -> None:
        """See whether any byte has moved since the last look."""
        with self._lock:
            moved = _bytes_moved(self._sock)
        if moved != self._moved:
            self._moved, self._moved_at = moved, now

    def is_swallowed(self, asked_before: float, now: float, still_seconds: float) -> bool:
        """Whether it was asked before that moment, and nothing of it has moved for so long."""
        return self._asked_at < asked_before and now - self._moved_at >= still_seconds and not self.is_ended


class _ThisThread(threading.local):
    call: Call | None = None


_this_thread = _ThisThread()


class Deadlines:
    """The calls under way, and the thread that looks at them as long as there are any."""

    def __init__(self, clock: Callable[[], float], *, look_seconds: float, still_seconds: float) -> None:
        self._clock = clock
        self._look_seconds = look_seconds
        self._still_seconds = still_seconds
        self._calls: set[Call] = set()
        self._late: dict[str, int] = {}
        """Attempts that took too long, since the last one that was answered."""
        self._swallowed: dict[str, None] = {}
        """What was ended as swallowed, and not answered since: it has its whole time now, as it may be that slow."""
        self._looking = False
        self._lock = threading.Lock()

    @contextlib.contextmanager
    def watching(self, call: Call) -> Iterator[None]:
        """The calling thread works for `call`: what it connects to inside belongs to it. Where this ends without an
        error it was answered.
        """
        with self._lock:
            self._calls.add(call)
            if not self._looking:
                self._begin_to_look()
        _this_thread.call = call
        try:
            yield
            if self._late or self._swallowed:
                with self._lock:
                    self._late.pop(call.name, None)
                    self._swallowed.pop(call.name, None)
        finally:
            _this_thread.call = None
            call.travels_on(None)
            with self._lock:
                self._calls.discard(call)

    def ask(self, seconds: float) -> None:
        """The calling thread's call begins a request, and has `seconds` from now on."""
        if _this_thread.call is not None:
            _this_thread.call.asks(self._clock())
        self.allow(seconds)

    def allow(self, seconds: float) -> None:
        """The calling thread's call has `seconds` from now on."""
        if _this_thread.call is not None:
            _this_thread.call.must_end_by(self._clock() + seconds)

    def took_too_long(self) -> None:
        """An attempt of the calling thread's call did."""
        if _this_thread.call is not None:
            with self._lock:
                _remember(self._late, _this_thread.call.name, self.late() + 1)

    def late(self) -> int:
        """How many attempts in a row at what the calling thread's call is about took too long."""
        return self._late.get(_this_thread.call.name, 0) if _this_thread.call is not None else 0

    def end_swallowed(self, asked_before: float) -> None:
        """End what was asked before that moment and has not moved for long; of each name once until it is answered."""
        now = self._clock()
        with self._lock:
            calls = [call for call in self._calls if call.is_swallowed(asked_before, now, self._still_seconds)]
            calls = [call for call in calls if call.name not in self._swallowed]
            for call in calls:
                _remember(self._swallowed, call.name, None)
        for call in calls:
            call.end()

    def end_all(self) -> None:
        """Nobody waits any more for anything that is under way."""
        with self._lock:
            calls = list(self._calls)
        for call in calls:
            call.end()

    def _begin_to_look(self) -> None:
        """Where the system gives no thread now, the next call tries again; until then sockets' own times count."""
        with contextlib.suppress(RuntimeError):
            threading.Thread(target=self._look, name="deadlines", daemon=True).start()
            self._looking = True

    def _look(self) -> None:
        while True:
            time.sleep(self._look_seconds)
            with self._lock:
                if not self._calls:
                    self._looking = False
                    return
                now = self._clock()
                calls = list(self._calls)
            for call in calls:
                if call.is_due(now):
                    call.end(late=True)
                else:
                    call.look(now)


def travels_on(sock: socket.socket | None) -> None:
    """The calling thread's call sends its next request on `sock`."""
    if _this_thread.call is not None:
        _this_thread.call.travels_on(sock)


def is_late() -> bool:
    """Whether the calling thread's call was ended because it took too long."""
    return _this_thread.call is not None and _this_thread.call.is_late


def is_ended() -> bool:
    """Whether the calling thread's call was ended, because it took too long or was taken for swallowed."""
    return _this_thread.call is not None and _this_thread.call.is_ended


def _remember(names: dict[str, T], name: str, value: T) -> None:
    """The newest of `DOUBTED_MAX`."""
    names.pop(name, None)
    if len(names) >= DOUBTED_MAX:
        del names[next(iter(names))]
    names[name] = value


def _shut_down(sock: socket.socket | None) -> None:
    if sock is not None:
        with contextlib.suppress(OSError):
            # The method of plain sockets: that of TLS would have a thread that reads go on in clear.
            socket.socket.shutdown(sock, socket.SHUT_RDWR)


def _bytes_moved(sock: socket.socket | None) -> int:
    """How many bytes the other side has taken from a connection and sent over it."""
    if sock is None:
        return -1
    try:
        size = _MOVED_OFFSET + _MOVED.size
        # The method of plain sockets: it is about the connection, also under TLS.
        told = socket.socket.getsockopt(sock, socket.IPPROTO_TCP, socket.TCP_INFO, size)
        return sum(_MOVED.unpack_from(told, _MOVED_OFFSET))
    except (OSError, struct.error):
        return -1
