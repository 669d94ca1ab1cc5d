"""Pages: the base entries of 4096 neighbouring blocks in the index of a layer. No I/O.

A page that does not exist is a hole of 1 GiB; one of nothing but allocated zeros is shared by all. Everything is
`array.array`: indexing gives Python integers at half the cost of numpy, and slices assign zeros.
"""

from array import array
from bisect import bisect_left
from collections.abc import Iterator
from itertools import pairwise
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from storage.errors import BrokenInvariant
from storage.format.blocks import ALLOCATED

PAGE_SHIFT = 12
PAGE_BLOCKS = 1 << PAGE_SHIFT
PAGE_MASK = PAGE_BLOCKS - 1


LENGTH_BITS = 19
SEALED_MAX = (1 << LENGTH_BITS) - 1
"""Of a sealed frame, in bytes: one holds a block of 256 KiB at most, some bytes that say what it is, and a tag."""

assert PAGE_BLOCKS < 1 << 32 - LENGTH_BITS, "each block of a page may have a chain, and 0 says that it has none"

_NO_LOCATIONS = array("Q", [0]) * PAGE_BLOCKS
_NO_TAGS = array("Q", [0]) * PAGE_BLOCKS
_NO_SPANS = array("I", [0]) * PAGE_BLOCKS
_NO_CHAINS = array("I", [0])
"""Copied, or shared by all pages that have nothing of it, and never written to: scattered small writes make no full
pages. A copy takes no more than it holds, where an array made of bytes has room to grow, a sixteenth of it."""

_ALL_BLOCKS = np.arange(PAGE_BLOCKS, dtype=np.uint32)


class PageRows(NamedTuple):
    """What stands of some blocks of one page, as columns; none is an array that may grow."""

    at: NDArray[np.uint16]
    """The blocks, as positions in the page; they ascend."""
    location: NDArray[np.uint64]
    length: NDArray[np.uint32]
    tag: NDArray[np.uint64]
    head: NDArray[np.uint32]
    """The row of the newest patch of each, 0 for none, in the table of the map that they are of."""

    def where(self, chosen: NDArray[np.bool_] | NDArray[np.integer]) -> "PageRows":
        """Some of them."""
        return PageRows(
            self.at[chosen], self.location[chosen], self.length[chosen], self.tag[chosen], self.head[chosen]
        )


class Page:
    """Base entries of 4096 neighbouring blocks, and where the patches of each begin: 20 bytes a block, and 4 for each
    that has patches.

    `span` is the length of the frame in its lower `LENGTH_BITS`, and above these the number of the block's chain in
    `chains`, 0 for none. There stands the row of its newest patch, 0 for none: a chain that ended keeps its number for
    the next patches of that block, so a page never has more than it has blocks.
    """

    __slots__ = ("chains", "freezes", "location", "span", "tag")

    def __init__(self) -> None:
        self.freezes = 0
        """How many that have it are looked at (`rows.Frozen`): as long as any is, it is not written to."""
        self.location = _NO_LOCATIONS
        self.tag = _NO_TAGS
        self.span = _NO_SPANS
        self.chains = _NO_CHAINS

    def copy(self) -> "Page":
        """Another page with the same entries."""
        page = Page()
        if self.location is not _NO_LOCATIONS:
            page.location, page.tag = self.location[:], self.tag[:]
        if self.span is not _NO_SPANS:
            page.span = self.span[:]
        if self.chains is not _NO_CHAINS:
            page.chains = self.chains[:]
        return page

    def equals(self, other: "Page") -> bool:
        """Whether the other has the same entries: 20 us if so. Rows of patches are those of the own table of each."""
        return (self.chains, self.location, self.tag, self.span) == (
            other.chains,
            other.location,
            other.tag,
            other.span,
        )

    @property
    def has_chains(self) -> bool:
        """Whether any block has patches, or had."""
        return self.chains is not _NO_CHAINS

    def length(self, at: int) -> int:
        """Bytes of the sealed frame of a block; of zeros it says nothing."""
        return self.span[at] & SEALED_MAX

    def head(self, at: int) -> int:
        """The row of the newest patch of a block, 0 for none."""
        return self.chains[self.span[at] >> LENGTH_BITS]

    def set_base(self, at: int, *, location: int, length: int, tag: int) -> None:
        """Whatever patches a block has, this lies below them. BrokenInvariant: no frame is as long."""
        if length > SEALED_MAX:
            raise _too_long(length)
        self.make_bases()
        self.location[at], self.tag[at] = location, tag
        self.span[at] = self.span[at] & ~SEALED_MAX | length

    def set_head(self, at: int, row: int) -> None:
        """The patches of a block begin at this row; 0: it has none."""
        number = self.span[at] >> LENGTH_BITS
        if number:
            self.chains[number] = row
        elif row:
            self._make_chains()
            self.span[at] |= len(self.chains) << LENGTH_BITS
            self.chains.append(row)

    # --- many at once, as columns

    def lengths(self) -> NDArray[np.uint32]:
        """`length` of each block."""
        return np.frombuffer(self.span, np.uint32) & np.uint32(SEALED_MAX)

    def heads(self) -> NDArray[np.uint32]:
        """`head` of each block: a copy, since an array does not grow while numpy looks at it."""
        found: NDArray[np.uint32] = np.frombuffer(self.chains, np.uint32)[self._numbers()]
        return found

    def set_bases(
        self,
        at: NDArray[np.integer],
        *,
        location: NDArray[np.unsignedinteger],
        length: NDArray[np.unsignedinteger],
        tag: NDArray[np.unsignedinteger],
    ) -> None:
        """`set_base` of several blocks, each at most once; at least one."""
        if (longest := int(length.max())) > SEALED_MAX:
            raise _too_long(longest)
        self.make_bases()
        np.frombuffer(self.location, np.uint64)[at] = location
        np.frombuffer(self.tag, np.uint64)[at] = tag
        span = np.frombuffer(self.span, np.uint32)
        span[at] = span[at] & np.uint32(SEALED_MAX ^ 0xFFFFFFFF) | length.astype(np.uint32, copy=False)

    def set_heads(self, at: NDArray[np.integer], rows: NDArray[np.uint32]) -> None:
        """`set_head` of several blocks, each at most once, to rows that are none of them 0."""
        self._make_chains()
        numbers = self._numbers()[at]
        new = np.flatnonzero(numbers == 0)
        numbers[new] = np.arange(len(self.chains), len(self.chains) + len(new), dtype=np.uint32)
        np.frombuffer(self.span, np.uint32)[at[new]] |= numbers[new] << np.uint32(LENGTH_BITS)
        # All at once and no more: what is added one by one has room to grow.
        self.chains = self.chains + array("I", bytes(4 * len(new)))
        np.frombuffer(self.chains, np.uint32)[numbers] = rows

    def clear_heads(self, at: slice | NDArray[np.integer]) -> None:
        """These blocks have no patches."""
        if self.chains is not _NO_CHAINS:
            np.frombuffer(self.chains, np.uint32)[self._numbers()[at]] = 0

    def forget_chains(self) -> None:
        """No block has patches, or the number of a chain that ended."""
        if self.chains is not _NO_CHAINS:
            self.span = _column("I", self.lengths())
            self.chains = _NO_CHAINS

    def rows(self, at: NDArray[np.integer]) -> PageRows:
        """What stands of some blocks, which ascend."""
        return PageRows(
            at.astype(np.uint16, copy=False),
            np.frombuffer(self.location, np.uint64)[at],
            self.lengths()[at],
            np.frombuffer(self.tag, np.uint64)[at],
            self.heads()[at],
        )

    def _numbers(self) -> NDArray[np.uint32]:
        return np.frombuffer(self.span, np.uint32) >> np.uint32(LENGTH_BITS)

    def make_bases(self) -> None:
        """From now on this page has base entries of its own."""
        if self.location is _NO_LOCATIONS:
            self.location = _NO_LOCATIONS[:]
            self.tag = _NO_TAGS[:]
        if self.span is _NO_SPANS:
            self.span = _NO_SPANS[:]

    def _make_chains(self) -> None:
        if self.span is _NO_SPANS:
            self.span = _NO_SPANS[:]
        if self.chains is _NO_CHAINS:
            self.chains = _NO_CHAINS[:]

    def blocks(self, number: int) -> NDArray[np.uint32]:
        """The block of each row, if this is page `number`."""
        return _ALL_BLOCKS + np.uint32(number << PAGE_SHIFT)


def by_page(blocks: NDArray[np.unsignedinteger]) -> Iterator[tuple[int, slice]]:
    """The pages of some blocks, which ascend, and which of them each has."""
    edges = np.flatnonzero(np.diff(blocks >> PAGE_SHIFT)) + 1
    for low, high in pairwise([0, *edges.tolist(), len(blocks)]):
        if low < high:
            yield int(blocks[low]) >> PAGE_SHIFT, slice(low, high)


def _column(kind: str, values: NDArray[np.unsignedinteger]) -> "array[int]":
    """As an array without the room to grow that one has which is made of bytes."""
    return array(kind, values.tobytes())[:]


def _too_long(length: int) -> BrokenInvariant:
    return BrokenInvariant(f"no frame has {length} bytes, as is said of one")


class DeltaPage:
    """Entries of some of 4096 neighbouring blocks: `at` ascends, and the other columns belong to it row by row. It
    costs 26 bytes a block.
    """

    __slots__ = ("at", "freezes", "head", "length", "location", "tag")

    def __init__(self) -> None:
        self.freezes = 0
        """As of a `Page`."""
        self.at = array("H")
        self.location = array("Q")
        self.tag = array("Q")
        self.length = array("I")
        self.head = array("I")

    def copy(self) -> "DeltaPage":
        """Another page with the same rows, to write to."""
        page = DeltaPage()
        page.at, page.location, page.tag = _own("H", self.at), _own("Q", self.location), _own("Q", self.tag)
        page.length, page.head = _own("I", self.length), _own("I", self.head)
        return page

    def uniform(self) -> int | None:
        """Whether it has all blocks of its page, and all are zeros of one kind: HOLE, ALLOCATED; None: it has not."""
        if len(self.at) != PAGE_BLOCKS or (content := self.location[0]) > ALLOCATED:
            return None
        found = self.rows()
        alike = (found.location == content).all() and not found.head.any()
        return content if alike and np.array_equal(found.at, _ALL_BLOCKS) else None

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

    def merge(self, rows: PageRows) -> None:
        """Rows for blocks that have none."""
        own = self.rows()
        order = np.argsort(np.concatenate((own.at, rows.at)), kind="stable")
        self.at = _column("H", np.concatenate((own.at, rows.at))[order])
        self.location = _column("Q", np.concatenate((own.location, rows.location))[order])
        self.length = _column("I", np.concatenate((own.length, rows.length))[order])
        self.tag = _column("Q", np.concatenate((own.tag, rows.tag))[order])
        self.head = _column("I", np.concatenate((own.head, rows.head))[order])

    def rows(self) -> PageRows:
        """All of them: copies, since an array does not grow while numpy looks at it."""
        return PageRows(
            np.array(self.at, np.uint16),
            np.array(self.location, np.uint64),
            np.array(self.length, np.uint32),
            np.array(self.tag, np.uint64),
            np.array(self.head, np.uint32),
        )

    def rows_of(self, at: NDArray[np.integer]) -> NDArray[np.int64]:
        """The row of each of these blocks. KeyError: one has none."""
        own = np.array(self.at, np.uint16)
        found: NDArray[np.int64] = np.minimum(np.searchsorted(own, at), max(len(own) - 1, 0))
        if len(at) and not (len(own) and (own[found] == at).all()):
            raise KeyError("a block has no row")
        return found

    def blocks(self, number: int) -> NDArray[np.uint32]:
        """The block of each row, if this is page `number`."""
        return np.array(self.at, np.uint32) + np.uint32(number << PAGE_SHIFT)

    def lengths(self) -> NDArray[np.uint32]:
        """The column: a copy, since an array does not grow while numpy looks at it."""
        return np.array(self.length, np.uint32)

    def heads(self) -> NDArray[np.uint32]:
        """The column: a copy too."""
        return np.array(self.head, np.uint32)


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


def _own(kind: str, column: "array[int]") -> "array[int]":
    """A copy of a column, also of one that is shared."""
    return array(kind, column.tobytes())[:]


assert array("I").itemsize == 4
assert array("Q").itemsize == 8
