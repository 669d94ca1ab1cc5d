"""Lent pages: the pages of an index, of which others may have some too, until one of them writes to one. No I/O.

What is frozen has a page for a while, the map of a clone for as long as both are alike. Who writes to one takes a copy.
"""

import numpy as np
from numpy.typing import NDArray

from storage.lsm.index.page import ALLOCATED_PAGE, Page, PageRows, allocated_page


class LentPages:
    """The pages of one index, by number."""

    __slots__ = ("_freezes", "_lent", "_shared", "pages")

    def __init__(self) -> None:
        self.pages: dict[int, Page] = {}
        self._shared: set[int] = set()
        """Pages that a `Frozen` has too."""
        self._freezes = 0
        """How many `Frozen` of it there are that were not thawed yet."""
        self._lent: set[int] = set()
        """Pages that the map of a clone may have too."""

    def rows(self, number: int, at: NDArray[np.integer]) -> PageRows:
        """What stands of some blocks of page `number`, which ascend."""
        return self.pages.get(number, Page()).rows(at)

    def freeze_pages(self) -> dict[int, Page]:
        """All of them as they are now, in one step; it ends with `thaw`."""
        self._freezes += 1
        self._shared |= set(self.pages)
        return dict(self.pages)

    def thaw(self) -> None:
        """What was frozen is not looked at any more; called once for each `freeze`."""
        self._freezes -= 1
        if not self._freezes:
            self._shared.clear()

    def is_frozen(self, number: int) -> bool:
        """Whether what was frozen has that page too."""
        return number in self._shared

    def writable(self, number: int) -> Page:
        """A page to write to, which neither anything frozen nor a clone has."""
        page = self.pages.get(number)
        if page is None:
            page = self.pages[number] = Page()
        elif page is ALLOCATED_PAGE:
            page = self.pages[number] = allocated_page()
        elif number in self._shared or number in self._lent:
            page = self.pages[number] = page.copy()
        self._shared.discard(number)
        self._lent.discard(number)
        return page

    def lend_all(self, other: "LentPages") -> None:
        """Have all pages of another index, until one of both writes to them."""
        self.pages = dict(other.pages)
        other._lent |= other.pages.keys()
        self._lent |= other.pages.keys()
        self._shared |= other._shared

    def share(self, number: int, other: "LentPages") -> None:
        """Have that page of another index, which is equal, in place of the own one, until one of both writes to it."""
        self.pages[number] = other.pages[number]
        self._lent.add(number)
        other._lent.add(number)
        self._shared |= {number} & other._shared
