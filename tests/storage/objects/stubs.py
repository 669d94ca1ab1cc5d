"""Stand-ins for stores that misbehave: an HTTP server that answers as told, and a wrapper."""

import asyncio
import contextlib
import datetime
import ipaddress
import socket
import ssl
import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import BinaryIO

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec

from storage.buffers import Buffer
from storage.objects.base import ANSWER_BYTES_MAX, Capabilities, Listing, ObjectInfo, ObjectStore


@dataclass(frozen=True)
class Request:
    method: str
    target: str
    headers: dict[str, str]
    body: bytes
    connection: int = 0
    """Which connection it came on, counted from 1."""


Answer = bytes | Callable[[socket.socket], None]
"""What to send back, or what to do with the connection instead."""


def http(status: int, body: bytes = b"", **headers: str) -> bytes:
    """An answer as it goes over the wire; `Content_Length` and the like become headers."""
    fields = {"Content-Length": str(len(body))} | {key.replace("_", "-"): value for key, value in headers.items()}
    head = "".join(f"{key}: {value}\r\n" for key, value in fields.items())
    return f"HTTP/1.1 {status} So\r\n{head}\r\n".encode() + body


def refusal(status: int, code: str, message: str = "because", **headers: str) -> bytes:
    """An answer of S3 that says no."""
    body = f"<?xml version='1.0'?><Error><Code>{code}</Code><Message>{message}</Message></Error>".encode()
    return http(status, body, Content_Type="application/xml", **headers)


@dataclass
class StubServer:
    """Gives its `answers` in turn, the last one again and again, and keeps the `requests`."""

    answers: list[Answer] = field(default_factory=list)
    requests: list[Request] = field(default_factory=list)
    tls: ssl.SSLContext | None = None

    def __enter__(self) -> "StubServer":
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.endpoint = f"http{'s' if self.tls else ''}://127.0.0.1:{self._listener.getsockname()[1]}"
        self._open: list[socket.socket] = []
        self._lock = threading.Lock()
        self._threads = [threading.Thread(target=self._accept)]
        self._threads[0].start()
        return self

    def __exit__(self, *_: object) -> None:
        self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        with self._lock:
            for connection in self._open:
                with contextlib.suppress(OSError):
                    connection.shutdown(socket.SHUT_RDWR)
        for thread in self._threads:
            thread.join()

    def answer(self, *answers: Answer) -> None:
        self.answers = list(answers)

    async def has_requests(self, count: int) -> None:
        """Return when `count` requests have come; fails after 20 s."""
        async with asyncio.timeout(20):
            while len(self.requests) < count:  # noqa: ASYNC110  # they come on threads
                await asyncio.sleep(0.01)

    def connections(self) -> set[int]:
        """The numbers of the connections on which requests came so far."""
        with self._lock:
            return {request.connection for request in self.requests}

    def _accept(self) -> None:
        while True:
            try:
                connection, _ = self._listener.accept()
            except OSError:
                return
            if self.tls:
                try:
                    connection = self.tls.wrap_socket(connection, server_side=True)
                except OSError:
                    connection.close()  # the client does not like the certificate
                    continue
            with self._lock:
                self._open.append(connection)
                number = len(self._open)
            thread = threading.Thread(target=self._serve, args=[connection, number])
            self._threads.append(thread)
            thread.start()

    def _serve(self, connection: socket.socket, number: int) -> None:
        with connection, contextlib.suppress(OSError), connection.makefile("rb") as lines:
            while request := self._read(lines, number):
                with self._lock:
                    self.requests.append(request)
                    answer = self.answers.pop(0) if len(self.answers) > 1 else self.answers[0]
                if callable(answer):
                    answer(connection)
                    return
                connection.sendall(answer)

    def _read(self, lines: BinaryIO, number: int) -> Request | None:
        first = lines.readline().decode().split()
        if not first:
            return None
        headers = {}
        while line := lines.readline().decode().strip():
            key, _, value = line.partition(":")
            headers[key.lower()] = value.strip()
        body = lines.read(int(headers.get("content-length", "0")))
        return Request(first[0], first[1], headers, body, number)


def hang_up(connection: socket.socket) -> None:
    """No answer at all."""


def send_and_hang_up(data: bytes) -> Callable[[socket.socket], None]:
    """Part of an answer."""
    return lambda connection: connection.sendall(data)


def certificate(folder: Path) -> Path:
    """A file with a key and a certificate for 127.0.0.1 that nobody vouches for."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "stub")])
    now = datetime.datetime.now(datetime.UTC)
    made = (
        x509.CertificateBuilder(name, name, key.public_key(), x509.random_serial_number())
        .not_valid_before(now - datetime.timedelta(days=1))
        .not_valid_after(now + datetime.timedelta(days=1))
        .add_extension(x509.SubjectAlternativeName([x509.IPAddress(ipaddress.ip_address("127.0.0.1"))]), False)
        .sign(key, hashes.SHA256())
    )
    pem = serialization.Encoding.PEM
    private = serialization.PrivateFormat.PKCS8
    file = folder / "certificate.pem"
    file.write_bytes(key.private_bytes(pem, private, serialization.NoEncryption()) + made.public_bytes(pem))
    return file


class Wrapped:
    """A store that does what the one in it does; tests override what is to go wrong."""

    def __init__(self, inner: ObjectStore) -> None:
        self.inner = inner

    @property
    def url(self) -> str:
        return self.inner.url

    @property
    def capabilities(self) -> Capabilities:
        return self.inner.capabilities

    async def create(self, name: str, data: Buffer) -> None:
        await self.inner.create(name, data)

    async def put(self, name: str, data: Buffer) -> None:
        await self.inner.put(name, data)

    async def get(self, name: str, offset: int = 0, length: int | None = None, limit: int = ANSWER_BYTES_MAX) -> bytes:
        return await self.inner.get(name, offset, length, limit)

    async def head(self, name: str) -> ObjectInfo:
        return await self.inner.head(name)

    async def delete(self, names: Sequence[str]) -> None:
        await self.inner.delete(names)

    async def list(self, prefix: str, start_after: str = "", limit: int | None = None) -> Listing:
        return await self.inner.list(prefix, start_after, limit)

    async def close(self) -> None:
        await self.inner.close()
