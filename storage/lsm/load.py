"""This file knows how the indexes of many SSTs become the index in memory, when a store is opened. Pure.

The order of SSTs does not matter, only sequences do: an entry counts unless a newer entry or range covers it. (A bulk
SST is listed by a later manifest than a flush that holds newer sectors of the same block, so order alone would bring
old data back.) On a tie the later SST wins.
"""

from collections.abc import Iterable

import numpy as np
from numpy.typing import NDArray

from storage.codec import FULL_MASK
from storage.lsm.entries import ALLOCATED, HOLE, EntryKind
from storage.lsm.index import BlockMap
from storage.lsm.sst import Columns, Index


def build_maps(indexes: Iterable[tuple[int, Index]], layers: Iterable[int]) -> dict[int, BlockMap]:
    """The index of each layer in `layers`, from (slot, index) of every SST. Entries of other layers are dead and
    ignored.
    """
    parts = list(indexes)
    maps = {layer: BlockMap() for layer in layers}
    entries = _concatenate([_with_slot(slot, index.entries) for slot, index in parts])
    ranges = _concatenate([index.ranges for _, index in parts])
    if not entries and not ranges:
        return maps
    for layer, found in maps.items():
        mine = {name: column[entries["layer"] == layer] for name, column in entries.items()}
        spans = {name: column[ranges["layer"] == layer] for name, column in ranges.items()}
        _build(found, mine, spans)
        found.dead.clear()
    return maps


def _with_slot(slot: int, columns: Columns) -> Columns:
    location = (np.uint64(slot) << np.uint64(32)) | columns["offset"].astype(np.uint64)
    return {**columns, "location": location}


def _concatenate(tables: list[Columns]) -> Columns:
    if not tables:
        return {}
    return {name: np.concatenate([table[name] for table in tables]) for name in tables[0]}


def _build(found: BlockMap, entries: Columns, spans: Columns) -> None:
    # lexsort is stable, so on equal sequences the later SST stays later.
    order = np.lexsort((entries["sequence"], entries["block"]))
    entries = {name: column[order] for name, column in entries.items()}
    blocks, sequences = entries["block"], entries["sequence"]
    alive = np.ones(len(blocks), dtype=bool)
    for row in np.argsort(spans["sequence"], kind="stable"):
        first, end, sequence = int(spans["first"][row]), int(spans["end"][row]), spans["sequence"][row]
        # In the type of the column: any other would copy the whole of it for each range.
        low, high = np.searchsorted(blocks, np.array([first, end], dtype=blocks.dtype))
        alive[low:high] &= sequences[low:high] > sequence
        found.zero_range(first, end, ALLOCATED if spans["allocated"][row] else HOLE)
    entries = {name: column[alive] for name, column in entries.items()}
    _apply(found, entries, _newest_base(entries))


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


def _apply(found: BlockMap, entries: Columns, newest: NDArray[np.signedinteger]) -> None:
    rows = np.flatnonzero(np.arange(len(newest)) >= newest)
    columns = [entries[name][rows].tolist() for name in ("block", "kind", "mask", "location", "length", "tag")]
    bases = (newest[rows] == rows).tolist()
    for block, kind, mask, location, length, tag, base in zip(*columns, bases, strict=True):
        if kind == EntryKind.ZERO:
            location = HOLE
        elif kind == EntryKind.ZERO_ALLOCATED:
            location = ALLOCATED
        if base:
            found.set_base(block, location=location, length=length, tag=tag)
        else:
            found.add_patch(block, mask=mask, location=location, length=length, tag=tag)
