"""The index of a layer in memory: where the newest flushed content of every block lies. No I/O.

Base entries stand in dense pages of 4096 blocks, 20 bytes a block (location 8, tag 8, length and chain of patches 4),
made when first written: a page that does not exist is a hole of 1 GiB, so a discard of terabytes drops pages. Patches
stand in a `PatchTable`, chained newest first. A look-up costs about a microsecond at any number of SSTs.
"""

from array import array
from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray

from storage.format.blocks import ALLOCATED, HOLE, FrameRef
from storage.lsm.index.lent_pages import LentPages
from storage.lsm.index.page import (
    ALLOCATED_PAGE,
    PAGE_BLOCKS,
    PAGE_MASK,
    PAGE_SHIFT,
    SEALED_MAX,
    Page,
    PageRows,
)
from storage.lsm.index.patch_table import CHAIN_MAX, PatchTable, damaged
from storage.lsm.index.reverse_delta import ReverseDelta
from storage.lsm.index.rows import HOLES, Found, Frozen, Standing, found_in, frozen
from storage.lsm.index.shown_sectors import PartOfPage
from storage.lsm.options import PRUNE_AFTER

_CHAIN = range(CHAIN_MAX)

COMPACT_MIN = 256
"""Rows of patches that are not in use and no loss."""


class BlockMap(LentPages):
    """The index of one layer.

    Invariants, by number:

        I1  What it points to is in SSTs that a committed manifest lists.
        I2  A chain is newest first, and a base forgets all patches below it.
        I3  What was put together of a block (`assembled`) holds only sectors that no later patch covers.
        I4  It says nothing of the memtables: what those hold lies over it.
        I5  A block is among `_taken` only as long as nothing has taken the place of its base since.
        I6  Before a block changes, the snapshot below holds what it was (`below`); moving a frame is no change.
    """

    depth = 0
    """As in a `SnapshotIndex`: all blocks are here."""

    __slots__ = (
        "_block",
        "_location",
        "_mask",
        "_next",
        "_taken",
        "assembled",
        "below",
        "dead",
        "patches",
    )

    def __init__(self, prune_after: int = PRUNE_AFTER) -> None:
        super().__init__()
        self.assembled: dict[int, tuple[int, int]] = {}
        """Patched blocks that were put together once: block to the cache key of the result, and its sectors that no
        later patch has replaced."""
        self.dead: list[int] = []
        """Cache keys that nothing here refers to any more; whoever owns the cache takes them away."""
        self.patches = PatchTable(self.dead, prune_after)
        # The columns that `locate` looks at, which are the same objects for the life of a table.
        self._block = self.patches.block
        self._next = self.patches.next
        self._mask = self.patches.mask
        self._location = self.patches.location
        self._taken: set[int] = set()
        """Blocks that are being put together, see `take`."""
        self.below: ReverseDelta | None = None
        """That of the newest snapshot of the device, if it has any."""

    def freeze(self) -> Frozen:
        """All of it as it is now, in one step: a pointer for each page, a copy of the patches; until `Frozen.thaw`."""
        return frozen(dict(self.pages), self.patches)

    def find(self, block: int) -> Iterator[Found]:
        """What is known of a block, newest first; the last one covers the whole block."""
        return found_in(self.standing(block), self.patches, block)

    def standing(self, block: int) -> Standing:
        """What stands of a block."""
        page = self.pages.get(block >> PAGE_SHIFT)
        if page is None:
            return HOLES
        at = block & PAGE_MASK
        return Standing(page.location[at], page.length(at), page.tag[at], page.head(at))

    def locate(self, block: int, sector: int) -> int:
        """The cache key of the newest content of one sector: what `find` would say, without building it."""
        page = self.pages.get(block >> PAGE_SHIFT)
        if page is None:
            return HOLE
        at = block & PAGE_MASK
        # Most blocks have no patches, and are told without a call: every read comes here.
        if page.span[at] > SEALED_MAX and (row := page.head(at)):
            key, mask = self.assembled.get(block, (0, 0))
            if mask >> sector & 1:
                return key
            # The loop of `PatchTable.chain`, without the cost of a generator: every read of a patched block comes here.
            for _ in _CHAIN:
                if self._block[row] != block:
                    break
                if self._mask[row] >> sector & 1:
                    return self._location[row]
                row = self._next[row]
                if not row:
                    return page.location[at]
            raise damaged(block)
        return page.location[at]

    def is_patched(self, block: int) -> bool:
        """Whether a block has anything above its base."""
        page = self.pages.get(block >> PAGE_SHIFT)
        return page is not None and page.head(block & PAGE_MASK) != 0

    def uniform(self, number: int) -> int | None:
        """Whether all of a page is zeros of one kind: HOLE, ALLOCATED; None: ask for its blocks."""
        page = self.pages.get(number)
        if page is None:
            return HOLE
        return ALLOCATED if page is ALLOCATED_PAGE else None

    def parts(self, number: int, at: NDArray[np.integer]) -> list[PartOfPage]:
        """What stands of some blocks of page `number`, which ascend."""
        return [PartOfPage(self.rows(number, at), self.patches)]

    def set_base(self, block: int, *, location: int, length: int, tag: int) -> None:
        """The whole block is this now; its patches are forgotten (I2). `location` is an `SstNumbers.location`, HOLE or
        ALLOCATED; `length` that of the sealed frame in bytes, `tag` the first 8 bytes of its tag, little-endian.
        """
        if location == HOLE and block >> PAGE_SHIFT not in self.pages:
            return
        if self.below is not None:
            self.below.record(block, self)
        page = self.writable(block >> PAGE_SHIFT)
        at = block & PAGE_MASK
        if page.location[at] > ALLOCATED:
            self.dead.append(page.location[at])
        self._forget_patches(page, at)
        if self._taken:
            self._taken.discard(block)
        if location == HOLE and page.location[at] == HOLE:
            return
        page.set_base(at, location=location, length=length, tag=tag)

    def add_patch(self, block: int, *, mask: int, location: int, length: int, tag: int) -> None:
        """The sectors of `mask` are this now, whatever older patches hold of them; the rest is as in `set_base`."""
        if location == HOLE and block >> PAGE_SHIFT not in self.pages:
            return
        if self.below is not None:
            self.below.record(block, self)
        page = self.writable(block >> PAGE_SHIFT)
        at = block & PAGE_MASK
        key, valid = self.assembled.get(block, (0, 0))
        if valid & ~mask:
            self.assembled[block] = (key, valid & ~mask)
        elif valid:
            self.forget_assembled(block)
        over = page.head(at)
        page.set_head(at, self.patches.add(block, over=over, mask=mask, location=location, length=length, tag=tag))

    def zero_range(self, first: int, end: int, content: int) -> None:
        """Blocks [first, end) are zeros now. Whole pages of holes are dropped, so any length is cheap."""
        for _ in self.zero_steps(first, end, content):
            pass

    def zero_steps(self, first: int, end: int, content: int) -> Iterator[None]:
        """The same page by page: 0.2 ms for one that holds frames, and a terabyte may have a thousand of those."""
        number = first >> PAGE_SHIFT
        last = (end - 1) >> PAGE_SHIFT
        if content == HOLE and last - number > len(self.pages):
            touched = sorted(n for n in self.pages if number <= n <= last)
        else:
            touched = list(range(number, last + 1))
        for n in touched:
            low = max(first - (n << PAGE_SHIFT), 0)
            high = min(end - (n << PAGE_SHIFT), PAGE_BLOCKS)
            page = self.pages.get(n)
            if self.below is not None and (page is not None or content != HOLE):
                self.below.record_rows(n, (page or Page()).rows(np.arange(low, high)), self.patches)
            if page is not None and page is not ALLOCATED_PAGE:
                self._forget_chains(n, page, np.arange(low, high))
                self.dead += [location for location in page.location[low:high] if location > ALLOCATED]
            if self._taken:
                self._taken.difference_update(range((n << PAGE_SHIFT) + low, (n << PAGE_SHIFT) + high))
            if high - low < PAGE_BLOCKS:
                if page is not None or content != HOLE:
                    page = self.writable(n)
                    page.make_bases()
                    page.location[low:high] = array("Q", [content]) * (high - low)
                    page.clear_heads(slice(low, high))
            elif content != HOLE:
                self.pages[n] = ALLOCATED_PAGE
            elif page is not None:
                del self.pages[n]
            yield

    def set_bases(self, number: int, rows: PageRows) -> None:
        """`set_base` of several blocks of page `number` at once, whatever their `head` says. Nobody is told that what
        was there is dead: it is another layer's now, or nothing was read of it yet.
        """
        if self.below is not None:
            self.below.record_rows(number, self.rows(number, rows.at), self.patches)
        page = self.writable(number)
        self._forget_chains(number, page, rows.at)
        page.clear_heads(rows.at)
        if self._taken:
            self._taken.difference_update((rows.at + np.uint32(number << PAGE_SHIFT)).tolist())
        page.set_bases(rows.at, location=rows.location, length=rows.length, tag=rows.tag)

    def drop_if_hole(self, number: int) -> None:
        """A page of nothing but holes costs nothing if it is not there, one of allocated zeros if it is shared."""
        location, patched = np.frombuffer(self.pages[number].location, np.uint64), self.pages[number].heads().any()
        if not patched and not location.any():
            del self.pages[number]
        elif not patched and (location == ALLOCATED).all():
            self.pages[number] = ALLOCATED_PAGE

    def _forget_chains(self, number: int, page: Page, at: NDArray[np.integer]) -> None:
        """The rows of the patches of some blocks are free, and what was put together of these is dead."""
        heads = page.heads()[at]
        patched = heads != 0
        if patched.any():
            blocks = at[patched].astype(np.uint32) + np.uint32(number << PAGE_SHIFT)
            for block in blocks.tolist() if self.assembled else ():
                self.forget_assembled(block)
            self.patches.release_chains(heads[patched], blocks)

    def _forget_patches(self, page: Page, at: int) -> None:
        if head := page.head(at):
            block = self.patches.block[head]
            self.forget_assembled(block)
            for row in self.patches.chain(head, block):
                self.patches.release(row)
            page.set_head(at, 0)

    def prune(self, block: int) -> None:
        """Drop from a block's chain what newer patches cover."""
        page = self.pages.get(block >> PAGE_SHIFT)
        if page is not None and (head := page.head(block & PAGE_MASK)):
            self.patches.prune(head)

    def move(self, block: int, old: int, new: int, tag: int) -> bool:
        """The frame at location `old` lies at `new` from now on, with this tag; False if nothing here refers to it."""
        page = self.pages.get(block >> PAGE_SHIFT)
        if page is None:
            return False
        at = block & PAGE_MASK
        if page.location[at] == old:
            if page.freezes:
                page = self.writable(block >> PAGE_SHIFT)
            # A page that clones have too is changed for all of them: the frame has moved for each.
            page.location[at], page.tag[at] = new, tag
            return True
        return self.patches.move(page.head(at), block, old, new, tag)

    def take(self, block: int) -> list[Found]:
        """What `find` gives of a block that is to be written as one frame, for `rebase`. If that never comes, the block
        stays among `_taken` until its base is replaced: one entry, and nothing rests on it.
        """
        self._taken.add(block)
        return list(self.find(block))

    def rebase(self, block: int, chain: list[Found], *, location: int, length: int, tag: int) -> bool:
        """Put `location` in place of `chain`, what `take` gave of the block; patches that came later stay above.
        False if the block was written anew since: then what was made of the chain is dead.

        A start, which knows only sequences, puts it below the same patches: even if these cover all that it was made
        of, since it may be seen in sectors beyond them. A row of zeros that was in the chain and stays above hides only
        sectors that are zeros below it, or that something newer covers.
        """
        if block not in self._taken:
            return False
        self._taken.discard(block)
        if self.below is not None:
            self.below.record(block, self)
        page = self.writable(block >> PAGE_SHIFT)
        at = block & PAGE_MASK
        inputs = {_location(found.content) for found in chain[:-1]} - {HOLE, ALLOCATED}
        patches = self.patches
        above = 0
        below = page.head(at)
        for row in patches.chain(below, block):
            if patches.location[row] in inputs:
                break
            above = row
            below = patches.next[row]
        for row in list(patches.chain(below, block)):
            patches.release(row)
        if above:
            patches.next[above] = 0
        else:
            page.set_head(at, 0)
            self.forget_assembled(block)
        if page.location[at] > ALLOCATED:
            self.dead.append(page.location[at])
        page.set_base(at, location=location, length=length, tag=tag)
        return True

    def copy(self) -> "BlockMap":
        """Another index that says the same. Pages are shared until one of both writes to them."""
        other = BlockMap(self.patches.prune_after)
        other.lend_all(self)
        other._have(self.patches.copy(other.dead))
        return other

    def compact(self) -> None:
        """Give back the rows of patches that are not in use, if most are not; the others get other numbers."""
        if self.patches.rows < 2 * len(self.patches) + COMPACT_MIN:
            return
        table = PatchTable(self.dead, self.patches.prune_after)
        for number, page in list(self.pages.items()):
            heads = page.heads()
            at = np.flatnonzero(heads)
            page = self.writable(number) if page.has_chains else page
            page.forget_chains()
            if len(at):
                page.set_heads(at, table.copy_chains(self.patches, heads[at], page.blocks(number)[at]))
        self._have(table)

    def _have(self, table: PatchTable) -> None:
        self.patches = table
        self._block, self._next, self._mask, self._location = table.block, table.next, table.mask, table.location

    def forget_assembled(self, block: int) -> None:
        """The block changed as a whole, or the cache has dropped what was put together of it."""
        key, _ = self.assembled.pop(block, (0, 0))
        if key:
            self.dead.append(key)

    def take_dead(self) -> list[int]:
        """The keys that became dead since the last call."""
        dead = self.dead[:]
        self.dead.clear()
        return dead


def _location(content: int | FrameRef) -> int:
    return content if isinstance(content, int) else content.location
