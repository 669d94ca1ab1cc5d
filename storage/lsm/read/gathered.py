"""Blocks that readers had to fetch in many pieces: what is worth consolidating early. No I/O.

A block that is read once may never be read again; one that came in many pieces twice is read often, and was evicted in
between: every further read would cost as many requests.
"""

from collections import Counter
from collections.abc import Iterable

from storage.format.blocks import FrameRef

PIECES_MIN = 4
"""Frames that one read had to fetch of one block."""

TIMES_MIN = 2

GATHERED_BLOCKS_MAX = 10_000
"""Blocks remembered of a layer; beyond them the oldest are forgotten."""


class GatheredBlocks:
    """Those of one layer. `often` are those that were gathered twice."""

    def __init__(self) -> None:
        self._times: dict[int, int] = {}
        self.often: set[int] = set()

    def fetched(self, refs: Iterable[FrameRef]) -> None:
        """One read had to fetch these frames."""
        for block, pieces in Counter(ref.block for ref in refs).items():
            if pieces < PIECES_MIN:
                continue
            times = self._times[block] = self._times.pop(block, 0) + 1
            if times >= TIMES_MIN:
                self.often.add(block)
            if len(self._times) > GATHERED_BLOCKS_MAX:
                self.forget(next(iter(self._times)))

    def forget(self, block: int) -> None:
        """It lies in one piece now, or is not worth it."""
        self._times.pop(block, None)
        self.often.discard(block)
