"""The memtable: what was written since the last flush, per layer and block. No I/O.

Buffers are immutable once linked. A later write links a new buffer and leaves the old one to whoever still encodes it,
so a thread that seals a batch can never see half of a newer write (the failure: batch 10 carrying bytes of write 12
without write 11 is not a prefix). The memtable is charged for every byte linked, also those overwritten or discarded
since: that bounds the buffers it keeps alive without counting references, since one sector that is left of a write of
32 MiB keeps all of it. A sector written in part counts as a whole one, since it becomes one. Only where blocks become
uploaded frames is their charge given back; what is left of their writes is then copied (`BlockEntry.own`).

The content of a sector is a buffer of 4096 bytes, or HOLE or ALLOCATED for zeros that are stored nowhere. A block
that is wholly known has a `base` below its sectors: one buffer of 256 KiB, zeros, or a `FrameRef` of a frame that is
uploaded already.
"""

from bisect import bisect_left, bisect_right
from collections.abc import Iterator
from dataclasses import dataclass, field

import msgspec

from storage.buffers import Buffer, own
from storage.errors import BrokenInvariant
from storage.format.blocks import BLOCKS_MAX, HOLE, FrameRef, SstRef
from storage.format.frame import FULL_MASK, SECTOR_BYTES
from storage.format.trunks import ON_TRUNKS, LoggedOperation

Content = Buffer | int
Base = Buffer | FrameRef | int | None

OPERATION_OVERHEAD = 256
"""Bytes charged for each operation beside its data: dictionary slots, tuples and the record in the log."""

FREED_AT_ONCE = 2048
FREED_BLOCK = 32
"""Sectors given back in one step, where a block counts as so many and those that are buffers of their own: a
millisecond.
"""


def write_charge(offset: int, length: int) -> int:
    """Bytes a write keeps alive: all sectors it touches."""
    return (offset + length + SECTOR_BYTES - 1 & -SECTOR_BYTES) - (offset & -SECTOR_BYTES) + OPERATION_OVERHEAD


def zero_charge(offset: int, length: int) -> int:
    """Bytes a discard or a write of zeroes keeps alive: the sectors at its ends that it touches in part."""
    parts = bool(offset % SECTOR_BYTES) + bool((offset + length) % SECTOR_BYTES)
    return parts * SECTOR_BYTES + OPERATION_OVERHEAD


class BlockEntry:
    """What the memtable knows of one block.

    `mask` holds the sectors known here, in `base` or `sectors`; `extents` are pieces of sectors outside the mask,
    oldest first, to be read over what lies below: the frame in `base` if there is one, else older generations.
    `fresh` holds the sectors written since cut number `cut` of the layer's log.
    `charged` is what was linked here, in bytes of sectors: given back when the block is an uploaded frame. The overhead
    of the operations is not, so a memtable that took any is never empty.
    """

    __slots__ = ("base", "charged", "cut", "extents", "fresh", "mask", "sectors", "sequence")

    def __init__(self) -> None:
        self.sequence = 0
        self.mask = 0
        self.base: Base = None
        self.sectors: dict[int, Content] = {}
        self.extents: dict[int, list[tuple[int, Buffer]]] | None = None
        self.charged = 0
        self.cut = -1
        self.fresh = 0

    def known(self, sector: int) -> Content | FrameRef | None:
        """The content of a sector as known here; a FrameRef if it lies in an uploaded frame."""
        content = self.sectors.get(sector)
        if content is not None:
            return content
        base = self.base
        if base is None or isinstance(base, (int, FrameRef)):
            return base
        return memoryview(base)[sector * SECTOR_BYTES : (sector + 1) * SECTOR_BYTES]

    def own(self) -> None:
        """Keep nothing alive but what is known here: the rest of the writes it came with is charged no longer."""
        if isinstance(self.base, memoryview):
            self.base = own(self.base)
        for sector, content in self.sectors.items():
            if isinstance(content, memoryview):
                self.sectors[sector] = own(content)
        for pieces in (self.extents or {}).values():
            pieces[:] = [(start, own(data)) for start, data in pieces]

    def link_block(self, content: Base) -> None:
        """Replace the whole block."""
        self.base = content
        self.sectors = {}
        self.extents = None
        self.mask = FULL_MASK

    def link_sector(self, sector: int, content: Content) -> None:
        """Replace one whole sector."""
        self.sectors[sector] = content
        self.mask |= 1 << sector
        if self.extents is not None:
            self.extents.pop(sector, None)

    def link_extent(self, sector: int, start: int, data: Buffer) -> None:
        """Replace bytes [start, start + len(data)) of a sector."""
        if self.mask >> sector & 1:
            content = self.known(sector)
            if content is None:
                raise BrokenInvariant(f"sector {sector} of a block is said to be known, and has no content")
            if not isinstance(content, FrameRef):
                self.sectors[sector] = overlay(content, [(start, data)])
                return
            # The sector lies in an uploaded frame: from here on it is that frame with pieces on top, and so no more
            # among the sectors that are known here (M3).
            self.mask &= ~(1 << sector)
        if self.extents is None:
            self.extents = {}
        pieces = self.extents.setdefault(sector, [])
        pieces.append((start, data))
        if covers_sector(pieces):
            self.link_sector(sector, overlay(HOLE, pieces))


def overlay(below: Content, pieces: list[tuple[int, Buffer]]) -> bytes:
    """A new sector: `below` with `pieces` (offset, bytes) on top, oldest first."""
    sector = bytearray(SECTOR_BYTES) if isinstance(below, int) else bytearray(below)
    if len(sector) != SECTOR_BYTES:
        raise BrokenInvariant(f"a sector of {len(sector)} bytes would shift all that follows it")
    for start, data in pieces:
        sector[start : start + len(data)] = data
    return bytes(sector)


def covers_sector(pieces: list[tuple[int, Buffer]]) -> bool:
    """Whether the pieces leave no byte of a sector open."""
    reached = 0
    for start, data in sorted(pieces, key=lambda piece: piece[0]):
        if start > reached:
            return False
        reached = max(reached, start + len(data))
    return reached == SECTOR_BYTES


class Span(msgspec.Struct, frozen=True, gc=False):
    """Blocks [first, end) zeroed by operation `sequence`; `content` is HOLE or ALLOCATED."""

    first: int
    end: int
    sequence: int
    content: int


class ZeroSpans:
    """Disjoint, sorted spans of zeroed blocks: one operation is one span, however long it is."""

    __slots__ = ("_firsts", "spans")

    def __init__(self) -> None:
        self.spans: list[Span] = []
        self._firsts: list[int] = []

    def __bool__(self) -> bool:
        return bool(self.spans)

    def find(self, block: int) -> Span | None:
        """The span that holds `block`."""
        at = bisect_right(self._firsts, block) - 1
        if at >= 0 and block < self.spans[at].end:
            return self.spans[at]
        return None

    def within(self, first: int, end: int) -> list[Span]:
        """The spans that hold any of the blocks [first, end)."""
        low = max(bisect_right(self._firsts, first) - 1, 0)
        return [span for span in self.spans[low : bisect_left(self._firsts, end)] if span.end > first]

    def next_after(self, block: int) -> int:
        """Where the first span behind `block` begins; beyond all blocks if there is none."""
        at = bisect_right(self._firsts, block)
        return self._firsts[at] if at < len(self._firsts) else BLOCKS_MAX

    def add(self, new: Span, *, newest_write: int) -> None:
        """Put a newer span over what is there; what it covers only in part is cut.

        It is joined with an adjacent span of the same kind if nothing was written since that one (`newest_write` is the
        layer's last write): a span carries one sequence, and a higher one would swallow writes in between.
        """
        at = bisect_right(self._firsts, new.first)
        if at and self.spans[at - 1].end >= new.first:
            at -= 1
        end = at
        kept: list[Span] = []
        while end < len(self.spans) and self.spans[end].first <= new.end:
            old = self.spans[end]
            end += 1
            if old.content == new.content and old.sequence > newest_write:
                new = Span(min(old.first, new.first), max(old.end, new.end), new.sequence, new.content)
                continue
            if old.first < new.first:
                kept.append(Span(old.first, min(old.end, new.first), old.sequence, old.content))
            if old.end > new.end:
                kept.append(Span(max(old.first, new.end), old.end, old.sequence, old.content))
        merged = sorted([*kept, new], key=lambda span: span.first)
        self.spans[at:end] = merged
        self._firsts[at:end] = [span.first for span in merged]


@dataclass(slots=True)
class LayerTable:
    """The part of a memtable that belongs to one layer."""

    layer: int
    blocks: dict[int, BlockEntry] = field(default_factory=dict)
    zeros: ZeroSpans = field(default_factory=ZeroSpans)

    def entry(self, block: int) -> BlockEntry:
        """The entry of a block, made if it is not there. Inside a span of zeros it begins as zeros."""
        found = self.blocks.get(block)
        if found is None:
            found = self.blocks[block] = BlockEntry()
            if self.zeros:
                span = self.zeros.find(block)
                if span is not None:
                    found.link_block(span.content)
        return found

    def __bool__(self) -> bool:
        """Whether anything is here."""
        return bool(self.blocks or self.zeros)

    def drop(self, first: int, end: int) -> None:
        """Forget the entries of blocks [first, end)."""
        blocks = self.blocks
        if end - first < len(blocks):
            to_delete = [block for block in range(first, end) if block in blocks]
        else:
            to_delete = [block for block in blocks if first <= block < end]
        for block in to_delete:
            del blocks[block]


class Memtable:
    """One generation of writes over all layers. The active one takes writes, the sealed one is being flushed.

    Invariants, by number:

        M1  A buffer never changes once it is linked.
        M2  Only the active memtable takes operations. The sealed one is completed on the event loop, and from its plan
            on nobody changes it, so that a thread may read it.
        M3  `mask` of an entry are the sectors that `base` or `sectors` hold, less those of an uploaded frame with
            pieces over them; pieces lie over none of the mask.
        M4  `bytes` are those of all that is linked, also of what was overwritten since, less the blocks that became
            uploaded frames or whose layer was dropped.
        M5  An entry or a span carries the sequence of its newest operation; later links have higher ones.
    """

    __slots__ = (
        "bytes",
        "first_beyond",
        "in_parts",
        "kept_bytes",
        "layers",
        "located",
        "operations",
        "sequence",
        "ssts",
        "tree",
        "zeroed",
    )

    def __init__(self) -> None:
        self.layers: dict[int, LayerTable] = {}
        self.bytes = 0
        """Bytes linked and not yet replaced by uploaded frames, with overhead."""
        self.kept_bytes = 0
        """Of those, bytes that were written again because what lies below them is damaged."""
        self.zeroed = 0
        """Operations that zeroed: they weigh nothing but must be flushed too."""
        self.located = 0
        """Blocks whose data is an uploaded frame."""
        self.operations: list[LoggedOperation] = []
        """What was done to trunks in this generation, by sequence; the indexes do not show it yet."""
        self.ssts: list[SstRef] = []
        """Data SSTs whose locators are in the log of this generation."""
        self.sequence = 0
        """Sequence of the newest operation when this memtable was sealed."""
        self.tree: bytes | None = None
        """The encoded tree of names at the moment of sealing, if it changed."""
        self.first_beyond: int | None = None
        """Lowest WAL number that may hold an operation newer than this (sealed) memtable."""
        self.in_parts = False
        """Whether this (sealed) memtable may have parts of sectors, which are not completed yet."""

    @property
    def has_parts(self) -> bool:
        """Whether it has parts of sectors: 16,000 blocks are looked at in a millisecond."""
        return any(entry.extents for table in self.layers.values() for entry in table.blocks.values())

    @property
    def changes_trunks(self) -> bool:
        """Whether something was done to trunks in this generation."""
        return any(isinstance(logged.operation, ON_TRUNKS) for logged in self.operations)

    @property
    def holds_more_than_kept(self) -> bool:
        """Whether a flush would leave less here than there is."""
        return bool(self.bytes > self.kept_bytes or self.zeroed or self.located or self.ssts or self.tree is not None)

    def __bool__(self) -> bool:
        return bool(self.bytes or self.zeroed or self.located or self.ssts or self.tree is not None)

    def layer(self, number: int) -> LayerTable:
        """The part of one layer, made if it is not there."""
        found = self.layers.get(number)
        if found is None:
            found = self.layers[number] = LayerTable(number)
        return found

    def free_steps(self) -> Iterator[None]:
        """Give the memory back in steps: all of it at once, 16,000 buffers of scattered writes, took 7 ms."""
        for table in self.layers.values():
            pages = 0
            while table.blocks:
                pages += FREED_BLOCK + len(table.blocks.popitem()[1].sectors)
                if pages >= FREED_AT_ONCE:
                    pages = 0
                    yield
