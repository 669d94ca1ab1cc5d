"""The cache of decoded frames: S3-FIFO, weighted by bytes. No I/O.

Keys are locations (SST slot and offset). An SST is immutable and its slot is never used again in a process, so a
cached frame can never be wrong: there is nothing to invalidate, and no fill can race a write. Blocks that were put
together from several frames have keys of their own, from `fresh_key`, never used twice either: who remembers such a
key forgets it when the block changes.

S3-FIFO (Yang et al., SOSP 2023): a small queue takes newcomers, and only what is asked for again while it is there,
or is remembered by the ghost queue, enters the main queue; a scan passes through the small queue without evicting
anything hot. A full FRAME is a buffer of 256 KiB, a patch a dictionary from sector to its 4096 bytes. A frame weighs
what it keeps in memory: all of what it is a view of, however little of that it is.
"""

from collections import OrderedDict, deque

from storage.buffers import Buffer, retained_by_all, retained_bytes

Decoded = Buffer | dict[int, Buffer]

PART_OVERHEAD = 250
"""Bytes for a frame, and for each sector of a patch, beside the data: objects and places in dictionaries and queues."""

SMALL_SHARE = 0.1
"""Share of the capacity that newcomers get: the paper's figure, flat between 5 and 20 %."""

HITS_MAX = 3

STALE_MAX = 1024
"""Places of discarded frames that the queues may hold beyond as many as there are frames."""

FRESH_KEYS = 2**64
"""Keys of frames, which are locations, are below this number; those of `fresh_key` begin here."""


def weight(data: Decoded) -> int:
    """Bytes that a decoded frame keeps in memory."""
    if isinstance(data, dict):
        return retained_by_all(data) + (len(data) + 1) * PART_OVERHEAD
    return retained_bytes(data) + PART_OVERHEAD


class CachedFrame:
    """A decoded frame; `hits` counts uses since it was last considered, up to 3."""

    __slots__ = ("data", "hits", "is_new", "size")

    def __init__(self, data: Decoded, size: int, *, is_new: bool) -> None:
        self.data = data
        self.size = size
        self.hits = 0
        self.is_new = is_new
        """Whether it is in the small queue."""


class FrameCache:
    """A bounded map from location to decoded frame. `entries` may be read directly; a reader adds to `hits`."""

    def __init__(self, capacity: int) -> None:
        self.capacity = capacity
        self.bytes = 0
        self.entries: dict[int, CachedFrame] = {}
        self._small: deque[int] = deque()
        self._main: deque[int] = deque()
        self._small_bytes = 0
        self._fresh = 0
        self._ghost: OrderedDict[int, None] = OrderedDict()

    def fresh_key(self) -> int:
        """A key that no location is and no other call gives."""
        self._fresh += 1
        return FRESH_KEYS + self._fresh

    def get(self, location: int) -> Decoded | None:
        """The frame at a location, if it is here."""
        found = self.entries.get(location)
        if found is None:
            return None
        found.hits += 1
        return found.data

    def put(self, location: int, data: Decoded) -> None:
        """Keep a frame, unless it alone is larger than the cache."""
        if location in self.entries:
            return
        size = weight(data)
        if size > self.capacity:
            return
        remembered = location in self._ghost
        self.entries[location] = CachedFrame(data, size, is_new=not remembered)
        self.bytes += size
        if remembered:
            del self._ghost[location]
            self._main.append(location)
        else:
            self._small.append(location)
            self._small_bytes += size
        while self.bytes > self.capacity:
            self._evict()

    def move(self, old: int, new: int) -> None:
        """The frame at `old` lies at `new` from now on."""
        frame = self.entries.get(old)
        if frame is not None:
            self.discard(old)
            self.put(new, frame.data)

    def discard(self, location: int) -> None:
        """Forget a frame that nobody will ask for again. Its place in a queue is passed over later."""
        frame = self.entries.get(location)
        if frame is None:
            return
        if frame.is_new:
            self._small_bytes -= frame.size
        self._remove(location, frame)
        if len(self._small) + len(self._main) > 2 * len(self.entries) + STALE_MAX:
            self._small = deque(key for key in self._small if key in self.entries and self.entries[key].is_new)
            self._main = deque(key for key in self._main if key in self.entries and not self.entries[key].is_new)

    def _evict(self) -> None:
        if self._small and (self._small_bytes > self.capacity * SMALL_SHARE or not self._main):
            location = self._small.popleft()
            frame = self.entries.get(location)
            if frame is None or not frame.is_new:
                return
            self._small_bytes -= frame.size
            if frame.hits > 1:
                frame.hits = 0
                frame.is_new = False
                self._main.append(location)
            else:
                self._remove(location, frame)
                self._remember(location)
            return
        location = self._main.popleft()
        frame = self.entries.get(location)
        if frame is None or frame.is_new:
            return
        if frame.hits:
            frame.hits = min(frame.hits, HITS_MAX) - 1
            self._main.append(location)
        else:
            self._remove(location, frame)

    def _remove(self, location: int, frame: CachedFrame) -> None:
        del self.entries[location]
        self.bytes -= frame.size

    def _remember(self, location: int) -> None:
        self._ghost[location] = None
        # As many ghosts as frames: the paper's choice.
        while len(self._ghost) > max(len(self.entries), 1):
            self._ghost.popitem(last=False)
