"""The bulk bypass: whole blocks go to data SSTs at once, and the log then only says where they are.

An SST is built in a thread from immutable buffers, uploaded, and only when the store has confirmed it may a locator
enter the log. A frame whose block was written again in the meantime is dead on arrival; the memtable decides that by
its sequence.
"""

import asyncio
import contextlib
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass, field

from storage.buffers import Buffer, own
from storage.errors import BrokenInvariant
from storage.format.blocks import FrameRef, SstEntry, SstRef
from storage.format.frame import BLOCK_BYTES, FULL_MASK, SECTOR_BYTES, ZERO_SECTOR, is_zero
from storage.lsm.memtable.memtable import BlockEntry, Content
from storage.lsm.sst.upload import SstWriter


@dataclass(frozen=True, slots=True)
class WholeBlock:
    """A block as it was at the cut: references to immutable buffers. `entry` is the memtable's, to compare later."""

    block: int
    sequence: int
    base: Buffer | None
    sectors: dict[int, Content]
    entry: BlockEntry


@dataclass(slots=True)
class Upload:
    """What became of the whole blocks of one cut."""

    ssts: list[SstRef] = field(default_factory=list)
    located: list[tuple[str, SstEntry]] = field(default_factory=list)
    """(SST id, entry) of each frame."""
    zeros: list[WholeBlock] = field(default_factory=list)
    """Blocks that turned out to hold nothing but zeros: they are stored nowhere."""
    frames: list[tuple[WholeBlock, FrameRef, Buffer]] = field(default_factory=list)
    """(block, where it lies, its plaintext) for the memtable and the cache."""


def snapshot(block: int, entry: BlockEntry) -> WholeBlock:
    """The state of a whole block now; later writes do not change it."""
    if entry.mask != FULL_MASK:
        raise BrokenInvariant(f"block {block} travels as a whole and is known in part: the rest would become zeros")
    base = entry.base
    return WholeBlock(
        block=block,
        sequence=entry.sequence,
        base=None if base is None or isinstance(base, int | FrameRef) else base,
        sectors=dict(entry.sectors),
        entry=entry,
    )


def contiguous(block: WholeBlock) -> Buffer:
    """The 256 KiB of a block in one buffer, without a copy where it was written in one piece."""
    if len(block.sectors) == BLOCK_BYTES // SECTOR_BYTES:
        contents = [block.sectors[s] for s in range(len(block.sectors))]
        return b"".join(ZERO_SECTOR if isinstance(content, int) else content for content in contents)
    if block.base is None:
        raise BrokenInvariant(f"block {block.block} travels as a whole, and lacks sectors")
    if not block.sectors:
        return own(block.base)
    whole = bytearray(block.base)
    for sector, content in block.sectors.items():
        data = ZERO_SECTOR if isinstance(content, int) else content
        whole[sector * SECTOR_BYTES : (sector + 1) * SECTOR_BYTES] = data
    return whole


class BulkWriter:
    """Uploads whole blocks as data SSTs, several at a time."""

    def __init__(self, ssts: SstWriter, location: Callable[[str, int], int]) -> None:
        self._ssts = ssts
        self._location = location
        self._under_way = 0
        self._entering = asyncio.Lock()
        self._ended = asyncio.Event()

    async def upload(self, layer: int, blocks: list[WholeBlock]) -> Upload:
        """Upload every block; on return the store has confirmed all of it.

        Several clients, or one that copies several ranges at once, write in turns; sorted, each of their ranges lies in
        one piece and is read by few large requests.
        """
        blocks = sorted(blocks, key=lambda block: block.block)
        step = max(self._ssts.pace.object_bytes // BLOCK_BYTES, 1)
        done = await asyncio.gather(
            *(self._upload_one(layer, blocks[i : i + step]) for i in range(0, len(blocks), step))
        )
        whole = Upload()
        for part in done:
            whole.ssts += part.ssts
            whole.located += part.located
            whole.zeros += part.zeros
            whole.frames += part.frames
        return whole

    @contextlib.asynccontextmanager
    async def _room(self) -> AsyncIterator[None]:
        """One of the uploads that the link bears beside each other; in order, since cuts count in order."""
        async with self._entering:
            while self._under_way >= self._ssts.pace.uploads:
                self._ended.clear()
                await self._ended.wait()
            self._under_way += 1
        try:
            yield
        finally:
            self._under_way -= 1
            self._ended.set()

    async def _upload_one(self, layer: int, blocks: list[WholeBlock]) -> Upload:
        async with self._room():
            builder = self._ssts.builder()
            found: list[tuple[WholeBlock, SstEntry, Buffer]] = []
            zeros: list[WholeBlock] = []

            def build() -> tuple[SstRef, bytearray] | None:
                for block in blocks:
                    data = contiguous(block)
                    if is_zero(data):
                        zeros.append(block)
                        continue
                    entry = builder.add_frame(
                        layer=layer,
                        block=block.block,
                        full=True,
                        mask=FULL_MASK,
                        sequence=block.sequence,
                        data=data,
                    )
                    found.append((block, entry, data))
                return builder.finish() if found else None

            built = await self._ssts.encode(build)
            if built is None:
                return Upload(zeros=zeros)
            sst, content = built
            await self._ssts.upload(sst, content, len(found) * BLOCK_BYTES)
        frames = [
            (block, FrameRef(self._location(sst.id, e.offset), e.length, e.tag, e.block, full=True), data)
            for block, e, data in found
        ]
        return Upload([sst], [(sst.id, entry) for _, entry, _ in found], zeros, frames)
