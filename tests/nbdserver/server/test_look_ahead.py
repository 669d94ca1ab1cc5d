"""A TCP client whose requests were not taken for long, by our own doing: one that is there loses nothing, and of one
that has left, with the end of its stream out of sight, nothing is carried out."""

import asyncio
import socket
from collections.abc import Callable

import pytest

from nbdserver.server.connection import Connection
from nbdserver.server.limits import Limits
from tests.nbdserver.inside import budget_of, connections
from tests.support import messages as m
from tests.support.nbd import Client
from tests.support.running import Running
from tests.support.waiting import until
from tests.support.wired import transmission

MIB = 1 << 20
NEW = b"n" * 4096
REFUSED_TURNS = 30


@pytest.fixture
async def held(make: Callable[..., Running]) -> Running:
    """A server whose gate is closed."""
    running = make(Limits(inflight_bytes=8 * MIB, memory_bytes=256 * MIB, unseen_seconds=0.2, look_seconds=0.02))
    await running.start()
    running.disk.gate.closed = True
    return running


async def unseen(running: Running, number: int = 0) -> Connection:
    """Wait until a client has not been read for so long that it may have left."""
    connection = connections(running.server)[number]
    loop = asyncio.get_running_loop()
    await until(lambda: transmission(connection).liveness.unseen(loop.time()))
    return connection


async def flooded(running: Running, client: Client) -> None:
    """Writes until neither side's kernel takes any more, however often the server has its turn."""
    client.socket.setblocking(False)
    request, sent, refused = m.request(m.WRITE, 0, data=b"o" * MIB), 0, 0
    while refused < REFUSED_TURNS:
        try:
            sent = (sent + client.socket.send(memoryview(request)[sent:])) % len(request)
            refused = 0
        except BlockingIOError:
            refused += 1
            await asyncio.sleep(0.01)


@pytest.mark.parametrize("count", [16, 64])
async def test_a_client_that_is_there_is_answered(held: Running, count: int) -> None:
    """Seen: an outage of 40 s, and the client was dropped when the store was back."""
    client = await held.client(tcp=True)

    def flood() -> None:
        for number in range(count):
            client.submit(m.WRITE, number * MIB, data=bytes([number]) * MIB)

    sending = asyncio.create_task(asyncio.to_thread(flood))
    await until(lambda: bool(held.server.clients()[0]["requests"]))
    await unseen(held)
    held.disk.gate.open()
    for _ in range(count):
        reply = await asyncio.to_thread(client.receive)
        assert not reply.error
    await sending
    assert held.disk.last_sequence == count
    assert held.disk.contents((count - 1) * MIB, MIB) == bytes([count - 1]) * MIB
    assert await asyncio.to_thread(client.read, 0, MIB) == bytes(MIB)
    await until(lambda: budget_of(held.server).taken == 0)
    assert budget_of(held.server).looking_ahead is None
    client.close()


@pytest.mark.parametrize("leave", [lambda client: client.socket.shutdown(socket.SHUT_RDWR), Client.close])
async def test_of_a_client_that_has_left_nothing_is_carried_out(held: Running, leave: Callable[[Client], None]) -> None:
    client = await held.client(tcp=True)
    await flooded(held, client)
    connection = await unseen(held)
    leave(client)
    assert transmission(connection).peer_is_here(), "its end is out of sight"
    held.disk.write(0, NEW)
    held.disk.gate.open()
    await until(lambda: not held.server.clients())
    assert held.disk.contents(0, 4096) == NEW
    assert held.disk.last_sequence == 1
    assert budget_of(held.server).taken == 0
    client.close()


async def test_many_look_ahead_one_after_the_other(held: Running) -> None:
    """What is set apart for it is enough for one: together they would all wait for the rest for ever."""
    clients = [await held.client(tcp=True) for _ in range(4)]
    budget = budget_of(held.server)
    budget.total, budget.reserve = 4 * 8 * MIB + 48 * MIB, 48 * MIB

    def flood(client: Client) -> None:
        for number in range(40):
            client.submit(m.WRITE, number * MIB, data=b"x" * MIB)

    sending = [asyncio.create_task(asyncio.to_thread(flood, client)) for client in clients]
    for number in range(4):
        await unseen(held, number)
    held.disk.gate.open()
    async with asyncio.timeout(50):
        for client in clients:
            for _ in range(40):
                assert not (await asyncio.to_thread(client.receive)).error
        await asyncio.gather(*sending)
    assert held.disk.last_sequence == 4 * 40
    for client in clients:
        client.close()
