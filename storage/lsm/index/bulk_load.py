"""Bulk load: many rows at once into the index of a layer, as columns. No I/O."""

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from storage.format.blocks import HOLE
from storage.format.columns import Columns
from storage.lsm.index.block_map import BlockMap
from storage.lsm.index.page import PAGE_MASK, PAGE_SHIFT, PageRows, by_page
from storage.lsm.index.patch_table import PatchTable


def load_bases(index: BlockMap, rows: Columns) -> None:
    """Many whole blocks: columns block (ascending, each at most once), location, length and tag."""
    for number, part in by_page(rows["block"]):
        if number not in index.pages and not rows["location"][part].any():
            continue  # holes, where all are
        at = (rows["block"][part] & PAGE_MASK).astype(np.uint16)
        location, length, tag = (rows[name][part] for name in ("location", "length", "tag"))
        index.set_bases(number, PageRows(at, location, length, tag, np.zeros(len(at), np.uint32)))


class HeldRows(NamedTuple):
    """What stands of some blocks of one page in several maps."""

    rows: PageRows
    of: NDArray[np.integer]
    """Which of the tables has the patches of each."""
    tables: list[PatchTable]

    def where(self, chosen: NDArray[np.bool_]) -> "HeldRows":
        """Some of them."""
        return HeldRows(self.rows.where(chosen), self.of[chosen], self.tables)


def put_rows(index: BlockMap, number: int, held: HeldRows) -> None:
    """What stands of some blocks of page `number` elsewhere stands in this index from now on."""
    rows = held.rows
    if not len(rows.at):
        return
    index.set_bases(number, rows)
    patched = np.flatnonzero(rows.head)
    for table in np.unique(held.of[patched]).tolist():
        some = patched[held.of[patched] == table]
        blocks = rows.at[some] + np.uint32(number << PAGE_SHIFT)
        heads = index.patches.copy_chains(held.tables[table], rows.head[some], blocks)
        index.writable(number).set_heads(rows.at[some], heads)
    index.drop_if_hole(number)


def load_patches(index: BlockMap, rows: Columns) -> None:
    """Many chains, of blocks that have none: columns block, mask, location, length and tag, by block, and of each block
    from the oldest patch to the newest.
    """
    if not len(rows["block"]):
        return
    _point_heads(index, *index.patches.load(rows))


def add_patches(index: BlockMap, rows: Columns) -> None:
    """The same of blocks that may have chains, which these go on top of: what `add_patch` of each row in order does.

    At once, but for the blocks whose chains have to be pruned on the way, or where holes are among the rows: those are
    few. Nothing has been put together yet of what an index says that is loaded.
    """
    if not len(rows["block"]):
        return
    starts = np.flatnonzero(np.concatenate(([True], rows["block"][1:] != rows["block"][:-1])))
    counts = np.diff(np.append(starts, len(rows["block"])))
    blocks = rows["block"][starts]
    heads = _heads(index, blocks)
    at_once = index.patches.takes(heads, counts) & (np.minimum.reduceat(rows["location"], starts) != HOLE)
    chosen = np.repeat(at_once, counts)
    if at_once.any():
        if index.below is not None:
            some = blocks[at_once]
            for number, span in by_page(some):
                index.below.record_rows(number, index.rows(number, some[span] & PAGE_MASK), index.patches)
        part = {name: column[chosen] for name, column in rows.items()}
        _point_heads(index, *index.patches.load(part, heads[at_once]))
    columns = (rows[name][~chosen].tolist() for name in ("block", "mask", "location", "length", "tag"))
    for block, mask, location, length, tag in zip(*columns, strict=True):
        index.add_patch(block, mask=mask, location=location, length=length, tag=tag)


def _heads(index: BlockMap, blocks: NDArray[np.unsignedinteger]) -> NDArray[np.uint32]:
    """The newest patch of each block, 0 for none; the blocks ascend."""
    heads = np.zeros(len(blocks), np.uint32)
    for number, part in by_page(blocks):
        page = index.pages.get(number)
        if page is not None:
            heads[part] = page.heads()[blocks[part] & PAGE_MASK]
    return heads


def _point_heads(index: BlockMap, heads: NDArray[np.uint32], blocks: NDArray[np.uint32]) -> None:
    for number, part in by_page(blocks):
        index.writable(number).set_heads(blocks[part] & PAGE_MASK, heads[part])
