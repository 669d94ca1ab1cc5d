"""Limits: what one client, and all of them together, may make the server hold, and for how long."""

from collections.abc import Callable
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Limits:
    """Bounds of the server; each default with its reason."""

    connections: int = 100
    """Clients at once. What is over it costs a client its place that has not finished its handshake yet."""

    connections_per_address: int = 80
    """Of those, clients of one network address, or of one user on Unix sockets: the rest is for others. Twenty disks
    with `-connections 4` fit."""

    answer_seconds: float = 0.25
    """What everybody has to answer the greeting before a newcomer may take the place. While a crowd comes that wants
    places, newcomers wait as long in the kernel's queue: 300 a second and address are accepted then."""

    handshake_seconds: float = 10.0
    """From the first byte to the transmission phase, TLS included; a client that takes longer is stuck or hostile."""

    stuck_seconds: float = 10.0
    """A client that for this long neither reads its replies nor sends the payload it announced, at PROGRESS_RATE_MIN,
    is dropped if others wait for the memory they take."""

    silence_seconds: float = 1.0
    """After this long without a byte, what comes may be old: the peer is asked for first."""

    unseen_seconds: float = 20.0
    """A TCP client that was not seen for this long may have given up: time-outs of 30 s are usual."""

    vanished_seconds: float = 25.0
    """A TCP client whose kernel answers nothing for this long, though it was sent something, is gone: as long as
    keep-alive takes where nothing is sent."""

    look_seconds: float = 1.0
    """How often a client is looked after while others may wait for it, or its end could be out of sight."""

    linger_seconds: float = 10.0
    """How long a connection that is ending may keep its socket for replies that are unsent or not ready."""

    requests: int = 4096
    """Requests of one client under way; the kernel's client has 128. A write that is held, or a FLUSH that waits, costs
    about 600 bytes beside its data; a READ from the store far more, which is counted with it (`reads.cost`)."""

    reply_bytes: int = 1 << 20
    """Replies of one client unsent before no more of its requests are looked at."""

    inflight_bytes: int = 65 << 20
    """What one client's requests under way hold: two of the longest, with what they cost beside their data, or many
    short ones."""

    memory_bytes: int = 512 << 20
    """What all requests under way hold beyond `reply_bytes` a client, taken before it is allocated; RESERVE_BYTES of it
    for a client whose stream has to be read on (see `session`)."""


def share_of_one_address(connections: int) -> int:
    """How many of so many connections one address may have, so that something is left for others."""
    return max(connections * 4 // 5, 1)


PROGRESS_RATE_MIN = 64 << 10
"""Bytes a second at which a client moves that is not stuck."""

RESERVE_BYTES = 64 << 20
"""The longest request, and what two kernels hold of a stream (peer.PEER_BUFFER_BYTES and as much on this side)."""


class Budget:
    """A number of bytes that requests of all clients share.

    Invariant: what is taken never exceeds the total. The last `reserve` bytes are for one that looks ahead at a time.
    Who got nothing is told, in order, when there is room again.
    """

    def __init__(self, total: int, reserve: int = 0) -> None:
        self.total = total
        self.reserve = reserve
        self.taken = 0
        self.looking_ahead: Allowance | None = None
        """Who may take the reserve."""
        self._waiting: dict[Callable[[], None], None] = {}

    @property
    def contended(self) -> bool:
        """Whether somebody waits for more than is left."""
        return bool(self._waiting)

    def take(self, count: int, *, reserve: bool = False) -> bool:
        """Take `count` bytes, if there are so many left."""
        if self.taken + count > self.total - (0 if reserve else self.reserve):
            return False
        self.taken += count
        return True

    def give(self, count: int) -> None:
        """Give back what was taken, and tell those who wait. RuntimeError: more than was taken, after which nothing
        would bound what clients hold."""
        if count > self.taken:
            raise RuntimeError(f"{count} bytes are given back to a budget of which {self.taken} are taken")
        self.taken -= count
        self.tell()

    def look_ahead(self, who: "Allowance") -> None:
        """Let it have the reserve, unless it is another's turn."""
        if self.looking_ahead is None:
            self.looking_ahead = who

    def look_ahead_no_more(self, who: "Allowance") -> None:
        """Its turn is over, if it was."""
        if self.looking_ahead is who:
            self.looking_ahead = None
            self.tell()

    def tell(self) -> None:
        """There may be room for those who wait."""
        waiting, self._waiting = self._waiting, {}
        for callback in waiting:
            callback()

    def when_free(self, callback: Callable[[], None]) -> None:
        """Call once when something was given back."""
        self._waiting[callback] = None

    def forget(self, callback: Callable[[], None]) -> None:
        """Do not call it after all."""
        self._waiting.pop(callback, None)


class Allowance:
    """The bytes that one client's requests hold: its own share first, the rest out of the budget of all.

    Invariant: of the `inflight` bytes taken and not given back, those beyond the share are taken from the
    budget.
    """

    def __init__(self, limits: Limits, budget: Budget, when_room: Callable[[], None]) -> None:
        self.inflight = 0
        self._share = limits.reply_bytes
        self._most = limits.inflight_bytes
        self._budget = budget
        self._charged = 0
        self._when_room = when_room
        self._waiting = False
        self._ahead = 0

    def look_ahead(self, length: int) -> None:
        """Allow `length` bytes more than it has, or than usual, and the reserve when it is this client's turn; 0: no
        longer."""
        # What it has may be more than usual: of the last time that it looked ahead.
        self._ahead = length and length + max(0, self.inflight - self._most)
        if not length:
            self._budget.look_ahead_no_more(self)

    def take(self, length: int) -> bool:
        """Take `length` bytes before they are allocated. False: not now; `when_room` is called if others are
        in the way."""
        inflight = self.inflight + length
        ahead = bool(self._ahead)
        if ahead:
            self._budget.look_ahead(self)
        # One that looks ahead may begin its last request within the limit, or it would never see what is behind it.
        if (self.inflight if ahead else inflight) > self._most + self._ahead and self.inflight:
            return False
        beyond = max(0, inflight - self._share) - self._charged
        if beyond > 0:
            if not self._budget.take(beyond, reserve=self._budget.looking_ahead is self):
                if not self._waiting:
                    self._waiting = True
                    self._budget.when_free(self._freed)
                return False
            self._charged += beyond
        self.inflight = inflight
        return True

    def give(self, length: int) -> None:
        """Give bytes back."""
        self.inflight -= length
        back = self._charged - max(0, self.inflight - self._share)
        if back > 0:
            self._charged -= back
            self._budget.give(back)

    @property
    def takes_from_others(self) -> bool:
        """Whether some of it comes out of the budget, and others wait for that."""
        return bool(self._charged) and self._budget.contended

    def close(self) -> None:
        """Give everything back, and wait for nothing."""
        self._budget.forget(self._freed)
        self.look_ahead(0)
        self.give(self.inflight)

    def _freed(self) -> None:
        self._waiting = False
        self._when_room()
