"""The reverse delta of a snapshot: of each block that newer layers replaced since, what it was. No I/O.

A block that is not here is what the next newer layer of the trunk shows. What is here never changes but by a repack,
which moves frames. Blocks stand in sorted pages, 26 bytes each, so a snapshot costs what was written since, not what
the device holds. A page of which all was replaced, and was zeros of one kind, is shared by all, and costs a pointer.
"""

from collections.abc import Iterator
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from storage.format.blocks import ALLOCATED
from storage.format.columns import Columns
from storage.lsm.index.page import PAGE_BLOCKS, PAGE_MASK, PAGE_SHIFT, DeltaPage, PageRows, by_page
from storage.lsm.index.patch_table import PatchTable
from storage.lsm.index.rows import Found, Frozen, Standing, found_in, frozen
from storage.lsm.index.shared_deltas import SHARED_DELTAS, is_shared
from storage.lsm.options import PRUNE_AFTER


class Source(Protocol):
    """What a block can be taken from."""

    patches: PatchTable

    def standing(self, block: int) -> Standing:
        """What stands there of a block."""


class ReverseDelta:
    """What one snapshot shows of the blocks that were replaced since. Owned by the event loop."""

    __slots__ = ("dead", "pages", "patches")

    def __init__(self, prune_after: int = PRUNE_AFTER) -> None:
        self.pages: dict[int, DeltaPage] = {}
        self.dead: list[int] = []
        """As in a `BlockMap`, but nobody asks: what is replaced here is shown elsewhere, or rarely read."""
        self.patches = PatchTable(self.dead, prune_after)

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

    def record_rows(self, number: int, rows: PageRows, patches: PatchTable) -> None:
        """The same of some blocks of page `number`; the chains of their patches are in `patches`."""
        page = self.pages.get(number)
        if page is not None:
            own = np.zeros(PAGE_BLOCKS, bool)
            own[np.array(page.at, np.uint16)] = True
            rows = rows.where(~own[rows.at])
        if len(rows.at):
            blocks = rows.at + np.uint32(number << PAGE_SHIFT)
            rows = rows._replace(head=self.patches.copy_chains(patches, rows.head, blocks))
            self._writable(number).merge(rows)
            self._share(number)
        self.dead.clear()

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

    def move(self, block: int, old: int, new: int, tag: int) -> bool:
        """The frame at location `old` lies at `new` from now on, with this tag; False if nothing here refers to it."""
        page = self.pages.get(block >> PAGE_SHIFT)
        row = -1 if page is None else page.row(block & PAGE_MASK)
        if page is None or row < 0:
            return False
        if page.location[row] == old:
            page = self._writable(block >> PAGE_SHIFT)
            page.location[row], page.tag[row] = new, tag
            return True
        return self.patches.move(page.head[row], block, old, new, tag)

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
        elif page.freezes or is_shared(page):
            page = self.pages[number] = page.copy()
        return page

    def _share(self, number: int) -> None:
        """A page that is like a shared one is that, from now on."""
        content = self.pages[number].uniform()
        if content is not None:
            self.pages[number] = SHARED_DELTAS[content]

    # --- freezing and loading

    def freeze(self) -> Frozen:
        """All of it as it is now, in one step; it ends with `Frozen.thaw`."""
        return frozen(dict(self.pages), self.patches)

    def keep(self, blocks: NDArray[np.uint32]) -> None:
        """From a checkpoint: these blocks, which ascend, are held, as holes until further rows say more."""
        for number, part in by_page(blocks):
            at = (blocks[part] & PAGE_MASK).astype(np.uint16)
            wide, narrow = np.zeros(len(at), np.uint64), np.zeros(len(at), np.uint32)
            self._writable(number).merge(PageRows(at, wide, narrow, wide, narrow))
            self._share(number)

    def load_zeros(self, blocks: NDArray[np.uint32]) -> None:
        """From a checkpoint: these blocks, which are held, are zeros and allocated. KeyError: one is not."""
        for number, part in by_page(blocks):
            page = self._writable(number)
            np.frombuffer(page.location, np.uint64)[page.rows_of(blocks[part] & PAGE_MASK)] = ALLOCATED
            self._share(number)

    def load_bases(self, rows: Columns) -> None:
        """From a checkpoint: the bases of blocks, which ascend and are held. KeyError: one is not."""
        for number, part in by_page(rows["block"]):
            page = self._writable(number)
            at = page.rows_of(rows["block"][part] & PAGE_MASK)
            np.frombuffer(page.location, np.uint64)[at] = rows["location"][part]
            np.frombuffer(page.length, np.uint32)[at] = rows["length"][part]
            np.frombuffer(page.tag, np.uint64)[at] = rows["tag"][part]

    def load_patches(self, rows: Columns) -> None:
        """From a checkpoint: chains of blocks, which ascend, are held, and have none yet. KeyError: one is not held."""
        if not len(rows["block"]):
            return
        heads, blocks = self.patches.load(rows)
        for number, part in by_page(blocks):
            page = self._writable(number)
            np.frombuffer(page.head, np.uint32)[page.rows_of(blocks[part] & PAGE_MASK)] = heads[part]
