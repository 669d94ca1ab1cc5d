"""One connection: answers at once what memory has, waits without blocking, and leaves nothing behind when it
ends."""

import asyncio
import gc
import logging
import struct
import weakref

import pytest

from nbdserver.server.limits import Budget, Limits
from storage.errors import Corrupt, Fenced, OutOfSpace, Unavailable
from tests.support import messages as m
from tests.support.idle import idle
from tests.support.memory_device import BLOCK, MemoryDevice, memory_exports
from tests.support.wired import Wire, answers, attach, transmission

MIB = 1 << 20


# One pass


async def test_what_memory_has_is_answered_in_the_same_pass(client: Wire) -> None:
    """No turn of the loop passes between the bytes of a request and its reply."""
    await client.feed(m.structured())
    client.offer(m.write(0) + m.read(0) + m.flush() + m.request(m.TRIM, 0, 4096, cookie=4) + m.read(0, cookie=5))
    assert answers(client) == ["1 ok", "2: read 0+4096 s*4096 (data)", "3 ok", "4 ok", "5: read 0+4096 0*4096 (hole)"]


async def test_a_long_write_is_adopted_without_a_copy(client: Wire, disk: MemoryDevice) -> None:
    await client.feed(m.structured())
    request = m.write(BLOCK, b"x" * BLOCK)
    client.offer(request[:1000])
    received_into = client.connection.get_buffer(-1).obj
    await client.feed(request[1000:])
    pieces = disk.read_cached(BLOCK, BLOCK)
    assert pieces is not None
    piece = pieces[0]
    assert isinstance(piece, memoryview)
    assert piece.obj is received_into
    assert disk.contents(BLOCK, BLOCK) == b"x" * BLOCK


# FLUSH and FUA


async def test_flush_waits_for_what_was_written_before_it(client: Wire, disk: MemoryDevice) -> None:
    disk.durable_at_once = False
    await client.feed(m.structured() + m.write(0) + m.flush() + m.write(4096, cookie=4))
    assert answers(client) == ["1 ok", "4 ok"]
    disk.commit(sequence=1)
    await idle()
    assert answers(client) == ["1 ok", "4 ok", "3 ok"]


async def test_flush_covers_the_completed_writes_of_another_connection(disk: MemoryDevice) -> None:
    """What CAN_MULTI_CONN promises."""
    disk.durable_at_once = False
    exports = memory_exports({"disk": disk})
    with Wire(exports) as one, Wire(exports) as other:
        await one.feed(m.structured() + m.write(0))
        await other.feed(m.structured() + m.flush())
        assert answers(one) == ["1 ok"]
        assert answers(other) == []
        disk.commit()
        await idle()
        assert answers(other) == ["3 ok"]


async def test_fua_waits_for_its_own_write_only(client: Wire, disk: MemoryDevice) -> None:
    disk.durable_at_once = False
    zeroes = m.request(m.WRITE_ZEROES, 8192, 4096, cookie=8, flags=m.FUA)
    trim = m.request(m.TRIM, 8192, 4096, cookie=9, flags=m.FUA)
    await client.feed(m.structured() + m.write(0, fua=True) + m.write(4096, cookie=2) + zeroes + trim)
    assert answers(client) == ["2 ok"]
    for sequence, line in ((1, "1 ok"), (3, "8 ok"), (4, "9 ok")):
        disk.commit(sequence)
        await idle()
        assert answers(client)[-1] == line
    assert len(answers(client)) == 4


async def test_many_flushes_wait_without_tasks_and_leave_together(client: Wire, disk: MemoryDevice) -> None:
    disk.durable_at_once = False
    await client.feed(m.structured() + m.write(0))
    before = len(asyncio.all_tasks())
    await client.feed(b"".join(m.flush(cookie) for cookie in range(10, 1010)))
    assert len(asyncio.all_tasks()) == before
    disk.commit()
    await idle()
    assert len(answers(client)) == 1001


# Misses and failures


async def test_a_miss_does_not_hold_up_what_comes_behind(client: Wire, disk: MemoryDevice) -> None:
    disk.misses = asyncio.Event()
    await client.feed(m.structured() + m.read() + m.write(0) + m.flush())
    assert answers(client) == ["1 ok", "3 ok"]
    disk.misses.set()
    await idle()
    assert answers(client)[-1] == "2: read 0+4096 s*4096 (data)"


@pytest.mark.parametrize(
    ("failure", "number"),
    [
        (Corrupt("compacted/x.sst", "a frame does not open"), "EIO"),
        (Unavailable("the store did not answer"), "EIO"),
        (Fenced("another writer took the store"), "ESHUTDOWN"),
    ],
)
async def test_a_read_that_fails_is_an_error_of_that_request(
    client: Wire, disk: MemoryDevice, failure: Exception, number: str
) -> None:
    disk.misses, disk.failure = asyncio.Event(), failure
    disk.misses.set()
    await client.feed(m.structured() + m.read())
    disk.misses = None
    await client.feed(m.read(cookie=9))
    assert answers(client) == [f"2: {number}", "9: read 0+4096 0*4096 (hole)"]


async def test_a_read_that_fails_unexpectedly_drops_this_client_only(
    disk: MemoryDevice, caplog: pytest.LogCaptureFixture
) -> None:
    exports = memory_exports({"disk": disk})
    disk.misses, disk.failure = asyncio.Event(), RuntimeError("a bug")
    disk.misses.set()
    with Wire(exports) as client, Wire(exports) as other:
        await other.feed(m.structured())
        await client.feed(m.structured() + m.read())
        assert client.lost
        assert answers(client) == []
        assert [record.levelno for record in caplog.records if record.exc_info] == [logging.ERROR]
        disk.misses = None
        await other.feed(m.read())
        assert answers(other) == ["2: read 0+4096 0*4096 (hole)"]


async def test_a_write_that_fails_is_an_error_of_that_request(
    client: Wire, disk: MemoryDevice, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(offset: int, data: bytes) -> int:
        raise OutOfSpace("the disk is full")

    monkeypatch.setattr(disk, "write", full)
    await client.feed(m.structured() + m.write(0) + m.write(0, bytes(100_000), cookie=2) + m.read(cookie=3))
    assert answers(client) == ["1: ENOSPC", "2: ENOSPC", "3: read 0+4096 0*4096 (hole)"]


async def test_a_bug_while_parsing_drops_this_client_only(
    client: Wire, disk: MemoryDevice, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def broken(offset: int, length: int) -> None:
        raise RuntimeError("a bug")

    monkeypatch.setattr(disk, "read_cached", broken)
    await client.feed(m.structured() + m.read())
    assert client.lost
    assert [record.levelno for record in caplog.records if record.exc_info] == [logging.ERROR]


async def test_a_held_write_that_fails_is_an_error_of_that_request(
    client: Wire, disk: MemoryDevice, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(offset: int, data: bytes) -> int:
        raise OutOfSpace("the disk is full")

    monkeypatch.setattr(disk, "write", full)
    await client.feed(m.structured())
    disk.gate.closed = True
    await client.feed(m.write(0) + m.request(m.TRIM, 0, 4096, cookie=4))
    disk.gate.open()
    await idle()
    assert answers(client) == ["1: ENOSPC", "4 ok"]


# The end


async def test_no_task_outlives_its_connection(client: Wire, disk: MemoryDevice) -> None:
    disk.misses = asyncio.Event()
    before = asyncio.all_tasks()
    await client.feed(m.structured() + m.read())
    assert disk.reads_under_way == 1
    client.leave()
    client.end()
    await idle()
    assert client.lost
    assert asyncio.all_tasks() == before
    assert disk.reads_under_way == 0


async def test_a_flush_that_becomes_durable_after_the_client_left_is_quiet(client: Wire, disk: MemoryDevice) -> None:
    disk.durable_at_once = False
    await client.feed(m.structured() + m.write(0) + m.flush())
    client.end()
    await idle()
    assert client.lost
    disk.commit()
    await idle()
    assert answers(client) == ["1 ok"]


@pytest.mark.parametrize("waits_for", ["the log", "the gate", "the memory of all"])
async def test_a_connection_that_ended_is_forgotten_though_what_it_waited_for_never_comes(
    disk: MemoryDevice, waits_for: str
) -> None:
    """While a store is out of reach clients come and go; one that asked for 4,000 flushes had 1.8 MB."""
    budget = Budget(MIB)
    disk.durable_at_once = False
    disk.gate.closed = waits_for == "the gate"
    assert budget.take(MIB)
    said = {
        "the log": m.write(0) + m.flush(),
        "the gate": m.write(0),
        "the memory of all": m.request(m.WRITE, 0, 3 * MIB) + b"x",
    }
    with attach(disk, budget=budget) as client:
        await client.feed(m.structured())
        client.offer(said[waits_for])
        session = weakref.ref(transmission(client.connection).session)
        assert session() is not None
    await idle()
    del client
    gc.collect()
    assert session() is None


async def test_disc_lets_what_is_under_way_finish(client: Wire, disk: MemoryDevice) -> None:
    """63: the server MUST handle all outstanding requests, also for a client that has shut its sending
    side."""
    disk.durable_at_once = False
    disk.misses = asyncio.Event()
    await client.feed(m.structured() + m.write(0) + m.flush() + m.read() + m.GOODBYE)
    client.shut()
    client.end()
    await idle()
    assert not client.closed
    disk.misses.set()
    disk.commit()
    await idle()
    assert sorted(answers(client)) == ["1 ok", "2: read 0+4096 s*4096 (data)", "3 ok"]
    assert client.lost


async def test_a_client_that_lingers_is_dropped(disk: MemoryDevice) -> None:
    disk.durable_at_once = False
    with attach(disk, Limits(linger_seconds=0.0)) as client:
        await client.feed(m.structured() + m.write(0) + m.flush() + m.GOODBYE)
        client.shut()
        client.end()
        assert not client.lost
        await client.gone()


async def test_attachments_are_counted(disk: MemoryDevice) -> None:
    exports = memory_exports({"disk": disk})
    assert not exports.clients_of("disk")
    with Wire(exports) as one, Wire(exports) as other:
        await one.feed(m.structured())
        await other.feed(m.simple())
        assert len(exports.clients_of("disk")) == 2
        one.end()
        await idle()
        assert len(exports.clients_of("disk")) == 1
        await other.feed(struct.pack(">I", 0) * 7)
        await idle()
        assert not exports.clients_of("disk")


# The deadline of the handshake


async def test_a_client_lingers_once(client: Wire, disk: MemoryDevice) -> None:
    """The time is counted from when it left, not again from its last reply."""
    disk.durable_at_once = False
    await client.feed(m.structured() + m.write(0) + m.flush() + m.GOODBYE)
    client.block()
    client.end()
    limit = client.connection.lingering
    disk.commit()
    await idle()
    assert client.connection.is_closing
    assert limit is not None
    assert not limit.cancelled()
    assert client.connection.lingering is limit


async def test_a_stuck_handshake_is_dropped(disk: MemoryDevice) -> None:
    """3: after 3 of 4 bytes, and between options."""
    for said in (b"", m.FIXED_FLAGS[:3], m.FIXED_FLAGS + m.option(m.LIST)):
        with attach(disk, Limits(handshake_seconds=0.0)) as client:
            if said:
                client.offer(said)
            await client.gone()


async def test_the_deadline_is_for_the_handshake_only(disk: MemoryDevice) -> None:
    limits = Limits(handshake_seconds=0.01)
    with attach(disk, limits) as client, attach(disk, limits) as later:
        await client.feed(m.structured())
        await later.gone()
        await client.feed(m.read())
        assert answers(client) == ["2: read 0+4096 0*4096 (hole)"]


# Staying awake


async def test_only_busy_clients_keep_the_loop_awake(client: Wire, monkeypatch: pytest.MonkeyPatch) -> None:
    stays: list[None] = []
    monkeypatch.setattr(client.busy_poll, "stay", lambda: stays.append(None))
    await client.feed(m.structured())
    client.busy_poll.seconds = 1e9
    client.offer(m.read())
    assert len(stays) == 1
    client.busy_poll.seconds = 0.0
    client.offer(m.read())
    assert len(stays) == 1
