"""How a connection inside TLS ends, and what a client leaves in it."""

import asyncio
import ssl
import struct
from collections.abc import Callable

import pytest

from nbdserver.server.limits import Limits
from tests.nbdserver.inside import connections
from tests.nbdserver.server.tls_transport.tls_server import MIB, OK, Running
from tests.support import messages as m
from tests.support.examples import examples
from tests.support.memory_device import BLOCK
from tests.support.waiting import until

# How it ends


async def test_replies_still_go_out_behind_disc_and_close_notify(running: Running, context: ssl.SSLContext) -> None:
    """libnbd ends its side like that and waits for the server to end its own."""
    running.disk.durable_at_once = False
    talk = await running.talk(context)
    await asyncio.to_thread(
        talk.send, m.request(m.WRITE, 0, data=b"x" * 4096) + m.request(m.FLUSH, cookie=2) + m.request(m.DISC)
    )
    await asyncio.to_thread(talk.end)
    (connection,) = connections(running.server)
    await until(lambda: running.disk.last_sequence == 1 and connection.stream.ended)
    running.disk.commit()
    assert await asyncio.to_thread(talk.receive, 100) == OK + struct.pack(">Q", 1) + OK + struct.pack(">Q", 2)
    await running.gone()


async def test_the_server_says_close_notify(running: Running, context: ssl.SSLContext) -> None:
    """So that the client can tell the end from an attack."""
    talk = await running.talk(context)
    await asyncio.to_thread(talk.send, m.request(m.DISC))
    assert await asyncio.to_thread(talk.receive, 100) == b""
    assert not await asyncio.to_thread(talk.pull)


@pytest.mark.parametrize("how", ["end", "close", "reset"])
@pytest.mark.parametrize("length", [4096, MIB])
async def test_a_write_cut_short_changes_nothing(
    running: Running, context: ssl.SSLContext, how: str, length: int
) -> None:
    """54, under TLS: between two records, and in the middle of one."""
    for cut in (1, 28, 29, length // 2, length + 27):
        talk = await running.talk(context)
        await asyncio.to_thread(talk.send, m.request(m.WRITE, 0, data=b"x" * length)[:cut])
        await asyncio.to_thread(getattr(talk, how))
        talk.close()
    if how == "close":
        for cut in (1, length // 2):
            talk = await running.talk(context)
            sent = talk.encrypt(m.request(m.WRITE, 0, data=b"x" * length))
            await asyncio.to_thread(talk.socket.sendall, sent[:-cut])
            talk.close()
    await running.gone()
    assert running.disk.last_sequence == 0


async def test_a_client_that_floods_and_never_reads_is_not_answered_for_ever(
    running: Running, context: ssl.SSLContext
) -> None:
    """71, under TLS."""
    running.disk.write(0, b"x" * BLOCK)
    flood = await running.talk(context)
    flood.socket.setblocking(False)
    requests = flood.encrypt(m.request(m.READ, 0, 8 * MIB) * 1000)
    sent = flood.socket.send(requests)
    client = await running.client(context)
    for _ in range(100):
        await asyncio.to_thread(client.read, 0, 4096)
    (facts,) = (one for one in running.server.clients() if one["requests"] != 100)
    assert isinstance(facts["requests"], int)
    assert 0 < facts["requests"] < 5
    assert sent > 5 * 28
    flood.close()
    client.close()
    await running.gone()


# Stale copies (docs/durability.md, "Sending again")

KINDS = {"tcp": (True, False), "unix": (False, False), "tls over tcp": (True, True), "tls over unix": (False, True)}


@pytest.mark.parametrize("kind", KINDS)
async def test_an_old_copy_in_a_paused_connection_does_not_undo_a_newer_write(
    make: Callable[..., Running], context: ssl.SSLContext, kind: str
) -> None:
    """Linux gives up a connection that stalls, and sends its requests again on another socket. When the stalled
    one is read again, the kernel is asked first whether its client is still there, and knows although bytes are
    unread."""
    tcp, secure = KINDS[kind]
    running = make(Limits(requests=1))
    await running.start()
    stalled = await running.client(context if secure else None, tcp=tcp)
    other = await running.client(context if secure else None, tcp=tcp)
    running.disk.gate.closed = True
    stalled.submit(m.WRITE, 0, data=b"o" * 4096)
    stalled.submit(m.WRITE, 4096, data=b"o" * 4096)
    (connection,) = (each for each in connections(running.server) if each.client.number == 1)
    await until(lambda: not connection.stream.reading)
    stalled.submit(m.WRITE, 8192, data=b"o" * 4096)
    stalled.close()
    running.disk.gate.closed = False
    for offset in (0, 4096, 8192):
        await asyncio.to_thread(other.write, offset, b"n" * 4096)
    running.disk.gate.open()
    await until(lambda: len(running.server.clients()) == 1)
    assert running.disk.last_sequence == 3
    assert await asyncio.to_thread(other.read, 0, 12288) == b"n" * 12288
    other.close()


@pytest.mark.parametrize("kind", KINDS)
async def test_an_old_copy_that_arrives_with_the_end_does_not_undo_a_newer_write(
    make: Callable[..., Running], context: ssl.SSLContext, kind: str
) -> None:
    """The network heals after the client gave the connection up: its bytes and its end arrive together, after a
    silence. The server's loop is kept from looking until both are there."""
    tcp, secure = KINDS[kind]
    running = make(Limits(silence_seconds=-1.0))
    await running.start()
    stalled = await running.client(context if secure else None, tcp=tcp)
    other = await running.client(context if secure else None, tcp=tcp)
    await asyncio.to_thread(other.write, 0, b"n" * 4096)
    stalled.submit(m.WRITE, 0, data=b"o" * 4096)
    stalled.close()
    await until(lambda: len(running.server.clients()) == 1)
    assert running.disk.last_sequence == 1
    assert await asyncio.to_thread(other.read, 0, 4096) == b"n" * 4096
    other.close()


@pytest.mark.parametrize("tcp", [True, pytest.param(False, marks=pytest.mark.slow)], ids=["tcp", "unix"])
async def test_more_replies_than_fit_go_out_behind_disc_and_close_notify(
    running: Running, context: ssl.SSLContext, tcp: bool
) -> None:
    running.disk.write(0, b"x" * BLOCK)
    for _ in range(examples(10)):
        talk = await running.talk(context, tcp=tcp)
        await asyncio.to_thread(talk.end, m.request(m.READ, 0, 65536) * 64 + m.request(m.DISC))
        assert len(await asyncio.to_thread(talk.receive, 1 << 30)) == 64 * (65536 + 16)
        talk.close()
        await running.gone()
