"""Many SSTs as columns: what a checkpoint or a manifest lists. No I/O.

A store of a terabyte lists 65,000 SSTs. As objects each takes 300 bytes of memory, with the numbers and strings it
refers to; here 67.
"""

from collections.abc import Collection, Iterable, Iterator, Sequence
from typing import overload

import numpy as np
from numpy.typing import NDArray

from storage.crypto.cipher import TAG_BYTES
from storage.format.blocks import SstRef

Ids = NDArray[np.bytes_]
"""Ids of SSTs, as ASCII: sorted as strings are."""


def ids_of(ids: Iterable[str]) -> Ids:
    """Ids as a column."""
    return np.array(list(ids), np.bytes_)


def ids_in(ids: Ids, wanted: Collection[str]) -> NDArray[np.bool_]:
    """Which of some ids are among these."""
    if not wanted:
        return np.zeros(len(ids), np.bool_)
    encoded = {sst_id.encode() for sst_id in wanted}
    return np.fromiter((sst_id in encoded for sst_id in ids.tolist()), np.bool_, len(ids))


class SstList(Sequence[SstRef]):
    """SSTs in some order. It never changes, and makes an `SstRef` of a row when it is asked for one."""

    __slots__ = ("_tags", "entries", "ids", "index_offset", "key_id", "size")

    def __init__(
        self,
        ids: Ids,
        size: NDArray[np.int64],
        index_offset: NDArray[np.int64],
        entries: NDArray[np.int64],
        tags: bytes,
        key_id: NDArray[np.uint8],
    ) -> None:
        self.ids = ids
        self.size = size
        self.index_offset = index_offset
        self.entries = entries
        self._tags = tags
        self.key_id = key_id
        """Of the data key that each is sealed under."""

    @classmethod
    def of(cls, refs: "Iterable[SstRef] | SstList") -> "SstList":
        """The same from single ones. ValueError: they are not all what an SST can be."""
        if isinstance(refs, SstList):
            return refs
        some = list(refs)
        if any(len(ref.tag) != TAG_BYTES or "\0" in ref.id for ref in some):
            raise ValueError("an SST has a tag or an id that none can have")
        try:
            size, index_offset, entries = (
                np.array([getattr(ref, name) for ref in some], np.int64) for name in ("size", "index_offset", "entries")
            )
            key_id = np.array([ref.key_id for ref in some], np.uint8)
        except OverflowError:
            raise ValueError("an SST has a size that none can have") from None
        tags = b"".join(ref.tag for ref in some)
        return cls(ids_of(ref.id for ref in some), size, index_offset, entries, tags, key_id)

    def __len__(self) -> int:
        return len(self.ids)

    @overload
    def __getitem__(self, at: int) -> SstRef: ...
    @overload
    def __getitem__(self, at: slice) -> "SstList": ...
    def __getitem__(self, at: int | slice) -> "SstRef | SstList":
        if isinstance(at, slice):
            return self.where(np.arange(len(self))[at])
        at = range(len(self))[at]
        return SstRef(
            self.ids[at].decode(),
            int(self.size[at]),
            int(self.index_offset[at]),
            self._tags[at * TAG_BYTES : (at + 1) * TAG_BYTES],
            int(self.entries[at]),
            int(self.key_id[at]),
        )

    def __iter__(self) -> Iterator[SstRef]:
        return (self[at] for at in range(len(self)))

    def __eq__(self, other: object) -> bool:
        return isinstance(other, SstList) and list(self) == list(other)

    __hash__ = None  # type: ignore[assignment]

    def has(self, sst_id: str) -> bool:
        """Whether one of them has this id."""
        return bool((self.ids == sst_id.encode()).any())

    def are(self, ids: Collection[str]) -> NDArray[np.bool_]:
        """Which of them have one of these ids."""
        return ids_in(self.ids, ids)

    def held(self, ids: Iterable[str]) -> set[str]:
        """Those of `ids`, which are few, that one of them has."""
        found = {sst_id.encode() for sst_id in ids}.intersection(self.ids.tolist())
        return {sst_id.decode() for sst_id in found}

    def includes(self, other: "SstList") -> bool:
        """Whether all of `other` are in it, by id; at once if it begins with them, as the next table of a checkpoint
        does.
        """
        if len(other) <= len(self) and bool((self.ids[: len(other)] == other.ids).all()):
            return True
        return set(self.ids.tolist()).issuperset(other.ids.tolist())

    def where(self, rows: NDArray[np.bool_] | NDArray[np.int64]) -> "SstList":
        """Some of them, as numpy chooses rows."""
        tags = np.frombuffer(self._tags, f"V{TAG_BYTES}")[rows].tobytes()
        rest = self.size[rows], self.index_offset[rows], self.entries[rows]
        return SstList(self.ids[rows], *rest, tags, self.key_id[rows])

    def beside(self, other: "SstList") -> "SstList":
        """These, and then those."""
        if not len(other):
            return self
        ids, size, index_offset, entries, key_id = (
            np.concatenate((getattr(self, name), getattr(other, name)))
            for name in ("ids", "size", "index_offset", "entries", "key_id")
        )
        return SstList(ids, size, index_offset, entries, self._tags + other._tags, key_id)


NO_SSTS = SstList.of(())
