"""Read assembly: a range of one block is put together from its generations, memtables first, then the index, which
says nothing of those (I4). No I/O.

Reading walks entries newest first and subtracts what each one covers until nothing is left. What lies in frames that
are not in memory is noted as missing; the caller fetches those and gathers again, so that every answer is taken in
one pass over one consistent state. Pieces are references to immutable buffers, never copies.
"""

from collections.abc import Mapping

from storage.buffers import Buffer
from storage.cache.frame_cache import CachedFrame, Decoded
from storage.errors import BrokenInvariant
from storage.format.blocks import FrameRef, runs, sector_range
from storage.format.frame import SECTOR_BYTES
from storage.lsm.index.trunk import LayerIndex
from storage.lsm.memtable.memtable import BlockEntry, LayerTable, overlay

Piece = Buffer | int
"""A buffer, or the length of a run of zeros."""

Source = BlockEntry | FrameRef | Buffer | int
Part = tuple[int, Source]
"""Sectors (mask) and where they come from."""

Overlays = dict[int, list[list[tuple[int, Buffer]]]]
"""Sector to the pieces that lie over it, newest generation first."""


class Assembly:
    """One attempt to read one range. `missing` collects the frames that must be fetched before the next attempt."""

    __slots__ = ("_cache", "_fetched", "fragments", "missing")

    def __init__(self, cache: Mapping[int, CachedFrame], fetched: Mapping[int, Decoded]) -> None:
        self._cache = cache
        self._fetched = fetched
        self.missing: list[FrameRef] = []
        self.fragments = 0
        """Most entries of the index that one block was put together from."""

    def block(self, tables: list[LayerTable], index: LayerIndex, block: int, low: int, high: int) -> list[Piece]:
        """Bytes [low, high) of a block. The pieces are complete only if nothing was added to `missing`."""
        need = sector_range(low // SECTOR_BYTES, -(-high // SECTOR_BYTES))
        parts, overlays, left = resolve(tables, block, need)
        if left:
            parts += self._from_index(index, block, left)
        found: list[tuple[int, int, Piece]] = []
        for mask, source in parts:
            self._emit(mask, source, found)
        found.sort(key=lambda run: run[0])
        if overlays:
            found = _apply_overlays(found, overlays)
        if self.missing:
            return []
        return _trim(found, low, high)

    def _from_index(self, index: LayerIndex, block: int, need: int) -> list[Part]:
        parts: list[Part] = []
        key, valid = index.assembled.get(block, (0, 0))
        whole = self._cache.get(key)
        if whole is not None and not isinstance(whole.data, dict):
            whole.hits += 1
            if valid & need:
                parts.append((valid & need, whole.data))
                need &= ~valid
            if not need:
                return parts
        for found in index.find(block):
            got = found.mask & need
            if got:
                parts.append((got, found.content))
                need &= ~got
                if not need:
                    break
        self.fragments = max(self.fragments, len(parts))
        return parts

    def _emit(self, mask: int, source: Source, out: list[tuple[int, int, Piece]]) -> None:
        if isinstance(source, BlockEntry):
            base_mask = mask
            for sector, content in source.sectors.items():
                if mask >> sector & 1:
                    base_mask &= ~(1 << sector)
                    out.append((sector, sector + 1, SECTOR_BYTES if isinstance(content, int) else content))
            if base_mask:
                if source.base is None:
                    raise BrokenInvariant("sectors of a block are said to be known, and have no content")
                self._emit_base(base_mask, source.base, out)
        else:
            self._emit_base(mask, source, out)

    def _emit_base(self, mask: int, base: Buffer | FrameRef | int, out: list[tuple[int, int, Piece]]) -> None:
        data: Decoded | int
        if isinstance(base, FrameRef):
            frame = self._frame(base)
            if frame is None:
                self.missing.append(base)
                return
            data = frame
        else:
            data = base
        if isinstance(data, int):
            out.extend((first, end, (end - first) * SECTOR_BYTES) for first, end in runs(mask))
        elif isinstance(data, dict):
            out.extend((s, s + 1, data[s]) for first, end in runs(mask) for s in range(first, end))
        else:
            view = memoryview(data)
            out.extend((first, end, view[first * SECTOR_BYTES : end * SECTOR_BYTES]) for first, end in runs(mask))

    def _frame(self, ref: FrameRef) -> Decoded | None:
        cached = self._cache.get(ref.location)
        if cached is not None:
            cached.hits += 1
            return cached.data
        return self._fetched.get(ref.location)


def resolve(tables: list[LayerTable], block: int, need: int) -> tuple[list[Part], Overlays, int]:
    """What memtables hold of the sectors of `need`, newest first; the pieces that lie over sectors; and what is
    left.
    """
    parts: list[Part] = []
    overlays: Overlays = {}
    for table in tables:
        entry = table.blocks.get(block)
        if entry is not None:
            got = entry.mask & need
            if got:
                parts.append((got, entry))
                need &= ~got
            if entry.extents:
                for sector, pieces in entry.extents.items():
                    if need >> sector & 1:
                        overlays.setdefault(sector, []).append(pieces)
            if need and isinstance(entry.base, FrameRef):
                # Only sectors with pieces over an uploaded frame are outside the mask here.
                parts.append((need, entry.base))
                need = 0
        elif table.zeros:
            span = table.zeros.find(block)
            if span is not None:
                parts.append((need, span.content))
                need = 0
        if not need:
            break
    return parts, overlays, need


def _apply_overlays(found: list[tuple[int, int, Piece]], overlays: Overlays) -> list[tuple[int, int, Piece]]:
    out: list[tuple[int, int, Piece]] = []
    for first, end, piece in found:
        for sector in range(first, end):
            below: Piece
            if isinstance(piece, int):
                below = SECTOR_BYTES
            else:
                below = memoryview(piece)[(sector - first) * SECTOR_BYTES : (sector - first + 1) * SECTOR_BYTES]
            generations = overlays.get(sector)
            if generations is not None:
                merged: Buffer | int = 0 if isinstance(below, int) else below
                for pieces in reversed(generations):
                    merged = overlay(merged, pieces)
                out.append((sector, sector + 1, merged))
            else:
                out.append((sector, sector + 1, below))
    return out


def _trim(found: list[tuple[int, int, Piece]], low: int, high: int) -> list[Piece]:
    out: list[Piece] = []
    for first, end, piece in found:
        start, stop = max(first * SECTOR_BYTES, low), min(end * SECTOR_BYTES, high)
        if isinstance(piece, int):
            if out and isinstance(out[-1], int):
                out[-1] += stop - start
            else:
                out.append(stop - start)
        elif stop - start == len(piece):
            out.append(piece)
        else:
            out.append(memoryview(piece)[start - first * SECTOR_BYTES : stop - first * SECTOR_BYTES])
    return out
