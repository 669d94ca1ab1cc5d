"""The flush trigger: when a memtable is flushed."""

import asyncio
from collections.abc import Awaitable, Callable

from storage.lsm.memtable.memtable import Memtable
from storage.lsm.options import EngineOptions
from storage.lsm.wal.position import LogPosition
from storage.units import MIB


class FlushTrigger:
    """Says when to flush: log or memtable are long, or `flush_seconds` have passed. Owned by the event loop."""

    def __init__(self, options: EngineOptions) -> None:
        self._options = options
        self._wanted = asyncio.Event()

    def pull(self) -> None:
        """Flush now."""
        self._wanted.set()

    def log_moved(self, position: LogPosition, memtable: Memtable) -> None:
        """Flush now, if either is long."""
        # What is kept would be written to the log again by a flush, which so could ask for the next one for ever.
        size = position.logged_bytes - memtable.kept_bytes
        many = len(position.objects) >= self._options.flush_objects and memtable.holds_more_than_kept
        long = many or size >= self._options.log_bytes_max // 4
        uploaded = sum(max(sst.size, MIB) for sst in memtable.ssts)
        long = long or uploaded >= self._options.flush_uploaded_bytes
        if long or memtable.bytes - memtable.kept_bytes >= self._options.flush_bytes:
            self.pull()

    async def run(self, flush: Callable[[], Awaitable[None]]) -> None:
        """Flush whenever it is time, for ever."""
        while True:
            await self.wait()
            await flush()

    async def wait(self) -> None:
        """Return when it is time; then it counts from the beginning."""
        try:
            async with asyncio.timeout(self._options.flush_seconds):
                await self._wanted.wait()
        except TimeoutError:
            pass
        self._wanted.clear()
