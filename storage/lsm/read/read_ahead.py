"""Read-ahead: which sequential readers a layer has, and how far ahead of each to fetch. No I/O.

A miss that goes on where an earlier one ended belongs to the same stream; copying tools read several ranges at once,
so there may be many. A stream's window doubles from one block up to its limit and moves by half of itself at a time,
so that what is fetched ahead comes in large requests.
"""

STREAMS_MAX = 16

OVERTAKEN_MAX = 4
"""Blocks by which requests of a new stream may overtake each other; of one that has proven itself, its window. Sixteen
streams that took all of the limit would reach over a whole small disk, and whoever read that at random would be taken
for sequential.
"""


class _Stream:
    __slots__ = ("at", "until", "window")

    def __init__(self, at: int) -> None:
        self.at = at
        """Block behind the last miss."""
        self.until = 0
        """Block behind the last one fetched ahead."""
        self.window = 1


class ReadAhead:
    """The readers seen lately, the most recent last."""

    def __init__(self, window_blocks_max: int) -> None:
        self.window_blocks_max = window_blocks_max
        """How far the window of a stream grows."""
        self._streams: list[_Stream] = []

    def miss(self, first: int, end: int) -> range:
        """Blocks [first, end) were not in memory; gives the blocks to fetch ahead."""
        stream = next(
            (s for s in reversed(self._streams) if s.at <= first <= max(s.at, s.until) + max(s.window, OVERTAKEN_MAX)),
            None,
        )
        if stream is None:
            if len(self._streams) == STREAMS_MAX:
                self._streams.pop(0)
            self._streams.append(_Stream(end))
            return range(0)
        self._streams.remove(stream)
        self._streams.append(stream)
        stream.at = end
        stream.window = min(stream.window * 2, self.window_blocks_max)
        if stream.until >= end + stream.window // 2:
            return range(0)
        ahead = range(max(end, stream.until), end + stream.window)
        stream.until = end + stream.window
        return ahead
