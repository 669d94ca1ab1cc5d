"""Consolidation: blocks that lie in many pieces are written as one frame each.

    1. put each block together, and note the chain it stands in      (both at one moment)
    2. upload them as SSTs, each block with the sequence up to which all was in the index then
                                                                       (crash: orphans; failure: garbage)
    3. a manifest lists them                                          (the commit)
    4. each takes the place of its chain, where that still stands; what came later stays above

A start lays the rows of these SSTs over older ones of the same sequence, since they come later in the list.
"""

import asyncio
import logging
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial

from storage.cache.frame_cache import Decoded
from storage.cancel import do_all
from storage.errors import Corrupt, StorageError, Unreadable
from storage.format.blocks import ALLOCATED, HOLE, SstRef
from storage.format.frame import BLOCK_BYTES, FULL_MASK, is_zero
from storage.format.manifest import consolidated
from storage.format.names import sst_name
from storage.format.sst import SstBuilder
from storage.lsm.compaction.job_context import SSTS_IN_FLIGHT, JobContext
from storage.lsm.compaction.plan import PatchedBlock
from storage.lsm.index.rows import Found
from storage.lsm.read.assemble import Assembly

_log = logging.getLogger("nbdserver")


@dataclass(slots=True)
class AssembledBlock:
    """A block that was put together, the chain that it was put together from, and where it lies in its new SST."""

    block: PatchedBlock
    chain: list[Found]
    data: bytes
    sequence: int
    """Up to which all that was written is in it, and nothing beyond."""
    offset: int = 0
    length: int = 0
    """0 if it is zeros."""
    tag: int = 0


async def consolidate(
    context: JobContext, blocks: Sequence[PatchedBlock], *, on_unreadable: Callable[[PatchedBlock], None]
) -> None:
    """Write `blocks` as one frame each, but for those that cannot be read, which `on_unreadable` is told."""
    step = max(context.ssts.pace.object_bytes // BLOCK_BYTES, 1)
    room = asyncio.Semaphore(SSTS_IN_FLIGHT)
    written: list[tuple[SstRef, list[AssembledBlock]]] = []

    async def write(some: Sequence[PatchedBlock], names: list[str]) -> None:
        async with room:
            read = []
            for block in some:
                try:
                    found = await _read(context, block)
                except (Corrupt, Unreadable) as error:
                    on_unreadable(block)
                    _say_left(block, error)
                    continue
                if found is not None:
                    read.append(found)
            if read:
                written.append((await context.upload(partial(_build, context.ssts.builder(), read), names), read))

    with context.uncommitted() as names:
        await do_all(write(blocks[start : start + step], names) for start in range(0, len(blocks), step))
    if not written:
        return

    async def commit() -> None:
        # One that became a snapshot meanwhile, or was rolled back, keeps what it had: what is written for it now would
        # be of the new layer at a start, and not in memory.
        if not {item.block.layer for _, read in written for item in read} <= context.heads().keys():
            context.garbage.add(sst_name(ref.id) for ref, _ in written)
            return
        await context.commit_manifest(consolidated(context.manifests.manifest, ssts=[ref for ref, _ in written]))
        for ref, read in written:
            for item in read:
                _install(context, item, ref)
                await asyncio.sleep(0)

    await context.commit(commit, names)


def _say_left(block: PatchedBlock, error: StorageError) -> None:
    _log.warning("consolidation_left", extra={"block": block.block, "error": str(error)})


async def _read(context: JobContext, block: PatchedBlock) -> AssembledBlock | None:
    """The flushed content of a block, with the chain it stands in, as both are at one moment; None: its layer is gone,
    or it is nothing but zeros by now, which are neither more nor less allocated for being written again. Corrupt,
    Unreadable.

    That moment is not in the midst of an install, when the index holds more than its sequence says.
    """
    fetched: dict[int, Decoded] = {}
    await asyncio.sleep(0)
    while True:
        if context.installing.locked():
            async with context.installing:
                pass
            continue
        index = context.head(block.layer)
        if index is None:
            return None
        if [found.content for found in index.find(block.block)] in ([HOLE], [ALLOCATED]):
            return None
        assembly = Assembly(context.cache.entries, fetched)
        pieces = assembly.block([], index, block.block, 0, BLOCK_BYTES)
        if not assembly.missing:
            data = b"".join(bytes(piece) if isinstance(piece, int) else piece for piece in pieces)
            return AssembledBlock(block, index.take(block.block), data, context.cut())
        fetched.update(await context.source.fetch(block.layer, assembly.missing))


def _build(builder: SstBuilder, read: list[AssembledBlock]) -> tuple[SstRef, bytearray]:
    for item in read:
        layer, block = item.block.layer, item.block.block
        if is_zero(item.data):
            builder.add_zeros(layer=layer, block=block, sequence=item.sequence)
            continue
        entry = builder.add_frame(
            layer=layer, block=block, full=True, mask=FULL_MASK, sequence=item.sequence, data=item.data
        )
        item.offset, item.length, item.tag = entry.offset, entry.length, entry.tag
    return builder.finish()


def _install(context: JobContext, item: AssembledBlock, ref: SstRef) -> None:
    """Put a consolidated block in place of the chain that it was made of, if that still stands (I5)."""
    index, layer = context.head(item.block.layer), context.layers.by_number.get(item.block.layer)
    if index is None:
        return
    location = context.sst_numbers.location(ref.id, item.offset) if item.length else HOLE
    if layer is not None:
        layer.gathered.forget(item.block.block)
    if index.rebase(item.block.block, item.chain, location=location, length=item.length, tag=item.tag):
        if item.length:
            context.cache.put(location, item.data)
        for key in index.take_dead():
            context.cache.discard(key)
