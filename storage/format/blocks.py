"""Block entries and sector masks: the vocabulary of memtable, SST and index. Pure.

A block is 256 KiB of a layer, a sector 4 KiB of a block; bit s of a mask stands for sector s. A *location* says where
the frame of an entry lies: the slot of its SST in this process in the upper 32 bits, its byte offset in the lower.
Slot 0 is no SST, so the two smallest locations can stand for zeros that are stored nowhere.
"""

from enum import IntEnum

import msgspec

from storage.crypto.cipher import FIRST_KEY_ID
from storage.errors import BrokenInvariant
from storage.format.frame import SECTORS

HOLE = 0
"""Location (or content) of sectors that were never written, or were discarded: zeros, not allocated."""

ALLOCATED = 1
"""Location (or content) of sectors zeroed with NO_HOLE: zeros that block status shows as allocated."""

BLOCKS_MAX = 2**32 - 1
"""Block numbers are u32: a layer is at most 1 PiB less one block."""


class EntryKind(IntEnum):
    """What an entry says of the sectors in its mask. The numbers are part of the format."""

    FULL = 1
    PATCH = 2
    ZERO = 3
    ZERO_ALLOCATED = 4


class SstRef(msgspec.Struct, frozen=True, array_like=True):
    """One SST as manifests and logs name it. `tag` is the tag of its sealed index, which pins every frame in it."""

    id: str
    """ULID; the object is `compacted/<id>.sst`."""
    size: int
    """Bytes of the whole object."""
    index_offset: int
    """Byte offset of the second header and the sealed index behind it."""
    tag: bytes
    """16 bytes."""
    entries: int
    """Rows of the index."""
    key_id: int = FIRST_KEY_ID
    """Of the data key that all of it is sealed under."""


class FrameRef(msgspec.Struct, frozen=True, gc=False):
    """Where one frame lies and how it proves itself: enough to fetch and open it.

    `tag` is the beginning of the frame's tag (`frame.short_tag`), pinned by the sealed index. `full` tells a FULL frame
    from a PATCH.
    """

    location: int
    length: int
    tag: int
    block: int
    full: bool


class SstEntry(msgspec.Struct, frozen=True, gc=False):
    """One block entry as memtable flush and bulk bypass produce it; `offset` and `length` are 0 for zeros."""

    layer: int
    block: int
    kind: EntryKind
    mask: int
    sequence: int
    offset: int = 0
    length: int = 0
    tag: int = 0
    """As in a `FrameRef`."""


class RangeZero(msgspec.Struct, frozen=True, gc=False):
    """Whole blocks [first, end) of a layer zeroed by one operation, however many there are."""

    layer: int
    first: int
    end: int
    sequence: int
    allocated: bool


def sector_range(first: int, end: int) -> int:
    """The mask of sectors [first, end)."""
    if not 0 <= first <= end <= SECTORS:
        raise BrokenInvariant(f"a block has no sectors [{first}, {end})")
    return ((1 << (end - first)) - 1) << first


def runs(mask: int) -> list[tuple[int, int]]:
    """The maximal runs [first, end) of set bits, ascending."""
    found = []
    base = 0
    while mask:
        gap = (mask & -mask).bit_length() - 1
        mask >>= gap
        count = (~mask & (mask + 1)).bit_length() - 1
        found.append((base + gap, base + gap + count))
        mask >>= count
        base += gap + count
    return found
