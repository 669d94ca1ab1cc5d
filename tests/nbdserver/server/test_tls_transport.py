"""The upgrade to TLS on real sockets: what passes it, what does not, and how such a connection ends."""

import asyncio
import logging
import shutil
import ssl
import struct
from collections.abc import AsyncIterator, Callable, Iterator
from pathlib import Path

import pytest

from nbdserver.protocol import wire
from nbdserver.server import connection as connection_module
from nbdserver.server.limits import Limits
from nbdserver.server.listener import Server
from nbdserver.server.tls_transport import TlsTransport
from nbdserver.tls import Credentials
from storage.env import RealEnv
from tests.nbdserver.inside import below, connections, put_below, read_from
from tests.support import messages as m
from tests.support.certificates import Authority, write_folder
from tests.support.examples import examples
from tests.support.memory_device import BLOCK, MemoryDevice, memory_exports
from tests.support.nbd import Client
from tests.support.tls_talk import TlsTalk

MIB = 1 << 20
SAID = m.simple()[4:]
"""What a client says that has said its flags."""
GO_ANSWER_BYTES = 20 + 12 + 20
"""INFO_EXPORT and ACK."""
OK = struct.pack(">II", wire.SIMPLE_REPLY_MAGIC, 0)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    made = tmp_path_factory.mktemp("pki")
    write_folder(made, Authority(), client="backup.example.com")
    return made


@pytest.fixture(scope="module")
def context(folder: Path) -> ssl.SSLContext:
    made = ssl.create_default_context(cafile=folder / "ca-cert.pem")
    made.load_cert_chain(folder / "client-cert.pem", folder / "client-key.pem")
    return made


@pytest.fixture
def env() -> Iterator[RealEnv]:
    made = RealEnv()
    yield made
    made.close()


class Running:
    """A server with TLS over TCP and a Unix socket, with one disk."""

    def __init__(self, folder: Path, work: Path, env: RealEnv, limits: Limits, *, required: bool, verify: bool) -> None:
        self.disk = MemoryDevice(1 << 30)
        self.exports = memory_exports({"disk": self.disk})
        self.credentials = Credentials(folder, verify_peer=verify, env=env)
        self.server = Server(self.exports, limits=limits, env=env, credentials=self.credentials, tls_required=required)
        self.talks: list[TlsTalk] = []
        self.path = work / "socket"
        self.address = ("127.0.0.1", 0)

    async def start(self) -> None:
        self.address = await self.server.listen_tcp("127.0.0.1", 0)
        await self.server.listen_unix(self.path)

    async def client(self, context: ssl.SSLContext | None, *, tcp: bool = True) -> Client:
        return await asyncio.to_thread(
            Client, self.address if tcp else self.path, "disk", structured=False, timeout=20, tls=context
        )

    async def talk(self, context: ssl.SSLContext | None = None, *, tcp: bool = True) -> TlsTalk:
        """Attached, if there is a context; otherwise as greeted."""
        talk = await asyncio.to_thread(TlsTalk, self.address if tcp else self.path)
        self.talks.append(talk)
        if context is not None:
            await asyncio.to_thread(talk.secure, context)
            await asyncio.to_thread(talk.send, SAID)
            answer = await asyncio.to_thread(talk.receive, GO_ANSWER_BYTES)
            assert len(answer) == GO_ANSWER_BYTES
        return talk

    async def until(self, condition: Callable[[], bool]) -> None:
        async with asyncio.timeout(20):
            while not condition():  # noqa: ASYNC110 - the server has no event for it
                await asyncio.sleep(0.005)

    async def gone(self) -> None:
        await self.until(lambda: not self.server.clients())


@pytest.fixture
async def make(folder: Path, work: Path, env: RealEnv) -> AsyncIterator[Callable[..., Running]]:
    made: list[Running] = []

    def build(limits: Limits | None = None, *, required: bool = False, verify: bool = False) -> Running:
        made.append(Running(folder, work, env, limits or Limits(), required=required, verify=verify))
        return made[-1]

    yield build
    for running in made:
        await running.server.stop(0)
        for talk in running.talks:
            talk.close()


@pytest.fixture
async def running(make: Callable[..., Running]) -> Running:
    started = make()
    await started.start()
    return started


# What passes


def use(client: Client) -> None:
    """Short and long, pipelined in both directions, more than any buffer holds."""
    long = bytes(range(256)) * (20 << 12)
    for offset, data in ((0, b"a" * 4096), (5000, b"unaligned"), (MIB - 7, long), (64 * MIB, b"z" * BLOCK)):
        client.write(offset, data)
        assert client.read(offset, len(data)) == data
    for index in range(64):
        client.submit(m.WRITE, 128 * MIB + index * MIB, data=bytes([index]) * MIB)
        if index % 8 == 7:
            assert [client.receive().error for _ in range(8)] == [0] * 8
    wanted = {client.submit(m.READ, 128 * MIB + index * 4 * MIB, MIB): bytes([index * 4]) * MIB for index in range(16)}
    for _ in wanted:
        reply = client.receive()
        assert bytes(reply.data) == wanted[reply.cookie]
    client.flush()
    client.disconnect()


@pytest.mark.parametrize("tcp", [True, pytest.param(False, marks=pytest.mark.slow)], ids=["tcp", "unix"])
@pytest.mark.parametrize("version", [ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3])
async def test_a_client_reads_what_it_wrote(running: Running, folder: Path, tcp: bool, version: ssl.TLSVersion) -> None:
    context = ssl.create_default_context(cafile=folder / "ca-cert.pem")
    context.minimum_version = context.maximum_version = version
    client = await running.client(context, tcp=tcp)
    assert str(running.server.clients()[0]["tls"]) == version.name.replace("_", ".")
    await asyncio.to_thread(use, client)
    await running.gone()


def test_it_is_the_same_on_asyncios_own_loop(folder: Path, work: Path, env: RealEnv, context: ssl.SSLContext) -> None:
    async def run() -> None:
        running = Running(folder, work, env, Limits(), required=True, verify=True)
        await running.start()
        await asyncio.to_thread(use, await running.client(context))
        await running.gone()
        await running.server.stop(0)

    asyncio.run(run())


async def test_clients_without_tls_beside_it(running: Running, context: ssl.SSLContext) -> None:
    secure, plain = await running.client(context), await running.client(None)
    await asyncio.to_thread(secure.write, 0, b"s" * 4096)
    assert await asyncio.to_thread(plain.read, 0, 4096) == b"s" * 4096
    assert [client["tls"] for client in running.server.clients()] == ["TLSv1.3", None]
    secure.close()
    plain.close()


async def test_byte_by_byte(running: Running, context: ssl.SSLContext) -> None:
    """However the bytes of TLS are cut, what comes out is the same."""
    talk = await running.talk(context)
    for byte in talk.encrypt(m.request(m.WRITE, 0, data=b"x" * 700) + m.request(m.READ, 0, 700, cookie=2)):
        await asyncio.to_thread(talk.socket.sendall, bytes([byte]))
    answer = await asyncio.to_thread(talk.receive, 16 + 16 + 700)
    assert answer == OK + struct.pack(">Q", 1) + OK + struct.pack(">Q", 2) + b"x" * 700


async def test_who_a_certificate_names(make: Callable[..., Running], context: ssl.SSLContext) -> None:
    running = make(required=True, verify=True)
    await running.start()
    client = await running.client(context)
    (facts,) = running.server.clients()
    assert facts["certificate"] == ["backup.example.com"]
    (name,) = running.exports.clients_of("disk")
    assert name.endswith(", backup.example.com)")
    client.close()


async def test_a_reload_drops_nobody_and_counts_for_the_next(
    make: Callable[..., Running], folder: Path, tmp_path: Path, context: ssl.SSLContext
) -> None:
    running = make()
    read_from(running.credentials, tmp_path)
    shutil.copytree(folder, tmp_path, dirs_exist_ok=True)
    await running.start()
    before = await running.client(context)
    other = Authority("the next authority")
    write_folder(tmp_path, other)
    running.credentials.reload()
    await asyncio.to_thread(before.write, 0, b"x" * 4096)
    with pytest.raises(ssl.SSLCertVerificationError):
        await running.client(context)
    after = await running.client(ssl.create_default_context(cafile=tmp_path / "ca-cert.pem"))
    assert await asyncio.to_thread(after.read, 0, 4096) == b"x" * 4096
    before.close()
    after.close()


# What does not pass


async def test_nothing_in_clear_survives_starttls(running: Running) -> None:
    """30: an option in clear behind STARTTLS, in the same segment or the next, is neither answered nor carried over
    (the class of CVE-2021-3716)."""
    together = await running.talk()
    await asyncio.to_thread(together.socket.sendall, m.option(m.STARTTLS) + m.option(m.LIST))
    assert await asyncio.to_thread(together.clear, 1000) == b""
    apart = await running.talk()
    await asyncio.to_thread(apart.start)
    await asyncio.to_thread(apart.socket.sendall, m.option(m.LIST) + m.go())
    answer = await asyncio.to_thread(apart.clear, 1000)
    assert answer[:1] in (b"", b"\x15"), "what comes back, if anything, is an alert"
    await running.gone()
    assert not running.exports.clients_of("disk")


@pytest.mark.parametrize(
    "said",
    [b"GET / HTTP/1.1\r\n\r\n", bytes(1000), b"\x16\x03\x01\x02\x00\x01" + b"x" * 600],
    ids=["http", "zeros", "hello"],
)
async def test_what_is_no_tls_ends_the_connection(
    running: Running, said: bytes, caplog: pytest.LogCaptureFixture
) -> None:
    """33."""
    caplog.set_level(logging.INFO)
    talk = await running.talk()
    await asyncio.to_thread(talk.start)
    await asyncio.to_thread(talk.socket.sendall, said)
    await asyncio.to_thread(talk.clear, 1000)
    await running.gone()
    assert [record.levelname for record in caplog.records if "no TLS" in vars(record).get("reason", "")] == ["INFO"]
    assert not [record for record in caplog.records if record.exc_info]


async def test_a_stalled_tls_handshake_ends_with_the_deadline(make: Callable[..., Running]) -> None:
    """The deadline is for all of it: it does not begin anew with STARTTLS."""
    running = make(Limits(handshake_seconds=0.3))
    await running.start()
    for said in (b"", b"\x16\x03\x01", b"\x16\x03\x01\x40\x00\x01"):
        talk = await running.talk()
        await asyncio.to_thread(talk.start)
        await asyncio.to_thread(talk.socket.sendall, said)
        assert await asyncio.to_thread(talk.clear, 1000) == b""
    await running.gone()


async def test_a_client_without_a_certificate_is_refused(make: Callable[..., Running], folder: Path) -> None:
    running = make(required=True, verify=True)
    await running.start()
    with pytest.raises((ssl.SSLError, EOFError, ConnectionError)):
        await running.client(ssl.create_default_context(cafile=folder / "ca-cert.pem"))
    await running.gone()


async def test_a_certificate_that_cannot_be_read_costs_its_client_only(
    running: Running, context: ssl.SSLContext, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def unreadable(tls: ssl.SSLObject) -> tuple[str, ...]:
        raise UnicodeDecodeError("utf-8", b"\xff", 0, 1, "a bug")

    before = await running.client(context)
    monkeypatch.setattr(connection_module, "names_in_certificate", unreadable)
    with pytest.raises((EOFError, OSError)):
        await running.client(context)
    assert [record.levelno for record in caplog.records if record.exc_info] == [logging.ERROR]
    assert await asyncio.to_thread(before.read, 0, 4096) == bytes(4096)
    before.close()


async def test_a_record_that_was_altered_ends_the_connection(running: Running, context: ssl.SSLContext) -> None:
    talk = await running.talk(context)
    sent = bytearray(talk.encrypt(m.request(m.WRITE, 0, data=b"x" * 4096)))
    sent[100] ^= 1
    await asyncio.to_thread(talk.socket.sendall, sent)
    await running.gone()
    assert running.disk.last_sequence == 0


# How it ends


async def test_replies_still_go_out_behind_disc_and_close_notify(running: Running, context: ssl.SSLContext) -> None:
    """libnbd ends its side like that and waits for the server to end its own."""
    running.disk.durable_at_once = False
    talk = await running.talk(context)
    await asyncio.to_thread(
        talk.send, m.request(m.WRITE, 0, data=b"x" * 4096) + m.request(m.FLUSH, cookie=2) + m.request(m.DISC)
    )
    await asyncio.to_thread(talk.end)
    await running.until(lambda: running.disk.last_sequence == 1)
    await asyncio.sleep(0.02)
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
    (connection,) = (each for each in connections(running.server) if each.number == 1)
    await running.until(lambda: not connection.stream.reading)
    stalled.submit(m.WRITE, 8192, data=b"o" * 4096)
    stalled.close()
    running.disk.gate.closed = False
    for offset in (0, 4096, 8192):
        await asyncio.to_thread(other.write, offset, b"n" * 4096)
    running.disk.gate.open()
    await running.until(lambda: len(running.server.clients()) == 1)
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
    await running.until(lambda: len(running.server.clients()) == 1)
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


class Spy:
    """A transport that notes how much it is given at a time."""

    def __init__(self, transport: asyncio.Transport) -> None:
        self._transport = transport
        self.written: list[int] = []

    def write(self, data: bytes) -> None:
        self.written.append(len(data))
        self._transport.write(data)

    def __getattr__(self, name: str) -> object:
        return getattr(self._transport, name)


async def test_a_long_reply_is_encrypted_in_pieces(running: Running, context: ssl.SSLContext) -> None:
    """OpenSSL's buffers stay as large as they once were, for as long as the connection lasts."""
    long = bytes(range(256)) * (128 << 10)
    running.disk.write(0, long)
    client = await running.client(context)
    (connection,) = connections(running.server)
    secured = connection.stream.transport
    assert isinstance(secured, TlsTransport)
    spy = Spy(below(secured))
    put_below(secured, spy)
    assert await asyncio.to_thread(client.read, 0, 32 * MIB) == long
    assert sum(spy.written) > 32 * MIB
    assert max(spy.written) < MIB
    client.close()
