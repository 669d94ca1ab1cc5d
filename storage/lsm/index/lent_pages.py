"""Lent pages: the pages of an index, of which others may have some too, until one of them writes to one. No I/O.

What is frozen has a page for a while, the map of a clone for as long as both are alike. Who writes to one takes a copy.
"""

import numpy as np
from numpy.typing import NDArray

from storage.lsm.index.page import ALLOCATED_PAGE, Page, PageRows, allocated_page


class LentPages:
    """The pages of one index, by number."""

    __slots__ = ("_lent", "pages")

    def __init__(self) -> None:
        self.pages: dict[int, Page] = {}
        self._lent: set[int] = set()
        """Pages that the map of a clone may have too."""

    def rows(self, number: int, at: NDArray[np.integer]) -> PageRows:
        """What stands of some blocks of page `number`, which ascend."""
        return self.pages.get(number, Page()).rows(at)

    def writable(self, number: int) -> Page:
        """A page to write to, which neither anything frozen nor a clone has."""
        page = self.pages.get(number)
        if page is None:
            page = self.pages[number] = Page()
        elif page is ALLOCATED_PAGE:
            page = self.pages[number] = allocated_page()
        elif page.freezes or number in self._lent:
            page = self.pages[number] = page.copy()
        self._lent.discard(number)
        return page

    def lend_all(self, other: "LentPages") -> None:
        """Have all pages of another index, until one of both writes to them."""
        self.pages = dict(other.pages)
        other._lent |= other.pages.keys()
        self._lent |= other.pages.keys()

    def share(self, number: int, other: "LentPages") -> None:
        """Have that page of another index, which is equal, in place of the own one, until one of both writes to it."""
        self.pages[number] = other.pages[number]
        self._lent.add(number)
        other._lent.add(number)
