"""Connections that end without a word: a peer that vanished is noticed, one that is only slow is not taken for it, and
what is told of each.
"""

import asyncio
import socket
import struct
from collections.abc import Callable

import pytest

from nbdserver.server.connection import Connection
from nbdserver.server.limits import Limits
from nbdserver.server.peer import Peer, prepare
from tests.nbdserver.inside import connections
from tests.nbdserver.server.test_peer import vanish
from tests.support import messages as m
from tests.support.running import Running
from tests.support.waiting import until

MIB = 1 << 20


async def test_a_dead_peer_is_noticed_in_25_seconds(running: Running) -> None:
    """What the kernel is told; that it does it is the kernel's."""
    client = await running.client(tcp=True)
    (connection,) = connections(running.server)
    sock = connection.stream.transport.get_extra_info("socket")
    tcp = socket.IPPROTO_TCP
    idle, interval, count = (
        sock.getsockopt(tcp, name) for name in (socket.TCP_KEEPIDLE, socket.TCP_KEEPINTVL, socket.TCP_KEEPCNT)
    )
    assert sock.getsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE)
    assert sock.getsockopt(tcp, socket.TCP_NODELAY)
    assert idle + interval * count == 25
    assert Limits().vanished_seconds == 25
    client.close()


async def test_a_client_that_reads_nothing_is_there_as_long_as_its_kernel_answers(
    make: Callable[..., Running], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Seen: `nbdcopy` to a slow disk, and a QEMU that was stopped for a while, lost their connections after 25 s. What
    this kernel is told of that is told it 25 times shorter."""

    def hasty(sock: socket.socket) -> Peer:
        peer = prepare(sock)
        if sock.family != socket.AF_UNIX:
            option = socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT
            sock.setsockopt(*option, sock.getsockopt(*option) // 25)
        return peer

    monkeypatch.setattr("nbdserver.server.connection.prepare", hasty)
    served = make(Limits(vanished_seconds=1.0, look_seconds=0.1))
    await served.start()
    served.disk.write(0, b"x" * MIB)
    client = await served.client(tcp=True)
    (connection,) = connections(served.server)
    for _ in range(16):
        client.submit(m.READ, 0, MIB)
    await until(lambda: connection.is_closing or probes_answered(connection) >= 4)
    assert await asyncio.to_thread(lambda: [len(client.receive().data) for _ in range(16)]) == [MIB] * 16
    client.close()


def probes_answered(connection: Connection) -> int:
    """How often in a row the kernel asked a client that does not read for a window, and was told that there is none."""
    sock = connection.stream.transport.get_extra_info("socket")
    _, probes, backoff = struct.unpack_from("BBB", sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, 8), 2)
    return 0 if probes else int(backoff)


@pytest.mark.parametrize("size", [4096, 16 * MIB], ids=["in flight", "unsent"])
async def test_a_client_that_vanished_with_replies_on_their_way_is_noticed(
    make: Callable[..., Running], caplog: pytest.LogCaptureFixture, size: int
) -> None:
    served = make(Limits(vanished_seconds=0.5, look_seconds=0.05))
    await served.start()
    caplog.set_level("INFO")
    client = await served.client(tcp=True)
    served.disk.gate.closed = True
    client.submit(m.WRITE, 0, data=b"w" * 4096)
    client.submit(m.READ, 0, size)
    await until(lambda: bool(served.disk.gate.waiting))
    vanish(client.socket)
    served.disk.gate.open()
    await until(lambda: not served.server.clients())
    (said,) = (record for record in caplog.records if record.message == "client_dropped")
    assert "its machine has answered nothing" in said.__dict__["reason"]
    client.close()


async def test_a_client_that_resets_its_connection_is_not_told_as_one_that_left(
    running: Running, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("INFO")
    client = await running.client(tcp=True)
    client.socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    client.close()
    await until(lambda: not running.server.clients())
    (said,) = (record for record in caplog.records if record.message == "client_dropped")
    assert "Connection reset by peer" in said.__dict__["reason"]


async def test_who_only_looks_whether_somebody_listens_is_not_told(
    running: Running, caplog: pytest.LogCaptureFixture
) -> None:
    """A check that resets its connection each second would take the lines of those that are really refused."""
    caplog.set_level("INFO")
    loop = asyncio.get_running_loop()
    looking = socket.socket()
    looking.setblocking(False)
    await loop.sock_connect(looking, running.address)
    await loop.sock_recv(looking, 8)
    await until(lambda: bool(connections(running.server)))
    looking.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    looking.close()
    await until(lambda: not connections(running.server))
    assert "client_dropped" not in [record.message for record in caplog.records]
