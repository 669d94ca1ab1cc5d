"""What is known of the listed SSTs, as columns: a store of a terabyte lists 65,000 of them. No I/O."""

from collections.abc import Collection, Iterable, Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from storage.format.envelope import HEADER_BYTES
from storage.format.sst_list import Ids, SstList, ids_in, ids_of
from storage.lsm.index.sst_numbers import SstNumbers

LEAVING_SSTS_MAX = 4096
"""That one job takes off the list: what it does with their names in one step takes milliseconds."""


@dataclass(frozen=True, slots=True)
class SstFacts:
    """One listed SST."""

    id: str
    number: int
    """0: it has none yet; it was listed a moment ago, and nothing refers to it."""
    size: int
    """Bytes of the object."""
    frames: int
    """Bytes of frames in it."""
    live: int
    """Bytes of frames in it that a map refers to."""
    rows: int
    merged: bool
    """The newest checkpoint has what it says, so a start does not read it."""
    older_key: bool = False
    """It is sealed under an older data key than the newest."""


class SstTable:
    """`SstFacts` in columns, in the order in which they are listed. What it is made of must not change."""

    __slots__ = ("frames", "ids", "live", "merged", "number", "older_key", "rows", "size")

    def __init__(
        self,
        ids: Ids,
        number: NDArray[np.int64],
        size: NDArray[np.int64],
        frames: NDArray[np.int64],
        live: NDArray[np.int64],
        rows: NDArray[np.int64],
        merged: NDArray[np.bool_],
        older_key: NDArray[np.bool_],
    ) -> None:
        self.ids = ids
        self.number = number
        self.size = size
        self.frames = frames
        self.live = live
        self.rows = rows
        self.merged = merged
        self.older_key = older_key

    @classmethod
    def of(cls, facts: Iterable[SstFacts]) -> "SstTable":
        """The same from single SSTs."""
        found = list(facts)
        number, size, frames, live, rows = (
            np.array([getattr(sst, name) for sst in found], np.int64)
            for name in ("number", "size", "frames", "live", "rows")
        )
        merged, older = (np.array([getattr(sst, name) for sst in found], np.bool_) for name in ("merged", "older_key"))
        return cls(ids_of(sst.id for sst in found), number, size, frames, live, rows, merged, older)

    @classmethod
    def listed(cls, refs: SstList, sst_numbers: SstNumbers, *, merged: bool, newest_key: int) -> "SstTable":
        """What is known of some before anything is counted: all of each is live. For a thread."""
        frames = refs.index_offset - HEADER_BYTES
        number = sst_numbers.given_all(refs.ids)
        known = np.full(len(refs), merged), refs.key_id != newest_key
        return cls(refs.ids, number, refs.size, frames, frames, refs.entries, *known)

    def __len__(self) -> int:
        return len(self.ids)

    def __iter__(self) -> Iterator[SstFacts]:
        return (self.facts(at) for at in range(len(self)))

    def facts(self, at: int) -> SstFacts:
        """The row at position `at`, as an object."""
        return SstFacts(
            self.ids[at].decode(),
            int(self.number[at]),
            int(self.size[at]),
            int(self.frames[at]),
            int(self.live[at]),
            int(self.rows[at]),
            bool(self.merged[at]),
            bool(self.older_key[at]),
        )

    @property
    def dead(self) -> NDArray[np.int64]:
        """Of each, bytes of frames that nothing refers to."""
        dead: NDArray[np.int64] = np.maximum(self.frames - self.live, 0)
        return dead

    @property
    def share(self) -> NDArray[np.float64]:
        """Of each, the live share of its frames."""
        return self.live / np.maximum(self.frames, 1)

    @property
    def unused(self) -> "SstTable":
        """Those that nothing refers to, and that no start reads."""
        return self.where(self.merged & (self.live == 0))

    @property
    def in_use_bytes(self) -> int:
        """Of all but those: what waits for a drop waits for deletions alone, and no writer has to wait for it."""
        return int(self.size[~self.merged | (self.live > 0)].sum())

    def are(self, ids: Collection[str]) -> NDArray[np.bool_]:
        """Which of them have one of these ids."""
        return ids_in(self.ids, ids)

    def where(self, mask: NDArray[np.bool_]) -> "SstTable":
        """The rows for which `mask` is true, in the same order."""
        rest = (self.number, self.size, self.frames, self.live, self.rows, self.merged, self.older_key)
        return SstTable(self.ids[mask], *(column[mask] for column in rest))  # type: ignore[arg-type]

    def beside(self, other: "SstTable") -> "SstTable":
        """These, and then those."""
        columns = (
            np.concatenate((getattr(self, name), getattr(other, name)))
            for name in ("ids", "number", "size", "frames", "live", "rows", "merged", "older_key")
        )
        return SstTable(*columns)

    def all_merged(self) -> "SstTable":
        """As they are after a checkpoint."""
        merged = np.ones(len(self), np.bool_)
        return self._with(self.live, merged)

    def _with(self, live: NDArray[np.int64], merged: NDArray[np.bool_]) -> "SstTable":
        return SstTable(self.ids, self.number, self.size, self.frames, live, self.rows, merged, self.older_key)

    def counted(self, live: NDArray[np.float64]) -> "SstTable":
        """With what is live of each, given by number. One that has no number, or a later one than was counted, is new,
        and nothing refers to it yet: all of it counts as live.
        """
        known = (self.number > 0) & (self.number < len(live))
        found = live[np.where(known, self.number, 0)].astype(np.int64)
        bytes_live = np.where(known, found, self.frames)
        return self._with(bytes_live, self.merged)
