"""This file knows how to stand between a program and an S3 store and refuse some of its requests, as a policy would."""

import http.client
import threading
from collections.abc import Callable
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from types import TracebackType
from typing import Self

Refuse = Callable[[str, str], int]
"""The status to refuse a request with, by method and path (with its query); 0: let it through."""

CODES = {403: "AccessDenied", 500: "InternalError", 503: "SlowDown"}


class RefusingProxy:
    """HTTP on a loopback port; `endpoint` is what the program is pointed to. `refuse` may be changed at any time."""

    def __init__(self, endpoint: str) -> None:
        host = endpoint.removeprefix("http://")
        self.refuse: Refuse = lambda method, path: 0
        self.refused = 0
        proxy = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def forward(self) -> None:
                body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
                status = proxy.refuse(self.command, self.path)
                if status:
                    proxy.refused += 1
                    answer = (
                        f"<Error><Code>{CODES[status]}</Code><Message>refused by the test</Message></Error>".encode()
                    )
                    self._answer(
                        status, [("Content-Type", "application/xml")], b"" if self.command == "HEAD" else answer
                    )
                    return
                connection = http.client.HTTPConnection(host, timeout=60)
                try:
                    connection.request(self.command, self.path, body or None, dict(self.headers.items()))
                    reply = connection.getresponse()
                    content = reply.read()
                    dropped = ("connection", "transfer-encoding", "date", "server")
                    headers = [(name, value) for name, value in reply.getheaders() if name.lower() not in dropped]
                    self._answer(reply.status, headers, content)
                finally:
                    connection.close()

            def _answer(self, status: int, headers: list[tuple[str, str]], content: bytes) -> None:
                self.send_response(status)
                for name, value in headers:
                    self.send_header(name, value)
                if not any(name.lower() == "content-length" for name, _ in headers):
                    self.send_header("Content-Length", str(len(content)))
                self.end_headers()
                self.wfile.write(content)

            do_GET = do_HEAD = do_PUT = do_POST = do_DELETE = forward

            def log_message(self, format: str, *args: object) -> None:
                pass

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._server.daemon_threads = True
        self.endpoint = f"http://127.0.0.1:{self._server.server_address[1]}"
        self._thread = threading.Thread(target=self._server.serve_forever, kwargs={"poll_interval": 0.05})

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._server.shutdown()
        self._thread.join()
        self._server.server_close()
