"""The limit of a world in real time: one that hangs ends, and says where it hung.

What hangs in virtual time is a loop that never comes back to the event loop, so a signal interrupts it. It counts the
time of the processor, not of the clock: how busy the machine is says nothing about a world. (A test that waits for
something that never comes has the limit of all tests.)
"""

import signal
import traceback
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType

WORLD_SECONDS_MAX = 90.0
"""Seconds of a processor: the busiest worlds take a tenth of that."""

AGAIN_SECONDS = 1.0
FRAMES_SHOWN = 12


class Hung(BaseException):
    """Raised in the midst of what hangs, and again if that is caught."""


@contextmanager
def time_limit(seconds: float, report: Callable[[str], None]) -> Iterator[None]:
    """Raise Hung in what is inside after that long, and tell `report` where that was. For the main thread."""

    def interrupt(number: int, frame: FrameType | None) -> None:
        report("".join(traceback.format_stack(frame, limit=None)[-FRAMES_SHOWN:]))
        raise Hung

    before = signal.signal(signal.SIGPROF, interrupt)
    signal.setitimer(signal.ITIMER_PROF, seconds, AGAIN_SECONDS)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_PROF, 0)
        signal.signal(signal.SIGPROF, before)
