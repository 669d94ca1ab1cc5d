"""Shared deltas: the pages of a snapshot whose blocks were all replaced, and all were zeros of one kind before. No I/O.

They are shared by all snapshots, so that one that zeros a thin disk, however large, costs its snapshot a pointer for
each page. Who writes to one takes a copy; they themselves are read-only.
"""

from array import array
from typing import cast

from storage.format.blocks import ALLOCATED, HOLE
from storage.lsm.index.page import PAGE_BLOCKS, DeltaPage


def _read_only(kind: str, values: "array[int]") -> "array[int]":
    """A column that all may read: whoever would write to it, for want of a copy, gets a TypeError."""
    return cast("array[int]", memoryview(array(kind, values)).toreadonly())


def _all_blocks(content: int) -> DeltaPage:
    page, nothing = DeltaPage(), array("Q", [0]) * PAGE_BLOCKS
    page.at = _read_only("H", array("H", range(PAGE_BLOCKS)))
    page.location = _read_only("Q", array("Q", [content]) * PAGE_BLOCKS)
    page.tag = _read_only("Q", nothing)
    page.length = page.head = _read_only("I", nothing)
    return page


SHARED_DELTAS = {HOLE: _all_blocks(HOLE), ALLOCATED: _all_blocks(ALLOCATED)}
"""By what each of its blocks is."""


def is_shared(page: DeltaPage) -> bool:
    """Whether it is to be copied before it is written to."""
    return any(page is shared for shared in SHARED_DELTAS.values())
