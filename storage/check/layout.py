"""What the index of one object says, beside the object: does it speak of every byte, and can its rows be? No I/O.

The index is authentic, so what does not fit was written so: a mistake of a writer, never of a disk.
"""

from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray
from ulid import ULID

from storage.format.blocks import EntryKind, SstRef
from storage.format.checkpoint import Trailer
from storage.format.envelope import HEADER_BYTES, Header
from storage.format.frame import FULL_MASK
from storage.format.sst import SstIndex


def sst_misfits(ref: SstRef, header: Header, index: SstIndex, *, sequence: int) -> Iterator[str]:
    """Sentences on what does not fit in an SST; `sequence` is the highest that its list may hold."""
    yield from _name_misfits(ref, header)
    entries, ranges = index.entries, index.ranges
    rows = len(entries["layer"]) + len(ranges["layer"])
    if rows != ref.entries:
        yield f"its index has {rows} rows, and what names it says {ref.entries}"
    for columns in (entries, ranges):
        if len(columns["sequence"]) and int(columns["sequence"].max()) > sequence:
            yield f"it holds operation {int(columns['sequence'].max())}, and its manifest is of operation {sequence}"
    if (ranges["first"] >= ranges["end"]).any():
        yield "a range of zeros ends before it begins"
    yield from _entry_misfits(ref, index)


def checkpoint_misfits(ref: SstRef, header: Header, trailer: Trailer, *, sequence: int) -> Iterator[str]:
    """What is wrong with the place and the header of a checkpoint, and with the trailer that says what it holds."""
    yield from _name_misfits(ref, header)
    rows = sum(part.rows for part in trailer.parts)
    if rows != ref.entries:
        yield f"it has {rows} rows, and the manifest says {ref.entries}"
    if trailer.sequence > sequence:
        yield f"it holds operation {trailer.sequence}, and its manifest is of operation {sequence}"
    if len({sst.id for sst in trailer.ssts}) != len(trailer.ssts):
        yield "its table names an SST twice"
    starts = np.array([part.offset for part in trailer.parts], np.uint64)
    lengths = np.array([part.length for part in trailer.parts], np.uint64)
    yield from _gaps(starts, lengths, ref.index_offset, "part")


def _name_misfits(ref: SstRef, header: Header) -> Iterator[str]:
    if header.link != ULID.from_str(ref.id).bytes:
        yield "it was made under another name"


def _entry_misfits(ref: SstRef, index: SstIndex) -> Iterator[str]:
    entries = index.entries
    data = (entries["kind"] == EntryKind.FULL) | (entries["kind"] == EntryKind.PATCH)
    if not np.isin(entries["kind"], list(EntryKind)).all():
        yield "an entry has a kind that there is not"
    whole = entries["mask"] == np.uint64(FULL_MASK)
    if (~whole[entries["kind"] == EntryKind.FULL]).any() or (entries["mask"] == 0).any():
        yield "an entry has a mask that cannot be"
    if entries["offset"][~data].any() or entries["length"][~data].any():
        yield "an entry of zeros has a frame"
    starts, at = np.unique(entries["offset"][data], return_index=True)
    yield from _gaps(starts, entries["length"][data][at], ref.index_offset, "frame")
    moved = np.unique(index.moved["offset"])
    if index.victims and (len(moved) != len(starts) or (moved != starts).any() or len(index.ranges["first"])):
        yield "it was made by a repack, and its frames are not those that it says were moved"
    if len(index.moved["offset"]) and not index.victims:
        yield "it says that frames were moved, and not from where"


def _gaps(
    starts: NDArray[np.unsignedinteger], lengths: NDArray[np.unsignedinteger], end: int, what: str
) -> Iterator[str]:
    """What is not one behind the other from the header to `end`."""
    edges = np.concatenate(([HEADER_BYTES], starts.astype(np.uint64) + lengths))
    begins = np.append(starts.astype(np.uint64), np.uint64(end))
    wrong = np.flatnonzero(edges.astype(np.uint64) != begins)
    if len(wrong):
        at = int(wrong[0])
        yield f"its index says nothing, or two things, of the bytes from {int(edges[at])} to {what} {int(begins[at])}"
