"""The indexes of many SSTs become the index in memory, when a store is opened. No I/O.

The order of SSTs does not matter, only sequences do: an entry counts unless a newer entry or range covers it. (A bulk
SST is listed by a later manifest than a flush that holds newer sectors of the same block, so order alone would bring
old data back.) On a tie the later SST wins.

All rows are sorted once, by layer, block and sequence; each layer is a slice of that. It costs about 0.6 us a row, and
60 bytes of memory a row beside the index itself, for a moment.
"""

from collections.abc import Iterable
from itertools import pairwise

import numpy as np
from numpy.typing import NDArray

from storage.errors import BrokenInvariant
from storage.format.blocks import ALLOCATED, HOLE, EntryKind
from storage.format.columns import Columns
from storage.format.frame import FULL_MASK
from storage.format.sst import SstIndex
from storage.format.trunks import Operation
from storage.lsm.index.block_map import BlockMap
from storage.lsm.index.bulk_load import add_patches, load_bases
from storage.lsm.index.forest import Forest, Writing, done

ROWS_AT_ONCE = 65536
"""Rows that are copied, and become Python's numbers, at a time: those take 300 bytes each."""


class NewRows:
    """The rows of SSTs that the checkpoint does not hold, by layer."""

    def __init__(self, indexes: Iterable[tuple[int, SstIndex]], *, rows_at_once: int) -> None:
        """The SSTs as (number, index) of each. The columns are taken out of the indexes, so that they are in memory
        once. They are put into an index about `rows_at_once` at a time.
        """
        self._rows_at_once = rows_at_once
        tables: list[Columns] = []
        spans: list[Columns] = []
        for slot, index in indexes:
            tables.append(_with_location(slot, index.entries))
            spans.append(index.ranges)
        self._entries = _sorted(tables, ("layer", "block", "sequence")) if tables else None
        self._ranges = _sorted(spans, ("layer", "sequence")) if tables else None

    def put(self, layer: int, writing: Writing) -> None:
        """Put those of one layer over what its index says: they are newer."""
        if self._entries is None or self._ranges is None:
            return
        entries, spans = _slice(self._entries, layer), _slice(self._ranges, layer)
        if writing.flat is not None:
            _build(writing.flat, entries, spans, self._rows_at_once)
            writing.flat.dead.clear()
        elif len(spans["layer"]):
            raise BrokenInvariant(f"a range of zeros is of layer {layer}, which was a snapshot when it was written")
        else:
            _put_each(writing, entries)


def rebuild(
    forest: Forest,
    indexes: Iterable[tuple[int, SstIndex]],
    operations: Iterable[Operation],
    *,
    rows_at_once: int = ROWS_AT_ONCE,
) -> None:
    """Bring what a checkpoint says up to what SSTs and operations since say: each operation at its turn. Rows of layers
    that are not there are dead and ignored. BrokenInvariant: they do not fit.

    All rows of a layer follow its making. What comes between, by sequence, is of other layers: a snapshot is frozen
    when all of its own rows are in, and a layer that lives no more has those that others were made of.
    """
    forest.hold()
    rows = put_newer(forest, indexes, rows_at_once=rows_at_once)
    for operation in operations:
        there = forest.maps().keys()
        done(forest.steps(operation))
        for layer in sorted(forest.maps().keys() - there):
            rows.put(layer, forest.writing(layer))


def put_newer(forest: Forest, indexes: Iterable[tuple[int, SstIndex]], *, rows_at_once: int = ROWS_AT_ONCE) -> NewRows:
    """Bring a forest that is held up to what SSTs say of the layers that are there; gives the rows, for those to come.
    What it says already is older than all of these rows.
    """
    rows = NewRows(indexes, rows_at_once=rows_at_once)
    for layer in sorted(forest.maps()):
        rows.put(layer, forest.writing(layer))
    return rows


def _put_each(writing: Writing, entries: Columns) -> None:
    """In order of block and sequence, into a snapshot."""
    names = ("block", "kind", "mask", "location", "length", "tag")
    for block, kind, mask, location, length, tag in zip(*(entries[name].tolist() for name in names), strict=True):
        if kind != EntryKind.PATCH and mask == FULL_MASK:
            writing.set_base(block, location=location, length=length, tag=tag)
        else:
            writing.add_patch(block, mask=mask, location=location, length=length, tag=tag)


def _with_location(slot: int, columns: Columns) -> Columns:
    """The columns with the location of each row: of its frame, or of zeros."""
    location = (np.uint64(slot) << np.uint64(32)) | columns["offset"].astype(np.uint64)
    location[columns["kind"] == EntryKind.ZERO] = HOLE
    location[columns["kind"] == EntryKind.ZERO_ALLOCATED] = ALLOCATED
    del columns["offset"]
    return {**{name: columns.pop(name) for name in list(columns)}, "location": location}


def _sorted(tables: list[Columns], keys: tuple[str, ...]) -> Columns:
    """The rows of all tables, sorted by the columns `keys`. The columns leave the tables one by one, so most exist
    once only.
    """
    names = list(tables[0])
    sortable = {name: np.concatenate([table.pop(name) for table in tables]) for name in keys}
    # lexsort is stable, so on equal sequences the later SST stays later.
    order = np.lexsort([sortable[name] for name in reversed(keys)])
    rows: Columns = {}
    for name in names:
        column = sortable.pop(name) if name in sortable else np.concatenate([table.pop(name) for table in tables])
        rows[name] = column[order]
    return rows


def _slice(rows: Columns, layer: int) -> Columns:
    """The rows of one layer, not copied."""
    key = np.array([layer], dtype=rows["layer"].dtype)
    low = int(np.searchsorted(rows["layer"], key, side="left")[0])
    high = int(np.searchsorted(rows["layer"], key, side="right")[0])
    return {name: column[low:high] for name, column in rows.items()}


def _build(found: BlockMap, entries: Columns, spans: Columns, rows_at_once: int) -> None:
    blocks, sequences = entries["block"], entries["sequence"]
    alive = np.ones(len(blocks), dtype=bool)
    for row in range(len(spans["sequence"])):
        first, end, sequence = int(spans["first"][row]), int(spans["end"][row]), spans["sequence"][row]
        # In the type of the column: any other would copy the whole of it for each range.
        low, high = np.searchsorted(blocks, np.array([first, end], dtype=blocks.dtype))
        alive[low:high] &= sequences[low:high] > sequence
        found.zero_range(first, end, ALLOCATED if spans["allocated"][row] else HOLE)
    for low, high in pairwise(_edges(blocks, rows_at_once)):
        part = {name: column[low:high][alive[low:high]] for name, column in entries.items()}
        newest = _newest_base(part)
        rows = np.arange(len(newest))
        load_bases(found, {name: column[newest == rows] for name, column in part.items()})
        add_patches(found, {name: column[newest < rows] for name, column in part.items()})


def _edges(blocks: NDArray[np.unsignedinteger], rows: int) -> list[int]:
    """Where to cut sorted rows into parts of about `rows`, so that a block is in one of them."""
    cuts = blocks[rows::rows]
    return sorted({0, *map(int, np.searchsorted(blocks, cuts, side="left")), len(blocks)})


def _newest_base(entries: Columns) -> NDArray[np.signedinteger]:
    """For each row the position of the newest whole-block row of its block, -1 if there is none."""
    kinds, masks, blocks = entries["kind"], entries["mask"], entries["block"]
    count = len(blocks)
    whole = (kinds != EntryKind.PATCH) & (masks == np.uint64(FULL_MASK))
    last = np.maximum.accumulate(np.where(whole, np.arange(count), -1)) if count else np.zeros(0, dtype=np.int64)
    ends = np.searchsorted(blocks, blocks, side="right") - 1
    starts = np.searchsorted(blocks, blocks, side="left")
    newest = last[ends]
    return np.where(newest >= starts, newest, -1)
