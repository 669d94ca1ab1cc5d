"""A bounded pipe between two threads: one puts bytes in, the other iterates over them.

Whoever fails closes it, and the other side then raises `PipeClosed` in place of waiting: neither is ever left alone.
"""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Iterator

PIPE_BYTES = 8 << 20
"""In the pipe at most, and one part more: what one side may be ahead of the other."""


class PipeClosed(Exception):
    """The other side has failed, or gone."""


class Pipe:
    """An iterator over the parts that were put in; its end comes after `finish`."""

    def __init__(self) -> None:
        self._parts: deque[bytes] = deque()
        self._bytes = 0
        self._changed = threading.Condition()
        self._finished = False
        self._closed = False

    def put(self, part: bytes) -> None:
        """Put something in, which is not nothing; waits while the pipe is full. PipeClosed."""
        with self._changed:
            self._changed.wait_for(lambda: self._bytes < PIPE_BYTES or self._closed)
            if self._closed:
                raise PipeClosed
            self._parts.append(part)
            self._bytes += len(part)
            self._changed.notify_all()

    def finish(self) -> None:
        """All is in it."""
        with self._changed:
            self._finished = True
            self._changed.notify_all()

    def close(self) -> None:
        """One side is gone: what is in the pipe is dropped."""
        with self._changed:
            self._closed = True
            self._parts.clear()
            self._changed.notify_all()

    def __iter__(self) -> Iterator[bytes]:
        return self

    def __next__(self) -> bytes:
        """PipeClosed."""
        with self._changed:
            self._changed.wait_for(lambda: self._parts or self._finished or self._closed)
            if self._closed:
                raise PipeClosed
            if not self._parts:
                raise StopIteration
            part = self._parts.popleft()
            self._bytes -= len(part)
            self._changed.notify_all()
            return part
