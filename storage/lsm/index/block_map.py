"""The index of a layer in memory: where the newest flushed content of every block lies. No I/O.

Base entries stand in dense pages of 4096 blocks, 24 bytes a block (location 8, tag 8, length 4, head of the patch
chain 4), made when first written: a page that does not exist is a hole of 1 GiB, so a discard of terabytes drops
pages. Patches stand in one growable table of columns, 37 bytes each, chained newest first. A look-up costs about a
microsecond at any number of SSTs.

Everything is `array.array`: indexing gives Python integers at half the cost of numpy, and slices assign zeros.
"""

from array import array
from collections.abc import Iterator

import msgspec

from storage.format.blocks import ALLOCATED, BLOCKS_MAX, HOLE, FrameRef
from storage.format.frame import FULL_MASK

PAGE_SHIFT = 12
PAGE_BLOCKS = 1 << PAGE_SHIFT
PAGE_MASK = PAGE_BLOCKS - 1

PRUNE_AFTER = 16
"""Patches added to a block between two prunings of its chain: pruning costs as much as adding ten."""

CHAIN_MAX = 64 + 256
"""No chain has more rows: one a sector after pruning, and an age of a byte until the next. A longer one is damaged."""

_CHAIN = range(CHAIN_MAX)
_NO_BLOCK = BLOCKS_MAX
"""Stands in a row that is not in use: no layer has that block."""

_ZERO8 = bytes(8 * PAGE_BLOCKS)
_ZERO4 = bytes(4 * PAGE_BLOCKS)


_NO_LOCATIONS = array("Q", _ZERO8)
_NO_TAGS = array("Q", _ZERO8)
_NO_LENGTHS = array("I", _ZERO4)
"""Shared by all pages without base entries, never written to: scattered small writes make no full pages."""


class Page:
    """Base entries of 4096 neighbouring blocks. `head` is the row of the newest patch, 0 for none."""

    __slots__ = ("head", "length", "location", "tag")

    def __init__(self) -> None:
        self.location = _NO_LOCATIONS
        self.tag = _NO_TAGS
        self.length = _NO_LENGTHS
        self.head = array("I", _ZERO4)

    def make_bases(self) -> None:
        """From now on this page has base entries of its own."""
        if self.location is _NO_LOCATIONS:
            self.location = array("Q", _ZERO8)
            self.tag = array("Q", _ZERO8)
            self.length = array("I", _ZERO4)


def _allocated_page() -> Page:
    page = Page()
    page.make_bases()
    page.location[:] = array("Q", [ALLOCATED]) * PAGE_BLOCKS
    return page


ALLOCATED_PAGE = _allocated_page()
"""Shared by all pages of nothing but allocated zeros, so that terabytes of them cost a pointer each; copied when
written.
"""

assert array("I").itemsize == 4
assert array("Q").itemsize == 8


class Found(msgspec.Struct, frozen=True, gc=False):
    """One entry of a chain: the sectors it holds, and zeros (HOLE, ALLOCATED) or the frame they lie in."""

    mask: int
    content: int | FrameRef


class BlockMap:
    """The index of one layer.

    Invariants, by number:

        I1  What it points to is in SSTs that a committed manifest lists.
        I2  A chain is newest first, and a base forgets all patches below it.
        I3  What was put together of a block (`assembled`) holds only sectors that no later patch covers.
        I4  It says nothing of the memtables: what those hold lies over it.
    """

    __slots__ = (
        "_age",
        "_block",
        "_free",
        "_length",
        "_location",
        "_mask",
        "_next",
        "_tag",
        "assembled",
        "dead",
        "pages",
    )

    def __init__(self) -> None:
        self.pages: dict[int, Page] = {}
        self.assembled: dict[int, tuple[int, int]] = {}
        """Patched blocks that were put together once: block to the cache key of the result, and its sectors that no
        later patch has replaced."""
        self.dead: list[int] = []
        """Cache keys that nothing here refers to any more; whoever owns the cache takes them away."""
        # Row 0 is no row.
        self._block = array("I", [0])
        self._next = array("I", [0])
        self._mask = array("Q", [0])
        self._location = array("Q", [0])
        self._length = array("I", [0])
        self._tag = array("Q", [0])
        self._age = array("B", [0])
        self._free: list[int] = []

    def find(self, block: int) -> Iterator[Found]:
        """What is known of a block, newest first; the last one covers the whole block."""
        page = self.pages.get(block >> PAGE_SHIFT)
        if page is None:
            yield Found(FULL_MASK, HOLE)
            return
        at = block & PAGE_MASK
        head = page.head[at]
        for row in self._rows(head, block) if head else ():
            location = self._location[row]
            mask = self._mask[row]
            if location <= ALLOCATED:
                yield Found(mask, location)
            else:
                tag = self._tag[row].to_bytes(8, "little")
                yield Found(mask, FrameRef(location, self._length[row], tag, block, full=False))
        location = page.location[at]
        if location <= ALLOCATED:
            yield Found(FULL_MASK, location)
        else:
            tag = page.tag[at].to_bytes(8, "little")
            yield Found(FULL_MASK, FrameRef(location, page.length[at], tag, block, full=True))

    def locate(self, block: int, sector: int) -> int:
        """The cache key of the newest content of one sector: what `find` would say, without building it."""
        page = self.pages.get(block >> PAGE_SHIFT)
        if page is None:
            return HOLE
        at = block & PAGE_MASK
        row = page.head[at]
        if row:
            key, mask = self.assembled.get(block, (0, 0))
            if mask >> sector & 1:
                return key
            # The loop of `_rows`, without the cost of a generator: every read of a patched block comes here.
            for _ in _CHAIN:
                if self._block[row] != block:
                    break
                if self._mask[row] >> sector & 1:
                    return self._location[row]
                row = self._next[row]
                if not row:
                    return page.location[at]
            raise _damaged(block)
        return page.location[at]

    def _rows(self, row: int, block: int) -> Iterator[int]:
        """The rows of the chain that begins at `row`, newest first. RuntimeError: it leads to another block's, to one
        that is not in use, or round in a circle; whatever made it so, what it says may not be believed.
        """
        for _ in _CHAIN:
            if not row:
                return
            if self._block[row] != block:
                break
            following = self._next[row]
            yield row
            row = following
        raise _damaged(block)

    def is_patched(self, block: int) -> bool:
        """Whether a block has anything above its base."""
        page = self.pages.get(block >> PAGE_SHIFT)
        return page is not None and page.head[block & PAGE_MASK] != 0

    def set_base(self, block: int, *, location: int, length: int, tag: int) -> None:
        """The whole block is this now; its patches are forgotten."""
        if location == HOLE and block >> PAGE_SHIFT not in self.pages:
            return
        page = self._writable(block >> PAGE_SHIFT)
        at = block & PAGE_MASK
        if page.location[at] > ALLOCATED:
            self.dead.append(page.location[at])
        if page.head[at]:
            self._forget_patches(page, at)
        if location == HOLE and page.location[at] == HOLE:
            return
        page.make_bases()
        page.location[at] = location
        page.length[at] = length
        page.tag[at] = tag

    def add_patch(self, block: int, *, mask: int, location: int, length: int, tag: int) -> None:
        """The sectors of `mask` are this now, whatever older patches hold of them.

        Every 16th patch of a block the chain is pruned, so it never has many more patches than a block has sectors,
        however often the block was written.
        """
        if location == HOLE and block >> PAGE_SHIFT not in self.pages:
            return
        page = self._writable(block >> PAGE_SHIFT)
        at = block & PAGE_MASK
        key, valid = self.assembled.get(block, (0, 0))
        if valid & ~mask:
            self.assembled[block] = (key, valid & ~mask)
        elif valid:
            self.forget_assembled(block)
        head = page.head[at]
        row = self._new_row()
        self._block[row] = block
        self._mask[row] = mask
        self._location[row] = location
        self._length[row] = length
        self._tag[row] = tag
        self._next[row] = head
        page.head[at] = row
        age = self._age[row] = self._age[head] + 1 if head else 0
        if age == PRUNE_AFTER:
            self._prune(row)

    def _new_row(self) -> int:
        if self._free:
            return self._free.pop()
        for column in (self._block, self._next, self._mask, self._location, self._length, self._tag, self._age):
            column.append(0)
        return len(self._block) - 1

    def _prune(self, head: int) -> None:
        """Take from each patch of a chain what newer ones cover, and drop those that have nothing left."""
        covered = self._mask[head]
        kept = head
        for row in self._rows(self._next[head], self._block[head]):
            left = self._mask[row] & ~covered
            if left:
                self._mask[row] = left
                covered |= left
                self._next[kept] = row
                kept = row
            else:
                self._release(row)
        self._next[kept] = 0
        self._age[head] = 0

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
            if page is not None and page is not ALLOCATED_PAGE:
                self._forget(page, low, high)
            if high - low < PAGE_BLOCKS:
                if page is not None or content != HOLE:
                    page = self._writable(n)
                    page.make_bases()
                    page.location[low:high] = array("Q", [content]) * (high - low)
            elif content != HOLE:
                self.pages[n] = ALLOCATED_PAGE
            elif page is not None:
                del self.pages[n]
            yield

    def _forget(self, page: Page, low: int, high: int) -> None:
        """Forget patches and frames of the blocks [low, high) of a page."""
        if any(page.head[low:high]):
            for at in range(low, high):
                if page.head[at]:
                    self._forget_patches(page, at)
        self.dead += [location for location in page.location[low:high] if location > ALLOCATED]

    def _writable(self, number: int) -> Page:
        page = self.pages.get(number)
        if page is None:
            page = self.pages[number] = Page()
        elif page is ALLOCATED_PAGE:
            page = self.pages[number] = _allocated_page()
        return page

    def page_of_bases(self, number: int) -> Page:
        """A page to write many base entries to, as `set_base` writes one, while there are no patches yet."""
        page = self._writable(number)
        page.make_bases()
        return page

    def _forget_patches(self, page: Page, at: int) -> None:
        head = page.head[at]
        block = self._block[head]
        self.forget_assembled(block)
        for row in self._rows(head, block):
            self._release(row)
        page.head[at] = 0

    def _release(self, row: int) -> None:
        if self._location[row] > ALLOCATED:
            self.dead.append(self._location[row])
        self._block[row] = _NO_BLOCK
        self._free.append(row)

    def forget_assembled(self, block: int) -> None:
        """The block changed as a whole, or the cache has dropped what was put together of it."""
        key, _ = self.assembled.pop(block, (0, 0))
        if key:
            self.dead.append(key)

    def take_dead(self) -> list[int]:
        """The keys that became dead since the last call."""
        dead, self.dead = self.dead, []
        return dead

    def patches(self) -> int:
        """Patches in use, for statistics."""
        return len(self._block) - 1 - len(self._free)


def _damaged(block: int) -> RuntimeError:
    return RuntimeError(f"the index in memory is damaged: the chain of block {block} leads nowhere")
