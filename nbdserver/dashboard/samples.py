"""Samples: what the page shows, as one document of a moment, from the same counters as the metrics and `status`.

Only what somebody looks at is sampled. What is in memory at once is in each sample; what takes longer to count (which
SSTs are live, snapshots, when data was last read) is counted so seldom that it takes LOOKING_SHARE of the time at most.
"""

import asyncio
import os
from collections.abc import Awaitable, Callable, Mapping
from typing import Any, Protocol

import msgspec

from nbdserver import __version__
from nbdserver.admin.metrics import Counted
from nbdserver.dashboard.claims import Seen, claims, verdict
from nbdserver.protocol.commands import COMMANDS
from nbdserver.slow_operations import SlowOperation
from storage import Store
from storage.env import Env
from storage.errors import StorageError
from storage.histogram import BOUNDS, Histogram
from storage.stats import BUDGET_STATS, COST_STATS, DEVICE_STATS, STATS

SST_GROUPS = 240
"""As many as one sees side by side."""

SLOW_SECONDS = 15.0
LOOKING_SHARE = 0.01
SLOW_SHOWN_MAX = 40
"""Of the slow operations that ended: the newest. `nbdserver trace` shows more."""

COUNT_SECONDS_MAX = 0.5
"""A sample waits so long for what is being counted, and then shows what was counted before."""

Sample = dict[str, Any]


class _SlowFigure:
    """Something that takes long to count, as it was counted last, with `at` and what went wrong."""

    def __init__(self, count: Callable[[], Awaitable[Any]], env: Env) -> None:
        self._count = count
        self._env = env
        self._due = float("-inf")
        self._counting: asyncio.Task[None] | None = None
        self.found: Sample | None = None

    def refresh(self) -> asyncio.Task[None] | None:
        """Count anew, if it is time; the count that is under way."""
        if self._counting is not None and self._counting.done():
            self._counting = None
        if self._counting is None and self._env.monotonic() >= self._due:
            self._counting = asyncio.create_task(self._refresh())
        return self._counting

    async def _refresh(self) -> None:
        began = self._env.monotonic()
        self._due = float("inf")
        try:
            self.found = {"value": await self._count(), "at": self._env.wall_clock(), "error": None}
        except StorageError as error:
            self.found = {**(self.found or {"value": None, "at": None}), "error": str(error)}
        finally:
            took = self._env.monotonic() - began
            self._due = min(self._due, began + max(SLOW_SECONDS, took / LOOKING_SHARE))

    def expire(self) -> None:
        """Somebody changed something: count anew at the next chance."""
        self._due = float("-inf")

    async def stop(self) -> None:
        """Count no more."""
        if self._counting is not None:
            self._counting.cancel()
            await asyncio.wait([self._counting])


class WatchedServer(Counted, Protocol):
    """The NBD server, as the dashboard sees it."""

    def slow_operations(self, after: int = 0) -> list[SlowOperation]:
        """What clients waited long for: what ended, and then what is under way."""


class Sampler:
    """Makes samples of one server. Owned by the event loop."""

    def __init__(
        self,
        newest: Callable[[], Store],
        server: WatchedServer,
        serving: Callable[[], Sample],
        problems: Callable[[Mapping[str, Any]], list[str]],
        env: Env,
        *,
        scrub_days: Callable[[], float],
        snapshot_seconds: Callable[[], float | None],
        certificate: Callable[[], Sample | None] = lambda: None,
    ) -> None:
        """`serving` gives the server's part of the status, `problems` what is wrong by the status of a store.
        `snapshot_seconds`: so often the server takes a snapshot; None: it does not. It may change, as `scrub_days` may.
        `certificate`: the `path` of that which expires first, and `until` when it is valid; None: there is no TLS.
        """
        self._newest = newest
        self._server = server
        self._serving = serving
        self._problems = problems
        self._env = env
        self._scrub_days = scrub_days
        self._snapshot_seconds = snapshot_seconds
        self._certificate = certificate
        self._usage = _SlowFigure(self._count_usage, env)
        self._ssts = _SlowFigure(self._list_ssts, env)
        self._snapshots = _SlowFigure(self._list_snapshots, env)
        self._reads = _SlowFigure(self._report_reads, env)
        self._slow = (self._usage, self._ssts, self._snapshots, self._reads)

    def expire(self) -> None:
        """Somebody changed something by hand, and wants to see it."""
        self._usage.expire()
        self._snapshots.expire()

    async def stop(self) -> None:
        """Count no more."""
        for slow in self._slow:
            await slow.stop()

    async def take(self) -> Sample:
        """The sample of now."""
        await self.count()
        return self.sample()

    async def count(self) -> None:
        """Count what takes long, where it is time; what is not done soon is in a later sample."""
        if not self._newest().status().closing:
            counts = [count for slow in self._slow if (count := slow.refresh()) is not None]
            if counts:
                await asyncio.wait(counts, timeout=COUNT_SECONDS_MAX)

    def sample(self) -> Sample:
        """What is in memory now, and what was counted last. Up to 0.15 ms, and 13 us for each device."""
        store = self._newest()
        status: Sample = msgspec.to_builtins(store.status())
        now = self._env.wall_clock()
        problems = self._problems(status)
        found = claims(self._seen(now, status, problems))
        return {
            "at": now,
            "version": __version__,
            "pid": os.getpid(),
            "verdict": verdict(found),
            "claims": msgspec.to_builtins(found),
            "problems": problems,
            "serving": self._serving(),
            "store": status,
            "devices": self._devices(store),
            "waits": {"flush": _histogram(self._server.waits.flush), "read": _histogram(self._server.waits.read)},
            "requests": self._requests(store),
            "slow": self._slow_operations(),
            "usage_at": None if self._usage.found is None else self._usage.found["at"],
            "ssts": self._ssts.found,
            "snapshots": self._snapshots.found,
            "reads": self._reads.found,
        }

    def _seen(self, now: float, status: Sample, problems: list[str]) -> Seen:
        behind = now - self._env.monotonic()
        answered = {verb: behind + at for verb, at in self._newest().request_stats.answered.items()}
        reads = self._reads.found
        report = None if reads is None or reads["value"] is None else {**reads["value"], "at": reads["at"]}
        return Seen(
            now=now,
            store=status,
            answered=answered,
            problems=problems,
            reads=report,
            scrub_days=self._scrub_days(),
            snapshots=self._snapshot_summary(),
            snapshot_seconds=self._snapshot_seconds(),
            certificate=self._certificate(),
        )

    def _snapshot_summary(self) -> Sample | None:
        found = self._snapshots.found
        if found is None or found["value"] is None:
            return None
        taken = [each["created"] for each in found["value"]]
        return {"count": len(taken), "newest": max(taken, default=None), "at": found["at"]}

    def _devices(self, store: Store) -> list[Sample]:
        traffic, attached = self._server.traffic(), self._clients_by_export()
        found = []
        for info in store.devices():
            of_one = traffic.get(info.name)
            commands = {} if of_one is None else dict(of_one.commands)
            found.append(
                {
                    "name": info.name,
                    "created": info.created,
                    "usage": msgspec.to_builtins(store.device_usage(info.name)),
                    "clients": attached.get(info.name, 0),
                    "commands": {_command(number): count for number, count in commands.items()},
                    "received": 0 if of_one is None else of_one.received,
                    "sent": 0 if of_one is None else of_one.sent,
                }
            )
        return found

    def _slow_operations(self) -> list[Sample]:
        """The newest that ended, newest first, behind those that are under way."""
        found = self._server.slow_operations()
        ended = [each for each in found if each.number]
        shown = [*(each for each in found if not each.number), *ended[: -SLOW_SHOWN_MAX - 1 : -1]]
        return [msgspec.to_builtins(each) for each in shown]

    def _clients_by_export(self) -> dict[str, int]:
        found: dict[str, int] = {}
        for client in self._server.clients():
            if client["export"] is not None:
                found[client["export"]] = found.get(client["export"], 0) + 1
        return found

    def _requests(self, store: Store) -> Sample:
        stats = store.request_stats
        return {
            verb: {"count": count, "failed": stats.failed[verb], **_histogram(stats.seconds[verb])}
            for verb, count in stats.requests.items()
        }

    async def _count_usage(self) -> bool:
        await self._newest().count_usage()
        return True

    async def _list_ssts(self) -> Any:
        return msgspec.to_builtins(await self._newest().pictures.ssts(SST_GROUPS))

    async def _list_snapshots(self) -> Any:
        return [msgspec.to_builtins(each) for each in await self._newest().snapshots.list()]

    async def _report_reads(self) -> Any:
        return msgspec.to_builtins(await self._newest().maintenance.read_report())


def about() -> Sample:
    """What does not change: the list of figures with their formulas, and the bounds of histograms in seconds."""
    listed = {
        name: [
            {
                "name": stat.name,
                "kind": stat.kind.value,
                "unit": stat.unit,
                "meaning": stat.meaning,
                "formula": stat.formula,
            }
            for stat in stats
        ]
        for name, stats in (("store", (*STATS, *COST_STATS, *BUDGET_STATS)), ("device", DEVICE_STATS))
    }
    return {"stats": listed, "bounds": list(BOUNDS)}


def _histogram(histogram: Histogram) -> Sample:
    return {"counts": list(histogram.counts), "seconds": histogram.seconds}


def _command(number: int) -> str:
    known = COMMANDS.get(number)
    return "invalid" if known is None else known.name.lower()
