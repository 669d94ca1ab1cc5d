"""A disk in memory that does all the connections ask of a device, and nothing else.

Blocks of 256 KiB hold whole blocks as they were written, sectors of 4 KiB what was written in smaller pieces;
a write that is not aligned is merged into its sectors. Durability is the test's to say: nothing is durable
until `commit()`, unless `durable_at_once` is set. `misses` makes reads wait until the test lets them go.
"""

import asyncio
from collections.abc import Callable

from nbdserver.access import AccessList
from nbdserver.exports import Exports
from nbdserver.protocol.replies import Piece
from storage.errors import NotFound
from storage.fetch_times import FetchTimes

SECTOR = 4096
BLOCK = 1 << 18
Data = bytes | bytearray | memoryview


class MemoryGate:
    """A gate that the test opens and closes."""

    def __init__(self) -> None:
        self.seconds = 0.0
        """How long each reply is delayed."""
        self.closed = False
        self.waiting: dict[Callable[[], None], int] = {}

    @property
    def slows(self) -> bool:
        return self.seconds > 0

    def rate_limiter(self, clock: Callable[[], float]) -> "MemoryGate":
        return self

    def delay(self, length: int) -> float:
        return self.seconds

    def when_open(self, callback: Callable[[], None], length: int) -> None:
        self.waiting[callback] = length
        if not self.closed:
            asyncio.get_running_loop().call_soon(self._go_on)

    def forget(self, callback: Callable[[], None]) -> None:
        self.waiting.pop(callback, None)

    def _go_on(self) -> None:
        if not self.closed:
            self.open()

    def open(self, turns: int | None = None) -> None:
        """Let everybody through, one write each in turns; after so many of them it closes again."""
        self.closed = True  # until they have had their turns
        while self.waiting and turns != 0:
            callback = next(iter(self.waiting))
            del self.waiting[callback]
            callback()
            turns = None if turns is None else turns - 1
        self.closed = turns is not None


class MemoryJournal:
    """A journal that notes how many replies were held for it."""

    def __init__(self) -> None:
        self.pending: list[object] = []

    def keep(self) -> None:
        self.pending.clear()


class MemoryHistory:
    """Snapshots, and what changed since each: (length, flags)."""

    def __init__(self) -> None:
        self.changes: dict[str, list[tuple[int, int]]] = {}

    def snapshots(self) -> list[str]:
        return list(self.changes)

    def since(self, snapshot: str) -> "MemoryChanges":
        if snapshot not in self.changes:
            raise NotFound(f"there is no snapshot {snapshot}")
        return MemoryChanges(self.changes[snapshot])


class MemoryChanges:
    """Those since one snapshot; none left: it is gone."""

    def __init__(self, changes: list[tuple[int, int]]) -> None:
        self.changes = changes

    def extents(self, offset: int, length: int) -> list[tuple[int, int]]:
        if not self.changes:
            raise NotFound("the snapshot was deleted")
        return self.changes


class MemoryDevice:
    """A disk of `size` bytes."""

    def __init__(self, size: int, *, read_only: bool = False, durable_at_once: bool = True) -> None:
        self.size = size
        self.read_only = read_only
        self.identity = "disk"
        self.is_view = False
        self.exclusive_user: str | None = None
        self.gate = MemoryGate()
        self.journal = MemoryJournal()
        self.history = MemoryHistory()
        self.last_sequence = 0
        self.durable_sequence = 0
        self.durable_at_once = durable_at_once
        self.misses: asyncio.Event | None = None
        """While set and not released, reads are misses that wait for it."""
        self.failure: Exception | None = None
        """What every read that misses raises."""
        self.reads_under_way = 0
        self.prefetched: list[tuple[int, int]] = []
        self._listeners: dict[Callable[[int], None], None] = {}
        self._blocks: dict[int, Data] = {}
        self._sectors: dict[int, Data] = {}
        self._allocated: set[int] = set()
        """Sectors that are zero but keep their space."""

    # Reading

    def read_cached(self, offset: int, length: int) -> list[Piece] | None:
        if self.misses is not None:
            return None
        return self._pieces(offset, length)

    async def read(self, offset: int, length: int, times: FetchTimes | None = None) -> list[Piece]:
        self.reads_under_way += 1
        try:
            if self.misses is not None:
                await self.misses.wait()
            if self.failure is not None:
                raise self.failure
            return self._pieces(offset, length)
        finally:
            self.reads_under_way -= 1

    def _pieces(self, offset: int, length: int) -> list[Piece]:
        sector, within = divmod(offset, SECTOR)
        if within + length <= SECTOR:
            data = self._sectors.get(sector)
            if data is not None:
                return [data if length == SECTOR else memoryview(data)[within : within + length]]
        pieces: list[Piece] = []
        end = offset + length
        if length == BLOCK and not offset % BLOCK and self._sectors:
            self._assemble(offset // BLOCK)
        while offset < end:
            block, within = divmod(offset, BLOCK)
            data = self._blocks.get(block)
            if data is not None:
                step = min(BLOCK - within, end - offset)
                pieces.append(data if step == BLOCK else memoryview(data)[within : within + step])
            else:
                sector, within = divmod(offset, SECTOR)
                step = min(SECTOR - within, end - offset)
                data = self._sectors.get(sector)
                if data is not None:
                    pieces.append(data if step == SECTOR else memoryview(data)[within : within + step])
                elif pieces and isinstance(before := pieces[-1], int):
                    pieces[-1] = before + step
                else:
                    pieces.append(step)
            offset += step
        return pieces

    def _assemble(self, block: int) -> None:
        """Make one buffer of a block all of whose sectors are there, as an engine's cache does: 64 pieces
        cost a reply more than copying them once."""
        first = block * (BLOCK // SECTOR)
        sectors = list(map(self._sectors.get, range(first, first + BLOCK // SECTOR)))
        if None not in sectors:
            self._blocks[block] = b"".join(sectors)  # type: ignore[arg-type]
            for index in range(first, first + BLOCK // SECTOR):
                del self._sectors[index]

    def contents(self, offset: int, length: int) -> bytes:
        """The bytes of a range, for a test to compare."""
        return b"".join(bytes(piece) for piece in self._pieces(offset, length))

    def extents(self, offset: int, length: int) -> list[tuple[int, int]]:
        if not (self._sectors or self._blocks or self._allocated):
            return [(length, 3)]
        found: list[tuple[int, int]] = []
        end = offset + length
        while offset < end:
            sector, within = divmod(offset, SECTOR)
            block = offset // BLOCK
            step = min(SECTOR - within, end - offset)
            if sector in self._sectors or block in self._blocks:
                flags = 0
            else:
                flags = 2 if sector in self._allocated else 3
            found.append((step, flags))
            offset += step
        return found

    def prefetch(self, offset: int, length: int) -> None:
        self.prefetched.append((offset, length))

    # Writing

    def write(self, offset: int, data: Data) -> int:
        length = len(data)
        if length == BLOCK and not offset % BLOCK:
            self._drop(offset, length)
            self._blocks[offset // BLOCK] = data
        elif length == SECTOR and not offset % SECTOR and offset // BLOCK not in self._blocks:
            self._sectors[offset // SECTOR] = data
        else:
            self._write_parts(offset, memoryview(data))
        return self._written()

    def _write_parts(self, offset: int, data: memoryview) -> None:
        while data:
            sector, within = divmod(offset, SECTOR)
            self._split(offset // BLOCK)
            step = min(SECTOR - within, len(data))
            old = self._sectors.get(sector, bytes(SECTOR))
            self._sectors[sector] = b"".join((old[:within], data[:step], old[within + step :]))
            offset += step
            data = data[step:]

    def _split(self, block: int) -> None:
        """Turn a whole block into sectors, so that one of them can change."""
        data = self._blocks.pop(block, None)
        if data is not None:
            first = block * (BLOCK // SECTOR)
            view = memoryview(data)
            for index in range(BLOCK // SECTOR):
                self._sectors[first + index] = bytes(view[index * SECTOR : (index + 1) * SECTOR])

    def zero(self, offset: int, length: int, *, allocated: bool) -> int:
        end = offset + length
        first, last = -(-offset // SECTOR), end // SECTOR
        if first > last:
            self._zero_part(offset, length)
        else:
            self._zero_part(offset, first * SECTOR - offset)
            self._zero_part(last * SECTOR, end - last * SECTOR)
            self._drop(first * SECTOR, (last - first) * SECTOR)
            if allocated:
                self._allocated.update(range(first, last))
        return self._written()

    def _zero_part(self, offset: int, length: int) -> None:
        """Zero less than a sector, unless it is zero because nothing was ever written there."""
        if offset // SECTOR in self._sectors or offset // BLOCK in self._blocks:
            self._write_parts(offset, memoryview(bytes(length)))

    def _drop(self, offset: int, length: int) -> None:
        """Forget whole sectors; cheap for a range of any length, as it looks at what is there."""
        first, last = offset // SECTOR, (offset + length) // SECTOR
        per_block = BLOCK // SECTOR
        if length == BLOCK:
            self._blocks.pop(offset // BLOCK, None)
            touched = []
        else:
            touched = [block for block in self._blocks if first < (block + 1) * per_block and block * per_block < last]
        for block in touched:
            self._split(block)
        if not self._sectors:
            self._sectors = {}  # iterating over a dictionary that was emptied is as slow as when it was full
        elif last - first <= len(self._sectors):
            for sector in range(first, last):
                self._sectors.pop(sector, None)
        else:
            for sector in [sector for sector in self._sectors if first <= sector < last]:
                del self._sectors[sector]
        if self._allocated:
            self._allocated = {sector for sector in self._allocated if not first <= sector < last}

    def _written(self) -> int:
        self.last_sequence += 1
        if self.durable_at_once:
            self.durable_sequence = self.last_sequence
        return self.last_sequence

    # Durability

    def want_durable(self, sequence: int) -> bool:
        return sequence <= self.durable_sequence

    def listen(self, listener: Callable[[int], None]) -> None:
        self._listeners[listener] = None

    def unlisten(self, listener: Callable[[int], None]) -> None:
        self._listeners.pop(listener, None)

    def commit(self, sequence: int | None = None) -> None:
        """Make everything up to `sequence` durable (all by default) and tell who listens."""
        self.durable_sequence = self.last_sequence if sequence is None else sequence
        for listener in list(self._listeners):
            listener(self.durable_sequence)


def memory_exports(
    devices: dict[str, MemoryDevice],
    *,
    read_only: bool = False,
    only: list[str] | None = None,
    default: str | None = None,
    exclusive: bool = False,
    access: AccessList | None = None,
) -> Exports:
    """Exports of these devices; the dictionary may change later."""

    def lookup(name: str) -> MemoryDevice:
        device = devices.get(name)
        if device is None:
            raise NotFound(f"no device named {name}")
        return device

    return Exports(
        lookup,
        lambda: sorted(devices),
        read_only=read_only,
        only=only,
        default=default,
        exclusive=exclusive,
        access=access,
    )
