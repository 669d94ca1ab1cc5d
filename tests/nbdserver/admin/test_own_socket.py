"""The admin socket as a file that is lost, and one that another server has put there."""

import asyncio
import contextlib
import logging
import os
import socket
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from aiohttp import web

from nbdserver import unix_sockets
from nbdserver.admin.own_socket import OwnSocket


@pytest.fixture
async def runner() -> AsyncIterator[web.AppRunner]:
    runner = web.AppRunner(web.Application())
    await runner.setup()
    yield runner
    await runner.cleanup()


@pytest.fixture
async def own(runner: web.AppRunner, work: Path) -> AsyncIterator[OwnSocket]:
    own = OwnSocket(runner)
    (work / "run").mkdir(mode=0o700)
    await own.open(work / "run" / "a.sock")
    yield own
    await own.close()


async def answer_at(path: Path) -> bytes:
    """The first bytes of an answer; b"" of somebody who does not speak HTTP. OSError: nobody listens."""
    reader, writer = await asyncio.open_unix_connection(path)
    try:
        writer.write(b"GET / HTTP/1.0\r\n\r\n")
        return await reader.read(8)
    finally:
        writer.close()
        with contextlib.suppress(OSError):
            await writer.wait_closed()


async def test_a_look_changes_nothing_that_is_well(own: OwnSocket, work: Path) -> None:
    made = unix_sockets.identity(work / "run" / "a.sock")
    await own.look()
    assert unix_sockets.identity(work / "run" / "a.sock") == made
    assert os.listdir(work / "run") == ["a.sock"]


async def test_a_socket_that_was_removed_is_made_anew(
    own: OwnSocket, runner: web.AppRunner, work: Path, caplog: pytest.LogCaptureFixture
) -> None:
    path = work / "run" / "a.sock"
    reader, writer = await asyncio.open_unix_connection(path)
    for _ in range(2):
        path.unlink()
        await own.look()
        assert await answer_at(path) == b"HTTP/1.0"
    assert [record.message for record in caplog.records] == ["admin_socket_made_anew"] * 2
    assert path.stat().st_mode & 0o777 == 0o600
    assert len(runner.sites) == 1  # what nobody can find any more is not listened on
    writer.write(b"GET / HTTP/1.0\r\n\r\n")  # who was there stays
    assert await reader.read(8) == b"HTTP/1.0"
    writer.close()
    await own.close()
    assert not path.exists()


async def test_a_folder_that_was_removed_is_made_anew(own: OwnSocket, work: Path) -> None:
    path = work / "run" / "a.sock"
    path.unlink()
    path.parent.rmdir()
    await own.look()
    assert await answer_at(path) == b"HTTP/1.0"
    assert path.parent.stat().st_mode & 0o777 == 0o700


async def test_another_server_keeps_its_socket_while_it_listens(own: OwnSocket, work: Path) -> None:
    path = work / "run" / "a.sock"
    other, _ = unix_sockets.listen(path, "other", replace=True)
    theirs = unix_sockets.identity(path)
    with other:
        await own.look()
        assert unix_sockets.identity(path) == theirs
    await own.look()  # killed: nobody listens there
    assert await answer_at(path) == b"HTTP/1.0"
    assert os.listdir(work / "run") == ["a.sock"]


async def test_the_end_leaves_another_servers_socket(own: OwnSocket, work: Path) -> None:
    path = work / "run" / "a.sock"
    other, _ = unix_sockets.listen(path, "other", replace=True)
    with other:
        await own.close()
        with socket.socket(socket.AF_UNIX) as client:
            client.connect(str(path))
    path.unlink()


async def test_where_it_cannot_be_made_anew_that_is_said_once(
    own: OwnSocket, work: Path, caplog: pytest.LogCaptureFixture
) -> None:
    path = work / "run" / "a.sock"
    path.unlink()
    path.parent.chmod(0o777)  # others could put their own there
    for _ in range(3):
        await own.look()
    path.parent.chmod(0o700)
    await own.look()
    assert [(record.message, record.levelno) for record in caplog.records] == [
        ("admin_socket_lost", logging.WARNING),
        ("admin_socket_made_anew", logging.WARNING),
    ]
    assert await answer_at(path) == b"HTTP/1.0"
