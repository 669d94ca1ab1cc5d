"""What the soak holds a server to; told what was sent, answered and seen, it keeps what broke a rule.

Pure but for a lock: every moment is given, in seconds of one clock that never jumps. A request may wait for as long as
the store does not answer; what counts is the time in which it does.
"""

import threading
from collections import Counter
from dataclasses import dataclass, field

MIB = 1 << 20

WAIT_SECONDS = 60.0
"""How long a request may be without a reply while the store answers: far above what it takes. So may a stop."""

OPENED_BYTES = 512 * MIB
"""A server that has just started: the interpreter, Argon2id's 256 MiB, and what its log held, another 256 MiB at most
(`tests/integration/test_memory.py` has a log that tries)."""

CLIENT_BYTES = 64 * MIB
REQUESTS_BYTES = 512 * MIB
WRITES_BYTES = 256 * MIB
"""The limits of the requests of one client and of all, and of writes that are in no SST yet: the first two are those of
`nbdserver/server/limits.py`, which README.md sums up. There is no journal in a soak."""

SLACK_BYTES = 48 * MIB
"""What the allocator keeps of what is free again, and threads that come as they are needed."""

TRACEBACK = "Traceback (most recent call last)"


@dataclass(slots=True)
class _Request:
    what: str
    sent: float
    """By the clock of the store."""
    size: int


@dataclass
class Rules:
    """The oracle of one soak. `violations` is empty while all is well."""

    wait_seconds: float = WAIT_SECONDS
    cache_bytes: int = 0
    violations: list[str] = field(default_factory=list)
    ending: bool = False
    """The server is being ended: it may drop its clients, and answer them that it is shutting down."""

    def __post_init__(self) -> None:
        self._lock = threading.Lock()
        self._under_way: dict[tuple[str, int], _Request] = {}
        self._answering = 0.0
        self._since: float | None = 0.0
        self.begin_life()

    def begin_life(self) -> None:
        """A server starts, which holds nothing yet."""
        with self._lock:
            self._opened = OPENED_BYTES
            self._held: Counter[str] = Counter()
            self._held_most: Counter[str] = Counter()
            self._read = self._written = 0

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

    def sent(self, who: str, cookie: int, what: str, now: float, *, payload: int = 0, reply: int = 0) -> None:
        """A request is on its way, or about to be, with so many bytes of data, or for so many."""
        with self._lock:
            self._under_way[who, cookie] = _Request(what, self._store_clock(now), payload + reply)
            self._hold(who, payload + reply)
            self._written += payload
            self._read += reply

    def may_hold(self, who: str, count: int) -> None:
        """A client may have the server hold so much by requests that it does not tell of."""
        with self._lock:
            self._hold(who, count)
            self._written += count

    def _hold(self, who: str, count: int) -> None:
        self._held[who] += count
        self._held_most[who] = max(self._held_most[who], self._held[who])

    def answered(self, who: str, cookie: int, error: int = 0) -> None:
        """The reply came, with this NBD error number or 0."""
        with self._lock:
            request = self._under_way.pop((who, cookie))
            self._held[who] -= request.size
        if error and not self.ending:
            self.broken(f"{who}: {request.what} was answered with error {error}")

    def gone(self, who: str, *, left: bool) -> None:
        """The connection ended; `left`: by the client's own doing."""
        with self._lock:
            for key in [key for key in self._under_way if key[0] == who]:
                self._held[key[0]] -= self._under_way.pop(key).size
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
                self._held[key[0]] -= self._under_way.pop(key).size
        for (who, _), request in late.items():
            self.broken(f"{who}: {request.what} had no reply in {self.wait_seconds} s in which the store answered")

    # The server

    def opened(self, count: int) -> None:
        """The server serves, and so many bytes of it were resident at the highest until now."""
        self.memory("VmHWM at the start", count)
        self._opened = count

    @property
    def memory_bytes(self) -> int:
        """What the limits allow the server to hold: of each no more than clients had it hold in this life."""
        with self._lock:
            requests = sum(min(most, CLIENT_BYTES) for most in self._held_most.values())
            cached = min(self._read + self._written, self.cache_bytes)
            writes = min(self._written, WRITES_BYTES)
            return self._opened + cached + min(requests, REQUESTS_BYTES) + writes + SLACK_BYTES

    def memory(self, field_name: str, count: int) -> None:
        """So many bytes of the server are resident, now or at their highest."""
        limit = self.memory_bytes
        if count > limit:
            self.broken(f"{field_name} is {count / MIB:.0f} MiB; the limits add up to {limit / MIB:.0f} MiB")

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
