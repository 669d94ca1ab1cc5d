"""What the index of a layer says of a block, and the index as it was at one moment. No I/O."""

from collections.abc import Iterator, Mapping
from typing import NamedTuple

import msgspec

from storage.format.blocks import ALLOCATED, FrameRef
from storage.format.frame import FULL_MASK
from storage.lsm.index.page import DeltaPage, Page
from storage.lsm.index.patch_table import PatchTable


class Found(msgspec.Struct, frozen=True, gc=False):
    """One entry of a chain: the sectors it holds, and zeros (HOLE, ALLOCATED) or the frame they lie in."""

    mask: int
    content: int | FrameRef


class Standing(NamedTuple):
    """What stands of a block: its base, and the row of its newest patch, 0 for none."""

    location: int
    length: int
    tag: int
    head: int


HOLES = Standing(0, 0, 0, 0)
"""What stands of a block that was never written."""


class Frozen(msgspec.Struct, frozen=True):
    """The index of a layer as it was at one moment. What is in it does not change until `thaw`: the pages are shared
    with the map, and with others that have them too, and who writes to one copies it first; the columns of patches are
    copies.
    """

    pages: Mapping[int, Page] | Mapping[int, DeltaPage]
    block: bytes
    next: bytes
    mask: bytes
    location: bytes
    length: bytes
    tag: bytes

    def thaw(self) -> None:
        """It is not looked at any more. Called once, by the owner of the map."""
        for page in self.pages.values():
            page.freezes -= 1


def frozen(pages: Mapping[int, Page] | Mapping[int, DeltaPage], patches: PatchTable) -> Frozen:
    """Some pages, which nobody writes to until `thaw`, and a copy of their patches. It costs a step for each page."""
    for page in pages.values():
        page.freezes += 1
    return Frozen(
        pages,
        patches.block.tobytes(),
        patches.next.tobytes(),
        patches.mask.tobytes(),
        patches.location.tobytes(),
        patches.length.tobytes(),
        patches.tag.tobytes(),
    )


def found_in(standing: Standing, patches: PatchTable, block: int) -> Iterator[Found]:
    """The chain of a block, newest first; the last entry covers the whole block."""
    for row in patches.chain(standing.head, block) if standing.head else ():
        location = patches.location[row]
        mask = patches.mask[row]
        if location <= ALLOCATED:
            yield Found(mask, location)
        else:
            tag = patches.tag[row]
            yield Found(mask, FrameRef(location, patches.length[row], tag, block, full=False))
    if standing.location <= ALLOCATED:
        yield Found(FULL_MASK, standing.location)
    else:
        yield Found(FULL_MASK, FrameRef(standing.location, standing.length, standing.tag, block, full=True))
