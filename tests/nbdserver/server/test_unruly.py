"""Clients that mean harm, or come to it, on real sockets: crowds, stalls, floods and resets cost nobody else
anything, and of what a client leaves under way nothing is written later."""

import asyncio
import socket
import struct
from collections.abc import Callable

import pytest

from nbdserver.server.limits import Limits
from tests.nbdserver.inside import budget_of, connections
from tests.support import messages as m
from tests.support.running import GREETING_BYTES, Running, closed, drop
from tests.support.waiting import until
from tests.support.wired import transmission

MIB = 1 << 20


# Stalls and floods


async def test_a_stalled_handshake_ends(make: Callable[..., Running]) -> None:
    strict = make(Limits(handshake_seconds=0.05))
    await strict.start()
    for said in (b"", m.FIXED_FLAGS[:3], m.FIXED_FLAGS + m.option(m.LIST)):
        reader, writer = await strict.raw(tcp=True)
        writer.write(said)
        await closed(reader)
        writer.close()


async def test_a_client_that_floods_and_never_reads_harms_nobody(running: Running) -> None:
    """71 on a real socket: the server's memory for it stays bounded while another client works."""
    running.disk.write(0, b"x" * (1 << 18))
    _, writer = await running.raw()
    writer.transport.pause_reading()  # type: ignore[attr-defined]
    writer.write(m.simple() + m.request(m.READ, 0, 32 * MIB) * 10_000)
    client = await running.client()
    for _ in range(200):
        await asyncio.to_thread(client.read, 0, 4096)
    (flood,) = (one for one in running.server.clients() if one["requests"] != 200)
    assert isinstance(flood["requests"], int)
    assert flood["requests"] < 10
    drop(writer)
    client.close()
    await until(lambda: not running.server.clients())


@pytest.mark.parametrize("tcp", [True, False], ids=["tcp", "unix"])
async def test_hostile_clients_cost_memory_that_is_bounded(make: Callable[..., Running], tcp: bool) -> None:
    """72 on real sockets: payloads of 32 MiB that are announced, begun and not continued, replies that are not read,
    and one client that goes on as if it were alone."""
    limits = Limits(memory_bytes=64 * MIB)
    crowded = make(limits)
    await crowded.start()
    crowded.disk.write(0, b"x" * (1 << 18))
    hostile = [await crowded.raw(tcp=tcp) for _ in range(20)]
    for number, (_, writer) in enumerate(hostile):
        writer.transport.pause_reading()  # type: ignore[attr-defined]
        if number % 2:
            writer.write(m.simple() + m.request(m.WRITE, 0, 32 * MIB) + b"x")
        else:
            writer.write(m.simple() + m.request(m.READ, 0, 32 * MIB) * 100)
    await until(lambda: len(crowded.exports.clients_of("disk")) == len(hostile))
    client = await crowded.client(tcp=tcp)
    for _ in range(50):
        await asyncio.to_thread(client.write, MIB, b"h" * 65536)
        assert await asyncio.to_thread(client.read, MIB, 65536) == b"h" * 65536
    assert 0 < budget_of(crowded.server).taken <= limits.memory_bytes
    for _, writer in hostile:
        drop(writer)
    client.close()
    await until(lambda: not crowded.server.clients())
    assert budget_of(crowded.server).taken == 0


# Clients that leave with things under way


async def test_a_peer_that_resets_in_a_payload_changes_nothing(running: Running) -> None:
    reader, writer = await running.raw(tcp=True)
    sock = writer.get_extra_info("socket")
    sent = m.structured() + m.request(m.WRITE, 0, MIB) + b"x" * 500_000
    writer.write(sent)
    await reader.readexactly(GREETING_BYTES)
    (connection,) = connections(running.server)
    await until(lambda: connection.stream.bytes_received == len(sent))
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    drop(writer)
    await until(lambda: not running.server.clients())
    assert running.disk.last_sequence == 0


async def test_an_old_copy_in_a_silent_socket_does_not_undo_a_newer_write(running: Running) -> None:
    """C1 on real sockets: held back by the gate, its client gone, while another connection writes newer
    data."""
    stalled = await running.client(tcp=True)
    other = await running.client(tcp=True)
    running.disk.gate.closed = True
    stalled.submit(m.WRITE, 0, data=b"o" * 4096)
    stalled.submit(m.WRITE, 4096, data=b"o" * 300_000)
    await until(lambda: bool(running.disk.gate.waiting))
    stalled.close()
    running.disk.gate.closed = False
    await asyncio.to_thread(other.write, 0, b"n" * 4096)
    running.disk.gate.open()
    await until(lambda: len(running.server.clients()) == 1)
    assert await asyncio.to_thread(other.read, 0, 4096) == b"n" * 4096
    assert await asyncio.to_thread(other.read, 4096, 4096) == bytes(4096)
    other.close()


async def test_what_stands_behind_disc_costs_a_client_no_reply(running: Running) -> None:
    """TCP resets a connection that gets bytes when it is closed, and what it had on its way to a slow client is
    lost."""
    loop = asyncio.get_running_loop()
    client = socket.socket()
    client.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
    client.setblocking(False)
    await loop.sock_connect(client, running.address)
    await loop.sock_sendall(client, m.simple() + m.request(m.READ, 0, 256 << 10) * 4 + m.request(m.DISC))
    await until(lambda: bool(connections(running.server)))
    (connection,) = connections(running.server)
    await until(lambda: connection.is_closing)
    for _ in range(3):
        await loop.sock_sendall(client, b"rubbish")
        await asyncio.sleep(0)
    got = 0
    async with asyncio.timeout(20):
        while data := await loop.sock_recv(client, 1 << 16):
            got += len(data)
    assert got >= 4 * (16 + (256 << 10))
    client.close()
    await until(lambda: not running.server.clients())


# Clients that left while the gate was closed: what they sent was not acknowledged


async def _attached(running: Running) -> socket.socket:
    loop = asyncio.get_running_loop()
    client = socket.socket(socket.AF_UNIX)
    client.setblocking(False)
    await loop.sock_connect(client, str(running.path))
    await loop.sock_recv(client, GREETING_BYTES)
    await loop.sock_sendall(client, m.FIXED_FLAGS + m.option(m.EXPORT_NAME, b"disk"))
    await loop.sock_recv(client, 200)
    return client


async def test_a_client_that_died_with_more_than_it_may_hold_is_dropped(running: Running) -> None:
    """Its held writes keep its last bytes from being read, and with them its end: it held its share for ever."""
    client = await _attached(running)
    running.disk.gate.closed = True
    writes = m.request(m.WRITE, 0, data=bytes(256 << 10)) * 400
    sending = asyncio.ensure_future(asyncio.get_running_loop().sock_sendall(client, writes))
    (connection,) = connections(running.server)
    await until(lambda: transmission(connection).session.admission.stalled)
    sending.cancel()
    await asyncio.gather(sending, return_exceptions=True)
    client.close()
    running.disk.gate.open()
    await until(lambda: not running.server.clients())
    assert budget_of(running.server).taken == 0


async def test_what_a_client_left_behind_is_not_written_while_the_server_stops(running: Running) -> None:
    client = await _attached(running)
    running.disk.gate.closed = True
    await asyncio.get_running_loop().sock_sendall(client, m.request(m.WRITE, 0, data=b"o" * 4096))
    await until(lambda: any(facts["requests"] for facts in running.server.clients()))
    stopping = asyncio.ensure_future(running.server.stop(20))
    (connection,) = connections(running.server)
    await until(lambda: transmission(connection).session.ending)
    client.close()
    running.disk.write(0, b"n" * 4096)
    running.disk.gate.open()
    await stopping
    assert running.disk.contents(0, 4096) == b"n" * 4096


@pytest.mark.parametrize("tcp", [True, False], ids=["tcp", "unix"])
async def test_who_reads_nothing_does_not_keep_the_memory_of_all(make: Callable[..., Running], tcp: bool) -> None:
    greedy = make(Limits(memory_bytes=32 * MIB, stuck_seconds=0.1))
    await greedy.start()
    _, hoarder = await greedy.raw(tcp=tcp)
    hoarder.write(m.simple() + m.request(m.READ, 0, 32 * MIB))
    await until(lambda: budget_of(greedy.server).taken > 30 * MIB)
    client = await greedy.client(tcp=not tcp)
    await asyncio.to_thread(client.write, 0, bytes(8 * MIB))
    client.close()
    drop(hoarder)


@pytest.mark.parametrize("trickles", [False, True])
async def test_who_sends_nothing_of_what_it_announced_does_not_keep_the_memory_of_all(
    make: Callable[..., Running], trickles: bool
) -> None:
    """Seen: 17 connections, and another client's write of 4 MiB waited for ever."""
    greedy = make(Limits(memory_bytes=32 * MIB, stuck_seconds=0.1))
    await greedy.start()
    _, hoarder = await greedy.raw(tcp=True)
    hoarder.write(m.simple() + m.request(m.WRITE, 0, 32 * MIB))
    await until(lambda: budget_of(greedy.server).taken > 30 * MIB)

    async def trickle() -> None:
        while trickles and not hoarder.is_closing():
            hoarder.write(b"x")
            await asyncio.sleep(0.01)

    trickling = asyncio.ensure_future(trickle())
    client = await greedy.client()
    await asyncio.to_thread(client.write, 0, bytes(8 * MIB))
    trickling.cancel()
    client.close()
    drop(hoarder)


async def is_looked_at(running: Running, monkeypatch: pytest.MonkeyPatch) -> None:
    """Return when the server has looked so often at its client that it would have dropped one which is stuck."""
    liveness, looks = transmission(connections(running.server)[0]).liveness, []
    right = liveness.look

    def look(now: float, received: int, *, reading: bool) -> None:
        looks.append(now)
        right(now, received, reading=reading)

    monkeypatch.setattr(liveness, "look", look)
    await until(lambda: len(looks) >= 10)


async def test_who_sends_slowly_is_waited_for(make: Callable[..., Running], monkeypatch: pytest.MonkeyPatch) -> None:
    """Memory that nobody waits for may be kept."""
    patient = make(Limits(memory_bytes=32 * MIB, stuck_seconds=0.01))
    await patient.start()
    reader, writer = await patient.raw()
    writer.write(m.simple() + m.request(m.WRITE, 0, 4 * MIB))
    await until(lambda: budget_of(patient.server).taken == 3 * MIB)
    await is_looked_at(patient, monkeypatch)
    writer.write(bytes(4 * MIB))
    await until(lambda: patient.disk.last_sequence == 1)
    assert not reader.at_eof()
    drop(writer)


async def test_who_reads_slowly_is_waited_for(make: Callable[..., Running], monkeypatch: pytest.MonkeyPatch) -> None:
    """Memory that nobody waits for may be kept."""
    patient = make(Limits(memory_bytes=32 * MIB, stuck_seconds=0.01))
    await patient.start()
    reader, writer = await patient.raw()
    writer.write(m.simple() + m.request(m.READ, 0, 32 * MIB))
    await until(lambda: budget_of(patient.server).taken > 30 * MIB)
    await is_looked_at(patient, monkeypatch)
    got = 0
    async with asyncio.timeout(20):
        while got < 32 * MIB and (data := await reader.read(1 << 20)):
            got += len(data)
    assert got >= 32 * MIB
    drop(writer)
