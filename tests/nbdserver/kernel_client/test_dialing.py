"""A connection to an export, up to where the kernel takes it over: with the real server, and with what is none."""

import asyncio
import contextlib
import socket
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from nbdserver.kernel_client.dialing import dial, export_in, refusal
from nbdserver.kernel_client.export_address import ExportAddress
from nbdserver.kernel_client.netlink_socket import was_taken
from nbdserver.protocol import wire
from nbdserver.server.listener import Listener
from storage.errors import AccessDenied, Invalid, NotFound, StorageError, Unavailable
from tests.support.memory_device import MemoryDevice, memory_exports


@pytest.fixture
async def served(work: Path) -> AsyncIterator[tuple[Path, int]]:
    """An export `disk` of 1 MiB on a Unix socket and a TCP port."""
    server = Listener(memory_exports({"disk": MemoryDevice(1 << 20)}))
    await server.listen_unix(work / "s")
    _, port = await server.listen_tcp("127.0.0.1", 0)
    yield work / "s", port
    await server.stop(grace_seconds=1)


async def test_what_comes_next_is_the_kernels(served: tuple[Path, int]) -> None:
    """The socket blocks, no byte too many was read, and requests are answered on it."""
    for address in (ExportAddress("disk", unix=served[0]), ExportAddress("disk", "localhost", served[1])):
        connection = await dial(address)
        with contextlib.closing(connection.sock) as sock:
            assert connection.export.size == 1 << 20
            assert connection.export.flags & wire.FLAG_SEND_FLUSH
            assert sock.getblocking()
            assert not was_taken(sock)
            loop = asyncio.get_running_loop()
            await loop.run_in_executor(None, sock.sendall, wire.REQUEST.pack(0x25609513_0000_0000, b"cookie!!", 0, 512))
            reply = await loop.run_in_executor(None, lambda: sock.recv(16 + 512, socket.MSG_WAITALL))
            assert reply == bytes.fromhex("67446698") + bytes(4) + b"cookie!!" + bytes(512)


async def test_a_name_with_several_addresses_is_reached_by_any(
    served: tuple[Path, int], monkeypatch: pytest.MonkeyPatch
) -> None:
    """And a server whose machine lost its power is noticed, though it closes nothing."""

    async def addresses(host: str, port: int, **_: object) -> list[tuple[object, ...]]:
        there = [1, port, 1] if host == "disks.example" else [port]
        return [(socket.AF_INET, socket.SOCK_STREAM, 0, "", ("127.0.0.1", number)) for number in there]

    monkeypatch.setattr(asyncio.get_running_loop(), "getaddrinfo", addresses)
    connection = await dial(ExportAddress("disk", "disks.example", served[1]))
    with contextlib.closing(connection.sock) as sock:
        assert sock.getpeername() == ("127.0.0.1", served[1])
        assert sock.getsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE)
        options = (socket.TCP_KEEPIDLE, socket.TCP_KEEPINTVL, socket.TCP_KEEPCNT)
        idle, pause, times = (sock.getsockopt(socket.IPPROTO_TCP, option) for option in options)
        assert idle + pause * times <= 25
        assert sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY)


async def test_an_export_that_is_not_there(served: tuple[Path, int]) -> None:
    with pytest.raises(NotFound, match="the server has no export 'other'"):
        await dial(ExportAddress("other", unix=served[0]))


async def test_no_server(work: Path) -> None:
    with pytest.raises(Unavailable, match="No such file or directory"):
        await dial(ExportAddress("disk", unix=work / "none"))
    with pytest.raises(Unavailable, match=r"no server can be reached at nbd://127.0.0.1:1/disk: Connection refused"):
        await dial(ExportAddress("disk", port=1))


GREETING = wire.GREETING.pack(wire.NBDMAGIC, wire.IHAVEOPT, 3)


def reply(kind: int, payload: bytes = b"", *, option: int = wire.OPT_GO) -> bytes:
    return wire.OPTION_REPLY.pack(wire.OPTION_REPLY_MAGIC, option, kind, len(payload)) + payload


@pytest.mark.parametrize(
    ("said", "kind"),
    [
        (b"", Unavailable),
        (GREETING[:9], Unavailable),
        (b"SSH-2.0-OpenSSH_9.2p1 Debian-2\r\n", Invalid),
        (GREETING[:-1] + b"\0", Invalid),
        (GREETING, Unavailable),
        (GREETING + reply(wire.REP_ACK), Invalid),
        (GREETING + reply(wire.REP_ACK, option=wire.OPT_INFO), Invalid),
        (GREETING + reply(wire.REP_INFO, bytes(12))[:-3], Unavailable),
        (GREETING + reply(wire.REP_ERR_TLS_REQD), Invalid),
        (GREETING + reply(wire.REP_ERR_POLICY, b"not you"), AccessDenied),
        (GREETING + reply(wire.REP_INFO)[:16] + b"\xff\xff\xff\xff", Invalid),
    ],
)
async def test_what_is_no_server_of_ours(work: Path, said: bytes, kind: type[StorageError]) -> None:
    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(said)
        await writer.drain()
        writer.write_eof()
        await reader.read()
        writer.close()

    server = await asyncio.start_unix_server(answer, work / "s")
    async with server:
        with pytest.raises(kind):
            await dial(ExportAddress("disk", unix=work / "s"))


async def test_one_that_says_nothing(work: Path) -> None:
    with socket.socket(socket.AF_UNIX) as silent:
        silent.bind(str(work / "s"))
        silent.listen()
        with pytest.raises(Unavailable, match="does not answer"):
            await dial(ExportAddress("disk", unix=work / "s"), seconds=0.05)


def test_information_about_other_things_is_passed_over() -> None:
    assert export_in(bytes(11)) is None
    assert export_in(b"\0\3" + bytes(10)) is None


@pytest.mark.parametrize("kind", [wire.REP_ERR_UNKNOWN, wire.REP_ERR_UNSUP, wire.REP_ERR_TLS_REQD, wire.REP_ERR_POLICY])
def test_every_refusal_is_a_sentence(kind: int) -> None:
    assert str(refusal(kind, "disk", ""))
    if kind != wire.REP_ERR_TLS_REQD:
        assert str(refusal(kind, "disk", "because")).endswith(": because")
