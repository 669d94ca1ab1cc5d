"""Pages: the base entries of 4096 neighbouring blocks in the index of a layer. No I/O.

A page that does not exist is a hole of 1 GiB; one of nothing but allocated zeros is shared by all. Everything is
`array.array`: indexing gives Python integers at half the cost of numpy, and slices assign zeros.
"""

from array import array
from bisect import bisect_left

import numpy as np
from numpy.typing import NDArray

from storage.format.blocks import ALLOCATED

PAGE_SHIFT = 12
PAGE_BLOCKS = 1 << PAGE_SHIFT
PAGE_MASK = PAGE_BLOCKS - 1


_NO_LOCATIONS = array("Q", [0]) * PAGE_BLOCKS
_NO_TAGS = array("Q", [0]) * PAGE_BLOCKS
_NO_LENGTHS = array("I", [0]) * PAGE_BLOCKS
"""Shared by all pages without base entries, never written to: scattered small writes make no full pages."""

_NO_HEADS = array("I", [0]) * PAGE_BLOCKS
"""Copied, never written to: a copy takes no more than it holds, where an array made of bytes has room to grow, a
sixteenth of it."""

_ALL_BLOCKS = np.arange(PAGE_BLOCKS, dtype=np.uint32)


class Page:
    """Base entries of 4096 neighbouring blocks. `head` is the row of the newest patch, 0 for none."""

    __slots__ = ("head", "length", "location", "tag")

    def __init__(self) -> None:
        self.location = _NO_LOCATIONS
        self.tag = _NO_TAGS
        self.length = _NO_LENGTHS
        self.head = _NO_HEADS[:]

    def copy(self) -> "Page":
        """Another page with the same entries."""
        page = Page()
        if self.location is not _NO_LOCATIONS:
            page.location, page.tag, page.length = self.location[:], self.tag[:], self.length[:]
        page.head = self.head[:]
        return page

    def equals(self, other: "Page") -> bool:
        """Whether the other has the same entries: 20 us if so. Rows of patches are those of the own table of each."""
        return (self.head, self.location, self.tag, self.length) == (
            other.head,
            other.location,
            other.tag,
            other.length,
        )

    def make_bases(self) -> None:
        """From now on this page has base entries of its own."""
        if self.location is _NO_LOCATIONS:
            self.location = _NO_LOCATIONS[:]
            self.tag = _NO_TAGS[:]
            self.length = _NO_LENGTHS[:]

    def blocks(self, number: int) -> NDArray[np.uint32]:
        """The block of each row, if this is page `number`."""
        return _ALL_BLOCKS + np.uint32(number << PAGE_SHIFT)


class DeltaPage:
    """Entries of some of 4096 neighbouring blocks: `at` ascends, and the other columns belong to it row by row. It
    costs 26 bytes a block.
    """

    __slots__ = ("at", "head", "length", "location", "tag")

    def __init__(self) -> None:
        self.at = array("H")
        self.location = array("Q")
        self.tag = array("Q")
        self.length = array("I")
        self.head = array("I")

    def copy(self) -> "DeltaPage":
        """Another page with the same rows."""
        page = DeltaPage()
        page.at, page.location, page.tag = self.at[:], self.location[:], self.tag[:]
        page.length, page.head = self.length[:], self.head[:]
        return page

    def row(self, at: int) -> int:
        """The row of a block, -1 if it has none."""
        row = bisect_left(self.at, at)
        return row if row < len(self.at) and self.at[row] == at else -1

    def insert(self, at: int, *, location: int, length: int, tag: int, head: int) -> None:
        """A row for a block that has none."""
        row = bisect_left(self.at, at)
        self.at.insert(row, at)
        self.location.insert(row, location)
        self.length.insert(row, length)
        self.tag.insert(row, tag)
        self.head.insert(row, head)

    def blocks(self, number: int) -> NDArray[np.uint32]:
        """The block of each row, if this is page `number`."""
        return np.array(self.at, np.uint32) + np.uint32(number << PAGE_SHIFT)


def allocated_page() -> Page:
    """A page of its own of nothing but allocated zeros."""
    page = Page()
    page.make_bases()
    page.location[:] = array("Q", [ALLOCATED]) * PAGE_BLOCKS
    return page


ALLOCATED_PAGE = allocated_page()
"""Shared by all pages of nothing but allocated zeros, so that terabytes of them cost a pointer each; copied when
written.
"""

assert array("I").itemsize == 4
assert array("Q").itemsize == 8
