"""Slow operations: what clients waited long for, each with where its time went. A bounded memory of them; no I/O.

Promises: the newest NEWEST_MAX are there, and beside them the SLOWEST_MAX that took longest of all, so that a storm of
short waits does not push out what explains a bad night.
"""

import heapq
from collections import deque

import msgspec

SLOW_OPERATION_SECONDS = 0.1
"""What took less is not remembered: a store far away answers in less, and a filesystem does not mind."""

NEWEST_MAX = 256
SLOWEST_MAX = 64


class SlowOperation(msgspec.Struct, frozen=True):
    """One operation of a client that memory alone could not answer."""

    at: float
    """When it came, in seconds since 1970."""
    client: int
    peer: str
    device: str
    """As the client named it."""
    operation: str
    """In small letters: read, write, flush, trim, write_zeroes."""
    offset: int
    length: int
    seconds: float
    """From when the server could look at it until its reply was handed to the kernel; or until now."""
    spent: dict[str, float]
    """Seconds by `TraceSpan`, in the order in which they came; only where there were any."""
    outcome: str
    """"done", "failed" (the client was given an error), "dropped" (the client was gone first), or "under way"."""
    requests: int = 0
    """GETs that brought what a READ needed."""
    tries: int = 0
    """How often one of them was asked for, at most."""
    objects: list[str] = []
    """Which objects of the store these were, the first few."""
    number: int = 0
    """They are numbered as they end, from 1; 0: it is under way."""


class SlowOperations:
    """Those of one server, since it was started."""

    def __init__(self) -> None:
        self.last = 0
        """The number of the newest: how many there were."""
        self._newest: deque[SlowOperation] = deque(maxlen=NEWEST_MAX)
        self._slowest: list[tuple[float, int, SlowOperation]] = []
        """A heap, the quickest first."""

    def add(self, operation: SlowOperation) -> None:
        """Remember one that has ended."""
        self.last += 1
        numbered = msgspec.structs.replace(operation, number=self.last)
        self._newest.append(numbered)
        entry = (numbered.seconds, self.last, numbered)
        if len(self._slowest) < SLOWEST_MAX:
            heapq.heappush(self._slowest, entry)
        else:
            heapq.heappushpop(self._slowest, entry)

    def remembered(self, after: int = 0) -> list[SlowOperation]:
        """Those with a number above `after`, in the order in which they ended."""
        found = {each.number: each for each in (*(each for _, _, each in self._slowest), *self._newest)}
        return [found[number] for number in sorted(found) if number > after]
