"""Findings: what a check says is wrong with a store, as data. No I/O.

A finding names the object it is about, and the ranges of layers that can show what is wrong; it has none where nothing
shows it, or where nobody can know. A *fault* costs no data now, and keeps nobody from reading any.
"""

from collections.abc import Iterable
from enum import StrEnum

import msgspec

from storage.format.frame import BLOCK_BYTES, SECTOR_BYTES

FINDING_RANGES_MAX = 10_000
"""Ranges of one finding that are kept apart; of more, neighbours are joined with what lies between them."""


class Kind(StrEnum):
    """What is wrong, in one word for programs."""

    KEYS = "keys"
    """An older keys object was put back."""
    ROLLED_BACK = "rolled-back"
    """The store is older than this host remembers."""
    INCOMPLETE = "incomplete"
    """An object proves that manifests, or the end of the log, are missing."""
    MANIFEST = "manifest"
    """A manifest is missing, does not open, or does not follow the one before it."""
    LOG = "log"
    """The log is missing in part, does not open, or is not one chain."""
    MISSING = "missing"
    """An object that is named is not there."""
    SIZE = "size"
    """An object has another size than what names it says."""
    UNREADABLE = "unreadable"
    """The store does not give an object, while it gives others."""
    INDEX = "index"
    """The index of an SST, a checkpoint or the tree of names is not the one that is named, or does not open."""
    HEADER = "header"
    """The first header of an object is not the sealed second one."""
    LAYOUT = "layout"
    """An index that opens does not fit its object: bytes that nothing speaks of, or rows that cannot be."""
    REFERENCE = "reference"
    """The index of a device refers to a place where the SST's own index has nothing, or something else."""
    STALE = "stale"
    """The index of a device refers to something, and a listed SST holds something newer."""
    MEMORY = "memory"
    """What a running server has in memory is not what its store says."""
    FRAME = "frame"
    """A frame does not open."""
    COPY = "copy"
    """The copy of the newest manifest, or of the keys, is missing, or is not what it is a copy of."""


class LayerRange(msgspec.Struct, frozen=True, order=True):
    """Bytes [offset, offset + length) of a layer."""

    layer: int
    offset: int
    length: int


class Finding(msgspec.Struct, frozen=True):
    """One thing that is wrong."""

    kind: Kind
    object: str
    """The name of the object, or of a folder of the store."""
    sentence: str
    """What is wrong, for people."""
    ranges: tuple[LayerRange, ...] = ()
    """What cannot be read because of it, in each layer that shows it."""
    fault: bool = False
    """No data is lost by it, and the store opens."""


class Account(msgspec.Struct, frozen=True):
    """Objects of one use, and their bytes."""

    objects: int = 0
    bytes: int = 0

    def plus(self, size: int) -> "Account":
        """With one more object."""
        return Account(self.objects + 1, self.bytes + size)


def sector_ranges(layer: int, blocks: Iterable[tuple[int, int]]) -> tuple[LayerRange, ...]:
    """The ranges of (block, mask of sectors), in order; each block may come several times."""
    masks: dict[int, int] = {}
    for block, mask in blocks:
        masks[block] = masks.get(block, 0) | mask
    found: list[tuple[int, int]] = []
    for block in sorted(masks):
        mask, at = masks[block], 0
        while mask:
            skip = (mask & -mask).bit_length() - 1
            mask >>= skip
            count = (~mask & mask + 1).bit_length() - 1
            mask >>= count
            at += skip
            start = block * BLOCK_BYTES + at * SECTOR_BYTES
            at += count
            end = start + count * SECTOR_BYTES
            if found and found[-1][1] == start:
                start = found.pop()[0]
            found.append((start, end))
    return tuple(LayerRange(layer, start, end - start) for start, end in _fewer(found))


def _fewer(spans: list[tuple[int, int]]) -> list[tuple[int, int]]:
    """At most `FINDING_RANGES_MAX` of them, which hold all that was in `spans` and perhaps more."""
    if len(spans) <= FINDING_RANGES_MAX:
        return spans
    step = -(-len(spans) // FINDING_RANGES_MAX)
    return [(spans[at][0], spans[min(at + step, len(spans)) - 1][1]) for at in range(0, len(spans), step)]
