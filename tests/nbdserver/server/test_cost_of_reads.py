"""What READs cost that the store has to answer: each more than its data, all of them within the limits."""

import asyncio

import pytest

from nbdserver.server.limits import Budget, Limits
from nbdserver.server.reads import COPY_BYTES_MAX, STORE_BLOCK_BYTES, UNDERWAY_BYTES, cost
from tests.support import messages as m
from tests.support.idle import idle
from tests.support.memory_device import MemoryDevice
from tests.support.wired import Wire, attach, transmission

MIB = 1 << 20
READS = 5000


def outstanding(client: Wire) -> int:
    return transmission(client.connection).session.admission.outstanding


async def ask(client: Wire, requests: bytes) -> None:
    """Send as much of it as the server takes."""
    rest = memoryview(requests)
    while rest and client.reading:
        rest = rest[client.offer(rest) :]
        await idle()


def one_byte_reads(count: int) -> bytes:
    return b"".join(m.read(number, 1, cookie=number) for number in range(count))


@pytest.mark.parametrize(
    ("offset", "length", "blocks"),
    [
        (0, 1, None),
        (STORE_BLOCK_BYTES - 1, 1, None),
        (STORE_BLOCK_BYTES - 1, 2, 2),
        (512, 32 * MIB, 129),
        (9, COPY_BYTES_MAX, None),
        (9, COPY_BYTES_MAX + 1, 1),
    ],
)
def test_what_a_read_costs(offset: int, length: int, blocks: int | None) -> None:
    """A block that is there waits, whole, for the others of its READ."""
    held = length if blocks is None else blocks * STORE_BLOCK_BYTES
    assert cost(offset, length) == UNDERWAY_BYTES + held


async def test_many_tiny_reads_are_paid_for(disk: MemoryDevice) -> None:
    """Seen: 4,096 READs of a byte counted as 4 KiB, and held 20 MB, on each of eighty connections."""
    disk.misses = asyncio.Event()
    budget = Budget(512 * MIB)
    with attach(disk, budget=budget) as client:
        await client.feed(m.structured())
        await ask(client, one_byte_reads(READS))
        assert outstanding(client) == Limits().requests
        assert budget.taken == Limits().requests * (UNDERWAY_BYTES + 1) - Limits().reply_bytes
    assert budget.taken == 0


async def test_all_clients_together_hold_what_the_budget_allows(disk: MemoryDevice) -> None:
    disk.misses = asyncio.Event()
    budget = Budget(2 * MIB)
    clients = [attach(disk, Limits(reply_bytes=64 << 10), budget=budget) for _ in range(4)]
    try:
        for client in clients:
            await client.feed(m.structured())
            await ask(client, one_byte_reads(READS))
        total = sum(outstanding(client) for client in clients)
        assert total <= (budget.total + 4 * (64 << 10)) // UNDERWAY_BYTES
        assert all(outstanding(client) >= 7 for client in clients), "each has its share"
    finally:
        for client in clients:
            client.__exit__(None, None, None)
    assert budget.taken == 0


async def test_who_looks_ahead_has_no_more_reads_under_way(disk: MemoryDevice) -> None:
    disk.misses = asyncio.Event()
    with attach(disk, Limits(requests=64)) as client:
        await client.feed(m.structured())
        transmission(client.connection).session.look_ahead(64 * MIB)
        await ask(client, one_byte_reads(READS))
        assert outstanding(client) == 64
        assert not client.reading


async def test_reads_beyond_the_limit_follow_when_others_are_answered(disk: MemoryDevice) -> None:
    """One at a time too: its place is free before anybody asks for it."""
    for most in (1, 3):
        disk.misses = asyncio.Event()
        with attach(disk, Limits(requests=most)) as client:
            await client.feed(m.structured())
            client.offer(one_byte_reads(10))
            await idle()
            assert disk.reads_under_way == most
            disk.misses.set()
            assert await client.until(lambda: client.reading and not outstanding(client))
            assert disk.reads_under_way == 0
