"""The crowds: connections by the address that they come from, those in their handshake longest first. No I/O.

Promises: whose place goes is told without a look at all connections, however many there are: what is asked at each
newcomer is kept in order, and a change of one connection finds its own place in that by halves.
"""

from bisect import bisect_left, insort
from collections import OrderedDict
from collections.abc import Hashable
from typing import Generic, TypeVar

C = TypeVar("C", bound=Hashable)


class Crowds(Generic[C]):
    """The connections of one server. A crowd is full that has `share` of them, in their handshake or not."""

    def __init__(self, share: int) -> None:
        self._share = share
        self._address: dict[C, str] = {}
        self._count: dict[str, int] = {}
        self._haggling: dict[str, OrderedDict[C, tuple[float, int]]] = {}
        """By address: those in the handshake, longest first; when they may lose their place, and which number they
        have."""
        self._number = 0
        self._full: list[tuple[float, int]] = []
        """Of each full crowd the longest in its handshake: until when it keeps its place, and its number."""
        self._sizes: list[tuple[int, int, str]] = []
        """Of each address with anybody in the handshake how many, the number of the longest below zero, and which."""
        self._standing: dict[str, tuple[tuple[float, int] | None, tuple[int, int, str] | None]] = {}
        """What stands of an address in these two."""

    def __len__(self) -> int:
        return len(self._address)

    def use_share(self, share: int) -> None:
        """From now on a crowd of so many is full. Nobody goes by it."""
        self._share = share
        for address in list(self._standing):
            self._keep_order(address)

    def opened(self, connection: C, address: str) -> None:
        """It is connected, and not in the handshake yet."""
        self._address[connection] = address
        self._count[address] = self._count.get(address, 0) + 1
        self._keep_order(address)

    def haggles(self, connection: C, until: float) -> None:
        """It is in the handshake, behind all others, and keeps its place `until` then, which is later for each."""
        self._number += 1
        address = self._address[connection]
        self._haggling.setdefault(address, OrderedDict())[connection] = until, self._number
        self._keep_order(address)

    def settled(self, connection: C) -> None:
        """It is in the handshake no more: attached, or its place is lost."""
        address = self._address.get(connection)
        if address is not None and self._haggling.get(address, OrderedDict()).pop(connection, None) is not None:
            if not self._haggling[address]:
                del self._haggling[address]
            self._keep_order(address)

    def closed(self, connection: C) -> None:
        """It is gone."""
        self.settled(connection)
        address = self._address.pop(connection, None)
        if address is not None:
            self._count[address] -= 1
            if not self._count[address]:
                del self._count[address]
            self._keep_order(address)

    def is_full(self, address: str) -> bool:
        """Whether an address has its share."""
        return self._count.get(address, 0) >= self._share

    def longest_of(self, address: str) -> C | None:
        """Of an address the one that is longest in its handshake."""
        return next(iter(self._haggling.get(address, ())), None)

    def busiest(self) -> str | None:
        """The address that has most connections in their handshake; of several that with the longest."""
        return self._sizes[-1][2] if self._sizes else None

    def kept_until(self, address: str) -> float:
        """Until when `longest_of` an address keeps its place; 0: there is none."""
        return next(iter(self._haggling.get(address, OrderedDict()).values()), (0.0, 0))[0]

    def full_until(self) -> float:
        """When the last of all full crowds may lose the one that is longest in its handshake; 0: none has one."""
        return self._full[-1][0] if self._full else 0.0

    def _keep_order(self, address: str) -> None:
        full, size = self._standing.pop(address, (None, None))
        if full is not None:
            del self._full[bisect_left(self._full, full)]
        if size is not None:
            del self._sizes[bisect_left(self._sizes, size)]
        haggling = self._haggling.get(address)
        if not haggling:
            return
        longest = next(iter(haggling.values()))
        size = len(haggling), -longest[1], address
        insort(self._sizes, size)
        full = longest if self.is_full(address) else None
        if full is not None:
            insort(self._full, full)
        self._standing[address] = full, size
