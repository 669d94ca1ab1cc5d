"""Slots of GETs: how many may be in flight at once, together and of one object, and who holds one. No I/O."""

from collections import Counter

GETS_IN_FLIGHT = 16
"""Half of the store's threads: reads can never keep a WAL PUT waiting."""

OBJECT_GETS_MAX = 8
"""Of those, GETs of one object: one that does not answer leaves as many to the others until it is a suspect."""

RETRIES_IN_FLIGHT = 2
"""GETs of suspects, beside the others: a rarity gets little."""


class GetSlot:
    """The place of one GET among those in flight, and among those of its object."""

    __slots__ = ("_busy", "_counts", "_name", "_place")

    def __init__(self, place: set["GetSlot"], busy: Counter[str], name: str) -> None:
        self._place, self._busy, self._name = place, busy, name
        self._counts = True
        place.add(self)
        busy[name] += 1

    def leave(self) -> None:
        """It is over, or waits for something else: another may go. It still counts among those of its object."""
        self._place.discard(self)

    def end(self) -> None:
        """It counts nowhere any more."""
        self.leave()
        if self._counts:
            self._counts = False
            self._busy[self._name] -= 1
            if not self._busy[self._name]:
                del self._busy[self._name]


class GetSlots:
    """All places, of three kinds: those for everybody, one for the memtable flush, few for suspects."""

    def __init__(self) -> None:
        self._gets: set[GetSlot] = set()
        self._urgent: set[GetSlot] = set()
        self._retries: set[GetSlot] = set()
        self._busy: Counter[str] = Counter()

    def take(self, name: str, *, urgent: bool) -> GetSlot | None:
        """A place for a GET of object `name`, if there is one now."""
        if len(self._gets) < GETS_IN_FLIGHT and self._busy[name] < OBJECT_GETS_MAX:
            return GetSlot(self._gets, self._busy, name)
        if urgent and not self._urgent:
            return GetSlot(self._urgent, self._busy, name)
        return None

    def has_room(self, *, urgent: bool) -> bool:
        """Whether there may be a place for a GET of some object."""
        return len(self._gets) < GETS_IN_FLIGHT or (urgent and not self._urgent)

    @property
    def retries_left(self) -> int:
        """How many more GETs of suspects may go now."""
        return RETRIES_IN_FLIGHT - len(self._retries)

    def take_retry(self, name: str) -> GetSlot:
        """A place for a GET of a suspect; there must be one left."""
        return GetSlot(self._retries, self._busy, name)
