"""The index in memory as rows of a checkpoint, and back.

Writing: what was frozen becomes parts, a part at a time, in a thread. Every frame that it refers to must lie in an SST
of the table; one that does not says that the index in memory is damaged, and nothing is written.

Reading: places become locations; a frame that was moved since the checkpoint was made lies where the rows of the SST it
was moved to say. A place in an SST that is gone since may stand in a checkpoint while nothing shows it any more: it is
checked for when all newer rows are in (`check_listed`).
"""

from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from itertools import chain

import numpy as np
from numpy.typing import NDArray

from storage.errors import Corrupt
from storage.format.blocks import ALLOCATED
from storage.format.checkpoint import ROWS_PER_PART, PartKind
from storage.format.columns import Columns
from storage.format.names import MANIFESTS
from storage.lsm.index.block_map import BlockMap
from storage.lsm.index.bulk_load import load_bases, load_patches
from storage.lsm.index.map_scan import frames_in, numbers_mask
from storage.lsm.index.page import ALLOCATED_PAGE, PAGE_MASK, PAGE_SHIFT, DeltaPage, by_page
from storage.lsm.index.patch_table import rows_of_chains
from storage.lsm.index.reverse_delta import ReverseDelta
from storage.lsm.index.rows import Frozen

TableNumbers = Sequence[int] | NDArray[np.int64]
"""Those that the SSTs of a checkpoint's table have in this process, in its order."""

_LOW = np.uint64(32)


def parts_of(
    frozen: Frozen, numbers: TableNumbers, rows_per_part: int = ROWS_PER_PART
) -> Iterator[tuple[PartKind, Columns]]:
    """The rows of one layer in parts, as a checkpoint holds them. RuntimeError: the index is damaged."""
    lookup = _lookup(np.asarray(numbers, np.int64))
    kept = kept_of(frozen)
    if len(kept["first"]):
        yield PartKind.KEPT, kept
    yield from _cut(PartKind.BASES, bases_of(frozen), lookup, rows_per_part)
    zeros = allocated_of(frozen)
    if len(zeros["first"]):
        yield PartKind.ZEROS, zeros
    yield from _cut(PartKind.PATCHES, iter([patches_of(frozen)]), lookup, rows_per_part)


def _lookup(numbers: NDArray[np.int64]) -> NDArray[np.uint64]:
    """Position in the table, from 1, by number of an SST; 0 for those that are not in it."""
    found = np.zeros(numbers.max(initial=0) + 1, dtype=np.uint64)
    found[numbers] = np.arange(1, len(numbers) + 1, dtype=np.uint64)
    return found


def bases_of(frozen: Frozen) -> Iterator[Columns]:
    """The blocks whose base is a frame, ascending: block, location, length and tag, a page at a time."""
    for number in sorted(frozen.pages):
        page = frozen.pages[number]
        if page is ALLOCATED_PAGE:
            continue
        location = np.frombuffer(page.location, np.uint64)
        at = np.flatnonzero(location > ALLOCATED)
        if len(at):
            yield {
                "block": page.blocks(number)[at],
                "location": location[at],
                "length": page.lengths()[at],
                "tag": np.frombuffer(page.tag, np.uint64)[at],
            }


def allocated_of(frozen: Frozen) -> Columns:
    """Runs of blocks that are zeros and allocated."""

    def marked(number: int) -> NDArray[np.uint32]:
        page = frozen.pages[number]
        blocks: NDArray[np.uint32] = page.blocks(number)[np.frombuffer(page.location, np.uint64) == ALLOCATED]
        return blocks

    return _runs(marked(number) for number in sorted(frozen.pages))


def kept_blocks(frozen: Frozen) -> NDArray[np.uint32]:
    """The blocks that a reverse delta holds, ascending; none of a `BlockMap`, which knows all blocks."""
    pages = sorted(frozen.pages.items())
    blocks = [page.blocks(number) for number, page in pages if isinstance(page, DeltaPage)]
    return np.concatenate(blocks) if blocks else np.zeros(0, np.uint32)


def kept_of(frozen: Frozen) -> Columns:
    """The blocks that a snapshot keeps of what was replaced since, as runs."""
    return _runs(page.blocks(number) for number, page in sorted(frozen.pages.items()) if isinstance(page, DeltaPage))


def _runs(parts: Iterable[NDArray[np.uint32]]) -> Columns:
    """Runs [first, end) of blocks, which ascend; a part at a time, since a petabyte may be one run."""
    first: list[int] = []
    end: list[int] = []
    for blocks in parts:
        if not len(blocks):
            continue
        begins = np.flatnonzero(np.concatenate(([True], np.diff(blocks) != 1)))
        lows, highs = blocks[begins].tolist(), (blocks[np.append(begins[1:], len(blocks)) - 1] + 1).tolist()
        if end and end[-1] == lows[0]:
            end.pop()
            lows.pop(0)
        first += lows
        end += highs
    return {"first": np.array(first, dtype=np.uint32), "end": np.array(end, dtype=np.uint32)}


def patches_of(frozen: Frozen) -> Columns:
    """All chains, by block, each from its oldest row to its newest."""
    heads, of = [np.zeros(0, np.uint32)], [np.zeros(0, np.uint32)]
    for number in sorted(frozen.pages):
        head = frozen.pages[number].heads()
        at = np.flatnonzero(head)
        heads.append(head[at])
        of.append(frozen.pages[number].blocks(number)[at])
    rows, blocks = rows_of_chains(
        np.concatenate(heads),
        np.concatenate(of),
        following=np.frombuffer(frozen.next, np.uint32),
        owner=np.frombuffer(frozen.block, np.uint32),
    )
    return {
        "block": blocks,
        "mask": np.frombuffer(frozen.mask, np.uint64)[rows],
        "location": np.frombuffer(frozen.location, np.uint64)[rows],
        "length": np.frombuffer(frozen.length, np.uint32)[rows],
        "tag": np.frombuffer(frozen.tag, np.uint64)[rows],
    }


def _cut(
    kind: PartKind, chunks: Iterator[Columns], lookup: NDArray[np.uint64], rows_per_part: int
) -> Iterator[tuple[PartKind, Columns]]:
    """Rows in parts of about `rows_per_part`, with places in place of locations; a block is in one part only."""
    waiting: list[Columns] = []
    count = 0
    for chunk in chunks:
        if waiting and count + len(chunk["block"]) > rows_per_part:
            yield kind, _placed(_joined(waiting), lookup)
            waiting, count = [], 0
        while len(chunk["block"]) > rows_per_part:
            # Before the block that does not fit, or behind it: all of its rows stay together.
            blocks, key = chunk["block"], chunk["block"][rows_per_part : rows_per_part + 1]
            at = int(np.searchsorted(blocks, key, side="left")[0])
            at = at or int(np.searchsorted(blocks, key, side="right")[0])
            yield kind, _placed({name: column[:at] for name, column in chunk.items()}, lookup)
            chunk = {name: column[at:] for name, column in chunk.items()}
        if len(chunk["block"]):
            waiting.append(chunk)
            count += len(chunk["block"])
    if waiting:
        yield kind, _placed(_joined(waiting), lookup)


def _joined(chunks: list[Columns]) -> Columns:
    return {name: np.concatenate([chunk[name] for chunk in chunks]) for name in chunks[0]}


def _placed(rows: Columns, lookup: NDArray[np.uint64]) -> Columns:
    location = rows.pop("location").astype(np.uint64)
    number = (location >> _LOW).astype(np.int64)
    if len(number) and int(number.max()) >= len(lookup):
        raise RuntimeError("the index in memory is damaged: it refers to an SST that no manifest lists")
    sst = lookup[number]
    if ((sst == 0) & (location > ALLOCATED)).any():
        raise RuntimeError("the index in memory is damaged: it refers to an SST that no manifest lists")
    return {**rows, "sst": sst.astype(np.uint32), "offset": location.astype(np.uint32)}


class PlaceReader:
    """Turns the places of a checkpoint into locations of this process."""

    def __init__(self, numbers: TableNumbers, moved: Mapping[tuple[int, int], tuple[int, int]]) -> None:
        """`numbers` are those of its table; `moved` gives the location and the tag of what was copied since, by (number
        of the SST it lay in, offset there).
        """
        self._numbers = np.concatenate(([0], np.asarray(numbers, np.int64))).astype(np.uint64)
        old = sorted(moved)
        self._old = np.array([number << 32 | offset for number, offset in old], dtype=np.uint64)
        self._new = np.array([moved[place][0] for place in old], dtype=np.uint64)
        self._tags = np.array([moved[place][1] for place in old], dtype=np.uint64)

    def locations(self, rows: Columns) -> Columns:
        """The rows with a column `location` in place of their places, and the tags that their frames have there;
        ValueError: a place is beyond the table.
        """
        sst, offset = rows.pop("sst").astype(np.int64), rows.pop("offset").astype(np.uint64)
        if len(sst) and int(sst.max()) >= len(self._numbers):
            raise ValueError("it refers to an SST beyond its table")
        location = self._numbers[sst] << _LOW | offset
        if len(self._old) and len(location):
            at = np.minimum(np.searchsorted(self._old, location), len(self._old) - 1)
            rows = {**rows, "tag": np.where(self._old[at] == location, self._tags[at], rows["tag"])}
            location = np.where(self._old[at] == location, self._new[at], location)
        return {**rows, "location": location}


def load_part(found: BlockMap | ReverseDelta, kind: PartKind, rows: Columns, places: PlaceReader) -> None:
    """Put one part into the map of its layer. Parts come in their order: what is kept, bases and zeros, patches.
    ValueError: it does not fit. BrokenInvariant: it names a frame that is longer than any.
    """
    if isinstance(found, ReverseDelta):
        try:
            _load_kept(found, kind, rows, places)
        except LookupError as error:
            raise ValueError("it says something of a block that the snapshot does not keep") from error
    elif kind is PartKind.KEPT:
        raise ValueError("it says of a layer that is no snapshot what it keeps")
    elif kind is PartKind.ZEROS:
        for first, end in zip(rows["first"].tolist(), rows["end"].tolist(), strict=True):
            found.zero_range(first, end, ALLOCATED)
    elif kind is PartKind.BASES:
        load_bases(found, places.locations(rows))
    else:
        load_patches(found, places.locations(rows))


def _load_kept(found: ReverseDelta, kind: PartKind, rows: Columns, places: PlaceReader) -> None:
    if kind is PartKind.KEPT:
        for blocks in _blocks_of(rows):
            found.keep(blocks)
    elif kind is PartKind.ZEROS:
        for blocks in _blocks_of(rows):
            found.load_zeros(blocks)
    elif kind is PartKind.BASES:
        found.load_bases(places.locations(rows))
    else:
        found.load_patches(places.locations(rows))


def _blocks_of(runs: Columns) -> Iterator[NDArray[np.uint32]]:
    """The blocks of runs [first, end), which ascend, a page at a time: a petabyte may be one run. ValueError: one ends
    before it begins.
    """
    first, end = runs["first"].astype(np.int64), runs["end"].astype(np.int64)
    if (end < first).any():
        raise ValueError("a run of blocks ends before it begins")
    # First each run cut where pages end, then page by page the blocks of what lies in it.
    begins = first >> PAGE_SHIFT
    page, run = _counted(begins, (end + PAGE_MASK >> PAGE_SHIFT) - begins)
    low = np.maximum(first[run], page << PAGE_SHIFT)
    high = np.minimum(end[run], page + 1 << PAGE_SHIFT)
    for _, part in by_page(low.astype(np.uint32)):
        yield _counted(low[part], high[part] - low[part])[0].astype(np.uint32)


def _counted(first: NDArray[np.int64], count: NDArray[np.int64]) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """So many numbers from each of these on, one after another; and from which of them each is."""
    before = np.cumsum(count) - count
    found: NDArray[np.int64] = np.repeat(first - before, count) + np.arange(count.sum())
    return found, np.repeat(np.arange(len(count)), count)


def check_listed(found: BlockMap | ReverseDelta, gone: Collection[int]) -> None:
    """Corrupt if a frame that can be seen lies in an SST of these numbers, which is not listed: it was dropped or
    repacked when nothing referred to it. In the chains of a checkpoint such a place may stand below what covers it.
    """
    wanted = numbers_mask(gone)
    for ref in chain.from_iterable(frames_in(found, wanted)):
        found.prune(ref.block)
    found.take_dead()
    left = list(chain.from_iterable(frames_in(found, wanted)))
    if left:
        raise Corrupt(MANIFESTS, f"block {left[0].block} refers to an SST that neither manifest nor log names")
