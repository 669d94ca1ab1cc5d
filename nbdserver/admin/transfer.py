"""Whole devices, read and filled: in large pieces, several at once, holes
left out.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections import deque
from collections.abc import AsyncGenerator, AsyncIterable, AsyncIterator, Callable, Sequence
from typing import TYPE_CHECKING

from nbdserver.admin.asked import Answer
from nbdserver.admin.content_frames import DATA_BYTES_MAX, Piece, TooLong
from nbdserver.block_device import BlockDevice
from storage.errors import Conflict, Corrupt, Invalid, NotFound, StorageError, Unreadable
from storage.format.frame import BLOCK_BYTES, SECTOR_BYTES
from storage.fs.metadata.inodes import SIZE_STEP_BYTES
from storage.units import GIB, KIB

if TYPE_CHECKING:
    from storage import Store

READS_AT_ONCE = 8
"""Of `DATA_BYTES_MAX` each: a store that answers in 50 ms then gives 160 MB/s."""

SCAN_BYTES = GIB
"""Asked of the map of a device in one step, so that the loop is not held up by a large one."""

EXCLUSIVE_USER = "an import"
"""What has a device while it is filled."""

ZERO_COSTS_BYTES = 4 * KIB
"""What a range of zeros, however long, counts as beside data."""

ZERO = 2
"""The flag of a range that reads as zeros (`NBD_STATE_ZERO`)."""


async def dump(device: BlockDevice, size: int) -> AsyncGenerator[Piece, None]:
    """The data of the first `size` bytes of a device in ascending order; what is left out is zeros.

    A device that is written to meanwhile gives each piece as it was when that piece was read; one that has grown is
    read to where it ended. Conflict: it was made smaller, rolled back, replaced or deleted. StorageError: its map does
    not say what is where.
    """
    if device.exclusive_user is not None:
        raise Conflict(f"the device is in use by {device.exclusive_user}: export it when that is done")
    disk = device.identity
    async with contextlib.aclosing(read_in_order(device, data_ranges(device, size))) as parts:
        async for offset, pieces in parts:
            _refuse_another(device, disk, size)
            for piece in _with_offsets(offset, pieces):
                yield piece
    _refuse_another(device, disk, size)


async def read_in_order(
    device: BlockDevice, ranges: AsyncIterable[tuple[int, int]]
) -> AsyncGenerator[tuple[int, Sequence[bytes | bytearray | memoryview | int]]]:
    """Where each range begins, and its pieces (an integer: so many zeros); several are read at once."""
    under_way: deque[tuple[int, asyncio.Task[Sequence[bytes | bytearray | memoryview | int]]]] = deque()
    try:
        async for offset, length in ranges:
            if len(under_way) == READS_AT_ONCE:
                at, task = under_way.popleft()
                yield at, await task
            under_way.append((offset, asyncio.ensure_future(device.read(offset, length))))
        while under_way:
            at, task = under_way.popleft()
            yield at, await task
    finally:
        for _, task in under_way:
            task.cancel()
        await asyncio.gather(*(task for _, task in under_way), return_exceptions=True)


async def salvage(device: BlockDevice, size: int) -> AsyncGenerator[tuple[int, bytes | int], None]:
    """(offset, data) of what can be read of the first `size` bytes of a device, and (offset, length) of each sector
    that cannot, in ascending order; what is left out is zeros. Sectors are tried one by one only where more cannot be
    read.
    """
    async for offset, length in data_ranges(device, size):
        async for part in _salvage(device, offset, length):
            yield part


async def _salvage(device: BlockDevice, offset: int, length: int) -> AsyncGenerator[tuple[int, bytes | int], None]:
    try:
        for position, data in await _read(device, offset, length):
            yield position, bytes(data)
        return
    except (Corrupt, Unreadable):
        if length <= SECTOR_BYTES:
            yield offset, length
            return
    step = BLOCK_BYTES if length > BLOCK_BYTES else SECTOR_BYTES
    at = offset
    while at < offset + length:
        end = min(offset + length, at - at % step + step)
        async for part in _salvage(device, at, end - at):
            yield part
        at = end


def _refuse_another(device: BlockDevice, disk: str, size: int) -> None:
    """Conflict: what was read last need not be of one disk with what was read before it."""
    if device.size < size:
        raise Conflict(f"the device was made smaller, from {size} to {device.size} bytes, while it was read")
    if device.identity != disk:
        raise Conflict("the device was rolled back, replaced or deleted while it was read: export it again")


async def import_device(
    store: Store,
    name: str,
    pieces: Callable[[int], AsyncIterable[Piece]],
    *,
    size: int | None,
    overwrite: bool,
) -> Answer:
    """Fill the device `name` with what `pieces`, told how many bytes there is room for, gives; durable on
    return.

    A device that is not there is made with `size` bytes, the size of the source where that is known, and is gone again
    if the source fails; one that is there is then as it was. Conflict: the device is too small, attached, or holds data
    and not `overwrite`.
    """
    try:
        store.device(name)
    except NotFound:
        if size is None:
            raise Invalid(f"how large is {name!r} to be? Make it with device create before it is filled") from None
        room = -(-size // SIZE_STEP_BYTES) * SIZE_STEP_BYTES
        async with store.filling.new(name, room, EXCLUSIVE_USER) as device:
            await _fill(device, pieces(device.size))
    else:

        async def check(device: BlockDevice) -> None:
            if size is not None and size > device.size:
                raise Conflict(f"{name!r} has {device.size} bytes, {size} are to be written: make it larger first")
            if not (overwrite or await _is_empty(device)):
                raise Conflict("there is data on this device already: give --overwrite to replace all of it")

        async with store.filling.over(name, EXCLUSIVE_USER, check) as device:
            device.zero(0, device.size, allocated=False)
            await _fill(device, pieces(device.size))
    return {"name": name, "size": device.size}


async def _fill(device: BlockDevice, pieces: AsyncIterable[Piece]) -> None:
    """Have a device of zeros hold exactly `pieces`."""
    filler = Filler(device)
    async for offset, data in pieces:
        if offset + len(data) > device.size:
            raise Conflict(str(TooLong(device.size)))
        await filler.write(offset, bytes(data))


class Filler:
    """Writes to a device as fast as that takes it, beside its other clients."""

    def __init__(self, device: BlockDevice) -> None:
        self._device = device
        self._limiter = device.gate.rate_limiter(asyncio.get_running_loop().time)
        self._turn = asyncio.Event()

    async def write(self, offset: int, data: bytes) -> None:
        """These bytes, which lie in the device."""
        await self._open(len(data))
        self._device.write(offset, data)
        # Even without a delay the loop gets its turn: others are served meanwhile.
        await asyncio.sleep(self._limiter.delay(len(data)))

    async def zero(self, offset: int, length: int) -> None:
        """So many zeros."""
        await self._open(ZERO_COSTS_BYTES)
        self._device.zero(offset, length, allocated=False)
        await asyncio.sleep(self._limiter.delay(ZERO_COSTS_BYTES))

    async def _open(self, cost: int) -> None:
        """Wait for a turn. It is the same writer at each, to the gate: who has had much lets others go before."""
        gate = self._device.gate
        if gate.closed:
            self._turn.clear()
            gate.when_open(self._turn.set, cost)
            try:
                await self._turn.wait()
            except BaseException:
                gate.forget(self._turn.set)
                raise


async def _is_empty(device: BlockDevice) -> bool:
    """Whether the device reads as zeros everywhere, by its map alone."""
    async for _ in data_ranges(device, device.size):
        return False
    return True


async def data_ranges(device: BlockDevice, size: int) -> AsyncIterator[tuple[int, int]]:
    """(offset, length) of what may not be zeros in the first `size` bytes, cut at multiples of `DATA_BYTES_MAX`.

    The map may answer less than it was asked: the next question begins where the answer ended. What it leaves out
    altogether would come out as zeros, so an answer that leads no further ends the transfer.
    """
    position = 0
    while position < size:
        begin = end = position
        for length, flags in device.extents(begin, min(SCAN_BYTES, size - begin)):
            end = min(end + length, size)
            while position < end:
                step = min(DATA_BYTES_MAX - position % DATA_BYTES_MAX, end - position)
                if flags & ZERO:
                    step = end - position
                else:
                    yield position, step
                position += step
        if position == begin:
            raise StorageError(f"the map of the device ends at byte {begin} of {size}: its data cannot be copied")
        await asyncio.sleep(0)


async def _read(device: BlockDevice, offset: int, length: int) -> list[Piece]:
    return _with_offsets(offset, await device.read(offset, length))


def _with_offsets(offset: int, pieces: Sequence[bytes | bytearray | memoryview | int]) -> list[Piece]:
    """The data of a range that begins at `offset`; zeros are left out."""
    found: list[Piece] = []
    for piece in pieces:
        if isinstance(piece, int):
            offset += piece
        else:
            found.append((offset, piece))
            offset += len(piece)
    return found
