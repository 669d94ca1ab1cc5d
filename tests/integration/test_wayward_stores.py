"""A real server whose way to MinIO swallows answers, or answers in MinIO's place: disks go on, nothing is lost."""

import os
import threading
import time
import uuid
from collections.abc import Callable, Iterator

import pytest

from tests.support.messages import FLUSH, WRITE
from tests.support.minio import RunningMinio
from tests.support.processes import until
from tests.support.program import Server
from tests.support.requirements import require
from tests.support.stores import minio_store
from tests.support.wayward import SWALLOWED, WaywardProxy

MIB = 1 << 20

PAGE = b"<html><body><h1>page not found</h1></body></html>"


def bare(status: int, body: bytes = b"") -> bytes:
    """An answer as a proxy gives it."""
    return f"HTTP/1.1 {status} So\r\nContent-Type: text/html\r\nContent-Length: {len(body)}\r\n\r\n".encode() + body


@pytest.fixture
def proxy(minio: RunningMinio) -> Iterator[WaywardProxy]:
    require("minio")
    with WaywardProxy(minio.endpoint) as proxy:
        yield proxy


@pytest.fixture
def server(minio: RunningMinio, proxy: WaywardProxy, make_server: Callable[..., Server]) -> Server:
    store = minio_store(minio, f"wayward-{uuid.uuid4().hex[:12]}", endpoint=proxy.endpoint)
    server = make_server(store, create={"disk": "64MiB"})
    server.start()
    return server


def test_one_strange_answer_ends_nothing(server: Server, proxy: WaywardProxy) -> None:
    """Once each of these, on one PUT of the log, ended the server: 404 with 10, 405 with 14, 400 and 413 with 2."""
    answers = [bare(404, b"404 page not found\n"), *(bare(status, PAGE) for status in (404, 405, 400, 413, 403, 302))]
    answers += [bare(400), bare(412), bare(501), bare(507)]
    written = {}
    for number, answer in enumerate(answers):
        met = proxy.once("PUT", "/wal/", answer)
        with server.connect() as client:
            written[number * MIB] = data = os.urandom(4096)
            client.write(number * MIB, data)
            client.flush()
        assert met.is_set()
        assert server.running()
    awaited = {("PUT", "/manifest/"), ("PUT", "/compacted/"), ("GET", "/manifest/"), ("GET", "prefix=")}
    all_met = threading.Event()

    def each_once(method: str, path: str) -> bytes | None:
        for kind in awaited:
            if kind[0] == method and kind[1] in path:
                awaited.discard(kind)
                if not awaited:
                    all_met.set()
                return bare(404, PAGE)
        return None

    proxy.decide = each_once
    server.host.run("compact", "--store", server.location)
    server.host.run("gc", "--store", server.location)
    assert all_met.wait(60), f"never asked: {awaited}"
    with server.connect() as client:
        client.write(63 * MIB, os.urandom(4096))
        client.flush()
    assert server.stop() == 0
    server.start()
    with server.connect() as client:
        met = proxy.once("GET", "/compacted/", bare(404, PAGE))
        for offset, data in written.items():
            assert client.read(offset, 4096) == data
        assert met.is_set()
    assert server.stop() == 0


def test_an_answer_that_is_lost_holds_up_nobody(server: Server, proxy: WaywardProxy) -> None:
    """The PUT is sent again beside the first, on another connection, and the object is found to be ours."""
    with server.connect() as client:
        for number in range(3):
            met = proxy.once("PUT", "/wal/", SWALLOWED)
            client.write(number * MIB, os.urandom(4096))
            client.flush()
            assert met.is_set()
    puts = [path for method, path in proxy.seen if method == "PUT" and "/wal/" in path]
    assert len(puts) - len(set(puts)) >= 3
    assert server.stop() == 0


def test_a_limit_on_the_way_is_named_before_there_is_a_store(
    minio: RunningMinio, proxy: WaywardProxy, make_server: Callable[..., Server]
) -> None:
    """nginx takes 1 MiB unless it is told otherwise: the first large object would be asked again for ever."""
    proxy.body_bytes_max = MIB
    server = make_server(minio_store(minio, f"wayward-{uuid.uuid4().hex[:12]}", endpoint=proxy.endpoint))
    done = server.host.run("init", server.location, status=21)
    assert "client_max_body_size" in done.stderr
    proxy.body_bytes_max = None
    server.host.run("init", server.location)


@pytest.mark.slow
def test_what_is_refused_for_ever_while_the_rest_goes_on_is_in_status(server: Server, proxy: WaywardProxy) -> None:
    """A limit of a proxy: data is refused, and the log, whose objects are small, goes through."""
    proxy.decide = lambda method, path: bare(413, PAGE) if method == "PUT" and "/compacted/" in path else None
    with server.connect() as client:
        client.write(0, b"x" * 4096)
        client.flush()
        command = ("--store", server.location)
        compacting = threading.Thread(target=lambda: server.host.run("compact", *command))
        compacting.start()

        def is_told() -> bool:
            client.write(MIB, b"y" * 4096)
            client.flush()
            done = server.host.run("status", *command, status=None)
            return done.returncode == 3 and "cannot be written since" in done.stdout and "413" in done.stdout

        until(is_told, seconds=60, what="the object that is refused")
        proxy.decide = lambda method, path: None
        compacting.join(60)
        assert not compacting.is_alive()
    server.host.run("status", *command)
    assert server.stop() == 0


@pytest.mark.slow
def test_a_silence_under_load_ends_for_all_when_it_is_over(
    minio: RunningMinio, proxy: WaywardProxy, make_server: Callable[..., Server]
) -> None:
    """After 40 s without answers to 96 large writes another disk's flush once had none for 79 s more, and there were
    requests with a time-out of 96 s: each that was late had made those of all others longer.
    """
    store = minio_store(minio, f"wayward-{uuid.uuid4().hex[:12]}", endpoint=proxy.endpoint)
    server = make_server(store, create={"disk": "128MiB", "other": "16MiB"})
    server.start()
    data = os.urandom(MIB)
    with server.connect("disk", timeout=120) as client, server.connect("other", timeout=50) as other:
        for number in range(16):
            client.write(number * MIB, data)
        client.flush()
        proxy.decide = lambda method, path: SWALLOWED

        def flood() -> None:
            for number in range(96):
                client.submit(WRITE, number * MIB, data=data)
            client.submit(FLUSH)
            for _ in range(97):
                assert not client.receive().error

        flooding = threading.Thread(target=flood)
        flooding.start()
        time.sleep(40)  # the length of the silence, not a wait for anything
        proxy.decide = lambda method, path: None
        other.write(0, data[:4096])
        other.flush()
        flooding.join(50)
        assert not flooding.is_alive()
    assert server.stop(seconds=60) == 0
    server.start()
    with server.connect("disk") as client:
        assert all(client.read(number * MIB, MIB) == data for number in range(96))
    assert server.stop() == 0


@pytest.mark.slow
def test_a_silence_ends_when_it_is_over(server: Server, proxy: WaywardProxy) -> None:
    """After 45 s without answers a flush once had none for 150 s more, and SIGTERM did not end the server."""
    first, data = os.urandom(4096), os.urandom(MIB)
    with server.connect() as client:
        client.write(0, first)
        proxy.decide = lambda method, path: SWALLOWED
        waiting = threading.Thread(target=client.flush)
        waiting.start()
        time.sleep(45)  # the length of the silence, not a wait for anything
        proxy.decide = lambda method, path: None
        with server.connect(timeout=60) as other:
            other.write(MIB, data)
            other.flush()
        waiting.join(60)
        assert not waiting.is_alive()
    assert server.stop(seconds=60) == 0
    server.start()
    with server.connect() as client:
        assert client.read(0, 4096) == first
        assert client.read(MIB, MIB) == data
    assert server.stop() == 0
