"""Completion: sectors that were written in part become whole before their memtable is flushed.

What lies below the pieces is read; a GET that fails never becomes zeros. If the frame below is damaged, or the store
withholds its object while it gives others, the pieces over it are written once more, as a new operation of the same
bytes: so they move on to the next memtable, and nothing else pays for it. They do so at every flush until the frame can
be read or the sector is written as a whole. If their layer became a snapshot, the layer that goes on gets them too, and
from then on each has its own: a newer one may write over them.
"""

import asyncio
from collections import Counter
from collections.abc import Iterator, Mapping

from storage.cache.frame_cache import Decoded
from storage.errors import BrokenInvariant
from storage.format.blocks import HOLE, FrameRef
from storage.format.frame import BLOCK_BYTES, SECTOR_BYTES
from storage.lsm.layer import Layer
from storage.lsm.memtable.memtable import LayerTable, Memtable
from storage.lsm.memtable.write_state import WriteState
from storage.lsm.read.assemble import Assembly, Piece
from storage.lsm.sst.fetch import FrameSource
from storage.lsm.wal.queue import LayerQueue


async def complete_sectors(
    sealed: Memtable, layers: Mapping[int, Layer], source: FrameSource, writes: WriteState, *, together: int
) -> dict[int, tuple[LayerQueue, int]]:
    """Leave no piece of a sector in a sealed memtable. Gives what was written again, by layer: its queue, and up to
    which sequence.

    Those must be durable before the log is truncated, since the old record of the pieces goes with it. The frames of
    `together` sectors are asked for at once, so neighbours come in one request and none waits for another.
    """
    again: dict[int, tuple[LayerQueue, int]] = {}
    kept: Counter[int] = Counter()
    asked: set[str] = set()
    # Snapshots before the layers that go on: what those get is completed with them.
    pending = [
        (table, block, sector)
        for _, table in sorted(sealed.layers.items())
        for block, entry in table.blocks.items()
        if entry.extents
        for sector in entry.extents
    ]
    done = 0
    while group := pending[done : done + together]:
        done += len(group)
        fetched: dict[int, Decoded] = {}
        tried: set[int] = set()
        # Again where maintenance has put frames elsewhere meanwhile: those are no less readable.
        while missing := _missing(group, layers, fetched, tried):
            tried |= missing.keys()
            fetched |= await source.fetch_sound(missing.values(), asked)
        for table, block, sector in group:
            layer = layers[table.layer]
            if not _complete(table, layer, block, sector, fetched):
                before = writes.memtable.bytes
                heirs = [heir for heir in layers.values() if any(part is table for part in heir.inherited)]
                pending += [
                    (sealed.layers[heir.number], block, sector)
                    for heir in heirs
                    if _hand_on(table, sealed.layers[heir.number], block, sector)
                ]
                _write_again(table, layer, block, sector)
                writes.keep(writes.memtable.bytes - before)
                kept[table.layer] += writes.memtable.bytes - before
                again[table.layer] = (layer.queue, layer.queue.last_sequence)
        await asyncio.sleep(0)
    # Only now: what clients write meanwhile is bounded by what was kept before.
    for number, layer in layers.items():
        layer.kept_bytes = kept[number]
    sealed.in_parts = False
    return again


def _missing(
    group: list[tuple[LayerTable, int, int]],
    layers: Mapping[int, Layer],
    fetched: Mapping[int, Decoded],
    tried: set[int],
) -> dict[int, tuple[int, FrameRef]]:
    """The frames below the pieces of these sectors that were not asked for yet, by location, with their layers."""
    found: dict[int, tuple[int, FrameRef]] = {}
    for table, block, sector in group:
        assembly = Assembly({}, fetched)
        _assemble(assembly, table, layers[table.layer], block, sector)
        found.update((ref.location, (table.layer, ref)) for ref in assembly.missing if ref.location not in tried)
    return found


def _assemble(assembly: Assembly, table: LayerTable, layer: Layer, block: int, sector: int) -> list[Piece]:
    tables = [table, *layer.inherited]
    return assembly.block(tables, layer.index, block, sector * SECTOR_BYTES, (sector + 1) * SECTOR_BYTES)


def _complete(table: LayerTable, layer: Layer, block: int, sector: int, fetched: Mapping[int, Decoded]) -> bool:
    """Make one sector whole, in one step: others read a sealed memtable meanwhile. False if what lies below
    cannot be read.
    """
    assembly = Assembly({}, fetched)
    pieces = _assemble(assembly, table, layer, block, sector)
    if assembly.missing:
        return False
    (piece,) = pieces
    entry = table.blocks[block]
    entry.link_sector(sector, HOLE if isinstance(piece, int) else piece)
    if not entry.extents:
        entry.extents = None
    return True


def _hand_on(table: LayerTable, heir: LayerTable, block: int, sector: int) -> bool:
    """Give the pieces of one sector of a snapshot to the layer that goes on, in the same sealed memtable, below what
    that one has of it. Whether it had no pieces of the sector itself and has them now.
    """
    entry = heir.blocks.get(block)
    if entry is None:
        if heir.zeros.find(block) is not None:
            return False
        entry = heir.entry(block)
    elif entry.base is not None or entry.mask >> sector & 1:
        return False
    if entry.extents is None:
        entry.extents = {}
    had = entry.extents.get(sector, [])
    entry.extents[sector] = [*(table.blocks[block].extents or {})[sector], *had]
    return not had


def _write_again(table: LayerTable, layer: Layer, block: int, sector: int) -> None:
    """Move the pieces of one sector into the active memtable, below what that one has of it already."""
    entry = table.blocks[block]
    if entry.extents is None:
        raise BrokenInvariant(f"the pieces over sector {sector} of block {block} are gone before they were moved")
    pieces = entry.extents.pop(sector)
    if not entry.extents:
        entry.extents = None
    newer = layer.active.blocks.get(block)
    if newer is None:
        if layer.active.zeros.find(block) is not None:
            return
    elif newer.base is not None or newer.mask >> sector & 1:
        return
    content = bytearray(SECTOR_BYTES)
    later = newer.extents.get(sector, []) if newer is not None and newer.extents else []
    for start, data in pieces + later:
        content[start : start + len(data)] = data
    offset = block * BLOCK_BYTES + sector * SECTOR_BYTES
    # These were taken already, and must be again, however much is kept.
    bound, layer.kept_bytes = layer.kept_bytes, 0
    for start, end in _covered([(start, start + len(data)) for start, data in pieces]):
        layer.write(offset + start, bytes(content[start:end]))
    layer.kept_bytes = bound


def _covered(ranges: list[tuple[int, int]]) -> Iterator[tuple[int, int]]:
    """The same bytes as disjoint ranges, ascending."""
    ranges = sorted(ranges)
    low, high = ranges[0]
    for start, end in ranges[1:]:
        if start > high:
            yield low, high
            low, high = start, end
        else:
            high = max(high, end)
    yield low, high
