"""What the index of a layer refers to, beside what the SSTs' own indexes say of it. No I/O; for a thread.

All of it is arithmetic on columns: a store of a terabyte has millions of rows. Where something is wrong is given as
rows (block, mask of sectors), by the number of the SST that is referred to.
"""

from collections.abc import Iterable
from typing import Any

import numpy as np
from numpy.typing import NDArray

from storage.check.visible import Blocks, Pages, Visible, cover, masks_at
from storage.format.blocks import EntryKind
from storage.format.columns import Columns
from storage.format.frame import FULL_MASK
from storage.format.sst import SstIndex
from storage.lsm.index.page import PAGE_BLOCKS, PAGE_SHIFT

Places = dict[int, list[tuple[int, int]]]
"""Number of an SST to the (block, mask of sectors) that refer to it."""

Numbers = NDArray[np.bool_]
"""Of each number of an SST: whether it is meant."""

_HIGH = np.uint64(32)
_COLUMNS = {
    "layer": np.uint32,
    "block": np.uint32,
    "kind": np.uint8,
    "mask": np.uint64,
    "sequence": np.uint64,
    "length": np.uint32,
    "tag": np.uint64,
}


class Entries:
    """The entries of SSTs, each row once: ascending by its place, `location`, which is 0 for zeros, and found by its
    layer and block too. For a store of a terabyte these are 200 MB: what they are made of is taken apart.
    """

    def __init__(self, indexes: Iterable[tuple[int, SstIndex]]) -> None:
        """`indexes` are (number, index) of the SSTs; their columns are gone afterwards."""
        tables = [(number, index.entries) for number, index in indexes]
        location = _joined([_locations(number, entries) for number, entries in tables], np.uint64)
        for _, entries in tables:
            del entries["offset"]
        order = np.argsort(location, kind="stable")
        self.rows: Columns = {"location": location[order]}
        del location
        for name, kind in _COLUMNS.items():
            self.rows[name] = _joined([entries.pop(name) for _, entries in tables], kind)[order]
        del order
        rows = self.rows
        self._order = np.lexsort((rows["sequence"], rows["block"], rows["layer"])).astype(np.uint32)
        self._blocks = rows["block"][self._order]
        layers, first, count = np.unique(rows["layer"][self._order], return_index=True, return_counts=True)
        self._spans = {
            layer: (low, low + many)
            for layer, low, many in zip(layers.tolist(), first.tolist(), count.tolist(), strict=True)
        }

    def of_layer(self, layer: int, pages: Pages) -> Columns:
        """The rows of one layer on some pages, by block, the newest last."""
        low, high = self._spans.get(layer, (0, 0))
        blocks, order = self._blocks[low:high], self._order[low:high]
        edges = np.searchsorted(blocks, np.stack((pages.numbers, pages.numbers + 1)) << PAGE_SHIFT)
        runs = [order[first:end] for first, end in edges.T.tolist() if first < end]
        return taken(self.rows, np.concatenate(runs) if runs else order[:0])

    def at(self, locations: NDArray[np.unsignedinteger]) -> NDArray[np.signedinteger]:
        """The row that lies at each place, -1 for none."""
        return _positions(self.rows["location"], locations)


def _locations(number: int, entries: Columns) -> NDArray[np.uint64]:
    location = np.uint64(number) << _HIGH | entries["offset"].astype(np.uint64)
    zeros = (entries["kind"] == EntryKind.ZERO) | (entries["kind"] == EntryKind.ZERO_ALLOCATED)
    return np.where(zeros, np.uint64(0), location)


def _joined(parts: list[NDArray[Any]], kind: Any) -> NDArray[Any]:
    return np.concatenate(parts) if parts else np.zeros(0, kind)


def inside(spans: Columns, pages: Pages) -> Blocks:
    """The blocks that lie in ranges of zeros."""
    found = pages.none()
    starts = pages.numbers << PAGE_SHIFT
    for first, end in zip(spans["first"].tolist(), spans["end"].tolist(), strict=True):
        low, high = np.searchsorted(starts, [first - PAGE_BLOCKS + 1, end]).tolist()
        for at in range(low, high):
            start = int(starts[at])
            begin, stop = max(first - start, 0), min(end - start, PAGE_BLOCKS)
            found[(at << PAGE_SHIFT) + begin : (at << PAGE_SHIFT) + stop] = True
    return found


def seen_rows(seen: Visible) -> Columns:
    """All frames of which something is seen, with a column `full`."""
    names = ("block", "mask", "location", "length", "tag")
    rows: Columns = {
        n: np.concatenate([seen.bases[n].astype(np.uint64), seen.patches[n].astype(np.uint64)]) for n in names
    }
    full = np.zeros(len(rows["block"]), np.uint8)
    full[: len(seen.bases["block"])] = 1
    return taken({**rows, "full": full}, np.flatnonzero(rows["mask"]))


def places_beside(rows: Columns, listed: Numbers) -> Places:
    """Where rows refer to SSTs whose number is not `listed`."""
    return _places(taken(rows, np.flatnonzero(~_are(rows, listed))))


def _are(rows: Columns, meant: Numbers) -> NDArray[np.bool_]:
    """Of each row whether the SST that it refers to is meant; a number that was never given is not."""
    number = (rows["location"] >> _HIGH).astype(np.int64)
    found: NDArray[np.bool_] = meant[np.minimum(number, len(meant) - 1)] & (number < len(meant))
    return found


def beyond(rows: Columns, number: int, size: int) -> list[tuple[int, int]]:
    """Where rows refer to bytes of an SST that it does not have, if it has `size`."""
    end = (rows["location"] & np.uint64(0xFFFFFFFF)) + rows["length"]
    wrong = (rows["location"] >> _HIGH == np.uint64(number)) & (end > np.uint64(size))
    return _places(taken(rows, np.flatnonzero(wrong))).get(number, [])


def broken_places(rows: Columns, layer: int, entries: Entries, *, known: Numbers) -> Places:
    """Where rows of a layer refer to what no entry has, or is something else there. Only SSTs whose number is `known`
    are asked. What a layer shows was written to it, or to an older one that it was made of.
    """
    rows = taken(rows, np.flatnonzero(_are(rows, known)))
    at = entries.at(rows["location"])
    found = at >= 0
    if not len(entries.rows["location"]):
        return _places(rows)
    entry = taken(entries.rows, np.maximum(at, 0))
    kind = np.where(rows["full"] == 1, np.uint8(EntryKind.FULL), np.uint8(EntryKind.PATCH))
    right = found & (entry["layer"] <= layer) & (entry["kind"] == kind) & (rows["mask"] & ~entry["mask"] == 0)
    for name in ("block", "length", "tag"):
        right &= entry[name].astype(np.uint64) == rows[name]
    return _places(taken(rows, np.flatnonzero(~right)))


def stale_places(rows: Columns, of_layer: Columns, entries: Entries, spans: Columns) -> Places:
    """Where rows show something although a listed SST says something newer of the same sectors: an entry of the same
    layer (`of_layer`, by block and sequence), or a range of zeros of `spans`.
    """
    at = entries.at(rows["location"])
    rows = taken(rows, np.flatnonzero(at >= 0))
    sequence = entries.rows["sequence"][at[at >= 0]]
    hidden = np.zeros(len(rows["block"]), np.uint64)
    of_layer = dict(of_layer)
    cover(of_layer)
    low = np.searchsorted(of_layer["block"], rows["block"].astype(of_layer["block"].dtype), side="left")
    high = np.searchsorted(of_layer["block"], rows["block"].astype(of_layer["block"].dtype), side="right")
    left = np.flatnonzero(low < high)
    while len(left):
        other = low[left]
        newer = of_layer["sequence"][other] > sequence[left]
        hidden[left] |= np.where(newer, of_layer["mask"][other] & rows["mask"][left], np.uint64(0))
        low[left] += 1
        left = left[low[left] < high[left]]
    for first, end, later in zip(*(spans[n].tolist() for n in ("first", "end", "sequence")), strict=True):
        inside = (rows["block"] >= first) & (rows["block"] < end) & (sequence < later)
        hidden[inside] = rows["mask"][inside]
    wrong = np.flatnonzero(hidden)
    return _places({**taken(rows, wrong), "mask": hidden[wrong]})


def differing(memory: Visible, rebuilt: Visible) -> list[tuple[int, int]]:
    """The (block, mask) of which memory shows something else than a rebuilt index.

    Zeros above a base that a consolidation made may be in memory alone: the base holds zeros there too.
    """
    wrong: list[tuple[int, int]] = []
    zeros = memory.zeros
    for here, there, tolerant in ((memory.bases, rebuilt.bases, True), (memory.patches, rebuilt.patches, False)):
        one, other = _keyed(here), _keyed(there)
        if tolerant:
            hidden = masks_at(zeros["block"], zeros["mask"], other["block"].astype(zeros["block"].dtype))
            other["mask"] = other["mask"] & ~hidden
            hidden = masks_at(zeros["block"], zeros["mask"], one["block"].astype(zeros["block"].dtype))
            one["mask"] = one["mask"] & ~hidden
        wrong += _unlike(one, other) + _unlike(other, one)
    allocated = np.setxor1d(memory.allocated, rebuilt.allocated, assume_unique=True)
    return wrong + [(block, FULL_MASK) for block in allocated.tolist()]


def _keyed(rows: Columns) -> Columns:
    """Rows of which something is seen."""
    rows = {name: column.astype(np.uint64) for name, column in rows.items()}
    return taken(rows, np.flatnonzero(rows["mask"]))


def _unlike(one: Columns, other: Columns) -> list[tuple[int, int]]:
    """Rows of `one` that are not in `other` as they are; where something is wrong, blocks may share a place."""
    own = len(one["location"])
    ranks = np.unique(np.concatenate((one["location"], other["location"])), return_inverse=True)[1].astype(np.uint64)
    keys = ranks << _HIGH | np.concatenate((one["block"], other["block"]))
    order = np.argsort(keys[own:], kind="stable")
    at = _positions(keys[own:][order], keys[:own])
    right = at >= 0
    if len(order):
        twin = taken(other, order[np.maximum(at, 0)])
        for name in ("mask", "length", "tag"):
            right &= twin[name] == one[name]
    wrong = np.flatnonzero(~right & (one["mask"] != 0))
    return list(zip(one["block"][wrong].tolist(), one["mask"][wrong].tolist(), strict=True))


def _positions(ordered: NDArray[np.unsignedinteger], wanted: NDArray[np.unsignedinteger]) -> NDArray[np.signedinteger]:
    """Where each wanted number stands among ascending ones, -1 if it does not."""
    if not len(ordered):
        return np.full(len(wanted), -1)
    at = np.minimum(np.searchsorted(ordered, wanted), len(ordered) - 1)
    return np.where(ordered[at] == wanted, at, -1)


def _places(rows: Columns) -> Places:
    found: Places = {}
    number = (rows["location"] >> _HIGH).tolist()
    for sst, block, mask in zip(number, rows["block"].tolist(), rows["mask"].tolist(), strict=True):
        found.setdefault(sst, []).append((block, mask))
    return found


def taken(rows: Columns, at: NDArray[np.integer]) -> Columns:
    """Some of the rows."""
    return {name: column[at] for name, column in rows.items()}
