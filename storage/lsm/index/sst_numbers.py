"""Numbers of SSTs in this process, and locations: a place in an SST as one integer, number << 32 | byte offset."""

import numpy as np
from numpy.typing import NDArray

from storage.errors import BrokenInvariant
from storage.format.names import sst_name
from storage.format.sst_list import Ids, ids_of

OFFSET_MASK = 2**32 - 1
"""The byte offset in a location."""

RECENT_MAX = 1024
"""Ids in a dictionary, at 200 bytes each; all others are in columns, at 34."""


class _Settled:
    """Ids by number, and the numbers in order of their ids. It never changes."""

    __slots__ = ("ids", "order")

    def __init__(self, ids: Ids) -> None:
        self.ids = ids
        self.order = np.argsort(ids, kind="stable").astype(np.intp, copy=False)
        """Of this type, since `searchsorted` makes a copy of any other: 4 bytes an SST more, and none each time."""

    def find(self, ids: Ids) -> NDArray[np.int64]:
        """The number of each, 0 for none: nothing has that."""
        at = np.minimum(np.searchsorted(self.ids, ids, sorter=self.order), len(self.order) - 1)
        number = self.order[at].astype(np.int64, copy=False)
        return np.where(self.ids[number] == ids, number, 0)


class SstNumbers:
    """Numbers SSTs within this process. A number is never used twice, so a location never changes its meaning.

    The event loop gives numbers; threads may ask for those that were given. So what is settled is in its place before
    it leaves the dictionary, and who asks looks there first.
    """

    def __init__(self) -> None:
        self._settled = _Settled(np.zeros(1, "S26"))
        self._recent: dict[str, int] = {}
        self._recent_ids: list[str] = []

    def __len__(self) -> int:
        """All numbers given are below this."""
        return len(self._settled.ids) + len(self._recent)

    def number(self, sst_id: str) -> int:
        """The number of an SST in this process, given when first asked for."""
        found = self.given(sst_id)
        if found is None:
            if len(self._recent) == RECENT_MAX:
                self._settle(ids_of(()))
            found = self._recent[sst_id] = len(self)
            self._recent_ids.append(sst_id)
        return found

    def numbers(self, ids: Ids) -> NDArray[np.int64]:
        """The same of many at once."""
        found = self.given_all(ids)
        if not found.all():
            new = np.sort(ids[found == 0])
            self._settle(new[np.concatenate(([True], new[1:] != new[:-1]))])
            found = self._settled.find(ids)
        return found

    def given(self, sst_id: str) -> int | None:
        """The number of an SST if it has one; for threads, which give none."""
        return self._recent.get(sst_id) or int(self._settled.find(ids_of([sst_id]))[0]) or None

    def given_all(self, ids: Ids) -> NDArray[np.int64]:
        """The same of many at once, 0 for none."""
        recent = self._recent
        found = self._settled.find(ids)
        for row in np.flatnonzero(found == 0).tolist() if recent else ():
            found[row] = recent.get(ids[row].decode(), 0)
        return found

    def _settle(self, new: Ids) -> None:
        """Put the recent ones into the columns, and these, which get the next numbers."""
        recent = ids_of(self._recent_ids)
        self._settled = _Settled(np.concatenate((self._settled.ids, recent, new)))
        self._recent, self._recent_ids = {}, []

    def location(self, sst_id: str, offset: int) -> int:
        """The location of byte `offset` of an SST: number << 32 | offset."""
        return self.number(sst_id) << 32 | offset

    def name(self, location: int) -> str:
        """The name of the object that a location lies in."""
        number = location >> 32
        settled = self._settled.ids
        if not number:
            raise BrokenInvariant(f"{location} is a state of a block and no place in an SST")
        if number < len(settled):
            return sst_name(settled[number].decode())
        return sst_name(self._recent_ids[number - len(settled)])
