"""Curves: two hours of what clients did and waited for, in steps of ten seconds, whether anybody looks or not.

A look takes what the metrics have, some microseconds for each device and client, and nothing that has to be counted.
"""

import asyncio
import logging
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from nbdserver.admin.metrics import Counted
from nbdserver.protocol import wire
from storage.env import Env
from storage.histogram import BOUNDS, Histogram

CURVE_STEP_SECONDS = 10.0
CURVE_POINTS_MAX = 720

CURVES = ("received", "sent", "reads", "writes", "flush_p99", "read_p99", "store_requests")
"""The figures of a point behind its time: bytes a second from and to clients, their requests a second, the seconds
within which 99 of 100 flushes and reads from the store were done that ended in the step (None: there were none), and
requests a second to the store."""

CHANGES = (wire.CMD_WRITE, wire.CMD_WRITE_ZEROES, wire.CMD_TRIM)

CurvePoint = list[float | None]
"""When it was, in seconds since 1970, and the `CURVES`."""

logger = logging.getLogger("nbdserver")


class Curves:
    """Those of one server, since it listens. Owned by the event loop."""

    def __init__(self, server: Counted, requests: Callable[[], Mapping[str, int]], env: Env) -> None:
        """`requests` gives how often the store was asked so far, by verb."""
        self._server = server
        self._requests = requests
        self._env = env
        self._points: deque[tuple[float, CurvePoint]] = deque(maxlen=CURVE_POINTS_MAX)
        """Each behind the moment of the monotonic clock it is asked for by: the wall clock may be set back."""
        self._before = self._counted()

    def look(self) -> None:
        """Add the point of what happened since the last look."""
        before, self._before = self._before, self._counted()
        (began, counts, flushes, reads), (now, counts_now, flushes_now, reads_now) = before, self._before
        took = now - began
        if took <= 0:
            return
        received, sent, read, written, asked = (max(b - a, 0) / took for a, b in zip(counts, counts_now, strict=True))
        waited = slowest(flushes, flushes_now), slowest(reads, reads_now)
        self._points.append((now, [self._env.wall_clock(), received, sent, read, written, *waited, asked]))

    async def run(self) -> None:
        """Look again and again, until it is cancelled."""
        while True:
            await asyncio.sleep(CURVE_STEP_SECONDS)
            try:
                self.look()
            except Exception:
                logger.exception("dashboard_curves_failed")

    def after(self, moment: float) -> dict[str, Any]:
        """The points behind the one that was the `newest` of an earlier answer, oldest first, with their names; all of
        them for 0, and for a moment that is yet to come: it is of a machine that was booted since.
        """
        since = 0.0 if moment > self._env.monotonic() else moment
        points = [point for at, point in self._points if at > since]
        newest = self._points[-1][0] if self._points else since
        return {"step_seconds": CURVE_STEP_SECONDS, "names": ["at", *CURVES], "points": points, "newest": newest}

    def _counted(self) -> tuple[float, list[int], list[int], list[int]]:
        """When, counters, and the histograms of what was waited for."""
        traffic, waits = self._server.traffic().values(), self._server.waits
        counts = [
            sum(each.received for each in traffic),
            sum(each.sent for each in traffic),
            sum(each.commands.get(wire.CMD_READ, 0) for each in traffic),
            sum(each.commands.get(command, 0) for each in traffic for command in CHANGES),
            sum(self._requests().values()),
        ]
        return self._env.monotonic(), counts, list(waits.flush.counts), list(waits.read.counts)


def slowest(before: Sequence[int], after: Sequence[int]) -> float | None:
    """The bound within which 99 of 100 lie that were counted in between, 100 s at most; None: there were none."""
    step = Histogram()
    step.counts = [two - one for one, two in zip(before, after, strict=True)]
    wanted = 0.99 * step.count
    if not wanted:
        return None
    return next(min(bound, BOUNDS[-1]) for bound, count in step.cumulative() if count >= wanted)
