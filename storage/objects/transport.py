"""This file knows HTTP as a store of objects needs it: requests that go out once, answers that are checked.

What is secured here, beneath the `minio` client: a request is never sent again unasked (a second copy of a
PUT earns a refusal that looks like another writer's doing), no redirect is followed, time-outs grow with
the body, connections that died while idle are noticed, and no answer is longer than it may be or believed
before its status, length and range were checked. Everything blocks.
"""

import re
import socket
import ssl
from collections.abc import Mapping
from typing import Any

import urllib3
from urllib3.exceptions import HTTPError

from storage.env import STORE_THREADS, Env
from storage.errors import Invalid, Unsupported
from storage.objects.base import answer_length
from storage.objects.refusals import Refusal

TIMEOUT_SECONDS_MIN = 10.0
"""For a request without a body, and for a small one: stores answer in milliseconds, or have lost it."""

TIMEOUT_FACTOR = 6
"""How much longer than expected a body may take: a rate halves easily when another stream joins."""

FIRST_RATE = 1 << 20
"""Bytes a second assumed before a body was timed: any link that a disk is worth having over."""

TIMED_BYTES_MIN = 256 << 10
"""Smaller bodies say more about the latency than about the rate."""

LISTING_BYTES_MAX = 8 << 20
"""1,000 names of 1,024 bytes, each byte as %XX, and what surrounds them."""

REFUSAL_BYTES_MAX = 64 << 10
"""Of the reasons a store gives; the status says enough, so what is longer is cut."""

_KEEP_ALIVE = [
    (socket.IPPROTO_TCP, socket.TCP_NODELAY, 1),
    (socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1),
    (socket.IPPROTO_TCP, socket.TCP_KEEPIDLE, 15),
    (socket.IPPROTO_TCP, socket.TCP_KEEPINTVL, 5),
    (socket.IPPROTO_TCP, socket.TCP_KEEPCNT, 3),
]
"""A connection that died while idle is noticed before a request is lost on it."""

_ONCE = urllib3.Retry(total=False)
_CONTENT_RANGE = re.compile(r"bytes (\d+)-(\d+)/(\d+)\Z")


class Refused(Exception):
    """The store answered, but not with a success."""

    def __init__(self, refusal: Refusal) -> None:
        super().__init__(str(refusal))
        self.refusal = refusal


class Transport(urllib3.PoolManager):
    """The HTTP side of the client: sends each request once, with time-outs that fit, and bounds answers."""

    def __init__(self, env: Env, ca_certificates: str | None) -> None:
        """`ca_certificates`: a file of them, or None where TLS is not used."""
        context = _tls(ca_certificates) if ca_certificates else None
        super().__init__(maxsize=STORE_THREADS, retries=False, ssl_context=context, socket_options=_KEEP_ALIVE)
        self._clock = env.monotonic
        self._hosts: dict[str, urllib3.HTTPConnectionPool] = {}
        self._rate: float = FIRST_RATE  # bytes a second of one stream, as the last bodies went

    def urlopen(  # type: ignore[override]  # the client calls it in this one way
        self, method: str, url: str, *, body: Any, headers: Mapping[str, str], preload_content: bool
    ) -> urllib3.BaseHTTPResponse:
        """What the client calls for every request, with `preload_content` where the answer is to be read."""
        size = len(body) if body is not None else 0
        seconds = max(TIMEOUT_SECONDS_MIN, TIMEOUT_FACTOR * size / self._rate)
        path = url.index("/", len("https://"))
        started = self._clock()
        try:
            response = self._host(url[:path]).urlopen(
                method,
                url[path:],
                body=body,
                headers=headers,
                retries=_ONCE,
                redirect=False,
                assert_same_host=False,
                # The time-out for connecting is also the one for sending the body.
                timeout=urllib3.Timeout(connect=seconds, read=seconds),
                preload_content=False,
                decode_content=False,
            )
        except HTTPError:
            if self._clock() - started >= seconds:
                self._rate = max(self._rate / 4, 1.0)
            raise
        if size >= TIMED_BYTES_MIN:
            self._rate += 0.3 * (size / max(self._clock() - started, 1e-6) - self._rate)
        if response.status not in (200, 204, 206):
            raise Refused(Refusal.parse(response.status, response.headers, _drain(response, REFUSAL_BYTES_MAX)))
        if not preload_content:
            return response
        answer = _drain(response, LISTING_BYTES_MAX)
        if len(answer) > LISTING_BYTES_MAX:
            raise ValueError(f"an answer is longer than {LISTING_BYTES_MAX} bytes")
        if method == "POST" and b"DeleteResult" not in answer:
            raise ValueError("a deletion was answered without its result")
        return urllib3.HTTPResponse(answer, response.headers, response.status) if answer else response

    def _host(self, root: str) -> urllib3.HTTPConnectionPool:
        """The connections to `https://host:port`; PoolManager would take the URL apart for every request."""
        pool = self._hosts.get(root)
        if pool is None:
            pool = self._hosts[root] = self.connection_from_url(root)
        return pool


def _tls(ca_certificates: str) -> ssl.SSLContext:
    """One context for all connections: reading the certificates takes 10 ms."""
    try:
        return ssl.create_default_context(cafile=ca_certificates)
    except OSError as error:
        raise Invalid(f"cannot use the certificates in {ca_certificates}: {error}; check AWS_CA_BUNDLE") from error


def announced(response: urllib3.BaseHTTPResponse, name: str, offset: int, length: int | None, limit: int) -> int:
    """How long the body of an answer to a get is, once all that its headers say fits what was asked for. Corrupt:
    longer than `limit`.
    """
    length_said = response.headers.get("Content-Length", "")
    if not response.headers.get("ETag") or not length_said.isdigit():
        raise ValueError("an object came without its length and ETag")
    size = int(length_said)
    if offset == 0 and length is None:
        if response.status != 200:
            raise ValueError("a part of an object came where the whole was asked for")
        answer_length(name, size, 0, None, limit)
    else:
        if response.status != 206:
            raise Unsupported("the store ignores the range of a read; such a store cannot be used")
        part = _CONTENT_RANGE.match(response.headers.get("Content-Range", ""))
        if part is None:
            raise ValueError("a part of an object came without its range")
        first, last, total = map(int, part.groups())
        wanted = answer_length(name, total, offset, length, limit)
        if (first, last + 1 - first, size) != (offset, wanted, wanted):
            raise ValueError(f"bytes {first} to {last} came where {wanted} from {offset} were asked for")
    return size


def read_body(response: urllib3.BaseHTTPResponse, size: int) -> bytes:
    """Exactly `size` bytes of body, as they came."""
    data = response.read(size, decode_content=False)
    if len(data) != size:
        raise ValueError(f"an answer ended after {len(data)} of {size} bytes")
    return data


def _drain(response: urllib3.BaseHTTPResponse, limit: int) -> bytes:
    """The body of an answer, one byte more than `limit` at most; gives the connection back, or closes it."""
    try:
        data = response.read(limit + 1, decode_content=False)
        if len(data) > limit:
            response.close()
        return data
    except BaseException:
        response.close()
        raise
    finally:
        response.release_conn()


def reason(error: BaseException) -> str:
    """What went wrong at the bottom of a chain of exceptions, in the words of the system."""
    while (cause := error.__cause__ or error.__context__) is not None:
        error = cause
    if isinstance(error, TimeoutError):
        return "it took too long"
    return (error.strerror if isinstance(error, OSError) else None) or str(error) or type(error).__name__
