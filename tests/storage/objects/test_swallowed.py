"""What a silence has swallowed is ended when the first of what was asked later is answered, and nothing else is."""

import asyncio
import socket
import threading
from collections.abc import AsyncIterator

import pytest

from storage.env import RealEnv
from storage.errors import Unavailable
from storage.objects import rates
from storage.objects.s3 import S3Store
from storage.objects.transport import RequestPatience
from tests.storage.objects.stubs import StubServer, http
from tests.storage.objects.test_transport import CREATED, dripping, silent, without_haste
from tests.support.waiting import soon

LARGE = bytes(1 << 20)


HASTY = RequestPatience(look_seconds=0.05, still_seconds=0.2)
"""What rests for a fifth of a second is still."""


@pytest.fixture
async def s3(stub: StubServer, env: RealEnv, monkeypatch: pytest.MonkeyPatch, aws: None) -> AsyncIterator[S3Store]:
    """The bucket `bucket` at the stub: a small request has half a second, a large one has an hour."""
    monkeypatch.setattr(rates.Rate, "seconds", lambda _, size, late=0: 0.5 if size < len(LARGE) else 3600.0)
    monkeypatch.setenv("AWS_ENDPOINT_URL_S3", stub.endpoint)
    store = S3Store.from_environment("bucket", "some/prefix", env, patience=HASTY)
    yield store
    await store.close()


async def a_silence_ends(s3: S3Store, stub: StubServer) -> None:
    """Something is not answered in its time, and then something else is."""
    count = len(stub.requests)
    stub.answer(silent, CREATED)
    with pytest.raises(Unavailable, match="it took too long"):
        await s3.put("lost", b"")
    assert len(stub.requests) == count + 1
    with without_haste():
        await s3.put("found", b"")


async def test_what_was_asked_before_it_is_ended_and_asked_again_has_its_whole_time(
    s3: S3Store, stub: StubServer
) -> None:
    over = threading.Event()

    def late(connection: socket.socket) -> None:
        over.wait(60)
        connection.sendall(CREATED)

    for swallowed in (True, False):
        stub.answer(late)
        count = len(stub.requests)
        first = asyncio.ensure_future(s3.put("large", LARGE))
        await stub.has_requests(count + 1)
        await a_silence_ends(s3, stub)
        if swallowed:
            with pytest.raises(Unavailable, match="it took too long"):
                await soon(first)
    over.set()
    await soon(first)


@pytest.mark.parametrize("part", [0, 1000])
async def test_a_body_that_stops_took_too_long_and_is_no_strange_answer(
    s3: S3Store, stub: StubServer, monkeypatch: pytest.MonkeyPatch, part: int
) -> None:
    over = threading.Event()
    small_seconds = 3600.0
    monkeypatch.setattr(rates.Rate, "seconds", lambda _, size, late=0: small_seconds if size < len(LARGE) else 3600.0)

    def stopping(connection: socket.socket) -> None:
        connection.sendall(http(200, LARGE, ETag='"e"').removesuffix(LARGE) + LARGE[:part])
        over.wait(60)

    stub.answer(stopping)
    reading = asyncio.ensure_future(s3.get("large"))
    await stub.has_requests(1)
    small_seconds = 0.5
    await a_silence_ends(s3, stub)
    with pytest.raises(Unavailable, match="it took too long") as found:
        await soon(reading)
    assert "not S3" not in str(found.value)
    over.set()


@pytest.mark.thorough
async def test_what_moves_is_not_ended(s3: S3Store, stub: StubServer) -> None:
    """A large object arrives byte by byte meanwhile."""

    def slow(connection: socket.socket) -> None:
        connection.sendall(http(200, LARGE, ETag='"e"').removesuffix(LARGE))
        dripping(LARGE[:300], 0.01)(connection)  # never near to what is still, however busy the machine
        connection.sendall(LARGE[300:])

    stub.answer(slow)
    reading = asyncio.ensure_future(s3.get("large"))
    await stub.has_requests(1)
    await a_silence_ends(s3, stub)
    assert await soon(reading) == LARGE


async def test_nothing_is_ended_where_nothing_was_late(s3: S3Store, stub: StubServer) -> None:
    """A store takes its time with one object while it answers others."""
    over = threading.Event()

    def slow(connection: socket.socket) -> None:
        over.wait(60)
        connection.sendall(CREATED)

    stub.answer(slow)
    first = asyncio.ensure_future(s3.put("large", LARGE))
    await stub.has_requests(1)
    stub.answer(CREATED)
    began = asyncio.get_running_loop().time()
    while asyncio.get_running_loop().time() < began + 2 * HASTY.still_seconds:
        with without_haste():
            await s3.put("small", b"")
    over.set()
    await soon(first)


async def test_each_attempt_that_was_late_gives_the_next_one_twice_the_time(
    s3: S3Store, stub: StubServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    """And nobody else. Seen: 45 s without answers, and a PUT of 192 bytes had 1,152 s."""
    given: list[int] = []
    seconds = 0.05

    def noting(_: rates.Rate, size: int, late: int = 0) -> float:
        if size:
            given.append(late)
        return seconds

    monkeypatch.setattr(rates.Rate, "seconds", noting)
    stub.answer(silent)
    for name in ("large", "large", "other", "large"):
        with pytest.raises(Unavailable):
            await s3.put(name, LARGE)
    stub.answer(CREATED)
    seconds = 10.0
    for name in ("large", "large"):
        await s3.put(name, LARGE)
    assert given == [0, 1, 0, 2, 3, 0]
