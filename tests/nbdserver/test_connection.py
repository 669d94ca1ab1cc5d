"""One connection: answers at once what memory has, waits without blocking, and leaves nothing behind when it
ends."""

import asyncio
import gc
import logging
import struct
import weakref
from collections.abc import AsyncIterator

import pytest

from nbdserver import connection as connection_module
from nbdserver import peer as peer_module
from nbdserver.limits import Budget, Limits
from nbdserver.protocol import wire
from storage.errors import Corrupt, Fenced, OutOfSpace, Unavailable
from tests.support.memory_device import BLOCK, MemoryDevice, memory_exports
from tests.support.speech import FIXED, opt, read_answers, req, simple, structured
from tests.support.wired import Wire

MIB = 1 << 20
SIZE = 1 << 30
SECTOR = b"s" * 4096
OLD, NEW = b"o" * 4096, b"n" * 4096


@pytest.fixture
def disk() -> MemoryDevice:
    return MemoryDevice(SIZE)


@pytest.fixture
async def client(disk: MemoryDevice) -> AsyncIterator[Wire]:
    with Wire(memory_exports({"disk": disk})) as wire_:
        yield wire_


def attach(disk: MemoryDevice, limits: Limits | None = None, budget: Budget | None = None) -> Wire:
    return Wire(memory_exports({"disk": disk}), limits=limits, budget=budget)


def answers(wire_: Wire) -> list[str]:
    """What was answered after the handshake of `structured()`."""
    return read_answers(bytes(wire_.output))[5:]


def write(offset: int, data: bytes = SECTOR, *, cookie: int = 1, fua: bool = False) -> bytes:
    return req(wire.CMD_WRITE, offset, data=data, cookie=cookie, flags=int(fua))


def read(offset: int = 0, length: int = 4096, *, cookie: int = 2) -> bytes:
    return req(wire.CMD_READ, offset, length, cookie=cookie)


def flush(cookie: int = 3) -> bytes:
    return req(wire.CMD_FLUSH, cookie=cookie)


DISC = req(wire.CMD_DISC)


# One pass


async def test_what_memory_has_is_answered_in_the_same_pass(client: Wire) -> None:
    """No turn of the loop passes between the bytes of a request and its reply."""
    await client.feed(structured())
    client.offer(write(0) + read(0) + flush() + req(wire.CMD_TRIM, 0, 4096, cookie=4) + read(0, cookie=5))
    assert answers(client) == ["1: ok", "2: data 4096@0", "3: ok", "4: ok", "5: hole 4096@0"]


async def test_a_long_write_is_adopted_without_a_copy(client: Wire, disk: MemoryDevice) -> None:
    await client.feed(structured())
    request = write(BLOCK, b"x" * BLOCK)
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
    await client.feed(structured() + write(0) + flush() + write(4096, cookie=4))
    assert answers(client) == ["1: ok", "4: ok"]
    disk.commit(sequence=1)
    await client.settle()
    assert answers(client) == ["1: ok", "4: ok", "3: ok"]


async def test_flush_covers_the_completed_writes_of_another_connection(disk: MemoryDevice) -> None:
    """What CAN_MULTI_CONN promises."""
    disk.durable_at_once = False
    exports = memory_exports({"disk": disk})
    with Wire(exports) as one, Wire(exports) as other:
        await one.feed(structured() + write(0))
        await other.feed(structured() + flush())
        assert answers(one) == ["1: ok"]
        assert answers(other) == []
        disk.commit()
        await other.settle()
        assert answers(other) == ["3: ok"]


async def test_fua_waits_for_its_own_write_only(client: Wire, disk: MemoryDevice) -> None:
    disk.durable_at_once = False
    zeroes = req(wire.CMD_WRITE_ZEROES, 8192, 4096, cookie=8, flags=wire.CMD_FLAG_FUA)
    trim = req(wire.CMD_TRIM, 8192, 4096, cookie=9, flags=wire.CMD_FLAG_FUA)
    await client.feed(structured() + write(0, fua=True) + write(4096, cookie=2) + zeroes + trim)
    assert answers(client) == ["2: ok"]
    for sequence, line in ((1, "1: ok"), (3, "8: ok"), (4, "9: ok")):
        disk.commit(sequence)
        await client.settle()
        assert answers(client)[-1] == line
    assert len(answers(client)) == 4


async def test_many_flushes_wait_without_tasks_and_leave_together(client: Wire, disk: MemoryDevice) -> None:
    disk.durable_at_once = False
    await client.feed(structured() + write(0))
    before = len(asyncio.all_tasks())
    await client.feed(b"".join(flush(cookie) for cookie in range(10, 1010)))
    assert len(asyncio.all_tasks()) == before
    disk.commit()
    await client.settle()
    assert len(answers(client)) == 1001


async def test_flushes_beyond_the_limit_wait_in_the_socket(disk: MemoryDevice) -> None:
    disk.durable_at_once = False
    with attach(disk, Limits(requests=4)) as client:
        await client.feed(structured() + write(0))
        client.offer(b"".join(flush(cookie) for cookie in range(10, 20)))
        await client.settle()
        assert not client.reading
        disk.commit()
        assert await client.until(lambda: client.reading)
        assert len(answers(client)) == 11


# Reads that memory cannot answer


async def test_a_miss_does_not_hold_up_what_comes_behind(client: Wire, disk: MemoryDevice) -> None:
    disk.misses = asyncio.Event()
    await client.feed(structured() + read() + write(0) + flush())
    assert answers(client) == ["1: ok", "3: ok"]
    disk.misses.set()
    await client.settle()
    assert answers(client)[-1] == "2: data 4096@0"


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
    await client.feed(structured() + read())
    disk.misses = None
    await client.feed(read(cookie=9))
    assert answers(client) == [f"2: chunk error {number}", "9: hole 4096@0"]


async def test_a_read_that_fails_unexpectedly_drops_this_client_only(
    disk: MemoryDevice, caplog: pytest.LogCaptureFixture
) -> None:
    exports = memory_exports({"disk": disk})
    disk.misses, disk.failure = asyncio.Event(), RuntimeError("a bug")
    disk.misses.set()
    with Wire(exports) as client, Wire(exports) as other:
        await other.feed(structured())
        await client.feed(structured() + read())
        assert client.lost
        assert answers(client) == []
        assert [record.levelno for record in caplog.records if record.exc_info] == [logging.ERROR]
        disk.misses = None
        await other.feed(read())
        assert answers(other) == ["2: hole 4096@0"]


async def test_a_write_that_fails_is_an_error_of_that_request(
    client: Wire, disk: MemoryDevice, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(offset: int, data: bytes) -> int:
        raise OutOfSpace("the disk is full")

    monkeypatch.setattr(disk, "write", full)
    await client.feed(structured() + write(0) + write(0, bytes(100_000), cookie=2) + read(cookie=3))
    assert answers(client) == ["1: chunk error ENOSPC", "2: chunk error ENOSPC", "3: hole 4096@0"]


async def test_a_bug_while_parsing_drops_this_client_only(
    client: Wire, disk: MemoryDevice, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def broken(offset: int, length: int) -> None:
        raise RuntimeError("a bug")

    monkeypatch.setattr(disk, "read_cached", broken)
    await client.feed(structured() + read())
    assert client.lost
    assert [record.levelno for record in caplog.records if record.exc_info] == [logging.ERROR]


async def test_a_held_write_that_fails_is_an_error_of_that_request(
    client: Wire, disk: MemoryDevice, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(offset: int, data: bytes) -> int:
        raise OutOfSpace("the disk is full")

    monkeypatch.setattr(disk, "write", full)
    await client.feed(structured())
    disk.gate.closed = True
    await client.feed(write(0) + req(wire.CMD_TRIM, 0, 4096, cookie=4))
    disk.gate.open()
    await client.settle()
    assert answers(client) == ["1: chunk error ENOSPC", "4: ok"]


# The end


async def test_no_task_outlives_its_connection(client: Wire, disk: MemoryDevice) -> None:
    disk.misses = asyncio.Event()
    before = asyncio.all_tasks()
    await client.feed(structured() + read())
    assert disk.reads_under_way == 1
    client.leave()
    client.end()
    await client.settle()
    assert client.lost
    assert asyncio.all_tasks() == before
    assert disk.reads_under_way == 0


async def test_a_flush_that_becomes_durable_after_the_client_left_is_quiet(client: Wire, disk: MemoryDevice) -> None:
    disk.durable_at_once = False
    await client.feed(structured() + write(0) + flush())
    client.end()
    await client.settle()
    assert client.lost
    disk.commit()
    await client.settle()
    assert answers(client) == ["1: ok"]


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
        "the log": write(0) + flush(),
        "the gate": write(0),
        "the memory of all": req(wire.CMD_WRITE, 0, 3 * MIB) + b"x",
    }
    with attach(disk, budget=budget) as client:
        await client.feed(structured())
        client.offer(said[waits_for])
        session = weakref.ref(client.connection._session)
        assert session() is not None
    await client.settle()
    del client
    gc.collect()
    assert session() is None


async def test_disc_lets_what_is_under_way_finish(client: Wire, disk: MemoryDevice) -> None:
    """63: the server MUST handle all outstanding requests, also for a client that has shut its sending
    side."""
    disk.durable_at_once = False
    disk.misses = asyncio.Event()
    await client.feed(structured() + write(0) + flush() + read() + DISC)
    client.shut()
    client.end()
    await client.settle()
    assert not client.closed
    disk.misses.set()
    disk.commit()
    await client.settle()
    assert sorted(answers(client)) == ["1: ok", "2: data 4096@0", "3: ok"]
    assert client.lost


async def test_a_client_that_lingers_is_dropped(
    client: Wire, disk: MemoryDevice, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(connection_module, "LINGER_SECONDS", 0.0)
    disk.durable_at_once = False
    await client.feed(structured() + write(0) + flush() + DISC)
    client.shut()
    client.end()
    assert not client.lost
    await client.gone()


async def test_a_stuck_handshake_is_dropped(disk: MemoryDevice) -> None:
    """3: after 3 of 4 bytes, and between options."""
    for said in (b"", FIXED[:3], FIXED + opt(wire.OPT_LIST)):
        with attach(disk, Limits(handshake_seconds=0.0)) as client:
            if said:
                client.offer(said)
            await client.gone()


async def test_the_deadline_is_for_the_handshake_only(disk: MemoryDevice) -> None:
    with attach(disk, Limits(handshake_seconds=0.01)) as client:
        await client.feed(structured())
        await asyncio.sleep(0.03)
        await client.feed(read())
        assert answers(client) == ["2: hole 4096@0"]


# Stale copies


async def test_an_old_copy_behind_a_pause_does_not_undo_a_newer_write(disk: MemoryDevice) -> None:
    """Linux sends a request again on another socket when one stalls. The first copy waits in a paused
    connection; the second is acknowledged and overwritten. When the pause ends, the first must not come to
    life."""
    exports = memory_exports({"disk": disk})
    with Wire(exports) as stalled, Wire(exports) as other:
        await stalled.feed(structured())
        await other.feed(structured())
        disk.gate.closed = True
        stalled.offer(write(0, OLD))
        await stalled.settle()
        assert answers(stalled) == []
        stalled.leave()
        disk.gate.closed = False  # it opened for the other first
        await other.feed(write(0, OLD) + write(0, NEW, cookie=2))
        assert answers(other) == ["1: ok", "2: ok"]
        disk.gate.open()
        await stalled.settle()
        stalled.end()
        await stalled.settle()
        assert disk.contents(0, 4096) == NEW
        assert disk.last_sequence == 2


async def test_an_old_copy_after_silence_does_not_undo_a_newer_write(
    disk: MemoryDevice, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The network heals after the client gave the connection up: its bytes and its FIN arrive together."""
    monkeypatch.setattr(connection_module, "SILENCE_SECONDS", -1.0)
    exports = memory_exports({"disk": disk})
    with Wire(exports) as stalled, Wire(exports) as other:
        await stalled.feed(structured())
        await other.feed(structured() + write(0, OLD) + write(0, NEW, cookie=2))
        stalled.leave()
        await stalled.feed(write(0, OLD) + read())
        stalled.end()
        await stalled.settle()
        assert answers(stalled) == []
        assert disk.contents(0, 4096) == NEW


async def test_a_client_that_left_in_good_order_loses_nothing(
    client: Wire, disk: MemoryDevice, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With DISC behind them the requests of a client that has left already are carried out."""
    monkeypatch.setattr(connection_module, "SILENCE_SECONDS", -1.0)
    await client.feed(structured())
    client.leave()
    said = (
        write(0, NEW)
        + write(BLOCK, b"l" * BLOCK, cookie=4)
        + req(wire.CMD_WRITE_ZEROES, 4096, 4096, cookie=5)
        + req(wire.CMD_CACHE, 0, 4096, cookie=6)
        + req(wire.CMD_BLOCK_STATUS, 0, 4096, cookie=7)
        + req(wire.CMD_READ, cookie=8)
        + req(99, cookie=9)
        + read()
        + flush()
    )
    await client.feed(said, step=1000)
    assert disk.last_sequence == 0
    await client.feed(DISC)
    assert client.lost
    assert disk.contents(0, 4096) == NEW
    assert disk.contents(BLOCK, BLOCK) == b"l" * BLOCK
    assert answers(client) == [
        "1: ok",
        "4: ok",
        "5: ok",
        "7: status 1 4096/0",
        "8: none",
        "9: chunk error EINVAL",
        "2: data 4096@0",
        "3: ok",
    ]


async def test_a_client_that_shut_its_side_gets_all_its_replies(
    disk: MemoryDevice, monkeypatch: pytest.MonkeyPatch
) -> None:
    """libnbd says DISC behind requests, shuts its sending side, and reads on: also more than may wait unsent, and
    with misses among it."""
    monkeypatch.setattr(connection_module, "SILENCE_SECONDS", -1.0)
    disk.write(0, b"x" * BLOCK)
    for misses in (None, asyncio.Event()):
        disk.misses = misses
        with attach(disk, Limits(reply_bytes=100_000, requests=8)) as client:
            await client.feed(structured())
            client.shut()
            client.block()
            client.offer(b"".join(read(0, 30_000, cookie=cookie) for cookie in range(8)) + DISC)
            await client.settle()
            if misses:
                misses.set()
            for _ in range(20):
                client.unblock()
                client.block()
                await client.settle()
            client.unblock()
            await client.settle()
            assert client.closed
            assert len(answers(client)) == 8


async def test_what_a_client_leaves_behind_is_bounded(disk: MemoryDevice, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(connection_module, "SILENCE_SECONDS", -1.0)
    with attach(disk, Limits(requests=10)) as client:
        await client.feed(structured())
        client.leave()
        await client.feed(write(0) * 11)
        assert client.lost
        assert disk.last_sequence == 0


async def test_a_write_cut_short_changes_nothing(disk: MemoryDevice) -> None:
    """54: whichever byte of the payload is the last, short or long."""
    for length, cuts in ((4096, range(0, 4124, 37)), (100_000, (1, 28, 29, 50_000, 100_027))):
        for cut in cuts:
            with attach(disk) as client:
                await client.feed(structured() + write(0, b"x" * length)[:cut])
                client.leave()
                client.end()
                await client.settle()
                assert client.lost
    assert disk.last_sequence == 0


# The gate


async def test_a_closed_gate_holds_writes_and_lets_them_go_on_in_order(disk: MemoryDevice) -> None:
    """Reads are answered meanwhile, and the sockets are read: else the end of a stream could not be seen."""
    exports = memory_exports({"disk": disk})
    clients = [Wire(exports) for _ in range(3)]
    for client in clients:
        await client.feed(structured())
    disk.gate.closed = True
    for number in (1, 0, 2):
        clients[number].offer(write(0, bytes([number]) * 4096) + read())
        await clients[number].settle()
    assert [answers(client) for client in clients] == [["2: hole 4096@0"]] * 3
    assert disk.last_sequence == 0
    assert all(client.reading for client in clients)
    disk.gate.open()
    await clients[0].settle()
    assert disk.contents(0, 4096) == bytes([2]) * 4096
    assert [answers(client) for client in clients] == [["2: hole 4096@0", "1: ok"]] * 3
    for client in clients:
        with client:
            pass


async def test_a_write_behind_a_held_one_does_not_overtake_it(client: Wire, disk: MemoryDevice) -> None:
    await client.feed(structured())
    disk.gate.closed = True
    await client.feed(write(0, OLD))
    disk.gate.closed = False  # open, but this connection has not been told yet
    await client.feed(write(0, NEW, cookie=2))
    disk.gate.open()
    await client.settle()
    assert answers(client) == ["1: ok", "2: ok"]
    assert disk.contents(0, 4096) == NEW


async def test_what_is_held_is_bounded_then_reading_stops(disk: MemoryDevice) -> None:
    with attach(disk, Limits(reply_bytes=MIB, inflight_bytes=4 * MIB, requests=100)) as client:
        await client.feed(structured())
        disk.gate.closed = True
        for number in range(4):
            await client.feed(write(number * MIB, bytes(256 << 10)))
        held = b"".join(write(number * 8192, b"short", cookie=10 + number) for number in range(99))
        rest = memoryview(held)
        while rest and client.reading:
            rest = rest[client.offer(rest) :]
        await client.settle()
        assert not client.reading
        assert disk.last_sequence == 0
        disk.gate.open()
        assert await client.until(lambda: client.reading)
        await client.feed(bytes(rest))
        assert len(answers(client)) == 103


async def test_a_tcp_client_that_was_not_read_for_long_is_dropped(
    disk: MemoryDevice, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Behind what was not read the end of its stream may be out of sight, and its copy elsewhere
    acknowledged."""
    monkeypatch.setattr(peer_module, "STALL_SECONDS_MAX", 0.0)
    for tcp in (True, False):
        with attach(disk, Limits(requests=1)) as client:
            client.connection._presence._tcp = tcp
            await client.feed(structured())
            disk.gate.closed = True
            client.offer(write(0) + write(4096, cookie=2))
            await client.settle()
            assert not client.reading
            before = disk.last_sequence
            await asyncio.sleep(0.01)
            disk.gate.open()
            await client.settle()
            assert client.lost is tcp
            assert disk.last_sequence - before == (0 if tcp else 2)


async def test_a_client_that_left_while_its_writes_were_held(client: Wire, disk: MemoryDevice) -> None:
    """With DISC behind them held writes are applied when the gate opens, without it they are dropped."""
    await client.feed(structured())
    disk.gate.closed = True
    await client.feed(write(0, NEW) + DISC)
    client.shut()
    client.end()
    await client.settle()
    assert not client.closed
    disk.gate.open()
    await client.settle()
    assert client.lost
    assert disk.contents(0, 4096) == NEW
    disk.gate.closed = True
    with attach(disk) as rude:
        await rude.feed(structured() + write(0, OLD))
        rude.leave()
        disk.gate.open()
        await rude.settle()
        rude.end()
        await rude.settle()
        assert rude.lost
    assert disk.contents(0, 4096) == NEW


async def test_trim_and_long_writes_wait_at_the_gate_too(client: Wire, disk: MemoryDevice) -> None:
    await client.feed(structured())
    disk.gate.closed = True
    client.offer(write(0, b"l" * 100_000)[:1000])
    await client.feed(write(0, b"l" * 100_000)[1000:])
    assert answers(client) == []
    disk.gate.open()
    await client.settle()
    assert answers(client) == ["1: ok"]
    disk.gate.closed = True
    client.offer(req(wire.CMD_TRIM, 0, 4096))
    await client.settle()
    assert answers(client) == ["1: ok"]
    disk.gate.open()
    await client.settle()
    assert answers(client) == ["1: ok"] * 2


async def test_a_gate_that_closes_again_is_waited_for_again(client: Wire, disk: MemoryDevice) -> None:
    await client.feed(structured())
    disk.gate.closed = True
    client.offer(write(0))
    await client.settle()
    disk.gate.open()
    disk.gate.closed = True
    await client.settle()
    assert answers(client) == []
    disk.gate.open()
    await client.settle()
    assert answers(client) == ["1: ok"]


async def test_delay_holds_the_reply_not_the_write(client: Wire, disk: MemoryDevice) -> None:
    """Nor does a FLUSH wait for the reply: it covers what was applied."""
    disk.gate.delay = 0.05
    await client.feed(structured() + write(0) + flush() + req(wire.CMD_TRIM, 8192, 4096, cookie=4) + read())
    assert disk.last_sequence == 2
    assert answers(client) == ["3: ok", "2: data 4096@0"]
    await asyncio.sleep(0.1)
    assert sorted(answers(client)[2:]) == ["1: ok", "4: ok"]


# Limits


async def test_a_client_that_does_not_read_is_not_answered_for_ever(disk: MemoryDevice) -> None:
    """71: parsing stops at the limit of unsent replies, and goes on when they were read. A reply longer than
    that is counted in the budget of all until it was read."""
    for offset in range(0, 32 * MIB, BLOCK):
        disk.write(offset, b"x" * BLOCK)
    budget = Budget(512 * MIB)
    with attach(disk, budget=budget) as client:
        await client.feed(structured())
        client.block()
        client.offer(b"".join(read(0, 32 * MIB, cookie=cookie) for cookie in range(3)))
        await client.settle()
        assert not client.reading
        assert client.unsent < 33 * MIB
        assert budget.taken == 31 * MIB
        client.unblock()
        assert await client.until(lambda: client.reading)
        assert len(client.output) > 96 * MIB
        assert budget.taken == 0


async def test_short_replies_are_limited_too(disk: MemoryDevice) -> None:
    disk.write(0, b"x" * BLOCK)
    with attach(disk, Limits(reply_bytes=100_000)) as client:
        await client.feed(structured())
        client.block()
        client.offer(b"".join(read(0, 4096, cookie=cookie) for cookie in range(100)))
        await client.settle()
        assert not client.reading
        assert client.unsent < 210_000
        client.unblock()
        assert await client.until(lambda: client.reading)
        assert len(answers(client)) == 100


async def test_misses_are_limited_by_the_bytes_they_will_hold(disk: MemoryDevice) -> None:
    disk.misses = asyncio.Event()
    with attach(disk, Limits(reply_bytes=MIB, inflight_bytes=4 * MIB)) as client:
        await client.feed(structured())
        client.offer(b"".join(read(0, MIB, cookie=cookie) for cookie in range(10)))
        await client.settle()
        assert disk.reads_under_way == 4
        assert not client.reading
        disk.misses.set()
        await client.settle()
        assert await client.until(lambda: len(answers(client)) == 10)
        assert client.reading


async def test_the_memory_of_all_is_limited_and_each_has_a_share(disk: MemoryDevice) -> None:
    """72: payloads that are announced and never come take no memory beyond the budget, and whoever needs no
    more than its own share is not held up by them."""
    budget = Budget(64 * MIB)
    exports = memory_exports({"disk": disk})
    hostile = [Wire(exports, budget=budget) for _ in range(5)]
    try:
        for client in hostile:
            await client.feed(structured())
            client.offer(req(wire.CMD_WRITE, 0, 32 * MIB) + b"x")
            await client.settle()
        assert budget.taken == 2 * 31 * MIB
        assert [client.reading for client in hostile] == [True, True, False, False, False]
        with Wire(exports, budget=budget) as honest:
            await honest.feed(structured() + write(0, b"h" * MIB))
            assert answers(honest) == ["1: ok"]
            assert disk.contents(0, MIB) == b"h" * MIB
        hostile[0].end()
        await hostile[0].settle()
        assert [client.reading for client in hostile] == [False, True, True, False, False]
    finally:
        for client in hostile:
            client.__exit__(None, None, None)
    assert budget.taken == 0


async def test_nothing_stays_taken(disk: MemoryDevice) -> None:
    budget = Budget(512 * MIB)
    with attach(disk, budget=budget) as client:
        await client.feed(structured())
        await client.feed(write(0, bytes(8 * MIB)) + read(0, 8 * MIB))
        disk.misses = asyncio.Event()
        await client.feed(read(0, 8 * MIB, cookie=5))
        assert budget.taken == 7 * MIB
        disk.misses.set()
        assert await client.until(lambda: budget.taken == 0)


async def test_listing_without_reading_stops_the_handshake() -> None:
    """26."""
    disks = {f"export-{number:04}-{'x' * 100}": MemoryDevice(4096) for number in range(3000)}
    with Wire(memory_exports(disks)) as client:
        client.block()
        client.offer(FIXED + opt(wire.OPT_LIST) * 50)
        await client.settle()
        assert not client.reading
        assert client.unsent < 3 * MIB
        client.unblock()
        await client.until(lambda: client.reading)
        assert read_answers(bytes(client.output)).count("LIST: ACK") == 50


# Stopping


async def test_draining_finishes_what_is_under_way(client: Wire, disk: MemoryDevice) -> None:
    disk.durable_at_once = False
    await client.feed(structured() + write(0) + flush())
    client.connection.drain()
    assert not client.closed
    await client.feed(read(cookie=8) + write(4096, cookie=9))
    disk.commit()
    await client.settle()
    assert answers(client) == ["1: ok", "8: chunk error ESHUTDOWN", "9: chunk error ESHUTDOWN", "3: ok"]
    assert client.lost
    assert disk.last_sequence == 1


async def test_draining_closes_the_idle_at_once(disk: MemoryDevice) -> None:
    for said in (b"", FIXED, structured(), simple() + read()):
        with attach(disk) as client:
            if said:
                await client.feed(said)
            client.connection.drain()
            await client.settle()
            assert client.lost


async def test_attachments_are_counted(disk: MemoryDevice) -> None:
    exports = memory_exports({"disk": disk})
    assert exports.attached("disk") == 0
    with Wire(exports) as one, Wire(exports) as other:
        await one.feed(structured())
        await other.feed(simple())
        assert exports.attached("disk") == 2
        one.end()
        await one.settle()
        assert exports.attached("disk") == 1
        await other.feed(struct.pack(">I", 0) * 7)
        await other.settle()
        assert exports.attached("disk") == 0


# Staying awake


async def test_only_busy_clients_keep_the_loop_awake(client: Wire, monkeypatch: pytest.MonkeyPatch) -> None:
    stays: list[None] = []
    monkeypatch.setattr(client.connection._wakeful, "stay", lambda: stays.append(None))
    await client.feed(structured())
    monkeypatch.setattr(connection_module, "BUSY_SECONDS", 1e9)
    client.offer(read())
    assert len(stays) == 1
    monkeypatch.setattr(connection_module, "BUSY_SECONDS", 0.0)
    client.offer(read())
    assert len(stays) == 1
