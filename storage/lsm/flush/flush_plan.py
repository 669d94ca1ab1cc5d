"""The plan of a memtable flush: what a sealed memtable becomes, which frames, which zeros, in which SSTs. No I/O.

It is made in a thread, and reads what nobody writes any more (M2): a sealed memtable whose operations are acknowledged
and whose sectors are complete. It writes into nothing of that.
Frames of whole blocks and patches go to separate SSTs, since they live differently long.
"""

from collections.abc import Iterator

import msgspec

from storage.buffers import Buffer, own, own_all
from storage.cache.frame_cache import Decoded
from storage.errors import BrokenInvariant
from storage.format.blocks import ALLOCATED, HOLE, EntryKind, FrameRef, RangeZero, SstEntry
from storage.format.frame import FULL_MASK, SECTOR_BYTES, ZERO_SECTOR, is_zero, sectors_of
from storage.format.sst import SstBuilder
from storage.lsm.memtable.memtable import BlockEntry, Content, Memtable


class FlushPlan(msgspec.Struct, frozen=True, gc=False):
    """What one block of the memtable becomes: a frame of `mask` sectors, zeros elsewhere, or both."""

    layer: int
    block: int
    sequence: int
    data_mask: int
    contents: dict[int, Content]
    base: Buffer | None
    full: bool
    zero_mask: int
    zero_kind: EntryKind


def plan(memtable: Memtable, *, full_sectors_min: int) -> tuple[list[FlushPlan], list[RangeZero]]:
    """What a sealed memtable whose sectors are complete becomes, sorted by layer and block; a block
    of which so many sectors are data is one full frame. Changes nothing. BrokenInvariant: a sector is known in part
    only.
    """
    blocks: list[FlushPlan] = []
    ranges: list[RangeZero] = []
    for layer in sorted(memtable.layers):
        table = memtable.layers[layer]
        for span in table.zeros.spans:
            ranges.append(RangeZero(layer, span.first, span.end, span.sequence, span.content == ALLOCATED))
        for block in sorted(table.blocks):
            blocks += _plan_block(layer, block, table.blocks[block], full_sectors_min)
    return blocks, ranges


def plan_objects(
    memtable: Memtable, *, full_sectors_min: int, object_bytes: int
) -> tuple[list[tuple[list[FlushPlan], int]], list[RangeZero], int]:
    """The same as groups for one SST each, with the bytes of data in each; the first one gets the zeros, and is there
    for them alone if nothing else is. Then the bytes of all. With 16,000 blocks it takes tens of milliseconds.
    """
    blocks, ranges = plan(memtable, full_sectors_min=full_sectors_min)
    groups = [(group, block_bytes(group)) for group in chunks(blocks, object_bytes)]
    if ranges and not groups:
        groups = [([], 0)]
    return groups, ranges, sum(size for _, size in groups)


def _plan_block(layer: int, block: int, entry: BlockEntry, full_sectors_min: int) -> Iterator[FlushPlan]:
    if entry.extents:
        raise BrokenInvariant(f"pieces of sectors of block {block} are incomplete, and their log is truncated")
    base = entry.base
    data_mask = zero_mask = 0
    zero_kind = EntryKind.ZERO
    contents = entry.sectors
    for sector, content in entry.sectors.items():
        if not isinstance(content, int) and is_zero(content):
            if contents is entry.sectors:
                contents = dict(contents)  # the memtable's own stays as it is: reads are answered from it meanwhile
            content = contents[sector] = HOLE
        if isinstance(content, int):
            zero_mask |= 1 << sector
            zero_kind = EntryKind.ZERO_ALLOCATED if content == ALLOCATED else zero_kind
        else:
            data_mask |= 1 << sector
    buffer: Buffer | None = None
    if isinstance(base, int):
        zero_mask = FULL_MASK
        zero_kind = EntryKind.ZERO_ALLOCATED if base == ALLOCATED else zero_kind
    elif base is not None and not isinstance(base, FrameRef):
        if entry.sectors or not is_zero(base):
            buffer = base
            data_mask = FULL_MASK
        else:
            zero_mask = FULL_MASK
    whole = buffer is not None or (entry.mask == FULL_MASK and not isinstance(base, FrameRef))
    full = buffer is not None or (whole and data_mask.bit_count() >= full_sectors_min)
    if full:
        data_mask, zero_mask = FULL_MASK, 0
    elif whole:
        zero_mask = FULL_MASK
    if data_mask or zero_mask:
        yield FlushPlan(layer, block, entry.sequence, data_mask, contents, buffer, full, zero_mask, zero_kind)


def frame_data(planned: FlushPlan) -> Buffer:
    """The sectors of the frame, contiguous."""
    if planned.base is None:
        contents = planned.contents
        sectors = [contents.get(sector, HOLE) for sector in sectors_of(planned.data_mask)]
        return b"".join([ZERO_SECTOR if type(content) is int else content for content in sectors])  # type: ignore[misc]
    if not planned.contents:
        return planned.base
    whole = bytearray(planned.base)
    for sector, content in planned.contents.items():
        whole[sector * SECTOR_BYTES : (sector + 1) * SECTOR_BYTES] = _sector(content)
    return whole


def _sector(content: Content) -> Buffer:
    return ZERO_SECTOR if isinstance(content, int) else content


def block_bytes(blocks: list[FlushPlan]) -> int:
    """Bytes of data in these blocks."""
    return sum(planned.data_mask.bit_count() for planned in blocks) * SECTOR_BYTES


def chunks(blocks: list[FlushPlan], object_bytes: int) -> Iterator[list[FlushPlan]]:
    """Groups of blocks for one SST each: full frames and the rest apart, `object_bytes` of data at most."""
    for full in (True, False):
        group: list[FlushPlan] = []
        size = 0
        for planned in blocks:
            if planned.full is not full:
                continue
            count = planned.data_mask.bit_count() * SECTOR_BYTES
            if group and size + count > object_bytes:
                yield group
                group, size = [], 0
            group.append(planned)
            size += count
        if group:
            yield group


def add(builder: SstBuilder, planned: FlushPlan, frames: list[Decoded | None]) -> None:
    """Put one planned block into an SST: its zeros first, so that a patch of the same sequence lies above them."""
    if planned.zero_mask:
        builder.entries.append(
            SstEntry(planned.layer, planned.block, planned.zero_kind, planned.zero_mask, planned.sequence)
        )
        frames.append(None)
    if planned.data_mask:
        data = frame_data(planned)
        builder.add_frame(
            layer=planned.layer,
            block=planned.block,
            full=planned.full,
            mask=planned.data_mask,
            sequence=planned.sequence,
            data=data,
        )
        frames.append(own(data) if planned.full else _patch_sectors(planned))


def _patch_sectors(planned: FlushPlan) -> dict[int, Buffer]:
    """The memtable's buffers of a patch, without the rest of the writes they came with: they move to the cache."""
    return own_all({s: content for s, content in planned.contents.items() if not isinstance(content, int)})
