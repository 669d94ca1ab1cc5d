"""This file knows how to keep the event loop awake for a moment after a request.

A client at queue depth 1 sends its next request as soon as it has its reply. If the loop goes to sleep in
between, waking its core costs 30 us and more in a virtual machine, several times what the request itself
costs; measured with 4 KiB reads on an otherwise idle machine of two cores: 11,000 a second without this and
24,000 with it. So while requests come faster than one a millisecond, the loop looks for the next one TURNS
times (about 2 us each) before it sleeps. A server whose clients are slower, or gone, never spins.

Where others want the processor, a core does not go to sleep and spinning only uses up the loop's share of it
(measured on a busy machine: 15,000 reads a second with it and 38,000 without). That shows in how often the
loop's thread is made to yield: a few times a second on an idle machine, thousands of times on a busy one.
Then it rests.
"""

import asyncio
import resource
from collections.abc import Callable

TURNS = 50
"""About 100 us: longer than a client of the same machine needs to come back, and short beside a disk's."""

WATCH_SECONDS = 0.05
PREEMPTIONS_MAX = 10
"""If the thread was made to yield so often within about WATCH_SECONDS, others need the processor."""

REST_SECONDS = 1.0
"""How long the loop then sleeps as others do: trying again costs a twentieth of it."""


def _preemptions() -> int:
    """How often this thread was made to yield so far."""
    return resource.getrusage(resource.RUSAGE_THREAD).ru_nivcsw


class Wakeful:
    """One for all connections of a loop, since it is the loop that is kept awake."""

    def __init__(self, preemptions: Callable[[], int] = _preemptions) -> None:
        self._loop = asyncio.get_running_loop()
        self._preemptions = preemptions
        self._left = 0
        self._watched_at = 0.0
        self._preempted = 0
        self._resting_until = 0.0

    def stay(self, now: float) -> None:
        """Stay awake for TURNS turns of the loop from now on, unless it is resting. `now` is the loop's
        time."""
        if now < self._resting_until:
            return
        if now - self._watched_at >= WATCH_SECONDS:
            self._watch(now)
        if not self._left:
            self._loop.call_soon(self._turn)
        self._left = TURNS

    def _turn(self) -> None:
        self._left -= 1
        if self._left:
            self._loop.call_soon(self._turn)

    def _watch(self, now: float) -> None:
        """See what staying awake did in the last WATCH_SECONDS, if it is not long ago that we looked."""
        preempted = self._preemptions()
        recent = now - self._watched_at < 2 * WATCH_SECONDS
        if recent and preempted - self._preempted >= PREEMPTIONS_MAX:
            self._resting_until = now + REST_SECONDS
        self._watched_at, self._preempted = now, preempted
