"""Admission: which requests of one client are under way, how many, and how many bytes of data they hold, within the
`Allowance` of `limits`.

Data of requests that wait (long WRITE payloads on their way in, READs from the store, replies longer than
Limits.reply_bytes) is counted before it is allocated. The first Limits.reply_bytes of it are the client's own share;
what is beyond comes out of the budget of all clients, so that hostile ones cannot take the share of others.

A request that there is no room for is not taken: `stalled` is set, and `changed` is called when it is worth offering it
again. While the client could have left unseen, more than usual is taken of what follows (`look_ahead`).
"""

import asyncio
from collections.abc import Callable

from nbdserver.server.limits import Allowance, Budget, Limits

LOOK_AHEAD_FACTOR = 16
"""How many times the requests of a client may be under way while the session looks ahead: 4 KiB each, they fill what it
may take then. Not its READs from the store: they need no more than usual, since they end by themselves."""

EFFORT_MAX = 16
"""What a client gets done in one turn of the loop: 16 discards or prefetches (0.2 ms each), the status of 1 GiB."""


class Admission:
    """One client's requests and bytes under way.

    Invariant: every byte that was taken is given back once, by whoever the request that holds it ends with, or all of
    them by `close`.
    """

    def __init__(
        self, limits: Limits, budget: Budget, *, changed: Callable[[], None], fail: Callable[[], None]
    ) -> None:
        """`changed`: what stalled a request may be over. `fail`: it never will be."""
        self.outstanding = 0
        """Requests whose replies will come later."""
        self.stalled = False
        """A request was not taken."""
        self.arriving = 0
        """Bytes taken for a WRITE payload on its way in."""
        self.looks_ahead = False
        """What the client sends is read and held until it is known to be there."""
        self._effort = 0
        """What was done since it was last enough."""
        self._abandoned = False
        """Of what is under way, some will never end by itself."""
        self._requests_max = limits.requests
        self._allowance = Allowance(limits, budget, changed)
        self._changed = changed
        self._fail = fail
        self._loop = asyncio.get_running_loop()

    # Requests

    def has_place(self, *, reads: int = 0) -> bool:
        """Whether one more request may be under way. `reads`: it is a READ, and so many of them are."""
        most = self._requests_max * (LOOK_AHEAD_FACTOR if self.looks_ahead else 1)
        if self.outstanding < most and reads < self._requests_max:
            return True
        self._stall()
        return False

    def is_enough(self, effort: int) -> bool:
        """Whether a command that takes so much must wait for the next turn of the loop."""
        enough = self._effort >= EFFORT_MAX
        self._effort = 0 if enough else self._effort + effort
        return enough

    def stalls_no_more(self) -> bool:
        """Whether a request was not taken; it may be tried again now."""
        stalled, self.stalled = self.stalled, False
        return stalled

    def begin(self) -> None:
        """Count a request that was taken and has no reply yet."""
        self.outstanding += 1

    def end(self) -> None:
        """Count it no more: its reply is ready, or it will have none."""
        self.outstanding -= 1
        self._changed()

    # Bytes

    def take(self, length: int) -> bool:
        """Count `length` bytes as held for this client, if it may have them."""
        if self._allowance.take(length):
            return True
        self._stall()
        return False

    def give(self, length: int) -> None:
        """`length` bytes are not held any more."""
        self._allowance.give(length)
        if self.stalled:
            self._changed()

    def take_payload(self, length: int) -> bool:
        """The same as `take`, for a payload on its way in."""
        if not self.take(length):
            return False
        self.arriving = length
        return True

    def release_payload(self) -> None:
        """The payload that was taken last is done with."""
        arriving, self.arriving = self.arriving, 0
        self.give(arriving)

    def keep_payload(self, length: int) -> bool:
        """A write is to be held with its data: the payload that was taken last, or what was in the receive buffer,
        which is taken now if the client may have it."""
        if not self.arriving and not self.take(length):
            return False
        self.arriving = 0
        return True

    @property
    def inflight(self) -> int:
        """Bytes that are held now."""
        return self._allowance.inflight

    @property
    def takes_from_others(self) -> bool:
        """Whether others wait for memory that this client's requests hold."""
        return self._allowance.takes_from_others

    # When there is more, or less, than usual

    def look_ahead(self, unseen: int) -> None:
        """Take `unseen` bytes more than usual, and many more requests."""
        self.looks_ahead = True
        self._allowance.look_ahead(unseen)
        self.stalled = True
        self._changed()

    def look_no_more(self) -> None:
        """Take as much as usual."""
        if self.looks_ahead:
            self.looks_ahead = False
            self._allowance.look_ahead(0)

    def abandon(self) -> None:
        """Some of it will never end: a request that finds no room now ends the client, since nobody comes after it."""
        self._abandoned = True
        if self.stalled:
            self._fail()

    def close(self) -> None:
        """Give everything back, and wait for nothing."""
        self.stalled = False
        self.arriving = 0
        self._allowance.close()

    def _stall(self) -> None:
        self.stalled = True
        if self._abandoned:
            self._loop.call_soon(self._fail)
