"""The service manager (systemd) that started this process is told how it does, as sd_notify(3) has it.

Promises: it is told that the service is ready when clients can connect and not before; a start or a stop that waits for
the store is not given up for its length (EXTEND_TIMEOUT_USEC), and says what it waits for; while the event loop turns
it is told so (WATCHDOG=1), and a process whose loop stands still does not. Nothing of it fails anything: without a
manager, or where it does not listen, nothing is told.

One datagram for each message, to a Unix socket that NOTIFY_SOCKET names ("@": an abstract one). The variables are taken
out of the environment, so that no child speaks for this process.
"""

import contextlib
import os
import socket
import weakref
from collections.abc import AsyncIterator, Callable, MutableMapping

from nbdserver.service.waiting import repeating

NOTIFY_SECONDS = 5.0
"""How often it is told how things are."""

EXTEND_SECONDS = 60
"""How much longer it waits for a start or a stop each time."""

WATCHDOG_DIVISOR = 3
"""It is told so many times in the time after which it takes the process for dead."""


class ServiceManager:
    """Tells the service manager that started this process (systemd) how it does, if there is one."""

    def __init__(self, environ: MutableMapping[str, str]) -> None:
        """Takes what is meant for this process out of `environ`."""
        address = environ.pop("NOTIFY_SOCKET", "")
        watchdog = environ.pop("WATCHDOG_USEC", "")
        meant = environ.pop("WATCHDOG_PID", "") in ("", str(os.getpid()))
        self._address = f"\0{address[1:]}" if address.startswith("@") else address
        self._socket = self._open()
        seconds = int(watchdog) / 1e6 / WATCHDOG_DIVISOR if meant and watchdog.isdigit() else 0.0
        self._watched = seconds > 0
        self._pause = min(seconds, NOTIFY_SECONDS) if self._watched else NOTIFY_SECONDS

    @property
    def present(self) -> bool:
        """One has started this process, and listens."""
        return bool(self._address)

    def tell(self, *lines: str) -> None:
        """Send assignments such as "READY=1". Never blocks; what cannot be sent is not sent."""
        if not self._address:
            return
        if self._socket is None:
            self._socket = self._open()
        if self._socket is not None:
            with contextlib.suppress(OSError):
                self._socket.sendto("\n".join(lines).encode(errors="replace"), self._address)

    def _open(self) -> socket.socket | None:
        """The socket to send from, kept from the start on: clients may have taken all descriptors when the watchdog is
        to be told, and a process that serves them well would be killed.
        """
        if not self._address:
            return None
        try:
            sock = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        except OSError:
            return None
        sock.setblocking(False)
        weakref.finalize(self, sock.close)
        return sock

    def ready(self, status: str) -> None:
        """Clients can connect; also the end of `reloading`."""
        self.tell("READY=1", _status(status))

    def reloading(self, monotonic: float) -> None:
        """The configuration is being read again, since this moment of the monotonic clock."""
        self.tell("RELOADING=1", f"MONOTONIC_USEC={int(monotonic * 1e6)}")

    def stopping(self, status: str) -> None:
        """No more clients from here on."""
        self.tell("STOPPING=1", _status(status))

    @contextlib.asynccontextmanager
    async def waiting(self, usual: str, describe: Callable[[float], str]) -> AsyncIterator[None]:
        """While the block runs, a start or a stop takes its time. `describe`, told how many seconds it is now, says
        what it waits for; where that is nothing, `usual` is said.
        """

        def lines(waited: float) -> list[str]:
            return [_status(describe(waited) or usual), f"EXTEND_TIMEOUT_USEC={EXTEND_SECONDS * 1_000_000}"]

        async with self._telling(lines):
            yield

    @contextlib.asynccontextmanager
    async def alive(self, describe: Callable[[], str]) -> AsyncIterator[None]:
        """While the block runs, the service serves; `describe` says how it does."""
        async with self._telling(lambda _: [_status(describe())]):
            yield

    @contextlib.asynccontextmanager
    async def _telling(self, lines: Callable[[float], list[str]]) -> AsyncIterator[None]:
        """Tell again and again, also that the loop turns: where a watchdog is wanted it counts from READY=1 on."""
        if not self._address:
            yield
            return

        def tell(waited: float) -> None:
            self.tell(*lines(waited), *(["WATCHDOG=1"] if self._watched else []))

        async with repeating(tell, first=0.0, pause=self._pause):
            yield


def _status(sentence: str) -> str:
    """One line for people."""
    return f"STATUS={' '.join(sentence.split())}"
