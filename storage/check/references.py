"""What the index of a layer refers to, beside what the SSTs' own indexes say of it. No I/O; for a thread.

All of it is arithmetic on columns: a store of a terabyte has millions of rows. Where something is wrong is given as
rows (block, mask of sectors), by the number of the SST that is referred to.
"""

from collections.abc import Collection, Iterable

import numpy as np
from numpy.typing import NDArray

from storage.check.visible import Visible, cover, masks_at
from storage.format.blocks import EntryKind
from storage.format.columns import Columns
from storage.format.sst import SstIndex

Places = dict[int, list[tuple[int, int]]]
"""Number of an SST to the (block, mask of sectors) that refer to it."""

_HIGH = np.uint64(32)
_COLUMNS = ("layer", "block", "kind", "mask", "sequence", "length", "tag")


def rows_of(indexes: Iterable[tuple[int, SstIndex]]) -> Columns:
    """The entries of SSTs, given as (number, index), with the place of each frame as `location`, 0 for zeros."""
    tables: list[Columns] = []
    for number, index in indexes:
        entries = index.entries
        location = np.uint64(number) << _HIGH | entries["offset"].astype(np.uint64)
        zeros = (entries["kind"] == EntryKind.ZERO) | (entries["kind"] == EntryKind.ZERO_ALLOCATED)
        tables.append({**{n: entries[n] for n in _COLUMNS}, "location": np.where(zeros, np.uint64(0), location)})
    return {
        n: np.concatenate([t[n] for t in tables]) if tables else np.zeros(0, np.uint64) for n in (*_COLUMNS, "location")
    }


def by_location(rows: Columns) -> Columns:
    """The rows that are frames, ascending by their place."""
    order = np.argsort(rows["location"], kind="stable")
    return _taken(rows, order[int(np.searchsorted(rows["location"][order], np.uint64(1))) :])


def of_layer(rows: Columns, layer: int) -> Columns:
    """The rows of one layer, by block, the newest last."""
    rows = _taken(rows, np.flatnonzero(rows["layer"] == layer))
    return _taken(rows, np.lexsort((rows["sequence"], rows["block"])))


def seen_rows(seen: Visible) -> Columns:
    """All frames of which something is seen, with a column `full`."""
    names = ("block", "mask", "location", "length", "tag")
    rows: Columns = {
        n: np.concatenate([seen.bases[n].astype(np.uint64), seen.patches[n].astype(np.uint64)]) for n in names
    }
    full = np.zeros(len(rows["block"]), np.uint8)
    full[: len(seen.bases["block"])] = 1
    return _taken({**rows, "full": full}, np.flatnonzero(rows["mask"]))


def places_in(rows: Columns, numbers: Collection[int]) -> Places:
    """Where rows refer to SSTs of these numbers."""
    number = rows["location"] >> _HIGH
    return _places(_taken(rows, np.flatnonzero(np.isin(number, np.array([*numbers], np.uint64)))))


def beyond(rows: Columns, number: int, size: int) -> list[tuple[int, int]]:
    """Where rows refer to bytes of an SST that it does not have, if it has `size`."""
    end = (rows["location"] & np.uint64(0xFFFFFFFF)) + rows["length"]
    wrong = (rows["location"] >> _HIGH == np.uint64(number)) & (end > np.uint64(size))
    return _places(_taken(rows, np.flatnonzero(wrong))).get(number, [])


def broken_places(rows: Columns, layer: int, frames: Columns, *, known: Collection[int]) -> Places:
    """Where rows of a layer refer to what is not in `frames` (by location), or is something else there. Only SSTs whose
    number is `known` are asked. What a layer shows was written to it, or to an older one that it was made of.
    """
    asked = np.isin(rows["location"] >> _HIGH, np.array([*known], np.uint64))
    rows = _taken(rows, np.flatnonzero(asked))
    at = _positions(frames["location"], rows["location"])
    found = at >= 0
    entry = _taken(frames, np.maximum(at, 0)) if len(frames["location"]) else None
    if entry is None:
        return _places(rows)
    kind = np.where(rows["full"] == 1, np.uint8(EntryKind.FULL), np.uint8(EntryKind.PATCH))
    right = found & (entry["layer"] <= layer) & (entry["kind"] == kind) & (rows["mask"] & ~entry["mask"] == 0)
    for name in ("block", "length", "tag"):
        right &= entry[name].astype(np.uint64) == rows[name]
    return _places(_taken(rows, np.flatnonzero(~right)))


def stale_places(rows: Columns, entries: Columns, frames: Columns, spans: Columns) -> Places:
    """Where rows show something although a listed SST says something newer of the same sectors: an entry of `entries`
    (of that layer, by block and sequence), or a range of zeros of `spans`.
    """
    at = _positions(frames["location"], rows["location"])
    rows = _taken(rows, np.flatnonzero(at >= 0))
    sequence = frames["sequence"][at[at >= 0]]
    hidden = np.zeros(len(rows["block"]), np.uint64)
    entries = dict(entries)
    cover(entries)
    low = np.searchsorted(entries["block"], rows["block"].astype(entries["block"].dtype), side="left")
    high = np.searchsorted(entries["block"], rows["block"].astype(entries["block"].dtype), side="right")
    left = np.flatnonzero(low < high)
    while len(left):
        other = low[left]
        newer = entries["sequence"][other] > sequence[left]
        hidden[left] |= np.where(newer, entries["mask"][other] & rows["mask"][left], np.uint64(0))
        low[left] += 1
        left = left[low[left] < high[left]]
    for first, end, later in zip(*(spans[n].tolist() for n in ("first", "end", "sequence")), strict=True):
        inside = (rows["block"] >= first) & (rows["block"] < end) & (sequence < later)
        hidden[inside] = rows["mask"][inside]
    wrong = np.flatnonzero(hidden)
    return _places({**_taken(rows, wrong), "mask": hidden[wrong]})


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
    for first, end in _unlike_ranges(memory.allocated, rebuilt.allocated):
        wrong.append((first, 2**64 - 1))
        if end - first > 1:
            wrong.append((end - 1, 2**64 - 1))
    return wrong


def _unlike_ranges(one: Columns, other: Columns) -> list[tuple[int, int]]:
    pairs = [set(zip(c["first"].tolist(), c["end"].tolist(), strict=True)) for c in (one, other)]
    return sorted(pairs[0] ^ pairs[1])


def _keyed(rows: Columns) -> Columns:
    """Rows of which something is seen, ascending by place."""
    rows = {name: column.astype(np.uint64) for name, column in rows.items()}
    rows = _taken(rows, np.flatnonzero(rows["mask"]))
    return _taken(rows, np.argsort(rows["location"], kind="stable"))


def _unlike(one: Columns, other: Columns) -> list[tuple[int, int]]:
    """Rows of `one` that are not in `other` as they are."""
    at = _positions(other["location"], one["location"])
    right = at >= 0
    if len(other["location"]):
        twin = _taken(other, np.maximum(at, 0))
        for name in ("block", "mask", "length", "tag"):
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


def _taken(rows: Columns, at: NDArray[np.signedinteger]) -> Columns:
    return {name: column[at] for name, column in rows.items()}
