"""One READ that memory cannot answer: how the store's answer becomes replies, at once or in parts.

Where replies come in chunks, a long READ goes out in parts, each when it is there, and one that cannot be read
does not spoil the others: it is named in an error with its offset. Simple replies and clients that forbade
fragments (DF) get all of it or an error.
"""

import asyncio
import logging
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from nbdserver.block_device import BlockDevice
from nbdserver.protocol.replies import ChunkedReplies, Parts, Piece, Replies
from nbdserver.server.nbd_errors import nbd_error
from nbdserver.server.operation_trace import OperationTrace
from storage.buffers import retained_bytes
from storage.errors import StorageError
from storage.fetch_times import FetchTimes
from storage.histogram import Histogram
from storage.units import KIB, MIB

logger = logging.getLogger("nbdserver")

PART_BYTES = 4 * MIB
"""A longer READ is answered in parts of this size: 16 blocks of the store, which are fetched at the same time."""

COPY_BYTES_MAX = 64 * KIB
"""A piece up to this length that may wait to be sent is copied: it would keep its whole block of 256 KiB, and a client
that reads single bytes and no replies would make the server hold all its blocks."""

VIEWED_BYTES_MAX = 256 * KIB
"""A view of a longer buffer, which is the payload of a WRITE, is copied as well, however long it is itself."""

UNDERWAY_BYTES = 8 * KIB
"""What the server holds for each of them beside data, rounded up: its task, its trace, futures, what is waited for."""

STORE_BLOCK_BYTES = 256 * KIB
"""The store gives whole blocks: one that is there is held until the last block of the same READ is."""

_UNREAD = "the data could not be read"


@dataclass(frozen=True, slots=True)
class StoreRead:
    """One READ of [offset, offset + length); `deliver` is given replies, and the bytes of data among them."""

    device: BlockDevice
    replies: Replies
    deliver: Callable[[Parts, int], None]
    waited: Histogram
    """Knows how long each took."""
    cookie: bytes
    offset: int
    length: int
    dont_fragment: bool
    trace: OperationTrace

    async def answer(self) -> None:
        """Deliver the answer, data or error."""
        await self._answer()
        self.waited.add(self.trace.read())

    async def _answer(self) -> None:
        replies = self.replies
        if not isinstance(replies, ChunkedReplies) or self.dont_fragment or self.length <= PART_BYTES:
            await self._at_once()
            return
        offset, end = self.offset, self.offset + self.length
        tasks = []
        async with asyncio.TaskGroup() as group:
            while offset < end:
                step = min(PART_BYTES - offset % PART_BYTES, end - offset)
                tasks.append(group.create_task(self._part(replies, offset, step)))
                offset += step
        if any(task.cancelled() for task in tasks):
            raise RuntimeError("a part of a read was cancelled")  # which a group does not take for a failure
        self.deliver([replies.end(self.cookie)], 0)

    async def _at_once(self) -> None:
        parts: Parts = []
        try:
            pieces = await self._pieces(self.offset, self.length)
        except StorageError as error:
            number = self._failed(self.offset, self.length, error)
            self.deliver([self.replies.error(self.cookie, number, _UNREAD)], 0)
        else:
            self.replies.data(parts, self.cookie, self.offset, self.length, pieces, dont_fragment=self.dont_fragment)
            self.deliver(copied(parts), self.length)

    async def _part(self, replies: ChunkedReplies, offset: int, length: int) -> None:
        parts: Parts = []
        try:
            pieces = await self._pieces(offset, length)
        except StorageError as error:
            number = self._failed(offset, length, error)
            self.deliver([replies.error_at(self.cookie, number, _UNREAD, offset)], 0)
        else:
            replies.part(parts, self.cookie, offset, pieces)
            self.deliver(copied(parts), length)

    async def _pieces(self, offset: int, length: int) -> Sequence[Piece]:
        times = FetchTimes()
        try:
            return await self.device.read(offset, length, times)
        finally:
            self.trace.part_read(times)

    def _failed(self, offset: int, length: int, error: StorageError) -> int:
        self.trace.failed = True
        logger.warning("read_failed", extra={"offset": offset, "length": length, "error": str(error)})
        return nbd_error(error)


def cost(offset: int, length: int) -> int:
    """How many bytes the server may hold for a READ of [offset, offset + length), `length` > 0, until it is sent: whole
    blocks, but for a small part of one, which is copied.
    """
    blocks = (offset + length - 1) // STORE_BLOCK_BYTES - offset // STORE_BLOCK_BYTES + 1
    return UNDERWAY_BYTES + (length if blocks == 1 and length <= COPY_BYTES_MAX else blocks * STORE_BLOCK_BYTES)


def copied(parts: Parts) -> Parts:
    """The same, without views that keep far more in memory than themselves."""
    return [bytes(part) if type(part) is memoryview and _keeps_much(part) else part for part in parts]


def _keeps_much(part: memoryview) -> bool:
    return len(part) <= COPY_BYTES_MAX or retained_bytes(part) > VIEWED_BYTES_MAX
