"""A store behind an HTTP proxy: what the variables say, and what goes over the wire to the proxy and through it."""

import contextlib
import socket
import ssl
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from storage.env import RealEnv
from storage.errors import Invalid, Unavailable
from storage.objects.proxies import Proxy, proxy_for
from storage.objects.s3 import S3Store
from tests.storage.objects.stubs import StubServer, certificate, http

CREATED = http(200, ETag='"e"')


@pytest.fixture(autouse=True)
def no_proxies(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing of this machine's own set-up."""
    for name in ("http_proxy", "https_proxy", "all_proxy", "no_proxy"):
        monkeypatch.delenv(name, raising=False)
        monkeypatch.delenv(name.upper(), raising=False)
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "key")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "secret")


@pytest.mark.parametrize(
    ("variables", "root", "url"),
    [
        ({}, "https://s3.example.com", None),
        ({"HTTPS_PROXY": "http://proxy:3128"}, "https://s3.example.com", "http://proxy:3128"),
        ({"HTTPS_PROXY": "http://proxy:3128"}, "http://s3.example.com", None),
        ({"HTTP_PROXY": "http://proxy:3128"}, "http://s3.example.com:9000", "http://proxy:3128"),
        ({"HTTPS_PROXY": "proxy:3128"}, "https://s3.example.com", "http://proxy:3128"),
        ({"ALL_PROXY": "http://proxy"}, "https://s3.example.com", "http://proxy"),
        ({"https_proxy": "http://small", "HTTPS_PROXY": "http://large"}, "https://s3.example.com", "http://small"),
        ({"HTTPS_PROXY": "http://proxy", "NO_PROXY": "example.com"}, "https://s3.example.com", None),
        ({"HTTPS_PROXY": "http://proxy", "NO_PROXY": "s3.example.com:9000"}, "https://s3.example.com:9000", None),
        ({"HTTPS_PROXY": "http://proxy", "NO_PROXY": "*"}, "https://s3.example.com", None),
        ({"HTTPS_PROXY": "http://proxy", "NO_PROXY": "ample.com"}, "https://s3.example.com", "http://proxy"),
    ],
)
def test_the_variables_name_the_proxy(
    monkeypatch: pytest.MonkeyPatch, variables: dict[str, str], root: str, url: str | None
) -> None:
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    found = proxy_for(root)
    assert (found and found.url) == url


def test_a_login_is_a_header_and_nowhere_else(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HTTPS_PROXY", "http://us%40er:pass%3Aword@proxy:3128")
    found = proxy_for("https://s3.example.com")
    assert found == Proxy("http://proxy:3128", {"proxy-authorization": "Basic dXNAZXI6cGFzczp3b3Jk"})
    assert "dXNA" not in repr(found)


@pytest.mark.parametrize(
    "named", ["socks5://proxy:1080", "http://", "http://proxy:port", "http://proxy:99999", "http://[::1:1"]
)
def test_what_is_no_proxy_is_named(monkeypatch: pytest.MonkeyPatch, named: str) -> None:
    monkeypatch.setenv("HTTPS_PROXY", named)
    with pytest.raises(Invalid, match="HTTPS_PROXY"):
        proxy_for("https://s3.example.com")


async def test_a_store_in_clear_is_asked_for_by_its_whole_address(
    stub: StubServer, env: RealEnv, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HTTP_PROXY", stub.endpoint.replace("://", "://user:word@"))
    store = S3Store.from_environment("bucket", "some", env, endpoint="http://store.example.com:9000")
    stub.answer(CREATED)
    await store.put("x", b"data")
    await store.close()
    (request,) = stub.requests
    assert (request.method, request.target) == ("PUT", "http://store.example.com:9000/bucket/some/x")
    assert request.headers["host"] == "store.example.com:9000"
    assert request.headers["proxy-authorization"] == "Basic dXNlcjp3b3Jk"


async def test_a_store_that_no_proxy_is_for_is_asked_itself(
    stub: StubServer, env: RealEnv, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HTTP_PROXY", "http://127.0.0.1:1")
    store = S3Store.from_environment("bucket", "", env, endpoint=stub.endpoint)
    stub.answer(CREATED)
    with pytest.raises(Unavailable):
        await store.put("x", b"data")
    await store.close()
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    store = S3Store.from_environment("bucket", "", env, endpoint=stub.endpoint)
    await store.put("x", b"data")
    await store.close()


class Tunnels:
    """A proxy that connects, and keeps what it was asked for."""

    def __init__(self) -> None:
        self.asked: list[bytes] = []
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.url = f"http://127.0.0.1:{self._listener.getsockname()[1]}"
        self._ends: list[socket.socket] = []
        self._threads = [threading.Thread(target=self._accept)]
        self._threads[0].start()

    def close(self) -> None:
        self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        for thread in self._threads:
            thread.join()
        for end in self._ends:
            end.close()

    def _accept(self) -> None:
        while True:
            try:
                client, _ = self._listener.accept()
            except OSError:
                return
            head = b""
            while not head.endswith(b"\r\n\r\n"):
                head += client.recv(1)
            self.asked.append(head)
            host, _, port = head.split(b" ")[1].decode().rpartition(":")
            server = socket.create_connection((host, int(port)))
            self._ends += client, server
            client.sendall(b"HTTP/1.1 200 Connection established\r\n\r\n")
            for source, sink in ((client, server), (server, client)):
                self._threads.append(threading.Thread(target=_pump, args=[source, sink]))
                self._threads[-1].start()


def _pump(source: socket.socket, sink: socket.socket) -> None:
    with contextlib.suppress(OSError):  # either end may go first
        while data := source.recv(65536):
            sink.sendall(data)
        sink.shutdown(socket.SHUT_WR)


@pytest.fixture
def tunnels() -> Iterator[Tunnels]:
    made = Tunnels()
    yield made
    made.close()


async def test_a_store_under_tls_is_reached_through_a_tunnel(
    env: RealEnv, tunnels: Tunnels, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = certificate(tmp_path)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(file)
    monkeypatch.setenv("AWS_CA_BUNDLE", str(file))
    monkeypatch.setenv("HTTPS_PROXY", tunnels.url)
    with StubServer(tls=context) as stub:
        store = S3Store.from_environment("bucket", "", env, endpoint=stub.endpoint)
        stub.answer(CREATED)
        await store.put("x", b"data")
        await store.close()
        (request,) = stub.requests
    assert (request.method, request.target) == ("PUT", "/bucket/x")
    assert "proxy-authorization" not in request.headers
    (asked,) = tunnels.asked
    assert asked.startswith(b"CONNECT " + stub.endpoint.removeprefix("https://").encode() + b" ")
    assert b"bucket" not in asked
