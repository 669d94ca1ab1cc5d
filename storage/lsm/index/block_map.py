"""The index of a layer in memory: where the newest flushed content of every block lies. No I/O.

Base entries stand in dense pages of 4096 blocks, 24 bytes a block (location 8, tag 8, length 4, head of the patch
chain 4), made when first written: a page that does not exist is a hole of 1 GiB, so a discard of terabytes drops
pages. Patches stand in one growable table of columns, 37 bytes each, chained newest first. A look-up costs about a
microsecond at any number of SSTs.

Everything is `array.array`: indexing gives Python integers at half the cost of numpy, and slices assign zeros.
"""

from array import array
from collections.abc import Iterator
from itertools import pairwise

import msgspec
import numpy as np

from storage.format.blocks import ALLOCATED, BLOCKS_MAX, HOLE, FrameRef
from storage.format.columns import Columns
from storage.format.frame import FULL_MASK
from storage.lsm.index.page import ALLOCATED_PAGE, PAGE_BLOCKS, PAGE_MASK, PAGE_SHIFT, Page, allocated_page

PRUNE_AFTER = 16
"""Patches added to a block between two prunings of its chain: pruning costs as much as adding ten."""

CHAIN_MAX = 64 + 256
"""No chain has more rows: one a sector after pruning, and an age of a byte until the next. A longer one is damaged."""

_CHAIN = range(CHAIN_MAX)
_ALL_ROWS = slice(0, None)
_NO_BLOCK = BLOCKS_MAX
"""Stands in a row that is not in use: no layer has that block."""


class Frozen(msgspec.Struct, frozen=True):
    """The index of a layer as it was at one moment. What is in it does not change: the pages are shared with the map,
    which copies one before it writes to it; the columns of patches are copies.
    """

    pages: dict[int, Page]
    block: bytes
    next: bytes
    mask: bytes
    location: bytes
    length: bytes
    tag: bytes


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
        "_shared",
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
        self._shared: set[int] = set()
        """Pages that a `Frozen` has too."""

    def freeze(self) -> Frozen:
        """All of it as it is now, in one step: a pointer for each page, a copy of the patches. It ends with `thaw`."""
        self._shared = set(self.pages)
        return Frozen(
            dict(self.pages),
            self._block.tobytes(),
            self._next.tobytes(),
            self._mask.tobytes(),
            self._location.tobytes(),
            self._length.tobytes(),
            self._tag.tobytes(),
        )

    def thaw(self) -> None:
        """What was frozen is not looked at any more."""
        self._shared.clear()

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
                    page.head[low:high] = array("I", [0]) * (high - low)
            elif content != HOLE:
                self.pages[n] = ALLOCATED_PAGE
            elif page is not None:
                del self.pages[n]
            yield

    def _forget(self, page: Page, low: int, high: int) -> None:
        """Forget the patches and frames of the blocks [low, high) of a page, which is about to lose them."""
        if any(page.head[low:high]):
            for at in range(low, high):
                if page.head[at]:
                    self._forget_chain(page.head[at])
        self.dead += [location for location in page.location[low:high] if location > ALLOCATED]

    def _writable(self, number: int) -> Page:
        page = self.pages.get(number)
        if page is None:
            page = self.pages[number] = Page()
        elif page is ALLOCATED_PAGE:
            page = self.pages[number] = allocated_page()
        elif number in self._shared:
            page = self.pages[number] = page.copy()
        self._shared.discard(number)
        return page

    def page_of_bases(self, number: int) -> Page:
        """A page to write many base entries to, as `set_base` writes one, to blocks that have no patches."""
        page = self._writable(number)
        page.make_bases()
        return page

    def forget_patches(self, block: int) -> None:
        """A block has nothing above its base any more."""
        page = self._writable(block >> PAGE_SHIFT)
        if page.head[block & PAGE_MASK]:
            self._forget_patches(page, block & PAGE_MASK)

    def _forget_patches(self, page: Page, at: int) -> None:
        self._forget_chain(page.head[at])
        page.head[at] = 0

    def _forget_chain(self, head: int) -> None:
        block = self._block[head]
        self.forget_assembled(block)
        for row in self._rows(head, block):
            self._release(row)

    def prune(self, block: int) -> None:
        """Drop from a block's chain what newer patches cover."""
        page = self.pages.get(block >> PAGE_SHIFT)
        if page is not None and page.head[block & PAGE_MASK]:
            self._prune(page.head[block & PAGE_MASK])

    def move(self, block: int, old: int, new: int) -> bool:
        """The frame at location `old` lies at `new` from now on; False if nothing here refers to it."""
        page = self.pages.get(block >> PAGE_SHIFT)
        if page is None:
            return False
        at = block & PAGE_MASK
        if page.location[at] == old:
            self._writable(block >> PAGE_SHIFT).location[at] = new
            return True
        for row in self._rows(page.head[at], block):
            if self._location[row] == old:
                self._location[row] = new
                return True
        return False

    def rebase(self, block: int, chain: list[Found], *, location: int, length: int, tag: int) -> bool:
        """Put `location` in place of `chain`, what `find` gave of the block once; patches that came later stay above.
        False if nothing of the chain that is a frame stands: then the block was written anew, and what was made of
        the chain is dead.

        Only frames tell: each place is given once, while zeros look like others. A row of zeros that was in the chain
        and stays above hides only sectors that are zeros below it, or that something newer covers.
        """
        page = self.pages.get(block >> PAGE_SHIFT)
        at = block & PAGE_MASK
        base = _location(chain[-1].content)
        if page is None or page.location[at] != base:
            return False
        inputs = {_location(found.content) for found in chain[:-1]} - {HOLE, ALLOCATED}
        above = 0
        below = page.head[at]
        for row in self._rows(below, block):
            if self._location[row] in inputs:
                break
            above = row
            below = self._next[row]
        if not below and base <= ALLOCATED:
            return False
        page = self._writable(block >> PAGE_SHIFT)
        for row in list(self._rows(below, block)):
            self._release(row)
        if above:
            self._next[above] = 0
        else:
            page.head[at] = 0
            self.forget_assembled(block)
        if base > ALLOCATED:
            self.dead.append(base)
        page.make_bases()
        page.location[at], page.length[at], page.tag[at] = location, length, tag
        return True

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

    def load_bases(self, rows: Columns) -> None:
        """Many whole blocks at once: columns block (ascending, each at most once), location, length and tag."""
        blocks = rows["block"]
        pages = blocks >> PAGE_SHIFT
        edges = np.flatnonzero(np.diff(pages)) + 1
        for low, high in pairwise([0, *edges.tolist(), len(pages)]):
            if low == high:
                continue
            number = int(pages[low])
            if number not in self.pages and not rows["location"][low:high].any():
                continue  # holes, where all are
            page = self.page_of_bases(number)
            at = blocks[low:high] & PAGE_MASK
            for block in blocks[low:high][np.frombuffer(page.head, np.uint32)[at] != 0].tolist():
                self._forget_patches(page, block & PAGE_MASK)
            np.frombuffer(page.location, np.uint64)[at] = rows["location"][low:high]
            np.frombuffer(page.length, np.uint32)[at] = rows["length"][low:high]
            np.frombuffer(page.tag, np.uint64)[at] = rows["tag"][low:high]

    def load_patches(self, rows: Columns) -> None:
        """Many chains at once, of blocks that have none: columns block, mask, location, length and tag, by block, and
        of each block from the oldest patch to the newest.
        """
        blocks = rows["block"].astype(np.uint32)
        if not len(blocks):
            return
        first = len(self._block)
        numbers = np.arange(first, first + len(blocks), dtype=np.uint32)
        begins = np.concatenate(([True], blocks[1:] != blocks[:-1]))
        position = np.arange(len(blocks)) - np.maximum.accumulate(np.where(begins, np.arange(len(blocks)), 0))
        for column, values in (
            (self._block, blocks),
            (self._next, np.where(begins, np.uint32(0), numbers - np.uint32(1)).astype(np.uint32)),
            (self._mask, rows["mask"].astype(np.uint64)),
            (self._location, rows["location"].astype(np.uint64)),
            (self._length, rows["length"].astype(np.uint32)),
            (self._tag, rows["tag"].astype(np.uint64)),
            # As old as a chain may be, the next patch prunes it.
            (self._age, np.minimum(position, PRUNE_AFTER - 1).astype(np.uint8)),
        ):
            column.frombytes(values.tobytes())
        newest = np.append(begins[1:], True)
        heads, blocks = numbers[newest], blocks[newest]
        edges = np.flatnonzero(np.diff(blocks >> PAGE_SHIFT)) + 1
        for low, high in pairwise([0, *edges.tolist(), len(blocks)]):
            page = self._writable(int(blocks[low]) >> PAGE_SHIFT)
            np.frombuffer(page.head, np.uint32)[blocks[low:high] & PAGE_MASK] = heads[low:high]

    def patch_columns(self, part: slice = _ALL_ROWS) -> Columns:
        """The patches in some rows, in no order: copies, since an array does not grow while numpy looks at it."""
        block = np.array(self._block[part], np.uint32)
        used = block != _NO_BLOCK
        if (part.start or 0) == 0:
            used[:1] = False
        columns = {"block": block[used]}
        for name, column, kind in (
            ("mask", self._mask, np.uint64),
            ("location", self._location, np.uint64),
            ("length", self._length, np.uint32),
            ("tag", self._tag, np.uint64),
        ):
            columns[name] = np.array(column[part], kind)[used]
        return columns

    @property
    def rows(self) -> int:
        """Rows of patches, with those that are not in use."""
        return len(self._block)

    def patches(self) -> int:
        """Patches in use, for statistics."""
        return len(self._block) - 1 - len(self._free)


def _location(content: int | FrameRef) -> int:
    return content if isinstance(content, int) else content.location


def _damaged(block: int) -> RuntimeError:
    return RuntimeError(f"the index in memory is damaged: the chain of block {block} leads nowhere")
