"""Traces of operations: each says where its time went, and what memory answers costs not even a look at the clock."""

import asyncio

import pytest

from nbdserver.protocol.replies import Piece
from nbdserver.server.limits import Limits
from nbdserver.server.operation_trace import UNDER_WAY_MAX
from nbdserver.slow_operations import SLOW_OPERATION_SECONDS, SlowOperation
from storage.errors import Corrupt
from storage.fetch_times import FetchTimes
from tests.support import messages as m
from tests.support.memory_device import MemoryDevice, memory_exports
from tests.support.wired import Wire, answers, attach, transmission

SIZE = 64 << 20


class Distant(MemoryDevice):
    """A disk of which nothing is in memory, and whose store takes as long as `client` is told."""

    def __init__(self) -> None:
        super().__init__(SIZE)
        self.misses = asyncio.Event()
        self.misses.set()
        self.client: Wire | None = None

    async def read(self, offset: int, length: int, times: FetchTimes | None = None) -> list[Piece]:
        pieces = await super().read(offset, length)
        assert self.client is not None
        assert times is not None
        times.waiting, times.store, times.decoding = 1.0, 2.0, 4.0
        times.requests, times.tries, times.objects = 1, 2, [f"compacted/{offset}"]
        self.client.later += 7.5
        return pieces


def only(client: Wire) -> SlowOperation:
    (found,) = client.slow.remembered()
    return found


async def test_what_memory_answers_costs_no_look_at_the_clock(client: Wire) -> None:
    await client.feed(m.structured() + m.write(0, b"w" * 4096))
    looks = client.looks_at_clock
    for number in range(100):
        await client.feed(m.write(4096 * number, b"n" * 4096, cookie=number) + m.read(cookie=1000 + number))
    assert len(answers(client)) == 201
    assert client.looks_at_clock == looks
    assert not client.slow.last


async def test_each_command_is_called_by_its_name(client: Wire, disk: MemoryDevice) -> None:
    await client.feed(m.structured())
    disk.gate.closed = True
    await client.feed(b"".join(m.request(kind, 0, 4096) for kind in (m.WRITE_ZEROES, m.TRIM)))
    await client.feed(m.request(m.WRITE_ZEROES, 0, 4096, flags=m.NO_HOLE))
    client.later += 3
    under_way = transmission(client.connection).slow_operations()
    assert sorted(each.operation for each in under_way) == ["trim", "write_zeroes", "write_zeroes"]


async def test_a_write_that_the_gate_held(client: Wire, disk: MemoryDevice) -> None:
    await client.feed(m.structured())
    disk.gate.closed = True
    await client.feed(m.write(8192, b"w" * 4096))
    client.later += 3
    (waits,) = transmission(client.connection).slow_operations()
    assert (waits.outcome, waits.number, waits.spent) == ("under way", 0, {"gate": 3.0})
    disk.gate.open()
    assert await client.until(lambda: bool(client.slow.last))
    found = only(client)
    assert (found.operation, found.offset, found.length, found.seconds) == ("write", 8192, 4096, 3.0)
    assert (found.spent, found.outcome, found.at, found.device) == ({"gate": 3.0}, "done", 1e9, "disk")
    assert not list(transmission(client.connection).slow_operations())


async def test_a_write_with_fua_behind_the_gate(client: Wire, disk: MemoryDevice) -> None:
    disk.durable_at_once = False
    await client.feed(m.structured())
    disk.gate.closed = True
    await client.feed(m.write(0, b"w" * 4096, fua=True))
    client.later += 2
    disk.gate.open()
    assert await client.until(lambda: disk.last_sequence == 1)
    client.later += 5
    disk.commit()
    assert await client.until(lambda: bool(client.slow.last))
    assert (only(client).spent, only(client).seconds) == ({"gate": 2.0, "log": 5.0}, 7.0)


async def test_a_flush_counts_from_when_it_was_offered_first(disk: MemoryDevice) -> None:
    """A client may have one request under way here: the second one waits in a queue before it waits for the log."""
    disk.durable_at_once = False
    with attach(disk, Limits(requests=1)) as client:
        await client.feed(m.structured() + m.write(0, b"w" * 4096))
        await client.feed(m.flush(2) + m.write(0, b"x" * 4096, cookie=3))
        await client.feed(m.flush(4))
        client.later += 4
        disk.commit(1)
        assert await client.until(lambda: client.slow.last == 1)
        client.later += 6
        disk.commit()
        assert await client.until(lambda: client.slow.last == 2)
        first, second = client.slow.remembered()
    assert (first.operation, first.spent, first.number) == ("flush", {"log": 4.0}, 1)
    assert (second.operation, second.spent, second.seconds) == ("flush", {"queue": 4.0, "log": 6.0}, 10.0)


@pytest.mark.parametrize("length", [4096, 10 << 20], ids=["at once", "in parts"])
async def test_a_read_from_the_store(length: int) -> None:
    """Of one that is read in parts, those times count that belong to the part which came last."""
    disk = Distant()
    with Wire(memory_exports({"disk": disk})) as client:
        disk.client = client
        await client.feed(m.structured() + m.request(m.READ, 0, length))
        assert await client.until(lambda: bool(client.slow.last))
        found = only(client)
    parts = -(-length // (4 << 20))
    assert (found.operation, found.length, found.seconds) == ("read", length, 7.5 * parts)
    assert found.spent == {"waiting": 1.0, "store": 2.0, "decoding": 4.0, "assembly": 7.5 * parts - 7.0}
    assert (found.requests, found.tries, len(found.objects)) == (parts, 2, parts)


async def test_a_read_that_fails() -> None:
    disk = Distant()
    disk.failure = Corrupt("compacted/1", "a frame is damaged")
    assert disk.misses is not None
    disk.misses.clear()
    with Wire(memory_exports({"disk": disk})) as client:
        await client.feed(m.structured() + m.read())
        client.later += 1
        disk.misses.set()
        assert await client.until(lambda: bool(client.slow.last))
        assert (only(client).outcome, only(client).spent) == ("failed", {"assembly": 1.0})


async def test_what_is_under_way_when_its_client_goes(disk: MemoryDevice) -> None:
    disk.durable_at_once = False
    with attach(disk) as client:
        await client.feed(m.structured() + m.write(0, b"w" * 4096))
        for number in range(2 * UNDER_WAY_MAX):
            await client.feed(m.flush(10 + number))
        client.later += SLOW_OPERATION_SECONDS
        assert len(list(transmission(client.connection).slow_operations())) == UNDER_WAY_MAX
    found = client.slow.remembered()
    assert {each.outcome for each in found} == {"dropped"}
    assert len(found) == UNDER_WAY_MAX


async def test_a_reply_that_its_client_does_not_read(disk: MemoryDevice) -> None:
    disk.durable_at_once = False
    with attach(disk, Limits(reply_bytes=1 << 16)) as client:
        await client.feed(m.structured() + m.write(0, b"w" * (1 << 20)) + m.flush(2))
        client.block()
        await client.feed(m.request(m.READ, 0, 1 << 20, cookie=3))
        disk.commit()
        await client.until(lambda: not transmission(client.connection).session.admission.outstanding)
        client.later += 2
        client.unblock()
        assert await client.until(lambda: bool(client.slow.last))
        assert only(client).spent == {"sending": 2.0}


async def test_what_is_quick_is_not_remembered(client: Wire, disk: MemoryDevice) -> None:
    disk.durable_at_once = False
    await client.feed(m.structured() + m.write(0, b"w" * 4096) + m.flush(2))
    client.later += 0.9 * SLOW_OPERATION_SECONDS
    disk.commit()
    assert await client.until(lambda: len(answers(client)) == 2)
    assert not client.slow.last
