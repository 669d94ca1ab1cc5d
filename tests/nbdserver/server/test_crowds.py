"""Many connections that say nothing: whom they cost a place, and whom not."""

import asyncio
import contextlib
import socket
import struct
from collections.abc import Callable

import pytest

from nbdserver.server.limits import Limits
from tests.nbdserver.inside import new_connection
from tests.support import messages as m
from tests.support.nbd import Client
from tests.support.running import GREETING_BYTES, Running, closed, drop
from tests.support.waiting import until

# Crowds


async def test_idle_sockets_do_not_keep_a_client_out(make: Callable[..., Running]) -> None:
    """70: with the place taken up by sockets that say nothing, whoever comes next gets in."""
    crowded = make(Limits(connections=10))
    await crowded.start()
    attached = await crowded.client()
    idle = [await crowded.raw() for _ in range(50)]
    client = await crowded.client(tcp=True)
    assert await asyncio.to_thread(client.read, 0, 4096) == bytes(4096)
    assert await asyncio.to_thread(attached.read, 0, 4096) == bytes(4096)
    await until(lambda: len(crowded.server.clients()) <= 10)
    for _, writer in idle:
        drop(writer)
    client.close()
    attached.close()


async def test_a_crowd_of_sockets_costs_itself_its_places(make: Callable[..., Running]) -> None:
    """Who has been longest in its handshake, but is alone at its address, keeps its place."""
    crowded = make(Limits(connections=5))
    await crowded.start()
    reader, writer = await crowded.raw()
    await reader.readexactly(GREETING_BYTES)
    others = [
        await asyncio.open_connection(*crowded.address, local_addr=(f"127.0.0.{2 + number}", 0)) for number in range(20)
    ]
    for other, _ in others[:16]:
        await closed(other)
    writer.write(m.simple())
    async with asyncio.timeout(20):
        await reader.readexactly(20)
    drop(writer)
    for _, each in others:
        drop(each)


@pytest.mark.parametrize("tcp", [True, False], ids=["tcp", "unix"])
async def test_a_client_in_the_midst_of_a_crowd_has_its_say(make: Callable[..., Running], tcp: bool) -> None:
    """All of one user, and all there at once: who was accepted is not dropped before it could answer the greeting."""
    crowded = make(Limits(connections=10, connections_per_address=8, answer_seconds=20))
    await crowded.start()
    with contextlib.ExitStack() as sockets:
        # The event loop, and with it the server, stands still here.
        good, *_ = [sockets.enter_context(_connect_now(crowded, tcp)) for _ in range(40)]
        client = await asyncio.to_thread(Client, good, "disk", timeout=60)
        assert await asyncio.to_thread(client.read, 0, 4096) == bytes(4096)
        client.close()


def _connect_now(crowded: Running, tcp: bool) -> socket.socket:
    sock = socket.socket(socket.AF_INET if tcp else socket.AF_UNIX)
    sock.connect(crowded.address if tcp else str(crowded.path))
    return sock


async def test_attached_clients_are_not_driven_out(make: Callable[..., Running]) -> None:
    full = make(Limits(connections=3))
    await full.start()
    attached = [await full.client() for _ in range(3)]
    reader, writer = await full.raw()
    assert await closed(reader) == b""
    for client in attached:
        assert await asyncio.to_thread(client.read, 0, 4096) == bytes(4096)
        client.close()
    writer.close()


async def test_two_who_come_at_once_do_not_make_room_for_each_other(make: Callable[..., Running]) -> None:
    """One that was refused has no place that the next one could take."""
    full = make(Limits(connections=2))
    await full.start()
    attached = [await full.client() for _ in range(2)]
    loop = asyncio.get_running_loop()
    pairs = [socket.socketpair() for _ in range(3)]
    come = (loop.connect_accepted_socket(lambda: new_connection(full.server), theirs) for _, theirs in pairs)
    await asyncio.gather(*come, return_exceptions=True)
    for ours, _ in pairs:
        ours.setblocking(False)
        with contextlib.suppress(ConnectionError):
            await loop.sock_sendall(ours, m.simple())
    for ours, _ in pairs:
        with contextlib.suppress(ConnectionError):
            async with asyncio.timeout(20):
                while await loop.sock_recv(ours, 4096):
                    pass
        ours.close()
    assert [facts["export"] for facts in full.server.clients()] == ["disk", "disk"]
    for client in attached:
        client.close()


async def test_one_address_does_not_take_the_place_of_others(make: Callable[..., Running]) -> None:
    """Clients that are attached stay; those of one address that are in the handshake make room for each other; others
    are not touched."""
    crowded = make(Limits(connections=10, connections_per_address=3))
    await crowded.start()
    attached = [await crowded.client(tcp=True) for _ in range(2)]
    idle = [await crowded.raw(tcp=True) for _ in range(5)]
    await until(lambda: len(crowded.server.clients()) == 3)
    crowded.server.use_limits(Limits(connections=10, connections_per_address=4))
    more = await crowded.raw(tcp=True)
    await until(lambda: len(crowded.server.clients()) == 4)
    crowded.server.use_limits(Limits(connections=10, connections_per_address=3))
    drop(more[1])
    await until(lambda: len(crowded.server.clients()) == 3)
    last = await crowded.client(tcp=True)
    reader, writer = await crowded.raw(tcp=True)
    assert await closed(reader) == b""
    reader_elsewhere, elsewhere = await asyncio.open_connection(*crowded.address, local_addr=("127.0.0.2", 0))
    assert await closed(reader_elsewhere) == b"", "on loopback an address is nobody"
    local = await crowded.client()
    for client in (*attached, last, local):
        assert await asyncio.to_thread(client.read, 0, 4096) == bytes(4096)
        client.close()
    for _, each in (*idle, (reader, writer), (reader_elsewhere, elsewhere)):
        drop(each)


async def test_connecting_and_leaving_leaves_nothing(running: Running) -> None:
    """73: among them resets before the greeting was read."""
    for number in range(300):
        sock = socket.socket(socket.AF_INET)
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        sock.setblocking(False)
        with contextlib.suppress(BlockingIOError):
            sock.connect(running.address)
        if number % 3 == 0:
            await asyncio.sleep(0)
        sock.close()
    client = await running.client(tcp=True)
    assert await asyncio.to_thread(client.read, 0, 4096) == bytes(4096)
    client.close()
    await until(lambda: not running.server.clients())
