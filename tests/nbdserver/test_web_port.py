"""A port that speaks HTTP, and a crowd that says nothing to it."""

import asyncio
import os
import resource
import socket
import ssl
from collections.abc import AsyncIterator, Callable
from pathlib import Path

import pytest
from aiohttp import web

from nbdserver.web_port import ACCEPT_AGAIN_SECONDS, WebPort
from tests.support.certificates import Authority, write_folder
from tests.support.waiting import soon, until

ROOM = 3
ASK = b"GET /%s HTTP/1.1\r\nHost: localhost\r\n\r\n"
Connection = tuple[asyncio.StreamReader, asyncio.StreamWriter]


class Served:
    """A port with room for ROOM connections. It answers "/now" at once, and "/later" when `release` is set."""

    def __init__(self, context: ssl.SSLContext | None = None) -> None:
        app = web.Application()
        app.router.add_get("/now", self._answer)
        app.router.add_get("/later", self._wait)
        app.router.add_get("/broken", self._break)
        self.web = WebPort(app, context=context, connections=ROOM)
        self.release = asyncio.Event()
        self.waiting = 0
        self.port = 0
        self._made: list[asyncio.StreamWriter] = []

    async def listen(self) -> None:
        self.port = await self.web.listen("127.0.0.1", 0)

    async def connect(self, context: ssl.SSLContext | None = None) -> Connection:
        reader, writer = await asyncio.open_connection("127.0.0.1", self.port, ssl=context)
        self._made.append(writer)
        return reader, writer

    async def crowd(self) -> list[Connection]:
        """Twice as many as there is room for, which say nothing."""
        return [await self.connect() for _ in range(2 * ROOM)]

    async def stop(self) -> None:
        for writer in self._made:
            writer.close()
        self.release.set()
        await self.web.stop()

    async def _answer(self, _: web.Request) -> web.Response:
        return web.Response(text="now")

    async def _break(self, _: web.Request) -> web.Response:
        raise RuntimeError("a fault of the server")

    async def _wait(self, _: web.Request) -> web.Response:
        self.waiting += 1
        await self.release.wait()
        return web.Response(text="later")


async def asked(connection: Connection, name: bytes = b"now") -> bytes:
    """The first line of the answer; nothing if the connection ended."""
    reader, writer = connection
    writer.write(ASK % name)
    try:
        return await soon(asyncio.ensure_future(reader.readline()))
    except ConnectionError:
        return b""


async def ended(connections: list[Connection], count: int) -> None:
    """So many of them have ended, at least."""
    ends = [asyncio.ensure_future(reader.read(1)) for reader, _ in connections]
    await until(lambda: sum(end.done() for end in ends) >= count)
    for end in ends:
        end.cancel()
    await asyncio.gather(*ends, return_exceptions=True)


@pytest.fixture
async def make() -> AsyncIterator[Callable[..., Served]]:
    made: list[Served] = []

    def build(context: ssl.SSLContext | None = None) -> Served:
        made.append(Served(context))
        return made[-1]

    yield build
    for served in made:
        await served.stop()


async def test_who_says_nothing_goes_first_and_who_asks_is_answered(make: Callable[..., Served]) -> None:
    served = make()
    await served.listen()
    crowd = await served.crowd()
    await ended(crowd, ROOM)
    assert b"200" in await asked(await served.connect())


async def test_who_waits_for_an_answer_keeps_its_place(make: Callable[..., Served]) -> None:
    served = make()
    await served.listen()
    answers = []
    for count in range(1, ROOM + 1):
        answers.append(asyncio.ensure_future(asked(await served.connect(), b"later")))
        await until(lambda: served.waiting == count)  # noqa: B023
    assert await asked(await served.connect()) == b"", "there is no room for it"
    served.release.set()
    assert all(b"200" in answer for answer in await asyncio.gather(*answers))


async def test_who_does_not_begin_its_handshake_has_no_place_for_ever(
    make: Callable[..., Served], tmp_path: Path
) -> None:
    write_folder(tmp_path, Authority())
    secured = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    secured.load_cert_chain(tmp_path / "server-cert.pem", tmp_path / "server-key.pem")
    trusting = ssl.create_default_context(cafile=tmp_path / "ca-cert.pem")
    trusting.check_hostname = False
    served = make(secured)
    await served.listen()
    crowd = await served.crowd()
    await ended(crowd, ROOM)
    assert b"200" in await asked(await served.connect(trusting))


@pytest.mark.thorough
async def test_its_end_waits_for_nobody(make: Callable[..., Served]) -> None:
    served = make()
    await served.listen()
    silent = [await served.connect()]
    asking = asyncio.ensure_future(asked(await served.connect(), b"later"))
    await until(lambda: served.waiting == 1)
    await soon(asyncio.ensure_future(served.web.stop()))
    await ended(silent, 1)
    assert await asking == b""


async def test_without_descriptors_it_says_so_once_and_goes_on(
    make: Callable[..., Served], caplog: pytest.LogCaptureFixture
) -> None:
    """Five lines a second, for as long as there were none."""
    served = make()
    await served.listen()
    asker = socket.socket()
    asker.setblocking(False)
    loop, limits = asyncio.get_running_loop(), resource.getrlimit(resource.RLIMIT_NOFILE)
    lowest_free = os.dup(0)
    os.close(lowest_free)
    resource.setrlimit(resource.RLIMIT_NOFILE, (lowest_free, limits[1]))
    try:
        await loop.sock_connect(asker, ("127.0.0.1", served.port))
        await until(lambda: "accept_failed" in caplog.messages)
        await asyncio.sleep(3 * ACCEPT_AGAIN_SECONDS)
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, limits)
    await loop.sock_sendall(asker, ASK % b"now")
    assert b"200" in await soon(asyncio.ensure_future(loop.sock_recv(asker, 100)))
    asker.close()
    assert caplog.messages == ["accept_failed"]


async def test_what_is_no_http_fills_no_log_and_a_fault_is_in_it(
    make: Callable[..., Served], caplog: pytest.LogCaptureFixture
) -> None:
    served = make()
    await served.listen()
    assert b"200" in await asked(await served.connect())
    for nonsense in (b"GET /now HTTP/1.1\r\n\r\n", b"\x16\x03\x01\x02\0\r\n\r\n", b"GET *\r\n\r\n"):
        reader, writer = await served.connect()
        writer.write(nonsense)
        assert b"400" in await soon(asyncio.ensure_future(reader.readline()))
    assert not caplog.records
    assert b"500" in await asked(await served.connect(), b"broken")
    assert [record.name for record in caplog.records] == ["nbdserver.web_port"]
