"""Which frame comes next, where far more is asked for than may be in flight: disks take turns, and what nobody waits
for comes last."""

import asyncio

import pytest

from storage.errors import Fenced
from storage.format.blocks import FrameRef
from storage.lsm.sst import fetch
from storage.lsm.sst.get_slots import GETS_IN_FLIGHT, OBJECT_GETS_MAX
from storage.lsm.sst.ranges import GET_BYTES_MAX, coalesce
from storage.objects.base import ANSWER_BYTES_MAX
from tests.storage.lsm.sst.test_fetch import Shelf
from tests.storage.lsm.worlds import StageStore
from tests.support.idle import idle

OBJECTS = 4
FEW = 4 * GETS_IN_FLIGHT
"""Requests that may go first: those under way, each asked again since it does not open, and one turn of each disk."""


class SlowStore(StageStore):
    """Each GET takes some turns of the loop; what other objects than those of the test hold does not open."""

    def __init__(self) -> None:
        super().__init__()
        self.begun: list[str] = []

    async def get(self, name: str, offset: int = 0, length: int | None = None, limit: int = ANSWER_BYTES_MAX) -> bytes:
        self.begun.append(name)
        for _ in range(3):
            await asyncio.sleep(0)
        if name in self.objects:
            return await super().get(name, offset, length, limit)
        return bytes(length or 0)


def far_apart(shelf: Shelf, count: int) -> list[FrameRef]:
    """Frames of other objects, none of which comes with another."""
    slots = [shelf.sst_numbers.number(f"busy-{number}") for number in range(OBJECTS)]
    return [
        FrameRef(slots[at % OBJECTS] << 32 | at * 2 * GET_BYTES_MAX // OBJECTS, 64, 0, at, full=True)
        for at in range(count)
    ]


async def test_a_disk_with_one_read_does_not_wait_for_all_reads_of_another() -> None:
    """Seen: sixteen clients with deep queues, and a read of another disk that took seconds."""
    store = SlowStore()
    shelf = Shelf(1, store=store)
    busy = [asyncio.ensure_future(shelf.source.fetch(1, [each])) for each in far_apart(shelf, 1000)]
    await asyncio.sleep(0)
    await asyncio.sleep(0)
    asked = len(store.begun)
    found = await shelf.source.fetch(2, shelf.refs)
    assert found[shelf.refs[0].location] == shelf.data[shelf.refs[0].location]
    assert store.begun.index(shelf.name) - asked < FEW
    await asyncio.gather(*busy, return_exceptions=True)
    assert shelf.source.loading == 0


async def test_what_is_fetched_ahead_comes_last() -> None:
    store = SlowStore()
    shelf = Shelf(1, store=store)
    for each in far_apart(shelf, 1000):
        shelf.source.prefetch(each)
    await asyncio.sleep(0)
    await asyncio.sleep(0)
    asked = len(store.begun)
    await shelf.source.fetch(1, shelf.refs)
    assert store.begun.index(shelf.name) - asked < FEW
    while shelf.source.loading:
        await idle()


async def test_reads_of_one_disk_come_in_order_of_asking() -> None:
    store = SlowStore()
    shelf = Shelf(0, store=store)
    frames = far_apart(shelf, 200)
    order = [asyncio.ensure_future(shelf.source.fetch(1, [each])) for each in frames]
    ended: list[int] = []
    for place, each in enumerate(order):
        each.add_done_callback(lambda _, place=place: ended.append(place))  # type: ignore[misc]
    await asyncio.gather(*order, return_exceptions=True)
    assert all(abs(place - at) < FEW for at, place in enumerate(ended))


async def test_what_waits_is_not_looked_at_while_no_request_may_go(monkeypatch: pytest.MonkeyPatch) -> None:
    """Seen: each miss had thousands of frames sorted again, for nothing. A memtable flush is let through all the same,
    also to what somebody waits for already."""
    shelf = Shelf(1)
    looked: list[int] = []

    def counted(refs: list[FrameRef], *limits: int) -> list[list[FrameRef]]:
        looked.append(len(refs))
        return coalesce(refs, *limits)

    monkeypatch.setattr(fetch, "coalesce", counted)
    held = shelf.store.hold("get")
    assert OBJECTS * OBJECT_GETS_MAX > GETS_IN_FLIGHT
    frames = far_apart(shelf, 200)
    readers = [asyncio.ensure_future(shelf.source.fetch(1, [each])) for each in frames[:100]]
    await idle()
    assert held.waiting == GETS_IN_FLIGHT
    looked.clear()
    for each in frames[100:]:
        readers.append(asyncio.ensure_future(shelf.source.fetch(1, [each])))
        await idle()
    assert looked == []
    readers.append(asyncio.ensure_future(shelf.source.fetch(2, shelf.refs)))
    await idle()
    flush = asyncio.ensure_future(shelf.source.fetch_sound([(2, shelf.refs[0])], set()))
    readers.append(asyncio.ensure_future(shelf.source.fetch(1, far_apart(shelf, 201)[200:])))
    await idle()
    assert held.waiting == GETS_IN_FLIGHT + 1
    assert looked == [len(frames) + 2 - GETS_IN_FLIGHT]
    held.release()
    assert list(await flush) == [shelf.refs[0].location]
    for reader in readers:
        reader.cancel()
    await asyncio.gather(*readers, return_exceptions=True)
    shelf.source.stop(Fenced("the server stops"))
    await idle()
    assert shelf.source.loading == 0
