"""Scrub: all data of a store is read and opened now and then, slowly and beside clients, so that damage is found while
a copy of what was there may still exist.

An SST is due when half a period has passed since it was written, or was last read and was sound. Those that are due
are read one after the other, the longest due first, at a pace at which half a period is enough for the whole store. So
while a server runs nothing goes unread for longer than a period, unless a budget of requests slows it. One that is
damaged, or that the store withholds, is read again after a day. What was written or read at a time that is yet to come,
by a clock that was ahead, is due at once.

A crash forgets what was read in the last ten minutes. What is found is logged, and said by `status`
until the SST was read and was sound, or is gone.
"""

import asyncio
import logging
from collections.abc import Callable, Iterable, Mapping, Sequence

from storage.check.read_data import DataReader
from storage.check.read_run import ReadRun
from storage.check.read_times import ReadTimes, StoredReadTimes
from storage.env import Env, first_id_at, written_at
from storage.errors import StorageError
from storage.format.blocks import SstRef
from storage.format.names import sst_name
from storage.lsm.engine import Engine
from storage.units import MIB

SCRUB_LOOK_SECONDS = 600.0
"""Between two looks at what is due: so long what is new, or has gone, is not known."""

SCRUB_AGAIN_SECONDS = 24 * 3600.0
"""After which a damaged SST is read again."""

DUE_AT_ONCE = 512
"""SSTs that are looked at between two turns of the event loop: of one that was never read its name says when it was
written, which takes some microseconds.
"""

CLOCKS_APART_SECONDS = 3600.0
"""So far behind the clock of who wrote an SST this one may be, and not wrong: it was another host's."""

SCRUB_RATE_MIN = MIB
"""Bytes a second: a small store need not take days."""

_log = logging.getLogger("nbdserver")


class Scrub:
    """Scrubs for one writer. Owned by the event loop."""

    def __init__(
        self,
        *,
        period_seconds: float,
        read_times: StoredReadTimes,
        reader: DataReader,
        listed: Callable[[], Iterable[SstRef]],
        env: Env,
        slowdown: Callable[[], float] = lambda: 1.0,
    ) -> None:
        """`listed` gives the SSTs that count now, `slowdown` how many times slower than it should be it may read."""
        self._period = period_seconds
        self._read_times = read_times
        self._reader = reader
        self._listed = listed
        self._env = env
        self._slowdown = slowdown
        self._tried: dict[str, float] = {}
        """When those that were not sound were read, by the wall clock."""

    def start(self, engine: Engine) -> asyncio.Task[None]:
        """Begin, on that writer; it ends this with itself."""
        return engine.background.start("scrub", self.run, on_failure=engine.fail)

    async def run(self) -> None:
        """Read what is due, for ever."""
        while True:
            pause = await self.round()
            await asyncio.sleep(pause)

    async def round(self) -> float:
        """Read for about ten minutes of what is due, the longest due first; the seconds until the next round."""
        began = self._env.monotonic()
        reads = await self._read_times.load()
        listed = list(self._listed())
        reads.forget_all_but({ref.id for ref in listed})
        self._tried = {sst: at for sst, at in self._tried.items() if sst in reads.damaged}
        due = await all_due(listed, reads, self._tried, now=self._env.wall_clock(), period=self._period)
        rate = scrub_rate(listed, self._period) / self._slowdown()
        run = ReadRun(self._reader, reads, self._env, rate=rate, save=self._read_times.save)
        read = False
        for ref in due:
            started = self._env.monotonic()
            if started - began >= SCRUB_LOOK_SECONDS:
                break
            read = True
            try:
                finding = await run.one(ref)
            except StorageError as error:
                # It only reads: whatever the store answers ends neither the scrub nor the server.
                _log.info("scrub_waits", extra={"object": sst_name(ref.id), "error": str(error)})
                return SCRUB_LOOK_SECONDS
            if finding is not None:
                self._tried[ref.id] = self._env.wall_clock()
                said = {"object": finding.object, "finding": finding.sentence, "ranges": len(finding.ranges)}
                _log.error("scrub_found", extra=said)
            await asyncio.sleep(max(ref.index_offset / rate - (self._env.monotonic() - started), 0.0))
        if read:
            await self._read_times.save()
        return max(SCRUB_LOOK_SECONDS - (self._env.monotonic() - began), 0.0)


async def all_due(
    listed: Sequence[SstRef], reads: ReadTimes, tried: Mapping[str, float], *, now: float, period: float
) -> list[SstRef]:
    """The SSTs that are due at `now`, seconds since 1970, the longest due first; looked up in steps."""
    young, ahead = first_id_at(now - period / 2), first_id_at(now + CLOCKS_APART_SECONDS)
    due = []
    for number, ref in enumerate(listed, 1):
        if number % DUE_AT_ONCE == 0:
            await asyncio.sleep(0)
        if ref.id in reads.damaged:
            seen, rest = tried.get(ref.id, 0.0), SCRUB_AGAIN_SECONDS
        elif ref.id in reads.read:
            seen, rest = reads.read[ref.id], period / 2
        elif ref.id < young or ref.id >= ahead:
            seen, rest = written_at(ref.id), period / 2
        else:
            continue
        at = seen + rest if seen <= now else now
        if at <= now:
            due.append((at, ref.id, ref))
    return [ref for _, _, ref in sorted(due)]


def scrub_rate(listed: Iterable[SstRef], period: float) -> float:
    """Bytes a second at which half a period is enough for all."""
    return max(sum(ref.index_offset for ref in listed) / (period / 2), SCRUB_RATE_MIN)
