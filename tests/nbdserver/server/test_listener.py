"""The server on real sockets, on the event loop it runs on: the clients it serves, who is connected, and how it
stops."""

import asyncio
import struct

import pytest

from storage.errors import NotFound
from tests.support import messages as m
from tests.support.nbd import Client
from tests.support.running import GREETING_BYTES, Running, closed, drop
from tests.support.waiting import until

MIB = 1 << 20


# Real clients


@pytest.mark.parametrize("tcp", [True, False], ids=["tcp", "unix"])
@pytest.mark.parametrize("is_structured", [True, False], ids=["structured", "simple"])
async def test_a_client_reads_what_it_wrote(running: Running, tcp: bool, is_structured: bool) -> None:
    def use(client: Client) -> None:
        assert client.size == 1 << 30
        assert client.block_sizes == (1, 4096, 32 << 20)
        long = bytes(range(256)) * (20 << 12)
        for offset, data in ((0, b"a" * 4096), (5000, b"unaligned"), (MIB - 7, long), (64 * MIB, b"z" * (1 << 18))):
            client.write(offset, data, flags=m.FUA)
            assert client.read(offset, len(data)) == data
        client.trim(0, 4096)
        client.zero(64 * MIB, 1 << 18, flags=m.NO_HOLE)
        client.flush()
        assert client.read(0, 4096) == bytes(4096)
        assert client.read(MIB - 7, len(long)) == long
        client.disconnect()

    await asyncio.to_thread(use, await running.client(tcp=tcp, is_structured=is_structured))
    await until(lambda: not running.server.clients())


@pytest.mark.thorough
async def test_many_requests_at_once_over_several_connections(running: Running) -> None:
    """More replies than sockets hold, written and read back by pipelining clients."""

    def use(client: Client, base: int) -> None:
        with client:
            for index in range(64):
                client.submit(m.WRITE, base + index * MIB, data=bytes([index]) * MIB)
                if index % 8 == 7:
                    assert [client.receive().error for _ in range(8)] == [0] * 8
            wanted = {}
            for index in range(16):
                wanted[client.submit(m.READ, base + index * 4 * MIB, MIB)] = bytes([index * 4]) * MIB
            for _ in wanted:
                reply = client.receive()
                assert bytes(reply.data) == wanted[reply.cookie]

    clients = [await running.client(tcp=bool(number % 2)) for number in range(4)]
    await asyncio.gather(*(asyncio.to_thread(use, client, number * 64 * MIB) for number, client in enumerate(clients)))


async def test_go_and_requests_in_one_segment(running: Running) -> None:
    reader, writer = await running.raw()
    writer.write(m.FIXED_FLAGS + m.go() + m.request(m.READ, 0, 4096) + m.request(m.DISC))
    answer = await closed(reader)
    assert answer.endswith(struct.pack(">IIQ", 0x67446698, 0, 1) + bytes(4096))
    writer.close()


# Who is connected


async def test_who_is_connected(running: Running) -> None:
    assert running.server.clients() == []
    client = await running.client()
    tcp_reader, tcp_writer = await running.raw(tcp=True)
    await tcp_reader.readexactly(GREETING_BYTES)
    await asyncio.to_thread(client.write, 0, b"x" * 4096)
    one, other = running.server.clients()
    assert one["export"] == "disk"
    assert str(one["peer"]).startswith("unix:pid=")
    assert one["requests"] == 1
    assert isinstance(one["bytes_received"], int)
    assert one["bytes_received"] > 4096
    assert one["bytes_sent"] == 0
    assert isinstance(one["since"], float)
    assert other["export"] is None
    assert other["peer"] == "127.0.0.1:{}".format(tcp_writer.get_extra_info("sockname")[1])
    assert len(running.exports.clients_of("disk")) == 1
    client.close()
    drop(tcp_writer)
    await until(lambda: not running.server.clients())
    assert not running.exports.clients_of("disk")


@pytest.mark.parametrize(
    ("said", "structured", "extended"),
    [
        (m.simple(), False, False),
        (m.FIXED_FLAGS + m.option(m.STRUCTURED_REPLY) + m.go(), True, False),
        (m.FIXED_FLAGS + m.option(m.EXTENDED_HEADERS) + m.go(), True, True),
    ],
)
async def test_what_a_client_speaks(running: Running, said: bytes, structured: bool, extended: bool) -> None:
    _, writer = await running.raw()
    writer.write(said)
    await until(lambda: len(running.exports.clients_of("disk")) == 1)
    (facts,) = running.server.clients_of("disk")
    assert (facts["structured"], facts["extended"], facts["read_only"], facts["tls"]) == (
        structured,
        extended,
        False,
        None,
    )
    assert running.server.clients_of("other") == []
    drop(writer)


async def test_a_client_that_is_disconnected_leaves_nothing_behind(running: Running) -> None:
    """What it sent and was not carried out never is; another client of the same device goes on."""
    client, other = await running.client(), await running.client(tcp=True)
    running.disk.gate.closed = True
    client.submit(m.WRITE, 0, data=b"o" * 4096)
    await until(lambda: bool(running.disk.gate.waiting))
    (number,) = (each["id"] for each in running.server.clients() if each["requests"])
    assert isinstance(number, int)
    assert running.server.disconnect(number).startswith(f"client {number} (unix:pid=")
    running.disk.gate.open()  # which would carry out the held write
    await asyncio.to_thread(other.write, 8192, b"n" * 4096)
    assert running.disk.last_sequence == 1
    with pytest.raises((EOFError, ConnectionError)):
        await asyncio.to_thread(client.receive)
    await until(lambda: len(running.server.clients()) == 1)
    with pytest.raises(NotFound, match=f"no client {number} is connected"):
        running.server.disconnect(number)
    client.close()
    other.close()


# Stopping


async def test_stop_finishes_flushes_and_closes(running: Running) -> None:
    running.disk.durable_at_once = False
    client = await running.client()
    await asyncio.to_thread(client.write, 0, b"x" * 4096)
    client.submit(m.FLUSH)
    await until(lambda: running.server.clients()[0]["requests"] == 2)
    stopping = asyncio.create_task(running.server.stop(grace_seconds=3600))
    await until(lambda: running.server.stopping)
    assert not stopping.done()
    running.disk.commit()
    assert (await asyncio.to_thread(client.receive)).error == 0
    with pytest.raises(EOFError):
        await asyncio.to_thread(client.receive)
    client.close()
    await asyncio.wait_for(stopping, 20)
    assert not running.path.exists()
    with pytest.raises(OSError):  # noqa: PT011
        await running.raw(tcp=True)


async def test_stop_does_not_wait_for_ever(running: Running) -> None:
    """65: sockets still open and a flush that never ends do not keep the process."""
    running.disk.durable_at_once = False
    client = await running.client()
    await asyncio.to_thread(client.write, 0, b"x" * 4096)
    client.submit(m.FLUSH)
    raw = [await running.raw() for _ in range(5)]
    async with asyncio.timeout(20):
        await running.server.stop(0.05)
    assert running.server.clients() == []
    with pytest.raises((EOFError, ConnectionError)):
        await asyncio.to_thread(client.receive)
    client.close()
    for _, writer in raw:
        drop(writer)
