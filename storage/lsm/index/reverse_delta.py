"""The reverse delta of a snapshot: of each block that newer layers replaced since, what it was. No I/O.

A block that is not here is what the next newer layer of the trunk shows. What is here never changes but by a repack,
which moves frames. Blocks stand in sorted pages, 26 bytes each, so a snapshot costs what was written since, not what
the device holds.
"""

from array import array
from collections.abc import Iterator
from typing import Protocol

import numpy as np

from storage.format.blocks import ALLOCATED
from storage.format.columns import Columns
from storage.lsm.index.page import PAGE_BLOCKS, PAGE_MASK, PAGE_SHIFT, DeltaPage, Page
from storage.lsm.index.patch_table import PatchTable
from storage.lsm.index.rows import Found, Frozen, Standing, found_in, frozen
from storage.lsm.options import PRUNE_AFTER


class Source(Protocol):
    """What a block can be taken from."""

    patches: PatchTable

    def standing(self, block: int) -> Standing:
        """What stands there of a block."""


class ReverseDelta:
    """What one snapshot shows of the blocks that were replaced since. Owned by the event loop."""

    __slots__ = ("_freezes", "_shared", "dead", "pages", "patches")

    def __init__(self, prune_after: int = PRUNE_AFTER) -> None:
        self.pages: dict[int, DeltaPage] = {}
        self.dead: list[int] = []
        """As in a `BlockMap`, but nobody asks: what is replaced here is shown elsewhere, or rarely read."""
        self.patches = PatchTable(self.dead, prune_after)
        self._shared: set[int] = set()
        self._freezes = 0

    def holds(self, block: int) -> bool:
        """Whether the block was replaced since."""
        page = self.pages.get(block >> PAGE_SHIFT)
        return page is not None and page.row(block & PAGE_MASK) >= 0

    def standing(self, block: int) -> Standing:
        """What it holds of a block that it holds."""
        page = self.pages[block >> PAGE_SHIFT]
        row = page.row(block & PAGE_MASK)
        return Standing(page.location[row], page.length[row], page.tag[row], page.head[row])

    def find(self, block: int) -> Iterator[Found]:
        """The chain of a block that it holds, newest first; the last one covers the whole block."""
        return found_in(self.standing(block), self.patches, block)

    def blocks(self) -> Iterator[int]:
        """The blocks that it holds, ascending."""
        for number in sorted(self.pages):
            yield from (number << PAGE_SHIFT | at for at in list(self.pages[number].at))

    def __len__(self) -> int:
        return sum(len(page.at) for page in self.pages.values())

    # --- changes

    def record(self, block: int, source: Source) -> None:
        """Hold what stands in `source`, if the block is not held: it is about to be replaced there."""
        page = self.pages.get(block >> PAGE_SHIFT)
        if page is not None and page.row(block & PAGE_MASK) >= 0:
            return
        standing = source.standing(block)
        head = self.patches.copy_chain(source.patches, standing.head, block)
        self._writable(block >> PAGE_SHIFT).insert(
            block & PAGE_MASK, location=standing.location, length=standing.length, tag=standing.tag, head=head
        )
        self.dead.clear()

    def record_range(self, number: int, page: Page | None, low: int, high: int, source: Source) -> None:
        """The same for the blocks [low, high) of a page of `source`, which is about to lose them (None: holes)."""
        if high - low < PAGE_BLOCKS:
            for at in range(low, high):
                self.record(number << PAGE_SHIFT | at, source)
        else:
            self._record_page(number, page, source.patches)

    def _record_page(self, number: int, page: Page | None, patches: PatchTable) -> None:
        old = self.pages.get(number)
        if old is not None and len(old.at) == PAGE_BLOCKS:
            return
        kept = DeltaPage()
        kept.at = array("H", range(PAGE_BLOCKS))
        if page is None:
            page = Page()
        kept.location, kept.tag = page.location[:], page.tag[:]
        kept.length, kept.head = array("I", page.lengths().tobytes()), array("I", page.heads().tobytes())
        held = [] if old is None else list(old.at)
        for row, at in enumerate(held):
            if old is not None:
                kept.location[at], kept.tag[at], kept.length[at] = old.location[row], old.tag[row], old.length[row]
                kept.head[at] = old.head[row]
        own = set(held)
        for at in np.flatnonzero(np.array(kept.head, np.uint32)).tolist():
            if at not in own:
                kept.head[at] = self.patches.copy_chain(patches, kept.head[at], number << PAGE_SHIFT | at)
        self.pages[number] = kept
        self._shared.discard(number)

    def set_base(self, block: int, *, location: int, length: int, tag: int) -> None:
        """The whole of a block that it holds is this: what was written before the snapshot, and flushed late."""
        page, row = self._row(block)
        for old in list(self.patches.chain(page.head[row], block)):
            self.patches.release(old)
        page.location[row], page.length[row], page.tag[row], page.head[row] = location, length, tag, 0

    def add_patch(self, block: int, *, mask: int, location: int, length: int, tag: int) -> None:
        """The same of some of its sectors."""
        page, row = self._row(block)
        page.head[row] = self.patches.add(
            block, over=page.head[row], mask=mask, location=location, length=length, tag=tag
        )

    def move(self, block: int, old: int, new: int) -> bool:
        """The frame at location `old` lies at `new` from now on; False if nothing here refers to it."""
        page = self.pages.get(block >> PAGE_SHIFT)
        row = -1 if page is None else page.row(block & PAGE_MASK)
        if page is None or row < 0:
            return False
        if page.location[row] == old:
            self._writable(block >> PAGE_SHIFT).location[row] = new
            return True
        return self.patches.move(page.head[row], block, old, new)

    def prune(self, block: int) -> None:
        """Drop from a block's chain what newer patches cover."""
        if self.holds(block) and (head := self.standing(block).head):
            self.patches.prune(head)

    def take_dead(self) -> list[int]:
        """As a `BlockMap` does."""
        dead = self.dead[:]
        self.dead.clear()
        return dead

    def _row(self, block: int) -> tuple[DeltaPage, int]:
        """The page to write to, and the row of a block. KeyError: it is not held."""
        number = block >> PAGE_SHIFT
        row = self.pages[number].row(block & PAGE_MASK)
        if row < 0:
            raise KeyError(block)
        return self._writable(number), row

    def _writable(self, number: int) -> DeltaPage:
        page = self.pages.get(number)
        if page is None:
            page = self.pages[number] = DeltaPage()
        elif number in self._shared:
            page = self.pages[number] = page.copy()
        self._shared.discard(number)
        return page

    # --- freezing and loading

    def freeze(self) -> Frozen:
        """All of it as it is now, in one step; it ends with `thaw`."""
        self._freezes += 1
        self._shared |= set(self.pages)
        return frozen(dict(self.pages), self.patches)

    def thaw(self) -> None:
        """What was frozen is not looked at any more; called once for each `freeze`."""
        self._freezes -= 1
        if not self._freezes:
            self._shared.clear()

    def keep_range(self, first: int, end: int) -> None:
        """From a checkpoint: the blocks [first, end) are held, as holes until further rows say more."""
        for number in range(first >> PAGE_SHIFT, (end - 1 >> PAGE_SHIFT) + 1):
            low = max(first - (number << PAGE_SHIFT), 0)
            high = min(end - (number << PAGE_SHIFT), PAGE_BLOCKS)
            page = self._writable(number)
            page.at.extend(range(low, high))
            for column in (page.location, page.tag, page.length, page.head):
                column.extend([0] * (high - low))

    def load_zeros(self, first: int, end: int) -> None:
        """From a checkpoint: the blocks [first, end), which are held, are zeros and allocated."""
        for block in range(first, end):
            self.set_base(block, location=ALLOCATED, length=0, tag=0)

    def load_bases(self, rows: Columns) -> None:
        """From a checkpoint: the bases of blocks, which are held. KeyError: one is not."""
        columns = (rows[name].tolist() for name in ("block", "location", "length", "tag"))
        for block, location, length, tag in zip(*columns, strict=True):
            self.set_base(block, location=location, length=length, tag=tag)

    def load_patches(self, rows: Columns) -> None:
        """From a checkpoint: chains of blocks, which are held and have none yet."""
        if not len(rows["block"]):
            return
        heads, blocks = self.patches.load(rows)
        for block, head in zip(blocks.tolist(), heads.tolist(), strict=True):
            page, row = self._row(block)
            page.head[row] = head
