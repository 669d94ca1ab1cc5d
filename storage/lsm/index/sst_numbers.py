"""Numbers of SSTs in this process, and locations: a place in an SST as one integer, number << 32 | byte offset."""

from storage.errors import BrokenInvariant
from storage.format.names import sst_name

OFFSET_MASK = 2**32 - 1
"""The byte offset in a location."""


class SstNumbers:
    """Numbers SSTs within this process. A number is never used twice, so a location never changes its meaning."""

    def __init__(self) -> None:
        self._ids: list[str | None] = [None]
        self._numbers: dict[str, int] = {}

    def __len__(self) -> int:
        """All numbers given are below this."""
        return len(self._ids)

    def number(self, sst_id: str) -> int:
        """The number of an SST in this process, given when first asked for."""
        found = self._numbers.get(sst_id)
        if found is None:
            found = self._numbers[sst_id] = len(self._ids)
            self._ids.append(sst_id)
        return found

    def given(self, sst_id: str) -> int | None:
        """The slot of an SST if it has one; for threads, which give none."""
        return self._numbers.get(sst_id)

    def location(self, sst_id: str, offset: int) -> int:
        """The location of byte `offset` of an SST: number << 32 | offset."""
        return self.number(sst_id) << 32 | offset

    def name(self, location: int) -> str:
        """The name of the object that a location lies in."""
        sst_id = self._ids[location >> 32]
        if sst_id is None:
            raise BrokenInvariant(f"{location} is a state of a block and no place in an SST")
        return sst_name(sst_id)
