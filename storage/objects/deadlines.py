"""Deadlines of blocking calls: the socket of a call that takes longer than it may is shut down.

A socket's own time-out bounds a single `recv`, not an answer: a peer that sends a byte a second keeps it content for
hours. So while calls are under way one thread looks at all of them a few times a second, and shuts down the sockets of
those that are late; whoever waits there gets an error at once and his thread is free again. Calls that nobody waits for
any more are ended in the same way.

What was sent may have arrived: to end a call says nothing about its outcome.
"""

import contextlib
import socket
import threading
import time
from collections.abc import Callable, Iterator
from typing import Protocol

LOOK_SECONDS = 0.25
"""How often the thread looks, and so how late it may be."""


class SocketHolder(Protocol):
    """What a request travels on; its socket is None while it is not connected."""

    sock: socket.socket | None


class Call:
    """One blocking call, which may make several requests one after the other."""

    def __init__(self) -> None:
        self.is_late = False
        """Whether it was ended because it took longer than it might."""
        self._deadline = float("inf")
        self._sock: socket.socket | None = None
        self._ended = False
        self._lock = threading.Lock()

    def must_end_by(self, deadline: float) -> None:
        """Allow what is done from now on, in the calling thread, until `deadline` on the clock of `Deadlines`."""
        self._deadline = deadline

    def end(self, *, late: bool = False) -> None:
        """Shut its connection down, now or as soon as it has one. From any thread."""
        with self._lock:
            if self._ended:
                return
            self._ended = True
            self.is_late = late
            _shut_down(self._sock)

    def travels_on(self, sock: socket.socket | None) -> None:
        """What it asks next goes over `sock`; None: it asks nothing more."""
        with self._lock:
            self._sock = sock
            if self._ended:
                _shut_down(sock)

    def is_due(self, now: float) -> bool:
        """Whether it has taken longer than it may, and was not ended yet."""
        return self._deadline <= now and not self._ended


class _ThisThread(threading.local):
    call: Call | None = None


_this_thread = _ThisThread()


class Deadlines:
    """The calls under way, and the thread that looks at them as long as there are any."""

    def __init__(self, clock: Callable[[], float]) -> None:
        self._clock = clock
        self._calls: set[Call] = set()
        self._looking = False
        self._lock = threading.Lock()

    @contextlib.contextmanager
    def watching(self, call: Call) -> Iterator[None]:
        """The calling thread works for `call`: what it connects to inside belongs to it."""
        with self._lock:
            self._calls.add(call)
            if not self._looking:
                self._looking = True
                threading.Thread(target=self._look, name="deadlines", daemon=True).start()
        _this_thread.call = call
        try:
            yield
        finally:
            _this_thread.call = None
            call.travels_on(None)
            with self._lock:
                self._calls.discard(call)

    def allow(self, seconds: float) -> None:
        """The calling thread's call has `seconds` from now on."""
        if _this_thread.call is not None:
            _this_thread.call.must_end_by(self._clock() + seconds)

    def end_all(self) -> None:
        """Nobody waits any more for anything that is under way."""
        with self._lock:
            calls = list(self._calls)
        for call in calls:
            call.end()

    def _look(self) -> None:
        while True:
            time.sleep(LOOK_SECONDS)
            with self._lock:
                if not self._calls:
                    self._looking = False
                    return
                now = self._clock()
                late = [call for call in self._calls if call.is_due(now)]
            for call in late:
                call.end(late=True)


def travels_on(sock: socket.socket | None) -> None:
    """The calling thread's call sends its next request on `sock`."""
    if _this_thread.call is not None:
        _this_thread.call.travels_on(sock)


def is_late() -> bool:
    """Whether the calling thread's call was ended because it took too long."""
    return _this_thread.call is not None and _this_thread.call.is_late


def _shut_down(sock: socket.socket | None) -> None:
    if sock is not None:
        with contextlib.suppress(OSError):
            # The method of plain sockets: that of TLS would have a thread that reads go on in clear.
            socket.socket.shutdown(sock, socket.SHUT_RDWR)
