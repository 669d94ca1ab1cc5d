"""When a client gets ahead: writes wait at the gate in their order, and what waits - held, unsent, under way, or
announced - is bounded in one connection and in all of them together."""

import asyncio

from nbdserver.server.limits import Budget, Limits
from nbdserver.server.reads import UNDERWAY_BYTES
from tests.support import messages as m
from tests.support.idle import idle
from tests.support.memory_device import BLOCK, MemoryDevice, memory_exports
from tests.support.waiting import until
from tests.support.wired import Wire, answers, attach

MIB = 1 << 20
OLD, NEW = b"o" * 4096, b"n" * 4096


# The gate


async def test_a_closed_gate_holds_writes_and_lets_them_go_on_in_order(disk: MemoryDevice) -> None:
    """Reads are answered meanwhile, and the sockets are read: else the end of a stream could not be seen."""
    exports = memory_exports({"disk": disk})
    clients = [Wire(exports) for _ in range(3)]
    for client in clients:
        await client.feed(m.structured())
    disk.gate.closed = True
    for number in (1, 0, 2):
        clients[number].offer(m.write(0, bytes([number]) * 4096) + m.read())
        await idle()
    assert [answers(client) for client in clients] == [["2: read 0+4096 0*4096 (hole)"]] * 3
    assert disk.last_sequence == 0
    assert all(client.reading for client in clients)
    disk.gate.open()
    await idle()
    assert disk.contents(0, 4096) == bytes([2]) * 4096
    assert [answers(client) for client in clients] == [["2: read 0+4096 0*4096 (hole)", "1 ok"]] * 3
    for client in clients:
        with client:
            pass


async def test_a_write_behind_a_held_one_does_not_overtake_it(client: Wire, disk: MemoryDevice) -> None:
    await client.feed(m.structured())
    disk.gate.closed = True
    await client.feed(m.write(0, OLD))
    disk.gate.closed = False  # open, but this connection has not been told yet
    await client.feed(m.write(0, NEW, cookie=2))
    disk.gate.open()
    await idle()
    assert answers(client) == ["1 ok", "2 ok"]
    assert disk.contents(0, 4096) == NEW


async def test_what_is_held_is_bounded_then_reading_stops(disk: MemoryDevice) -> None:
    with attach(disk, Limits(reply_bytes=MIB, inflight_bytes=4 * MIB, requests=100)) as client:
        await client.feed(m.structured())
        disk.gate.closed = True
        for number in range(4):
            await client.feed(m.write(number * MIB, bytes(256 << 10)))
        held = b"".join(m.write(number * 8192, b"short", cookie=10 + number) for number in range(99))
        rest = memoryview(held)
        while rest and client.reading:
            rest = rest[client.offer(rest) :]
        await idle()
        assert not client.reading
        assert disk.last_sequence == 0
        disk.gate.open()
        assert await client.until(lambda: client.reading)
        await client.feed(bytes(rest))
        assert len(answers(client)) == 103


async def test_trim_and_long_writes_wait_at_the_gate_too(client: Wire, disk: MemoryDevice) -> None:
    await client.feed(m.structured())
    disk.gate.closed = True
    client.offer(m.write(0, b"l" * 100_000)[:1000])
    await client.feed(m.write(0, b"l" * 100_000)[1000:])
    assert answers(client) == []
    disk.gate.open()
    await idle()
    assert answers(client) == ["1 ok"]
    disk.gate.closed = True
    client.offer(m.request(m.TRIM, 0, 4096))
    await idle()
    assert answers(client) == ["1 ok"]
    disk.gate.open()
    await idle()
    assert answers(client) == ["1 ok"] * 2


async def test_a_gate_that_closes_again_is_waited_for_again(client: Wire, disk: MemoryDevice) -> None:
    await client.feed(m.structured())
    disk.gate.closed = True
    client.offer(m.write(0) + m.write(4096, cookie=2))
    await idle()
    disk.gate.open(turns=1)
    await idle()
    assert answers(client) == ["1 ok"]
    disk.gate.open()
    await idle()
    assert answers(client) == ["1 ok", "2 ok"]


async def test_delay_holds_the_reply_not_the_write(client: Wire, disk: MemoryDevice) -> None:
    """Nor does a FLUSH wait for the reply: it covers what was applied."""
    disk.gate.seconds = 0.05
    await client.feed(m.structured() + m.write(0) + m.flush() + m.request(m.TRIM, 8192, 4096, cookie=4) + m.read())
    assert disk.last_sequence == 2
    assert answers(client) == ["3 ok", "2: read 0+4096 s*4096 (data)"]
    await until(lambda: len(answers(client)) == 4)
    assert sorted(answers(client)[2:]) == ["1 ok", "4 ok"]


# Limits


async def test_flushes_beyond_the_limit_wait_in_the_socket(disk: MemoryDevice) -> None:
    disk.durable_at_once = False
    with attach(disk, Limits(requests=4)) as client:
        await client.feed(m.structured() + m.write(0))
        client.offer(b"".join(m.flush(cookie) for cookie in range(10, 20)))
        await idle()
        assert not client.reading
        disk.commit()
        assert await client.until(lambda: client.reading)
        assert len(answers(client)) == 11


async def test_a_client_that_does_not_read_is_not_answered_for_ever(disk: MemoryDevice) -> None:
    """71: parsing stops at the limit of unsent replies, and goes on when they were read. A reply longer than
    that is counted in the budget of all until it was read."""
    for offset in range(0, 32 * MIB, BLOCK):
        disk.write(offset, b"x" * BLOCK)
    budget = Budget(512 * MIB)
    with attach(disk, budget=budget) as client:
        await client.feed(m.structured())
        client.block()
        client.offer(b"".join(m.read(0, 32 * MIB, cookie=cookie) for cookie in range(3)))
        await idle()
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
        await client.feed(m.structured())
        client.block()
        client.offer(b"".join(m.read(0, 4096, cookie=cookie) for cookie in range(100)))
        await idle()
        assert not client.reading
        assert client.unsent < 210_000
        client.unblock()
        assert await client.until(lambda: client.reading)
        assert len(answers(client)) == 100


async def test_misses_are_limited_by_the_bytes_they_will_hold(disk: MemoryDevice) -> None:
    disk.misses = asyncio.Event()
    with attach(disk, Limits(reply_bytes=MIB, inflight_bytes=4 * (MIB + UNDERWAY_BYTES))) as client:
        await client.feed(m.structured())
        client.offer(b"".join(m.read(0, MIB, cookie=cookie) for cookie in range(10)))
        await idle()
        assert disk.reads_under_way == 4
        assert not client.reading
        disk.misses.set()
        await idle()
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
            await client.feed(m.structured())
            client.offer(m.request(m.WRITE, 0, 32 * MIB) + b"x")
            await idle()
        assert budget.taken == 2 * 31 * MIB
        assert [client.reading for client in hostile] == [True, True, False, False, False]
        with Wire(exports, budget=budget) as honest:
            await honest.feed(m.structured() + m.write(0, b"h" * MIB))
            assert answers(honest) == ["1 ok"]
            assert disk.contents(0, MIB) == b"h" * MIB
        hostile[0].end()
        await idle()
        assert [client.reading for client in hostile] == [False, True, True, False, False]
    finally:
        for client in hostile:
            client.__exit__(None, None, None)
    assert budget.taken == 0


async def test_nothing_stays_taken(disk: MemoryDevice) -> None:
    budget = Budget(512 * MIB)
    with attach(disk, budget=budget) as client:
        await client.feed(m.structured())
        await client.feed(m.write(0, bytes(8 * MIB)) + m.read(0, 8 * MIB))
        disk.misses = asyncio.Event()
        await client.feed(m.read(0, 8 * MIB, cookie=5))
        assert budget.taken == 7 * MIB + UNDERWAY_BYTES
        disk.misses.set()
        assert await client.until(lambda: budget.taken == 0)


async def test_nothing_stays_taken_of_long_writes(disk: MemoryDevice) -> None:
    """Of one that is answered later, since its log comes first, or the gate slows it."""
    budget = Budget(512 * MIB)
    with attach(disk, budget=budget) as client:
        await client.feed(m.structured())
        await client.feed(m.write(0, bytes(8 * MIB), fua=True))
        assert await client.until(lambda: answers(client) == ["1 ok"])
        assert budget.taken == 0
        disk.gate.seconds = 0.001
        await client.feed(m.write(0, bytes(8 * MIB), cookie=2))
        await until(lambda: answers(client) == ["1 ok", "2 ok"])
        assert budget.taken == 0


async def test_listing_without_reading_stops_the_handshake() -> None:
    """26."""
    disks = {f"export-{number:04}-{'x' * 100}": MemoryDevice(4096) for number in range(3000)}
    with Wire(memory_exports(disks)) as client:
        client.block()
        client.offer(m.FIXED_FLAGS + m.option(m.LIST) * 50)
        await idle()
        assert not client.reading
        assert client.unsent < 3 * MIB
        client.unblock()
        assert await client.until(lambda: client.reading)
        await idle()
        assert bytes(client.output).count(m.acknowledged(m.LIST)) == 50
