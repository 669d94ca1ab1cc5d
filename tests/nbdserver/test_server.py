"""The server on real sockets, on the event loop it runs on: listening, limits, stopping, and clients that
mean harm."""

import asyncio
import contextlib
import errno
import socket
import stat
import struct
from collections.abc import AsyncIterator, Callable
from pathlib import Path

import pytest

from nbdserver import server as server_module
from nbdserver.limits import Limits
from nbdserver.protocol import wire
from nbdserver.server import Server
from storage.errors import AccessDenied, Conflict, Invalid, NotFound
from tests.support.memory_device import MemoryDevice, memory_exports
from tests.support.nbd import Client
from tests.support.speech import FIXED, go, opt, req, simple, structured

MIB = 1 << 20
GREETING_BYTES = 18


class Running:
    """A server over TCP and a Unix socket, with one disk."""

    def __init__(self, folder: Path, limits: Limits) -> None:
        self.disk = MemoryDevice(1 << 30)
        self.exports = memory_exports({"disk": self.disk})
        self.server = Server(self.exports, limits=limits)
        self.path = folder / "socket"
        self.address = ("127.0.0.1", 0)

    async def start(self) -> None:
        self.address = await self.server.listen_tcp("127.0.0.1", 0)
        await self.server.listen_unix(self.path)

    async def client(self, *, tcp: bool = False, is_structured: bool = True) -> Client:
        address = self.address if tcp else self.path
        return await asyncio.to_thread(Client, address, "disk", structured=is_structured, timeout=20)

    async def raw(self, *, tcp: bool = False) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        if tcp:
            return await asyncio.open_connection(*self.address)
        return await asyncio.open_unix_connection(self.path)

    async def until(self, condition: Callable[[], bool]) -> None:
        """Wait for something the server is about to notice."""
        async with asyncio.timeout(20):
            while not condition():  # noqa: ASYNC110 - the server has no event for it
                await asyncio.sleep(0.005)


@pytest.fixture
async def make(work: Path) -> AsyncIterator[Callable[..., "Running"]]:
    made: list[Running] = []

    def build(limits: Limits | None = None) -> Running:
        made.append(Running(work, limits or Limits()))
        return made[-1]

    yield build
    for running in made:
        await running.server.stop(0)


@pytest.fixture
async def running(make: Callable[..., Running]) -> Running:
    started = make()
    await started.start()
    return started


async def closed(reader: asyncio.StreamReader) -> bytes:
    """Everything up to the end of the stream, which must come."""
    async with asyncio.timeout(20):
        with contextlib.suppress(ConnectionError):
            return await reader.read(-1)
    return b""


def drop(writer: asyncio.StreamWriter) -> None:
    writer.transport.abort()


# Real clients


@pytest.mark.parametrize("tcp", [True, False], ids=["tcp", "unix"])
@pytest.mark.parametrize("is_structured", [True, False], ids=["structured", "simple"])
async def test_a_client_reads_what_it_wrote(running: Running, tcp: bool, is_structured: bool) -> None:
    def use(client: Client) -> None:
        assert client.size == 1 << 30
        assert client.block_sizes == (1, 4096, 32 << 20)
        long = bytes(range(256)) * (20 << 12)
        for offset, data in ((0, b"a" * 4096), (5000, b"unaligned"), (MIB - 7, long), (64 * MIB, b"z" * (1 << 18))):
            client.write(offset, data, flags=wire.CMD_FLAG_FUA)
            assert client.read(offset, len(data)) == data
        client.trim(0, 4096)
        client.zero(64 * MIB, 1 << 18, flags=wire.CMD_FLAG_NO_HOLE)
        client.flush()
        assert client.read(0, 4096) == bytes(4096)
        assert client.read(MIB - 7, len(long)) == long
        client.disconnect()

    await asyncio.to_thread(use, await running.client(tcp=tcp, is_structured=is_structured))
    await running.until(lambda: not running.server.clients())


async def test_many_requests_at_once_over_several_connections(running: Running) -> None:
    """More replies than sockets hold, written and read back by pipelining clients."""

    def use(client: Client, base: int) -> None:
        with client:
            for index in range(64):
                client.submit(wire.CMD_WRITE, base + index * MIB, data=bytes([index]) * MIB)
                if index % 8 == 7:
                    assert [client.receive().error for _ in range(8)] == [0] * 8
            wanted = {}
            for index in range(16):
                wanted[client.submit(wire.CMD_READ, base + index * 4 * MIB, MIB)] = bytes([index * 4]) * MIB
            for _ in wanted:
                reply = client.receive()
                assert bytes(reply.data) == wanted[reply.cookie]

    clients = [await running.client(tcp=bool(number % 2)) for number in range(4)]
    await asyncio.gather(*(asyncio.to_thread(use, client, number * 64 * MIB) for number, client in enumerate(clients)))


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
    assert running.exports.attached("disk") == 1
    client.close()
    drop(tcp_writer)
    await running.until(lambda: not running.server.clients())
    assert running.exports.attached("disk") == 0


@pytest.mark.parametrize(
    ("said", "structured", "extended"),
    [
        (simple(), False, False),
        (FIXED + opt(wire.OPT_STRUCTURED_REPLY) + go(), True, False),
        (FIXED + opt(wire.OPT_EXTENDED_HEADERS) + go(), True, True),
    ],
)
async def test_what_a_client_speaks(running: Running, said: bytes, structured: bool, extended: bool) -> None:
    _, writer = await running.raw()
    writer.write(said)
    await running.until(lambda: running.exports.attached("disk") == 1)
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
    client.submit(wire.CMD_WRITE, 0, data=b"o" * 4096)
    await running.until(lambda: bool(running.disk.gate._waiting))
    (number,) = (each["id"] for each in running.server.clients() if each["requests"])
    assert isinstance(number, int)
    running.disk.gate.open()  # the held write would be carried out in the loop's next turn
    assert running.server.disconnect(number).startswith(f"client {number} (unix:pid=")
    await asyncio.to_thread(other.write, 8192, b"n" * 4096)
    assert running.disk.last_sequence == 1
    with pytest.raises((EOFError, ConnectionError)):
        await asyncio.to_thread(client.receive)
    await running.until(lambda: len(running.server.clients()) == 1)
    with pytest.raises(NotFound, match=f"no client {number} is connected"):
        running.server.disconnect(number)
    client.close()
    other.close()


# Listening


async def test_the_socket_is_for_this_user_only(running: Running) -> None:
    assert stat.S_IMODE(running.path.stat().st_mode) == 0o600


async def test_a_stale_socket_is_replaced(make: Callable[..., Running]) -> None:
    left = make()
    with socket.socket(socket.AF_UNIX) as sock:
        sock.bind(str(left.path))
    assert left.path.is_socket()
    await left.start()
    (await left.client()).close()


async def test_a_socket_in_use_is_not(running: Running, make: Callable[..., Running]) -> None:
    with pytest.raises(Conflict, match="another program listens on"):
        await make().server.listen_unix(running.path)
    (await running.client()).close()


async def test_a_file_is_not_taken_for_a_socket(make: Callable[..., Running]) -> None:
    other = make()
    other.path.write_text("precious")
    with pytest.raises(Conflict, match="is not a socket"):
        await other.server.listen_unix(other.path)
    assert other.path.read_text() == "precious"


async def test_two_servers_starting_at_once_do_not_take_each_others_socket(make: Callable[..., Running]) -> None:
    one = make()
    with server_module._folder_locked(one.path.parent), pytest.raises(Conflict, match="try again"):
        await one.server.listen_unix(one.path)


async def test_places_one_cannot_listen_at(running: Running, make: Callable[..., Running]) -> None:
    other = make().server
    host, port = running.address
    with pytest.raises(Conflict, match=f"port {port} on 127.0.0.1 is in use"):
        await other.listen_tcp(host, port)
    with pytest.raises(Invalid):
        await other.listen_tcp("192.0.2.1", 0)
    with pytest.raises(Invalid, match="107 bytes"):
        await other.listen_unix(Path("/tmp") / ("x" * 110))
    with pytest.raises(Invalid, match="No such file"):
        await other.listen_unix(running.path.parent / "nowhere" / "socket")
    denied = server_module._listening_failed(PermissionError(errno.EACCES, "denied"), "port 1 on ::")
    assert isinstance(denied, AccessDenied)


async def test_a_socket_that_was_replaced_is_left_alone(running: Running) -> None:
    running.path.unlink()
    running.path.write_text("somebody else's")
    await running.server.stop(0)
    assert running.path.exists()


# Stopping


async def test_stop_finishes_flushes_and_closes(running: Running) -> None:
    running.disk.durable_at_once = False
    client = await running.client()
    await asyncio.to_thread(client.write, 0, b"x" * 4096)
    client.submit(wire.CMD_FLUSH)
    await running.until(lambda: running.server.clients()[0]["requests"] == 2)
    stopping = asyncio.create_task(running.server.stop(grace_seconds=3600))
    await asyncio.sleep(0.02)
    assert not stopping.done()
    running.disk.commit()
    assert (await asyncio.to_thread(client.receive)).error == 0
    await asyncio.wait_for(stopping, 20)
    with pytest.raises(EOFError):
        await asyncio.to_thread(client.receive)
    client.close()
    assert not running.path.exists()
    with pytest.raises(OSError):  # noqa: PT011
        await running.raw(tcp=True)


async def test_stop_does_not_wait_for_ever(running: Running) -> None:
    """65: sockets still open and a flush that never ends do not keep the process."""
    running.disk.durable_at_once = False
    client = await running.client()
    await asyncio.to_thread(client.write, 0, b"x" * 4096)
    client.submit(wire.CMD_FLUSH)
    raw = [await running.raw() for _ in range(5)]
    async with asyncio.timeout(20):
        await running.server.stop(0.05)
    assert running.server.clients() == []
    with pytest.raises((EOFError, ConnectionError)):
        await asyncio.to_thread(client.receive)
    client.close()
    for _, writer in raw:
        drop(writer)


# Clients that mean harm


async def test_idle_sockets_do_not_keep_a_client_out(make: Callable[..., Running]) -> None:
    """70: with the place taken up by sockets that say nothing, whoever comes next gets in."""
    crowded = make(Limits(connections=10))
    await crowded.start()
    attached = await crowded.client()
    idle = [await crowded.raw() for _ in range(50)]
    client = await crowded.client(tcp=True)
    assert await asyncio.to_thread(client.read, 0, 4096) == bytes(4096)
    assert await asyncio.to_thread(attached.read, 0, 4096) == bytes(4096)
    await crowded.until(lambda: len(crowded.server.clients()) <= 10)
    for _, writer in idle:
        drop(writer)
    client.close()
    attached.close()


async def test_a_crowd_of_sockets_costs_itself_its_places(make: Callable[..., Running]) -> None:
    """Who has been longest in its handshake, but is alone at its address, keeps its place."""
    crowded = make(Limits(connections=5))
    await crowded.start()
    reader, writer = await crowded.raw(tcp=True)
    await reader.readexactly(GREETING_BYTES)
    others = [await asyncio.open_connection(*crowded.address, local_addr=("127.0.0.2", 0)) for _ in range(20)]
    for other, _ in others[:16]:
        await closed(other)
    writer.write(simple())
    async with asyncio.timeout(20):
        await reader.readexactly(20)
    drop(writer)
    for _, each in others:
        drop(each)


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


async def test_one_address_does_not_take_the_place_of_others(make: Callable[..., Running]) -> None:
    """Clients that are attached stay; those of one address that are in the handshake make room for each other; other
    addresses, and users of the Unix socket, are not touched."""
    crowded = make(Limits(connections=10, connections_per_address=3))
    await crowded.start()
    attached = [await crowded.client(tcp=True) for _ in range(2)]
    idle = [await crowded.raw(tcp=True) for _ in range(5)]
    await crowded.until(lambda: len(crowded.server.clients()) == 3)
    last = await crowded.client(tcp=True)
    reader, writer = await crowded.raw(tcp=True)
    assert await closed(reader) == b""
    elsewhere = await asyncio.open_connection(*crowded.address, local_addr=("127.0.0.2", 0))
    assert len(await elsewhere[0].readexactly(GREETING_BYTES)) == GREETING_BYTES
    local = await crowded.client()
    for client in (*attached, last, local):
        assert await asyncio.to_thread(client.read, 0, 4096) == bytes(4096)
        client.close()
    for _, each in (*idle, elsewhere, (reader, writer)):
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
    await running.until(lambda: not running.server.clients())


async def test_a_stalled_handshake_ends(make: Callable[..., Running]) -> None:
    strict = make(Limits(handshake_seconds=0.05))
    await strict.start()
    for said in (b"", FIXED[:3], FIXED + opt(wire.OPT_LIST)):
        reader, writer = await strict.raw(tcp=True)
        writer.write(said)
        await closed(reader)
        writer.close()


async def test_a_client_that_floods_and_never_reads_harms_nobody(running: Running) -> None:
    """71 on a real socket: the server's memory for it stays bounded while another client works."""
    running.disk.write(0, b"x" * (1 << 18))
    _, writer = await running.raw()
    writer.transport.pause_reading()  # type: ignore[attr-defined]
    writer.write(simple() + req(wire.CMD_READ, 0, 32 * MIB) * 10_000)
    client = await running.client()
    for _ in range(200):
        await asyncio.to_thread(client.read, 0, 4096)
    (flood,) = (one for one in running.server.clients() if one["requests"] != 200)
    assert isinstance(flood["requests"], int)
    assert flood["requests"] < 10
    drop(writer)
    client.close()
    await running.until(lambda: not running.server.clients())


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
            writer.write(simple() + req(wire.CMD_WRITE, 0, 32 * MIB) + b"x")
        else:
            writer.write(simple() + req(wire.CMD_READ, 0, 32 * MIB) * 100)
    await crowded.until(lambda: crowded.exports.attached("disk") == len(hostile))
    client = await crowded.client(tcp=tcp)
    for _ in range(50):
        await asyncio.to_thread(client.write, MIB, b"h" * 65536)
        assert await asyncio.to_thread(client.read, MIB, 65536) == b"h" * 65536
    assert 0 < crowded.server._budget.taken <= limits.memory_bytes
    for _, writer in hostile:
        drop(writer)
    client.close()
    await crowded.until(lambda: not crowded.server.clients())
    assert crowded.server._budget.taken == 0


async def test_a_peer_that_resets_in_a_payload_changes_nothing(running: Running) -> None:
    reader, writer = await running.raw(tcp=True)
    sock = writer.get_extra_info("socket")
    writer.write(structured() + req(wire.CMD_WRITE, 0, MIB) + b"x" * 500_000)
    await reader.readexactly(GREETING_BYTES)
    await running.until(lambda: running.exports.attached("disk") == 1)
    await asyncio.sleep(0.02)
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    drop(writer)
    await running.until(lambda: not running.server.clients())
    assert running.disk.last_sequence == 0


async def test_an_old_copy_in_a_silent_socket_does_not_undo_a_newer_write(running: Running) -> None:
    """C1 on real sockets: held back by the gate, its client gone, while another connection writes newer
    data."""
    stalled = await running.client(tcp=True)
    other = await running.client(tcp=True)
    running.disk.gate.closed = True
    stalled.submit(wire.CMD_WRITE, 0, data=b"o" * 4096)
    stalled.submit(wire.CMD_WRITE, 4096, data=b"o" * 300_000)
    await running.until(lambda: bool(running.disk.gate._waiting))
    stalled.close()
    running.disk.gate.closed = False
    await asyncio.to_thread(other.write, 0, b"n" * 4096)
    running.disk.gate.open()
    await running.until(lambda: len(running.server.clients()) == 1)
    assert await asyncio.to_thread(other.read, 0, 4096) == b"n" * 4096
    assert await asyncio.to_thread(other.read, 4096, 4096) == bytes(4096)
    other.close()


async def test_a_dead_peer_is_noticed_in_25_seconds(running: Running) -> None:
    """What the kernel is told; that it does it is the kernel's."""
    client = await running.client(tcp=True)
    (connection,) = running.server._clients
    sock = connection._transport.get_extra_info("socket")
    tcp = socket.IPPROTO_TCP
    idle, interval, count = (
        sock.getsockopt(tcp, name) for name in (socket.TCP_KEEPIDLE, socket.TCP_KEEPINTVL, socket.TCP_KEEPCNT)
    )
    assert sock.getsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE)
    assert sock.getsockopt(tcp, socket.TCP_NODELAY)
    assert idle + interval * count == 25
    assert sock.getsockopt(tcp, socket.TCP_USER_TIMEOUT) == 25_000
    client.close()


async def test_go_and_requests_in_one_segment(running: Running) -> None:
    reader, writer = await running.raw()
    writer.write(FIXED + go() + req(wire.CMD_READ, 0, 4096) + req(wire.CMD_DISC))
    answer = await closed(reader)
    assert answer.endswith(struct.pack(">IIQ", 0x67446698, 0, 1) + bytes(4096))
    writer.close()


# Clients that left while the gate was closed: what they sent was not acknowledged


async def _attached(running: Running) -> socket.socket:
    loop = asyncio.get_running_loop()
    client = socket.socket(socket.AF_UNIX)
    client.setblocking(False)
    await loop.sock_connect(client, str(running.path))
    await loop.sock_recv(client, GREETING_BYTES)
    await loop.sock_sendall(client, FIXED + opt(wire.OPT_EXPORT_NAME, b"disk"))
    await loop.sock_recv(client, 200)
    return client


async def test_a_client_that_died_with_more_than_it_may_hold_is_dropped(running: Running) -> None:
    """Its held writes keep its last bytes from being read, and with them its end: it held its share for ever."""
    client = await _attached(running)
    running.disk.gate.closed = True
    writes = req(wire.CMD_WRITE, 0, data=bytes(256 << 10)) * 400
    sending = asyncio.ensure_future(asyncio.get_running_loop().sock_sendall(client, writes))
    (connection,) = running.server._clients
    await running.until(lambda: connection._session.stalled)
    sending.cancel()
    await asyncio.gather(sending, return_exceptions=True)
    client.close()
    running.disk.gate.open()
    await running.until(lambda: not running.server.clients())
    assert running.server._budget.taken == 0


async def test_what_a_client_left_behind_is_not_written_while_the_server_stops(running: Running) -> None:
    client = await _attached(running)
    running.disk.gate.closed = True
    await asyncio.get_running_loop().sock_sendall(client, req(wire.CMD_WRITE, 0, data=b"o" * 4096))
    await running.until(lambda: any(facts["requests"] for facts in running.server.clients()))
    stopping = asyncio.ensure_future(running.server.stop(20))
    (connection,) = running.server._clients
    await running.until(lambda: connection._session.ending)
    client.close()
    running.disk.write(0, b"n" * 4096)
    running.disk.gate.open()
    await stopping
    assert running.disk.contents(0, 4096) == b"n" * 4096


async def test_what_stands_behind_disc_costs_a_client_no_reply(running: Running) -> None:
    """TCP resets a connection that gets bytes when it is closed, and what it had on its way to a slow client is
    lost."""
    loop = asyncio.get_running_loop()
    client = socket.socket()
    client.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
    client.setblocking(False)
    await loop.sock_connect(client, running.address)
    await loop.sock_sendall(client, simple() + req(wire.CMD_READ, 0, 256 << 10) * 4 + req(wire.CMD_DISC))
    await running.until(lambda: bool(running.server._clients))
    (connection,) = running.server._clients
    await running.until(lambda: connection._closing)
    for _ in range(3):
        await loop.sock_sendall(client, b"rubbish")
        await asyncio.sleep(0)
    got = 0
    async with asyncio.timeout(20):
        while data := await loop.sock_recv(client, 1 << 16):
            got += len(data)
    assert got >= 4 * (16 + (256 << 10))
    client.close()
    await running.until(lambda: not running.server.clients())
