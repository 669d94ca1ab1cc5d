"""The upgrade to TLS on real sockets: what passes it, what does not, and how such a connection ends."""

import asyncio
import logging
import shutil
import ssl
import struct
from collections.abc import Callable
from pathlib import Path

import pytest

from nbdserver.server import client_identity
from nbdserver.server.limits import Limits
from nbdserver.server.tls_transport import TlsTransport
from storage.env import RealEnv
from tests.nbdserver.inside import below, connections, put_below, read_from
from tests.nbdserver.server.tls_transport.tls_server import MIB, OK, Running
from tests.support import messages as m
from tests.support.certificates import Authority, write_folder
from tests.support.memory_device import BLOCK
from tests.support.nbd import Client

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
    monkeypatch.setattr(client_identity, "names_in_certificate", unreadable)
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
