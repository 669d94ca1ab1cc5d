"""How fast the store takes what is put into it, and the sizes of objects that follow from it. No I/O.

A slow uplink gets small objects, so that something is acknowledged about every second and writers go on in small
steps; a fast one gets large objects, of which few are needed. The rate is that of all uploads together, in bytes of
what was written: those are what waits, and what waiting is counted in. It begins low, since a first burst that is
taken at full speed and then turns out to be two minutes of upload cannot be given back; on a fast store the first
object corrects that.

The estimate is what the latest objects held, divided by the time in which any object was on its way: objects that
share the link do not halve it, and a pause is not counted. Small objects are left out, as they say more about the
latency than about the rate.
"""

from collections import deque
from collections.abc import Callable

import msgspec

from storage.format.frame import BLOCK_BYTES
from storage.units import KIB, MIB

UPLOAD_RATE_FIRST = MIB
"""Bytes a second assumed until something was measured."""

UPLOAD_RATE_MIN = 64 * KIB
"""No measurement counts as less: an outage is not a rate."""

SAMPLE_BYTES_MIN = 128 * KIB
"""Smaller objects are left out."""

SAMPLES = 8
"""So many objects count: two rounds of four in flight."""

INLINE_BYTES_MAX = 4 * MIB
"""Operations of one cut that goes into the log itself, and so the size of a WAL object; a larger write is one cut."""

INLINE_BYTES_MIN = 256 * KIB

INLINE_SECONDS = 0.5
"""And no more than what is uploaded in this time: with four in flight one takes two seconds."""

BULK_BYTES_MIN = 4 * MIB
"""Whole blocks below this go inline: one round trip instead of two matters more than the second upload..."""

BULK_SECONDS_MIN = 0.25
"""...unless that takes longer than a round trip."""

UPLOADS_MAX = 4

ABREAST_SECONDS = 2.0
"""Objects that share a slow link arrive together, and who waits for them is answered all at once: beside another,
one more is sent only if all of them are uploaded in this time."""

SST_BYTES_MAX = 16 * MIB
SST_BYTES_MIN = MIB

SST_SECONDS = 0.5
"""An SST holds no more than what is uploaded in this time; with four in flight it takes four times as long."""


class ObjectSizes(msgspec.Struct, frozen=True):
    """Bounds of the sizes of objects, in bytes of what was written."""

    inline_bytes_max: int = INLINE_BYTES_MAX
    bulk_bytes_min: int = BULK_BYTES_MIN
    sst_bytes_max: int = SST_BYTES_MAX
    sst_bytes_min: int = SST_BYTES_MIN


class Pace:
    """The rate of one writer's uploads. All sizes are in bytes of what was written."""

    __slots__ = (
        "_at",
        "_busy",
        "_clock",
        "_on_rate",
        "_samples",
        "_under_way",
        "abreast_bytes",
        "bulk_bytes_min",
        "inline_bytes",
        "object_bytes",
        "rate",
        "sizes",
    )

    def __init__(
        self, clock: Callable[[], float], on_rate: Callable[[float], None], sizes: ObjectSizes | None = None
    ) -> None:
        """`clock` gives seconds; `on_rate` is told the rate whenever it changes, and at once the first one."""
        self.sizes = sizes or ObjectSizes()
        self._clock = clock
        self._on_rate = on_rate
        self._under_way = 0
        self._busy = 0.0
        """Seconds in which any object was on its way, up to `_at`."""
        self._at = 0.0
        self._samples: deque[tuple[float, int]] = deque([(0.0, 0)], maxlen=SAMPLES + 1)
        """When by that clock an object arrived, and what it held; the first one is where the time begins."""
        self.rate = 0.0
        """Bytes a second."""
        self.inline_bytes = 0
        """What one cut puts into the log itself at most."""
        self.object_bytes = 0
        """Bytes of block data in one SST at most."""
        self.abreast_bytes = 0
        """What is under way, if more than two objects are."""
        self.bulk_bytes_min = self.sizes.bulk_bytes_min
        """Whole blocks of one cut from which on they travel as frames."""
        self._set(float(UPLOAD_RATE_FIRST))

    @property
    def uploads(self) -> int:
        """How many SSTs may be on their way."""
        return min(max(self.abreast_bytes // self.object_bytes, 2), UPLOADS_MAX)

    def sent(self, size: int) -> None:
        """An object with `size` bytes of what was written is about to be sent."""
        if size >= SAMPLE_BYTES_MIN:
            self._tick()
            self._under_way += 1

    def confirmed(self, size: int) -> None:
        """An object with `size` bytes of what was written, told to `sent` before, has arrived."""
        if size < SAMPLE_BYTES_MIN:
            return
        self._tick()
        self._under_way -= 1
        self._samples.append((self._busy, size))
        seconds = max(self._busy - self._samples[0][0], 1e-6)
        rate = max(sum(held for _, held in list(self._samples)[1:]) / seconds, UPLOAD_RATE_MIN)
        self._set(rate)
        self.bulk_bytes_min = _between(BLOCK_BYTES, BULK_SECONDS_MIN * rate, self.sizes.bulk_bytes_min)

    def given_up(self, size: int) -> None:
        """An object that was told to `sent` is not on its way any more, whatever became of it: that says no rate."""
        if size >= SAMPLE_BYTES_MIN:
            self._tick()
            self._under_way -= 1

    def _tick(self) -> None:
        now = self._clock()
        if self._under_way:
            self._busy += now - self._at
        self._at = now

    def _set(self, rate: float) -> None:
        self.rate = rate
        self.abreast_bytes = int(ABREAST_SECONDS * rate)
        self.inline_bytes = _between(INLINE_BYTES_MIN, INLINE_SECONDS * rate, self.sizes.inline_bytes_max)
        self.object_bytes = _between(self.sizes.sst_bytes_min, SST_SECONDS * rate, self.sizes.sst_bytes_max)
        self._on_rate(rate)


def _between(low: int, value: float, high: int) -> int:
    return min(max(low, int(value)), high)
