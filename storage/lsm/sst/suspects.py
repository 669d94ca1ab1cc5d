"""Suspects: objects that the store does not give, while it gives others. No I/O: it is told what happened, and when.

An object becomes a suspect when a GET of it fails and the store gives something else. It stays one until all that was
asked of it came. How long a frame has been withheld decides when those who wait for it are told: an object of which
nothing at all came since it fails is taken as a whole, and of one that gave other parts (a bad sector below a file)
each frame counts by itself. When the store as a whole is away nobody is suspected, and what was is forgotten: the time
of an outage counts against no object.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

APART_SECONDS = 30.0
"""What was asked for in vain counts as withheld when the newest such try began so long after the first. The first may
have shared a slow link with many others, and one that failed at once and one that hung for a minute may have met the
same moment without a network: that says nothing of the object."""

RANGES_MAX = 1000
"""Blocks remembered of one suspect, for people."""


@dataclass(slots=True)
class Suspect:
    """One object. Moments are those of a monotonic clock."""

    name: str
    since: float
    reason: str
    newest: float = float("-inf")
    """When the newest GET began that was in vain."""
    gave: bool = False
    """Whether any part of it came since."""
    frames: dict[int, float] = field(default_factory=dict)
    """Location of each frame that was asked for in vain: since when."""
    blocks: dict[tuple[int, int], None] = field(default_factory=dict)
    """(layer, block) of what was asked for in vain."""


class Suspects:
    """The objects that are suspects, by name."""

    def __init__(self) -> None:
        self._found: dict[str, Suspect] = {}

    def __contains__(self, name: str) -> bool:
        return name in self._found

    def __bool__(self) -> bool:
        return bool(self._found)

    def all(self) -> list[Suspect]:
        """Every suspect, the oldest first; they are those themselves, not to be changed."""
        return sorted(self._found.values(), key=lambda suspect: suspect.since)

    def failed(self, name: str, frames: Mapping[int, Iterable[tuple[int, int]]], reason: str, *, since: float) -> bool:
        """A GET that began at `since` failed, though the store gives other objects. `frames` are those it was to
        bring, by location, with the (layer, block) of who asked. Whether the object was above suspicion before.
        """
        suspect = self._found.get(name)
        new = suspect is None
        if suspect is None:
            suspect = self._found[name] = Suspect(name, since, reason)
        suspect.reason = reason
        suspect.newest = max(suspect.newest, since)
        for location, blocks in frames.items():
            suspect.frames.setdefault(location, since)
            for block in blocks:
                if len(suspect.blocks) < RANGES_MAX:
                    suspect.blocks[block] = None
        return new

    def gave(self, name: str, locations: Iterable[int]) -> bool:
        """These frames of the object came. Whether it is above suspicion again."""
        suspect = self._found.get(name)
        if suspect is None:
            return False
        suspect.gave = True
        for location in locations:
            suspect.frames.pop(location, None)
        if suspect.frames:
            return False
        del self._found[name]
        return True

    def reason(self, name: str) -> str:
        """Why the last GET of a suspect failed."""
        return self._found[name].reason if name in self._found else "it was not given"

    def withheld_since(self, name: str, location: int, now: float) -> float:
        """Since when a frame is withheld; now, if it is not known to be."""
        suspect = self._found.get(name)
        if suspect is None:
            return now
        return suspect.frames.get(location, now) if suspect.gave else suspect.since

    def is_proven(self, name: str, first: float, newest: float) -> bool:
        """Whether a frame is withheld, the first and newest try in vain of which began at these moments; if not, it may
        only wait for its turn, or have met one bad moment.
        """
        suspect = self._found.get(name)
        if suspect is None:
            return False
        return newest - first >= APART_SECONDS or (not suspect.gave and suspect.newest - suspect.since >= APART_SECONDS)

    def forget(self, names: Iterable[str]) -> None:
        """Nothing needs these objects any more: nobody will ask for them again."""
        for name in names:
            self._found.pop(name, None)

    def clear(self) -> None:
        """The store as a whole is away: that explains all."""
        self._found.clear()
