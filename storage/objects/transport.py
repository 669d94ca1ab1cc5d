"""HTTP as a store of objects needs it: requests that go out once, answers that are checked.

What is secured here, beneath the `minio` client: a request is never sent again unasked (a second copy of a
PUT earns a refusal that looks like another writer's doing), no redirect is followed, and no answer is longer than it
may be or believed before its status, length and range were checked. Everything blocks, and everything ends: sending
with the head of the answer, and the answer's body, each have the time that `rates` gives them, from first byte to last.

A request that had no answer says something about the way it took. So when one fails, the connections that lie idle are
not used any more: whatever is asked next goes out on a new one. And when the first one is answered after others took
too long, what was asked before it and does not move is ended: who asked for it asks again.
"""

import re
import socket
import ssl
from collections.abc import Mapping
from contextlib import AbstractContextManager
from dataclasses import dataclass
from datetime import datetime
from email.utils import parsedate_to_datetime
from typing import Any, cast

import urllib3
from urllib3.exceptions import ConnectTimeoutError, HTTPError

from storage.env import STORE_THREADS, Env
from storage.errors import Unsupported
from storage.objects import deadlines
from storage.objects.authorities import Authorities
from storage.objects.base import answer_length
from storage.objects.deadlines import LOOK_SECONDS, STILL_SECONDS, Call, Deadlines
from storage.objects.proxies import proxy_for
from storage.objects.rates import SECONDS_MIN, SMALL_BYTES_MAX, Rate
from storage.objects.refusals import StoreRefusal
from storage.units import KIB, MIB

LISTING_BYTES_MAX = 8 * MIB
"""1,000 names of 1,024 bytes, each byte as %XX, and what surrounds them."""

REFUSAL_BYTES_MAX = 64 * KIB
"""Of the reasons a store gives: what is longer is cut."""

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

_CODINGS_OF_NOTHING = {"", "identity", "aws-chunked"}
"""Values of Content-Encoding with which a body is what was stored: the last one some stores keep of how it was sent."""


@dataclass(frozen=True, slots=True)
class RequestPatience:
    """How long small requests may take, how late it may be noticed that one takes longer, and after how long one of
    which nothing moves is taken for swallowed.
    """

    seconds_min: float = SECONDS_MIN
    look_seconds: float = LOOK_SECONDS
    still_seconds: float = STILL_SECONDS
    """See `deadlines`."""


class Refused(Exception):
    """The store answered, but not with a success."""

    def __init__(self, refusal: StoreRefusal) -> None:
        super().__init__(str(refusal))
        self.refusal = refusal


class _StoreConnection(urllib3.connection.HTTPConnection):
    """A connection that tells what travels on it to the deadlines."""

    def connect(self) -> None:
        # The time of a large body is no time to connect in: where a network is silent the system asks ever more seldom.
        allowed, self.timeout = self.timeout, min(cast(float, self.timeout), SECONDS_MIN)
        try:
            super().connect()
        finally:
            self.timeout = allowed
        self.sock.settimeout(allowed)
        deadlines.travels_on(self.sock)

    def request(self, *arguments: Any, **options: Any) -> None:
        deadlines.travels_on(self.sock)
        super().request(*arguments, **options)


class _TlsConnection(_StoreConnection, urllib3.connection.HTTPSConnection):
    """A connection to a store over TLS."""


class _Pool(urllib3.HTTPConnectionPool):
    ConnectionCls = _StoreConnection


class _TlsPool(urllib3.HTTPSConnectionPool):
    ConnectionCls = _TlsConnection


_POOLS = {"http": _Pool, "https": _TlsPool}


class HttpTransport(urllib3.PoolManager):
    """The HTTP side of the client: sends each request once, in the time it may take, and bounds answers."""

    def __init__(self, env: Env, ca_certificates: str | None, patience: RequestPatience) -> None:
        """`ca_certificates`: a file of them, or None where TLS is not used."""
        self._authorities = Authorities(ca_certificates) if ca_certificates else None
        super().__init__(maxsize=STORE_THREADS, retries=False, ssl_context=self._tls, socket_options=_KEEP_ALIVE)
        self.pool_classes_by_scheme = _POOLS
        self._clock = env.monotonic
        self._hosts: dict[str, urllib3.HTTPConnectionPool] = {}
        self._deadlines = Deadlines(
            env.monotonic, look_seconds=patience.look_seconds, still_seconds=patience.still_seconds
        )
        self._up, self._down = Rate(seconds_min=patience.seconds_min), Rate(seconds_min=patience.seconds_min)
        self._silent = False
        """Whether something took too long, and nothing was answered since."""

    @property
    def _tls(self) -> ssl.SSLContext | None:
        return None if self._authorities is None else self._authorities.context

    def look_for_authorities(self) -> None:
        """The certificate of the store did not verify: from now on what the file holds now vouches for it."""
        if self._authorities is not None and self._authorities.read_anew():
            self.connection_pool_kw["ssl_context"] = self._tls
            self.distrust_idle()

    def watching(self, call: Call) -> AbstractContextManager[None]:
        """What the calling thread asks inside belongs to `call`, and none of it takes longer than it may."""
        return self._deadlines.watching(call)

    def urlopen(  # type: ignore[override]  # the client calls it in this one way
        self, method: str, url: str, *, body: Any, headers: Mapping[str, str], preload_content: bool
    ) -> urllib3.BaseHTTPResponse:
        """What the client calls for every request, with `preload_content` where the answer is to be read."""
        size = len(body) if body is not None else 0
        response = self._send(method, url, body, size, headers)
        if response.status not in (200, 204, 206):
            raise Refused(
                StoreRefusal.parse(response.status, response.headers, self._drain(response, REFUSAL_BYTES_MAX))
            )
        if not preload_content:
            return response
        answer = self._drain(response, LISTING_BYTES_MAX)
        if len(answer) > LISTING_BYTES_MAX:
            raise ValueError(f"an answer is longer than {LISTING_BYTES_MAX} bytes")
        if method == "PUT" and answer:
            # Some servers of pages put an ETag on whatever they answer. S3 confirms a write with its headers alone.
            raise ValueError("a write was answered with a page")
        if method == "POST" and b"DeleteResult" not in answer:
            raise ValueError("a deletion was answered without its result")
        return urllib3.HTTPResponse(answer, response.headers, response.status) if answer else response

    def read_body(self, response: urllib3.BaseHTTPResponse, size: int) -> bytes:
        """Exactly `size` bytes of body, as they came."""
        started = self._clock()
        # Of chunks one byte more is asked for, since only what comes behind them says that they are all.
        data = self._read(response, size + int(getattr(response, "chunked", False)), expected=size)
        if len(data) != size:
            raise ValueError(f"an answer has {len(data)} instead of {size} bytes")
        self._down.took(size, self._clock() - started)
        return data

    def read_chunks(self, response: urllib3.BaseHTTPResponse, name: str, limit: int) -> bytes:
        """A body that does not say how long it is: its end shows. Corrupt: longer than `limit`."""
        data = self._read(response, limit + 1, expected=limit)
        answer_length(name, len(data), 0, None, limit)
        return data

    def distrust_idle(self) -> None:
        """Send what is asked from now on over new connections; those that lie idle are closed."""
        # A pool closes its idle connections when the last request that uses it has ended.
        self._hosts.clear()
        self.clear()

    def close(self) -> None:
        """End all that is under way, and close all connections."""
        self._deadlines.end_all()
        self.distrust_idle()

    def _send(
        self, method: str, url: str, body: Any, size: int, headers: Mapping[str, str]
    ) -> urllib3.BaseHTTPResponse:
        """Send a request, and read the head of its answer."""
        seconds = self._up.seconds(size, self._deadlines.late())
        path = url.index("/", len("https://"))
        started = self._clock()
        self._deadlines.ask(seconds)
        try:
            pool = self._host(url[:path])
            response = pool.urlopen(
                method,
                # A proxy is told the whole of it, unless it is only to connect (RFC 9112, 3.2.2).
                url if pool.proxy is not None and url.startswith("http:") else url[path:],
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
        except HTTPError as error:
            self.distrust_idle()
            if self._clock() - started >= seconds or isinstance(error, ConnectTimeoutError):
                self._took_too_long()
            raise
        self._up.took(size, self._clock() - started)
        if self._silent:
            self._silent = False
            self._deadlines.end_swallowed(started)
        return response

    def _took_too_long(self) -> None:
        self._silent = True
        self._deadlines.took_too_long()

    def _drain(self, response: urllib3.BaseHTTPResponse, limit: int) -> bytes:
        """The body of an answer, one byte more than `limit` at most; gives the connection back, or closes it."""
        said = response.headers.get("Content-Length", "")
        length = int(said) if said.isascii() and said.isdigit() else None
        try:
            data = self._read(response, limit + 1, expected=SMALL_BYTES_MAX if length is None else min(length, limit))
            if response.length_remaining and len(data) <= limit:
                raise ValueError(f"an answer ended after {len(data)} bytes, before its end")
            if len(data) > limit:
                response.close()
            return data
        except BaseException:
            response.close()
            raise
        finally:
            response.release_conn()

    def _read(self, response: urllib3.BaseHTTPResponse, size: int, *, expected: int) -> bytes:
        """Up to `size` bytes of body, in the time that `expected` bytes may take."""
        self._deadlines.allow(self._down.seconds(expected, self._deadlines.late()))
        try:
            data = response.read(size, decode_content=False)
            if deadlines.is_ended():  # a body that was cut off reads like one that ended
                raise TimeoutError
            return data
        except (HTTPError, OSError):
            self.distrust_idle()
            if deadlines.is_late():
                self._took_too_long()
            raise

    def _host(self, root: str) -> urllib3.HTTPConnectionPool:
        """The connections to `https://host:port`; PoolManager would take the URL apart for every request."""
        pool = self._hosts.get(root)
        if pool is None:
            pool = self._hosts[root] = self._manager(root).connection_from_url(root)
        return pool

    def _manager(self, root: str) -> urllib3.PoolManager:
        proxy = proxy_for(root)
        if proxy is None:
            return self
        manager = urllib3.ProxyManager(
            proxy.url,
            proxy_headers=proxy.headers,
            maxsize=STORE_THREADS,
            retries=False,
            ssl_context=self._tls,
            socket_options=_KEEP_ALIVE,
        )
        manager.pool_classes_by_scheme = _POOLS
        return manager


def announced(response: urllib3.BaseHTTPResponse, name: str, offset: int, length: int | None, limit: int) -> int | None:
    """How long the body of an answer to a get is, once all that its headers say fits what was asked for. None: it comes
    in chunks, and does not say (RFC 9112, 7.1). Corrupt: longer than `limit`.
    """
    if response.headers.get("Content-Type", "").lower().startswith("text/html"):
        raise ValueError("a page came in place of an object")
    length_said = response.headers.get("Content-Length", "")
    in_chunks = not length_said and response.headers.get("Transfer-Encoding", "").lower() == "chunked"
    if not response.headers.get("ETag") or not (length_said.isdigit() or in_chunks):
        raise ValueError("an object came without its length and ETag")
    size = None if in_chunks else int(length_said)
    if offset == 0 and length is None:
        if response.status != 200:
            raise ValueError("a part of an object came where the whole was asked for")
        if size is not None:
            answer_length(name, size, 0, None, limit)
        return size
    if response.status != 206:
        raise Unsupported("the store ignores the range of a read; such a store cannot be used")
    part = _CONTENT_RANGE.match(response.headers.get("Content-Range", ""))
    if part is None:
        raise ValueError("a part of an object came without its range")
    first, last, total = map(int, part.groups())
    wanted = answer_length(name, total, offset, length, limit)
    if (first, last + 1 - first) != (offset, wanted) or size not in (None, wanted):
        raise ValueError(f"bytes {first} to {last} came where {wanted} from {offset} were asked for")
    return wanted


def coding(response: urllib3.BaseHTTPResponse) -> str:
    """How the body is said to be coded, where that may make it another than what was stored."""
    said = response.headers.get("Content-Encoding", "")
    return "" if {part.strip().lower() for part in said.split(",")} <= _CODINGS_OF_NOTHING else said


def total_size(response: urllib3.BaseHTTPResponse) -> int:
    """The size of the object of which `announced` took a part for good."""
    return int(response.headers["Content-Range"].rpartition("/")[2])


def last_modified(response: urllib3.BaseHTTPResponse) -> datetime | None:
    """When the object was made, where the answer says so."""
    try:
        return parsedate_to_datetime(response.headers.get("Last-Modified", ""))
    except ValueError:
        return None


def distrust(error: BaseException) -> str | None:
    """Why the certificate of the store does not verify, where that is at the bottom of an error."""
    at: BaseException | None = error
    while at is not None and not isinstance(at, ssl.SSLCertVerificationError):
        at = at.__cause__ or at.__context__
    return None if at is None else at.verify_message


def reason(error: BaseException) -> str:
    """What went wrong at the bottom of a chain of exceptions, in the words of the system."""
    if deadlines.is_ended():
        return "it took too long"
    while (cause := error.__cause__ or error.__context__) is not None:
        error = cause
    if isinstance(error, TimeoutError):
        return "it took too long"
    return (error.strerror if isinstance(error, OSError) else None) or str(error) or type(error).__name__
