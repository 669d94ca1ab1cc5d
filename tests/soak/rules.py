"""What the soak holds a server to; told what was sent, answered and seen, it keeps what broke a rule.

Pure but for a lock: every moment is given, in seconds of one clock that never jumps. A request may wait for as long as
the store does not answer; what counts is the time in which it does.
"""

import threading
from dataclasses import dataclass, field

MIB = 1 << 20

WAIT_SECONDS = 60.0
"""How long a request may be without a reply while the store answers: far above what it takes. So may a stop."""

MEMORY_BYTES = round(1.1 * (256 + 64 + 1024) * MIB)
"""The interpreter and what the allocator keeps, the cache (CACHE_SIZE of the run), and the 1 GiB of requests and writes
under way that README.md names; a tenth more."""

TRACEBACK = "Traceback (most recent call last)"


@dataclass(slots=True)
class _Request:
    what: str
    sent: float
    """By the clock of the store."""


@dataclass
class Rules:
    """The oracle of one soak. `violations` is empty while all is well."""

    wait_seconds: float = WAIT_SECONDS
    memory_bytes: int = MEMORY_BYTES
    violations: list[str] = field(default_factory=list)
    ending: bool = False
    """The server is being ended: it may drop its clients, and answer them that it is shutting down."""

    def __post_init__(self) -> None:
        self._lock = threading.Lock()
        self._under_way: dict[tuple[str, int], _Request] = {}
        self._answering = 0.0
        self._since: float | None = 0.0

    # The store

    def store_answers(self, now: float, answers: bool) -> None:
        """From now on the store answers, or does not."""
        with self._lock:
            if self._since is not None:
                self._answering += now - self._since
            self._since = now if answers else None

    def _store_clock(self, now: float) -> float:
        return self._answering + (now - self._since if self._since is not None else 0.0)

    # Requests and connections

    def sent(self, who: str, cookie: int, what: str, now: float) -> None:
        """A request is on its way, or about to be."""
        with self._lock:
            self._under_way[who, cookie] = _Request(what, self._store_clock(now))

    def answered(self, who: str, cookie: int, error: int = 0) -> None:
        """The reply came, with this NBD error number or 0."""
        with self._lock:
            request = self._under_way.pop((who, cookie))
        if error and not self.ending:
            self.broken(f"{who}: {request.what} was answered with error {error}")

    def gone(self, who: str, *, left: bool) -> None:
        """The connection ended; `left`: by the client's own doing."""
        with self._lock:
            for key in [key for key in self._under_way if key[0] == who]:
                del self._under_way[key]
        if not left and not self.ending:
            self.broken(f"{who} was dropped, though it had neither left nor stalled")

    def look(self, now: float) -> None:
        """See whether anybody has waited for too long."""
        with self._lock:
            clock = self._store_clock(now)
            late = {
                key: request for key, request in self._under_way.items() if clock - request.sent > self.wait_seconds
            }
            for key in late:
                del self._under_way[key]
        for (who, _), request in late.items():
            self.broken(f"{who}: {request.what} had no reply in {self.wait_seconds} s in which the store answered")

    # The server

    def memory(self, field_name: str, count: int) -> None:
        """So many bytes of the server are resident, now or at their highest."""
        if count > self.memory_bytes:
            self.broken(
                f"{field_name} is {count / MIB:.0f} MiB; the limits add up to {self.memory_bytes / MIB:.0f} MiB"
            )

    def stopped(self, seconds: float | None, status: int | None) -> None:
        """SIGTERM, and the server ended after so many seconds in which the store answered; None: it did not."""
        if seconds is None or seconds > self.wait_seconds:
            self.broken(f"SIGTERM did not end the server within {self.wait_seconds} s")
        elif status != 0:
            self.broken(f"SIGTERM ended the server with status {status}")

    def log(self, said: str) -> None:
        """All that the server wrote to its log."""
        at = said.find(TRACEBACK)
        if at >= 0:
            self.broken(f"the log has a traceback: {said[max(0, at - 300) : at + 3000]}")

    def broken(self, what: str) -> None:
        """A rule was broken."""
        self.violations.append(what)
