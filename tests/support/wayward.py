"""A proxy before an S3 store that answers in its place, or swallows answers, as those on the way to real ones do."""

import http.client
import threading
import time
from collections.abc import Callable
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from types import TracebackType
from typing import Self

Decide = Callable[[str, str], bytes | None]
"""The bytes to answer a request with instead, by method and path (with its query); None: the store's own answer."""

SWALLOWED = b""
"""Instead of an answer: the request reaches the store, and the answer nobody. The connection stays open."""

CUT = b"cut"
"""Instead of an answer: the request reaches the store, and the connection ends."""

SLICE_SECONDS = 0.05
"""How often some bytes of an answer go on where there is a rate."""


class _Quiet(ThreadingHTTPServer):
    daemon_threads = True
    block_on_close = False

    def handle_error(self, request: object, client_address: object) -> None:
        """The program has given the request up, which is its right, or the store is gone."""


class WaywardProxy:
    """HTTP on a loopback port; `endpoint` is what the program is pointed to. `decide` may be changed at any time."""

    def __init__(self, endpoint: str) -> None:
        host = endpoint.removeprefix("http://")
        self.decide: Decide = lambda method, path: None
        self.seen: list[tuple[str, str]] = []
        """Method and path of each request, in the order in which they came."""
        self.rate: float | None = None
        """Bytes a second of each request's body and of each answer; None: as fast as it goes."""
        self.body_bytes_max: int | None = None
        """A longer body is answered with 413 and a page; None: however long."""
        self._over = threading.Event()
        proxy = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def forward(self) -> None:
                body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
                proxy.seen.append((self.command, self.path))
                instead = proxy.decide(self.command, self.path)
                if proxy.body_bytes_max is not None and len(body) > proxy.body_bytes_max:
                    instead = b"HTTP/1.1 413 So\r\nContent-Type: text/html\r\nContent-Length: 6\r\n\r\n<html>"
                if instead and instead is not CUT:
                    self.wfile.write(instead)
                    return
                if proxy.rate:
                    proxy._over.wait(len(body) / proxy.rate)
                answer = self._ask(body)
                if instead is CUT:
                    self.close_connection = True
                elif instead == SWALLOWED:
                    proxy._over.wait()
                else:
                    self._send(answer)

            def _send(self, answer: bytes) -> None:
                while proxy.rate and answer:
                    size = max(1, int(proxy.rate * SLICE_SECONDS))
                    self.wfile.write(answer[:size])
                    answer = answer[size:]
                    time.sleep(SLICE_SECONDS)
                self.wfile.write(answer)

            def _ask(self, body: bytes) -> bytes:
                connection = http.client.HTTPConnection(host, timeout=60)
                try:
                    connection.request(self.command, self.path, body or None, dict(self.headers.items()))
                    reply = connection.getresponse()
                    content = reply.read()
                finally:
                    connection.close()
                dropped = ("connection", "transfer-encoding", "content-length")
                headers = [f"{name}: {value}" for name, value in reply.getheaders() if name.lower() not in dropped]
                length = reply.getheader("Content-Length") if self.command == "HEAD" else str(len(content))
                head = "\r\n".join([f"HTTP/1.1 {reply.status} So", f"Content-Length: {length}", *headers])
                return head.encode() + b"\r\n\r\n" + content

            do_GET = do_HEAD = do_PUT = do_POST = do_DELETE = forward

            def log_message(self, format: str, *args: object) -> None:
                pass

        self._server = _Quiet(("127.0.0.1", 0), Handler)
        self.endpoint = f"http://127.0.0.1:{self._server.server_address[1]}"
        self._thread = threading.Thread(target=self._server.serve_forever, kwargs={"poll_interval": 0.05})

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._over.set()
        self._server.shutdown()
        self._thread.join()
        self._server.server_close()

    def once(self, method: str, part: str, answer: bytes) -> threading.Event:
        """Answer the next request of `method` whose path holds `part` like this; the event tells that it came."""
        met, taken = threading.Event(), threading.Lock()

        def decide(asked: str, path: str) -> bytes | None:
            if asked == method and part in path and taken.acquire(blocking=False):
                met.set()
                return answer
            return None

        self.decide = decide
        return met
