"""Patches: the rows of a layer's index that cover parts of blocks. No I/O.

They stand in one growable table of columns, 37 bytes each. The rows of a block are a chain, newest first, whose head
stands in the block's page. Every so many patches of a block (`PRUNE_AFTER`) its chain is pruned, so it never has many
more patches than a block has sectors, however often the block was written.

Everything is `array.array`: indexing gives Python integers at half the cost of numpy, and slices assign zeros.
"""

from array import array
from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray

from storage.format.blocks import ALLOCATED, BLOCKS_MAX
from storage.format.columns import Columns

CHAIN_MAX = 64 + 256
"""No chain has more rows: one a sector after pruning, and an age of a byte until the next. A longer one is damaged."""

_CHAIN = range(CHAIN_MAX)
_NO_BLOCK = BLOCKS_MAX
"""Stands in a row that is not in use: no layer has that block."""


class PatchTable:
    """The patches of one layer, in columns that stay the same objects. Row 0 is no row: as a number of a row, 0 says
    that there is none.
    """

    __slots__ = ("_age", "_dead", "_free", "block", "length", "location", "mask", "next", "prune_after", "tag")

    def __init__(self, dead: list[int], prune_after: int) -> None:
        """`dead` gets the location of each frame that no row refers to any more."""
        self._dead = dead
        self.prune_after = prune_after
        self._free: list[int] = []
        self._age = array("B", [0])
        """Of the newest row of a chain: how many were added since it was pruned."""
        self.block = array("I", [0])
        self.next = array("I", [0])
        self.mask = array("Q", [0])
        self.location = array("Q", [0])
        self.length = array("I", [0])
        self.tag = array("Q", [0])

    def __len__(self) -> int:
        """Patches in use."""
        return len(self.block) - 1 - len(self._free)

    @property
    def rows(self) -> int:
        """Rows, with row 0 and those that are not in use."""
        return len(self.block)

    def add(self, block: int, *, over: int, mask: int, location: int, length: int, tag: int) -> int:
        """A row on top of the chain that begins at `over`, which is pruned if it is time; the number of the new row."""
        row = self._new_row()
        self.block[row] = block
        self.mask[row] = mask
        self.location[row] = location
        self.length[row] = length
        self.tag[row] = tag
        self.next[row] = over
        age = self._age[row] = self._age[over] + 1 if over else 0
        if age == self.prune_after:
            self.prune(row)
        return row

    def _new_row(self) -> int:
        if self._free:
            return self._free.pop()
        for column in (self.block, self.next, self.mask, self.location, self.length, self.tag, self._age):
            column.append(0)
        return len(self.block) - 1

    def chain(self, row: int, block: int) -> Iterator[int]:
        """The rows of the chain that begins at `row`, newest first. RuntimeError: it leads to another block's, to one
        that is not in use, or round in a circle; whatever made it so, what it says may not be believed.
        """
        for _ in _CHAIN:
            if not row:
                return
            if self.block[row] != block:
                break
            following = self.next[row]
            yield row
            row = following
        raise damaged(block)

    def prune(self, head: int) -> None:
        """Take from each patch of a chain what newer ones cover, and drop those that have nothing left."""
        covered = self.mask[head]
        kept = head
        for row in self.chain(self.next[head], self.block[head]):
            left = self.mask[row] & ~covered
            if left:
                self.mask[row] = left
                covered |= left
                self.next[kept] = row
                kept = row
            else:
                self.release(row)
        self.next[kept] = 0
        self._age[head] = 0

    def release(self, row: int) -> None:
        """A row is out of its chain: it is free, and its frame is dead."""
        if self.location[row] > ALLOCATED:
            self._dead.append(self.location[row])
        self.block[row] = _NO_BLOCK
        self._free.append(row)

    def copy_chain(self, other: "PatchTable", head: int, block: int) -> int:
        """A chain of another table's, here as well; the row of its head, 0 if that is empty."""
        row = 0
        for old in list(other.chain(head, block))[::-1]:
            row = self.add(
                block,
                over=row,
                mask=other.mask[old],
                location=other.location[old],
                length=other.length[old],
                tag=other.tag[old],
            )
        return row

    # --- many chains at once

    def chains(self, heads: NDArray[np.uint32], blocks: NDArray[np.uint32]) -> Columns:
        """The chains that begin at `heads`, none of them 0, of `blocks`, which ascend: columns as `load` takes them.
        RuntimeError: one leads nowhere.
        """
        rows, of = rows_of_chains(
            heads, blocks, following=np.frombuffer(self.next, np.uint32), owner=np.frombuffer(self.block, np.uint32)
        )
        return {
            "block": of,
            "mask": np.frombuffer(self.mask, np.uint64)[rows],
            "location": np.frombuffer(self.location, np.uint64)[rows],
            "length": np.frombuffer(self.length, np.uint32)[rows],
            "tag": np.frombuffer(self.tag, np.uint64)[rows],
        }

    def copy_chains(
        self, other: "PatchTable", heads: NDArray[np.uint32], blocks: NDArray[np.uint32]
    ) -> NDArray[np.uint32]:
        """The chains of some blocks, which ascend, of another table's, here as well: their heads, 0 where that is 0."""
        found = np.zeros(len(heads), np.uint32)
        at = np.flatnonzero(heads)
        if len(at):
            found[at] = self.load(other.chains(heads[at], blocks[at]))[0]
        return found

    def release_chains(self, heads: NDArray[np.uint32], blocks: NDArray[np.uint32]) -> None:
        """All rows of these chains, none of them empty, are free, and their frames dead."""
        rows, _ = rows_of_chains(
            heads, blocks, following=np.frombuffer(self.next, np.uint32), owner=np.frombuffer(self.block, np.uint32)
        )
        location = np.frombuffer(self.location, np.uint64)[rows]
        self._dead += location[location > ALLOCATED].tolist()
        np.frombuffer(self.block, np.uint32)[rows] = _NO_BLOCK
        self._free += rows.tolist()

    def move(self, head: int, block: int, old: int, new: int, tag: int) -> bool:
        """In the chain that begins at `head`, the frame at `old` lies at `new` from now on, with this tag; False if it
        has none.
        """
        for row in self.chain(head, block):
            if self.location[row] == old:
                self.location[row], self.tag[row] = new, tag
                return True
        return False

    def copy(self, dead: list[int]) -> "PatchTable":
        """Another table with the same rows under the same numbers."""
        table = PatchTable(dead, self.prune_after)
        table._free = self._free[:]
        for source, target in (
            (self._age, table._age),
            (self.block, table.block),
            (self.next, table.next),
            (self.mask, table.mask),
            (self.location, table.location),
            (self.length, table.length),
            (self.tag, table.tag),
        ):
            target[:] = source
        return table

    def takes(self, over: NDArray[np.uint32], counts: NDArray[np.integer]) -> NDArray[np.bool_]:
        """Which chains, with the head `over` or empty (0), take so many more rows before they have to be pruned."""
        found: NDArray[np.bool_] = np.where(over > 0, self._ages(over) + 1, 0) + counts <= self.prune_after
        return found

    def _ages(self, rows: NDArray[np.uint32]) -> NDArray[np.int64]:
        return np.frombuffer(self._age, np.uint8)[rows].astype(np.int64)

    def load(
        self, rows: Columns, over: NDArray[np.uint32] | None = None
    ) -> tuple[NDArray[np.uint32], NDArray[np.uint32]]:
        """Many chains at once: columns block, mask, location, length and tag, by block, and of each block from the
        oldest patch to the newest; at least one row. `over` is the head of what each goes on top of, 0 for nothing.
        Nothing is pruned. The head of each chain, and its block.
        """
        blocks = rows["block"].astype(np.uint32)
        first = len(self.block)
        numbers = np.arange(first, first + len(blocks), dtype=np.uint32)
        begins = np.concatenate(([True], blocks[1:] != blocks[:-1]))
        starts = np.flatnonzero(begins)
        counts = np.diff(np.append(starts, len(blocks)))
        position = np.arange(len(blocks)) - np.repeat(starts, counts)
        following = numbers - np.uint32(1)
        following[starts] = 0 if over is None else over
        if over is not None:
            position += np.repeat(np.where(over > 0, self._ages(over) + 1, 0), counts)
        for column, values in (
            (self.block, blocks),
            (self.next, following),
            (self.mask, rows["mask"].astype(np.uint64, copy=False)),
            (self.location, rows["location"].astype(np.uint64, copy=False)),
            (self.length, rows["length"].astype(np.uint32, copy=False)),
            (self.tag, rows["tag"].astype(np.uint64, copy=False)),
            # As old as a chain may be, the next patch prunes it.
            (self._age, np.minimum(position, self.prune_after - 1).astype(np.uint8)),
        ):
            column.frombytes(values.tobytes())
        newest = np.append(begins[1:], True)
        return numbers[newest], blocks[newest]

    def columns(self, part: slice) -> Columns:
        """The patches in some rows, in no order: copies, since an array does not grow while numpy looks at it."""
        block = np.array(self.block[part], np.uint32)
        used = block != _NO_BLOCK
        if (part.start or 0) == 0:
            used[:1] = False
        columns = {"block": block[used]}
        for name, column, kind in (
            ("mask", self.mask, np.uint64),
            ("location", self.location, np.uint64),
            ("length", self.length, np.uint32),
            ("tag", self.tag, np.uint64),
        ):
            columns[name] = np.array(column[part], kind)[used]
        return columns

    def at(self, rows: NDArray[np.uint32]) -> Columns:
        """The patches in these rows, with the row below each in `next`: copies, as `columns` gives them."""
        return {
            "block": np.frombuffer(self.block, np.uint32)[rows],
            "next": np.frombuffer(self.next, np.uint32)[rows],
            "mask": np.frombuffer(self.mask, np.uint64)[rows],
            "location": np.frombuffer(self.location, np.uint64)[rows],
            "length": np.frombuffer(self.length, np.uint32)[rows],
        }


def rows_of_chains(
    heads: NDArray[np.uint32],
    blocks: NDArray[np.uint32],
    *,
    following: NDArray[np.uint32],
    owner: NDArray[np.uint32],
) -> tuple[NDArray[np.uint32], NDArray[np.uint32]]:
    """The rows of the chains that begin at `heads`, none of them 0, and the block of each: by block, and of each block
    from the oldest to the newest. RuntimeError: one leads to another block's, or has no end.
    """
    rows, of = [np.zeros(0, np.uint32)], [np.zeros(0, np.uint32)]
    row, block = heads, blocks
    while len(row):
        wrong = owner[row] != block
        if len(rows) > CHAIN_MAX or wrong.any():
            raise damaged(int(block[np.argmax(wrong)]))
        rows.append(row)
        of.append(block)
        row = following[row]
        block, row = block[row != 0], row[row != 0]
    depths = np.repeat(np.arange(len(rows)), [len(part) for part in rows])
    all_blocks = np.concatenate(of)
    order = np.lexsort((-depths, all_blocks))
    return np.concatenate(rows)[order], all_blocks[order]


def damaged(block: int) -> RuntimeError:
    """What a chain that cannot be right is answered with."""
    return RuntimeError(f"the index in memory is damaged: the chain of block {block} leads nowhere")
