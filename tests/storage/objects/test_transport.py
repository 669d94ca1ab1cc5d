"""Requests that hang, drip or meet dead connections: everything ends in its time, and goes another way next."""

import asyncio
import contextlib
import socket
import ssl
import threading
from collections.abc import AsyncIterator, Callable, Coroutine, Iterator
from functools import partial
from pathlib import Path

import pytest

from storage.env import RealEnv
from storage.errors import StorageError, Unavailable
from storage.objects.rates import Rate
from storage.objects.s3 import S3Store
from storage.objects.transport import RequestPatience
from tests.storage.objects.calls import OPERATIONS, ask
from tests.storage.objects.stubs import Answer, StubServer, certificate, hang_up, http, refusal

CREATED = http(200, ETag='"e"')


HASTY = RequestPatience(seconds_min=0.5, look_seconds=0.05)
"""Small requests have half a second."""


@pytest.fixture
async def hasty(stub: StubServer, env: RealEnv, monkeypatch: pytest.MonkeyPatch, aws: None) -> AsyncIterator[S3Store]:
    """The bucket `bucket` at the stub, asked by somebody who does not wait long."""
    monkeypatch.setenv("AWS_ENDPOINT_URL_S3", stub.endpoint)
    store = S3Store.from_environment("bucket", "some/prefix", env, patience=HASTY)
    yield store
    await store.close()


@contextlib.contextmanager
def without_haste() -> Iterator[None]:
    """What is asked meanwhile is answered, and may take its time: a machine that is busy fails none of it."""
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(Rate, "seconds", lambda *_: 60.0)
        yield


def silent(connection: socket.socket) -> None:
    """No answer, and nothing that shows that there will be none."""
    connection.recv(1)


def half_a_head(connection: socket.socket) -> None:
    connection.sendall(b"HTTP/1.1 2")
    connection.recv(1)


def dripping(answer: bytes, pause: float = 0.1) -> Callable[[socket.socket], None]:
    """An answer a byte at a time: the next byte comes long before any time-out of a single read."""

    def drip(connection: socket.socket) -> None:
        over = threading.Event()
        for place in range(len(answer)):
            connection.sendall(answer[place : place + 1])
            over.wait(pause)

    return drip


@pytest.mark.parametrize(
    "answer",
    [
        silent,
        half_a_head,
        dripping(http(200, bytes(200), ETag='"e"')),
        dripping(refusal(403, "AccessDenied")),
        dripping(b"HTTP/1.1 200 OK\r\n" + b"A: b\r\n" * 100),
    ],
    ids=["silent", "half a head", "dripping", "dripping refusal", "dripping head"],
)
async def test_no_answer_is_waited_for_longer_than_it_may_take(
    hasty: S3Store, stub: StubServer, answer: Answer
) -> None:
    stub.answer(answer)
    asked = (ask(hasty, operation) for operation in OPERATIONS)
    for outcome in await asyncio.wait_for(asyncio.gather(*asked, return_exceptions=True), 20):
        assert isinstance(outcome, Unavailable)
        assert "it took too long" in str(outcome)


@pytest.mark.parametrize("whole", [True, False])
async def test_a_body_that_drips_is_given_up(hasty: S3Store, stub: StubServer, whole: bool) -> None:
    """The head of the answer comes at once, and the body a byte at a time."""
    whole_answer = http(200 if whole else 206, bytes(200), ETag='"e"', Content_Range="bytes 0-199/300")

    def answer(connection: socket.socket) -> None:
        connection.sendall(whole_answer.removesuffix(bytes(200)))
        dripping(bytes(200))(connection)

    stub.answer(CREATED)
    with without_haste():
        await asyncio.gather(*(hasty.put(f"x{number}", b"") for number in range(8)))
    old = stub.connections()
    stub.answer(answer, http(200, bytes(200), ETag='"e"'))
    with pytest.raises(Unavailable, match="it took too long"):
        await asyncio.wait_for(hasty.get("wal/1", 0, None if whole else 200), 20)
    with without_haste():
        assert await hasty.get("wal/1") == bytes(200)
    assert stub.requests[-1].connection not in old, "what the others are worth nobody knows"


@pytest.mark.parametrize("operation", ["list", "delete"])
async def test_a_list_that_drips_is_given_up(hasty: S3Store, stub: StubServer, operation: str) -> None:
    def answer(connection: socket.socket) -> None:
        connection.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 100000\r\n\r\n")
        dripping(b"<ListBucketResult>" * 100)(connection)

    stub.answer(answer)
    with pytest.raises(Unavailable, match="it took too long"):
        await asyncio.wait_for(ask(hasty, operation), 20)


@pytest.mark.usefixtures("aws")
async def test_what_drips_through_tls_is_given_up_too(
    env: RealEnv, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = certificate(tmp_path)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(file)
    monkeypatch.setenv("AWS_CA_BUNDLE", str(file))
    with StubServer(tls=context) as stub:
        stub.answer(dripping(http(200, bytes(200), ETag='"e"')), CREATED)
        store = S3Store.from_environment("bucket", "", env, endpoint=stub.endpoint, patience=HASTY)
        with pytest.raises(Unavailable, match="it took too long"):
            await asyncio.wait_for(store.get("wal/1"), 20)
        with without_haste():
            await store.put("wal/1", b"")
        await store.close()


@pytest.mark.parametrize("failure", [silent, hang_up])
async def test_after_a_failure_no_old_connection_is_used(hasty: S3Store, stub: StubServer, failure: Answer) -> None:
    stub.answer(CREATED)
    with without_haste():
        await asyncio.gather(*(hasty.put(f"x{number}", b"") for number in range(8)))
    old = stub.connections()
    assert old
    stub.answer(failure)
    with pytest.raises(Unavailable):
        await hasty.put("y", b"")
    stub.answer(CREATED)
    with without_haste():
        await asyncio.gather(*(hasty.put(f"z{number}", b"") for number in range(8)))
    assert not old & {request.connection for request in stub.requests[-8:]}


CREATE = partial(S3Store.create, name="wal/1", data=b"same")
GET = partial(S3Store.get, name="wal/1", offset=10, length=2)
GOT = http(206, b"ab", Content_Range="bytes 10-11/12", ETag='"1"')


@pytest.mark.parametrize(("ask", "answered"), [(CREATE, CREATED), (GET, GOT)], ids=["create", "get"])
async def test_what_is_asked_beside_the_same_that_hangs_takes_a_new_connection(
    ask: Callable[[S3Store], Coroutine[None, None, object]], answered: bytes, s3: S3Store, stub: StubServer
) -> None:
    stub.answer(CREATED)
    await asyncio.gather(*(s3.put(f"x{number}", b"") for number in range(4)))
    old = stub.connections()
    stub.answer(silent, answered)
    first = asyncio.create_task(ask(s3))
    await stub.has_requests(5)
    await ask(s3)
    assert stub.requests[-1].connection not in old
    first.cancel()
    with contextlib.suppress(asyncio.CancelledError):
        await first


async def test_a_call_that_nobody_waits_for_frees_its_thread(s3: S3Store, stub: StubServer) -> None:
    """More calls hang than there are threads; cancelled, none of them is in the way of the next."""
    stub.answer(silent)
    hanging = [asyncio.create_task(s3.get(f"wal/{number}")) for number in range(100)]
    await stub.has_requests(32)
    stub.answer(CREATED)
    for task in hanging:
        task.cancel()
    await asyncio.wait(hanging)
    await asyncio.wait_for(s3.put("x", b""), 20)


async def test_closing_ends_what_hangs(s3: S3Store, stub: StubServer) -> None:
    stub.answer(silent)
    hanging = [asyncio.create_task(s3.get(f"wal/{number}")) for number in range(8)]
    await stub.has_requests(8)
    await s3.close()
    done, _ = await asyncio.wait(hanging, timeout=60)
    assert len(done) == 8
    for task in done:
        assert isinstance(task.exception(), StorageError)
