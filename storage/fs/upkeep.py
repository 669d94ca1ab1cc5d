"""Upkeep: what the writer of a store does by itself: snapshots are taken as scheduled, and all data is scrubbed.

How often may be changed at any time; nothing that was done is undone by it. In particular snapshots that a schedule
took stay when there is no schedule any more: who has taken none for a year must not lose the last ones to a line that
was deleted.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import TypeVar

from storage.fs.snapshots.retention import Keep
from storage.fs.snapshots.scheduling import Untaken

T = TypeVar("T")


class Upkeep:
    """Has the snapshots of one store taken as scheduled, and its data scrubbed; before `begin`, and so in a process
    that does not write the store, nothing is done. Owned by the event loop.
    """

    def __init__(
        self,
        start_schedule: Callable[[Keep], asyncio.Task[None]],
        start_scrub: Callable[[float], asyncio.Task[None]],
    ) -> None:
        """Each begins its work, which goes on until its task is cancelled."""
        self._start_schedule = start_schedule
        self._start_scrub = start_scrub
        self.untaken: dict[str, Untaken] = {}
        """The devices of which the schedule takes no snapshot now, as it keeps them."""
        self._begun = False
        self._keep: Keep = {}
        self._schedule: asyncio.Task[None] | None = None
        self._scrub_seconds: float | None = None
        self._scrub: asyncio.Task[None] | None = None

    def begin(self, keep: Keep, scrub_seconds: float | None) -> None:
        """From now on snapshots are taken, and all data is read once in so many seconds; an empty `keep`, None: not."""
        self._begun = True
        self.change(keep, scrub_seconds)

    def end(self) -> None:
        """Nothing is begun any more; what goes on ends with the engine."""
        self._begun = False

    def change(self, keep: Keep, scrub_seconds: float | None) -> None:
        """From now on as `begin` says. What is under way is begun anew, and what is as it was goes on."""
        if not self._begun:
            return
        if keep != self._keep:
            self._keep = dict(keep)
            self._schedule = _instead(self._schedule, self._start_schedule, keep or None)
        if scrub_seconds != self._scrub_seconds:
            self._scrub_seconds = scrub_seconds
            self._scrub = _instead(self._scrub, self._start_scrub, scrub_seconds)


def _instead(
    running: asyncio.Task[None] | None, start: Callable[[T], asyncio.Task[None]], wanted: T | None
) -> asyncio.Task[None] | None:
    """End what runs; what is wanted is begun."""
    if running is not None:
        running.cancel()
    return None if wanted is None else start(wanted)
