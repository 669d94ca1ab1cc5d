"""Columns of numbers as bytes: how the index of an SST and a checkpoint store their rows. No I/O.

Numbers that grow are stored as differences (modulo the width of the column), and every column byte-shuffled: all lowest
bytes first, then all second ones. Neither makes it shorter; both make it compress.
"""

import numpy as np
from numpy.typing import NDArray

from storage.buffers import Buffer

Columns = dict[str, NDArray[np.unsignedinteger]]
"""Columns of equal length, by name."""

Layout = tuple[tuple[str, str, bool], ...]
"""Name, numpy type and whether differences are stored, in the order of the format."""


def pack_columns(columns: Columns, layout: Layout) -> bytes:
    """The columns of `layout`, one behind the other."""
    out = []
    for name, kind, difference in layout:
        values = np.ascontiguousarray(columns[name], dtype=kind)
        if difference and len(values):
            values = np.diff(values, prepend=values[:1] * 0)
        out.append(np.ascontiguousarray(values.view(np.uint8).reshape(-1, values.itemsize).T).tobytes())
    return b"".join(out)


def unpack_columns(packed: Buffer, position: int, rows: int, layout: Layout) -> tuple[Columns, int]:
    """The columns of `rows` rows from byte `position` on, and where they end. ValueError: they are not all there."""
    columns: Columns = {}
    for name, kind, difference in layout:
        width = np.dtype(kind).itemsize
        raw = np.frombuffer(packed, dtype=np.uint8, count=rows * width, offset=position)
        position += rows * width
        values = np.ascontiguousarray(raw.reshape(width, rows).T).view(kind).reshape(rows)
        columns[name] = np.cumsum(values, dtype=kind) if difference else values
    return columns, position


def row_bytes(layout: Layout) -> int:
    """Bytes of one row."""
    return sum(np.dtype(kind).itemsize for _, kind, _ in layout)
