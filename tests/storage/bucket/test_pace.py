"""The measured rate, and the sizes that follow it."""

import heapq

import pytest

from storage.bucket.pace import (
    BULK_BYTES_MIN,
    INLINE_BYTES_MAX,
    INLINE_BYTES_MIN,
    SST_BYTES_MAX,
    UPLOAD_RATE_FIRST,
    UPLOAD_RATE_MIN,
    UPLOADS_MAX,
    Pace,
)
from storage.format.frame import BLOCK_BYTES

MIB = 1 << 20


class Link:
    """Uploads that share a link of some rate, four at a time, each after a latency."""

    def __init__(self, rate: float, latency: float) -> None:
        self.now = 0.0
        self.rate = rate
        self.latency = latency
        self.told: list[float] = []
        self.pace = Pace(lambda: self.now, self.told.append)
        self._free = 0.0

    def upload(self, count: int, in_flight: int = 4, size: int | None = None) -> None:
        """So many objects of the size the pace asks for."""
        under_way: list[tuple[float, int, int]] = []
        for number in range(count + in_flight):
            if number >= in_flight and under_way:
                self.now, _, length = heapq.heappop(under_way)
                self.pace.confirmed(length)
            if number < count:
                length = size or self.pace.inline_bytes
                self._free = max(self._free, self.now) + length / self.rate
                self.pace.sent(length)
                heapq.heappush(under_way, (self._free + self.latency, number, length))


@pytest.mark.parametrize("rate", [1e6, 4e6, 10e6, 20e6, 1e8])
@pytest.mark.parametrize("latency", [0.002, 0.1])
def test_the_rate_is_that_of_all_uploads_together(rate: float, latency: float) -> None:
    link = Link(rate, latency)
    assert link.told == [UPLOAD_RATE_FIRST]
    link.upload(40)
    assert 0.6 * rate < link.pace.rate < 1.7 * rate


def test_a_fast_store_is_known_to_be_fast_at_once() -> None:
    for latency in (0.002, 0.03, 0.1):
        link = Link(1e9, latency)
        link.upload(16)
        assert link.pace.rate * 5 > 100 * MIB
        assert link.now < 1.0
        assert link.pace.inline_bytes == INLINE_BYTES_MAX


def test_a_link_that_slows_down_is_noticed() -> None:
    link = Link(1e8, 0.01)
    link.upload(20)
    link.rate = 1e6
    link.upload(20)
    assert link.pace.rate < 2e6
    assert link.pace.inline_bytes < 2 * MIB


def test_small_objects_say_nothing_of_the_rate() -> None:
    link = Link(1e8, 0.1)
    link.upload(20)
    before = link.pace.rate
    link.upload(100, in_flight=1, size=4096)
    assert link.pace.rate == before


def test_sizes_follow_the_rate() -> None:
    link = Link(1.0, 0.0)
    pace = link.pace
    assert (pace.inline_bytes, pace.bulk_bytes_min) == (UPLOAD_RATE_FIRST // 2, BULK_BYTES_MIN), "nothing was measured"
    link.rate = 2e5
    link.upload(10)
    assert (pace.inline_bytes, pace.bulk_bytes_min) == (INLINE_BYTES_MIN, BLOCK_BYTES)
    link.rate = 1e9
    link.upload(40)
    assert (pace.inline_bytes, pace.bulk_bytes_min) == (INLINE_BYTES_MAX, BULK_BYTES_MIN)
    assert pace.object_bytes == SST_BYTES_MAX


def test_what_was_given_up_is_on_its_way_no_more() -> None:
    """The pause behind it is no time of uploading."""
    link = Link(rate=8 * MIB, latency=0.0)
    link.pace.sent(4 * MIB)
    link.pace.given_up(4 * MIB)
    link.now += 3600.0
    link.upload(8, in_flight=1, size=4 * MIB)
    assert link.pace.rate == pytest.approx(8 * MIB, rel=0.1)


def test_an_outage_is_no_rate() -> None:
    """However long one object took: what follows is sent as over the slowest link that is reckoned with."""
    link = Link(1000.0, 0.1)
    link.upload(10)
    assert link.pace.rate == UPLOAD_RATE_MIN
    assert link.pace.inline_bytes == INLINE_BYTES_MIN


@pytest.mark.parametrize(("rate", "uploads"), [(1e5, 2), (1e7, 4), (1e9, UPLOADS_MAX)])
def test_so_many_ssts_are_on_their_way(rate: float, uploads: int) -> None:
    link = Link(rate, 0.01)
    link.upload(40)
    assert 2 <= link.pace.uploads <= uploads
