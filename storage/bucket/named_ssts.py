"""What is named under `compacted/`, as columns, and how a listing compares with it, however long both are. No I/O."""

from collections.abc import Iterable, Sequence

import numpy as np
from numpy.typing import NDArray

from storage.format.blocks import SstRef
from storage.format.names import sst_id
from storage.format.sst_list import Ids, SstList, ids_of
from storage.objects.base import ObjectInfo

NOTED_AT_ONCE = 4096
"""Of a listing: what is made of that takes a megabyte for a moment."""


class NamedSsts:
    """Ids, ascending, and the bytes that each has. It never changes."""

    __slots__ = ("ids", "size")

    def __init__(self, ids: Ids, size: NDArray[np.int64]) -> None:
        order = np.argsort(ids, kind="stable")
        self.ids = ids[order]
        self.size = size[order]

    @classmethod
    def of(cls, listed: SstList, others: Iterable[SstRef] = ()) -> "NamedSsts":
        """Those of a list, and some others."""
        named = listed.beside(SstList.of(others))
        return cls(named.ids, named.size)

    def __len__(self) -> int:
        return len(self.ids)

    def __contains__(self, sst_id: object) -> bool:
        return isinstance(sst_id, str) and int(self.find(ids_of([sst_id]))[0]) >= 0

    def find(self, ids: Ids) -> NDArray[np.int64]:
        """Of each of these ids its row, -1 for none."""
        if not len(self):
            return np.full(len(ids), -1)
        row = np.minimum(np.searchsorted(self.ids, ids), len(self) - 1)
        return np.where(self.ids[row] == ids, row, -1)


class RollCall:
    """Which of the named ones a listing shows, told part by part: of those that are as they were named nothing stays in
    memory.
    """

    def __init__(self, named: NamedSsts) -> None:
        self._named = named
        self._there = np.zeros(len(named), np.bool_)
        self.others: dict[str, ObjectInfo] = {}
        """What is there and not named, by id."""
        self.resized: dict[str, tuple[int, int]] = {}
        """By id: of what has another size than was named, the bytes that are there, and those that were named."""

    def note(self, infos: Sequence[ObjectInfo]) -> None:
        """These are there. Names that are not ours are passed over."""
        for start in range(0, len(infos), NOTED_AT_ONCE):
            self._note(infos[start : start + NOTED_AT_ONCE])

    def _note(self, infos: Sequence[ObjectInfo]) -> None:
        there = {ulid: info for info in infos if (ulid := sst_id(info.name)) is not None}
        if not there:
            return
        rows = self._named.find(ids_of(there))
        self._there[rows[rows >= 0]] = True
        for (ulid, info), row in zip(there.items(), rows.tolist(), strict=True):
            if row < 0:
                self.others[ulid] = info
            elif info.size != (named := int(self._named.size[row])):
                self.resized[ulid] = info.size, named

    def missing(self) -> list[tuple[str, int]]:
        """What is named and was not shown, with its size, by id."""
        rows = np.flatnonzero(~self._there).tolist()
        return [(self._named.ids[row].decode(), int(self._named.size[row])) for row in rows]
