"""The flood filter of the log: so many records of one event a minute.

So whoever makes an event happen again and again (a client in a loop of attaching and leaving, a filesystem that asks
for a broken block for ever) does not fill a disk with it.

What is left out is counted, and said with the next record of that event. Errors are never left out but those with a
traceback: one that a client's every request meets again would be thousands of them a minute. Nor is what is logged for
who asked for all of it (`-v`).
"""

import logging
from dataclasses import dataclass

EVERY_SECONDS = 60.0

RECORDS = 60
"""Of one event in that time."""


@dataclass(slots=True)
class _Repeated:
    ends: float
    records: int = 0
    left_out: int = 0


class FloodFilter(logging.Filter):
    """For a handler. Our events have names that never vary, so what is remembered is as much as there are names. The
    words of libraries vary, and pass.
    """

    def __init__(self) -> None:
        super().__init__()
        self._events: dict[str, _Repeated] = {}

    def filter(self, record: logging.LogRecord) -> bool:
        """Whether the record may pass; it then has the field `left_out` if others of its event did not."""
        if record.name != "nbdserver" or not _is_counted(record):
            return True
        event = self._events.get(record.msg)
        # The clock of records may be set back: then what it showed before says nothing.
        if event is None or not event.ends - EVERY_SECONDS <= record.created < event.ends:
            left_out = 0 if event is None else event.left_out
            event = self._events[record.msg] = _Repeated(record.created + EVERY_SECONDS)
            if left_out:
                record.left_out = left_out
        if event.records >= RECORDS:
            event.left_out += 1
            return False
        event.records += 1
        return True


def _is_counted(record: logging.LogRecord) -> bool:
    if record.levelno == logging.ERROR:
        return bool(record.exc_info)
    return record.levelno in (logging.INFO, logging.WARNING)
