"""A store of objects in a bucket of an S3-compatible store, spoken to by `minio`.

The client signs and speaks S3; `transport` sends what it says once and checks the answers. Objects
are created with a condition, which the client offers only through `_put_object`; that also keeps every
object, of any size, a single PUT. What a refusal means is in the table of `refusals`, never in the client's classes.
The size of an object is asked for by a GET of its first byte: the answer to a HEAD has no body, so a refusal of it
does not say why, and not even whether the store has spoken.

Cost: about 0.3 ms of CPU a request, all of it in the client and in HTTP; requests run in the "store" threads.
"""

import asyncio
import contextlib
import os
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from datetime import datetime
from itertools import chain
from typing import Any, TypeVar
from urllib.parse import urlsplit
from xml.etree.ElementTree import ParseError

from minio import Minio
from minio.deleteobjects import DeleteObject
from minio.helpers import check_bucket_name
from urllib3.exceptions import HTTPError

from storage.buffers import Buffer
from storage.env import Env
from storage.errors import AccessDenied, Corrupt, Invalid, StorageError, Unavailable, Unsupported, Untrusted
from storage.objects.aws import AWS_ENDPOINT, read_settings
from storage.objects.base import (
    ANSWER_BYTES_MAX,
    Capabilities,
    Listing,
    ObjectInfo,
    answer_length,
    check_name,
    check_prefix,
    check_range,
    is_name,
)
from storage.objects.credentials import FoundCredentials
from storage.objects.deadlines import Call
from storage.objects.list_pages import list_pages
from storage.objects.refusals import StoreRefusal, Verb, error_for
from storage.objects.transport import (
    HttpTransport,
    Refused,
    RequestPatience,
    announced,
    coding,
    distrust,
    last_modified,
    reason,
    total_size,
)

T = TypeVar("T")


class S3Store:
    """The objects of `bucket` whose keys begin with `prefix`; `endpoint` is an http(s) URL without a path."""

    def __init__(
        self,
        bucket: str,
        prefix: str,
        env: Env,
        *,
        endpoint: str,
        region: str,
        credentials: FoundCredentials,
        ca_certificates: str,
        patience: RequestPatience | None = None,
    ) -> None:
        if prefix:
            check_name(prefix)
        host, secure = _parse_endpoint(endpoint)
        self._bucket = bucket
        self._root = f"{prefix}/" if prefix else ""
        self._credentials = credentials
        self._endpoint = endpoint
        self._env = env
        self._url = f"s3://{bucket}/{prefix}".removesuffix("/")
        if endpoint != AWS_ENDPOINT:
            self._url += f"?endpoint={'https' if secure else 'http'}://{host}"
        self._transport = HttpTransport(env, ca_certificates if secure else None, patience or RequestPatience())
        self._under_way: Counter[tuple[object, ...]] = Counter()
        """How many creates of a name are, and reads of the same bytes of an object."""
        try:
            check_bucket_name(bucket, strict=True, s3_check=True)
            self._client = Minio(
                host, secure=secure, region=region, credentials=credentials, http_client=self._transport
            )
        except ValueError as error:
            raise Invalid(f"not a bucket, endpoint and region: {bucket}, {host}, {region}: {error}") from error

    @classmethod
    def from_environment(
        cls,
        bucket: str,
        prefix: str,
        env: Env,
        *,
        endpoint: str | None = None,
        patience: RequestPatience | None = None,
    ) -> "S3Store":
        """A store reached as the variables and files of AWS say; `endpoint` goes before their variables."""
        settings = read_settings(os.environ, endpoint=endpoint)
        return cls(
            bucket,
            prefix,
            env,
            endpoint=settings.endpoint,
            region=settings.region,
            credentials=FoundCredentials(env),
            ca_certificates=settings.ca_certificates,
            patience=patience,
        )

    @property
    def url(self) -> str:
        return self._url

    @property
    def capabilities(self) -> Capabilities:
        return Capabilities(conditional_create=True, remote=True)

    async def create(self, name: str, data: Buffer) -> None:
        check_name(name)
        with self._another_way("create", name):
            await self._run("create", name, self._put, name, data, {"If-None-Match": "*"})

    async def put(self, name: str, data: Buffer) -> None:
        check_name(name)
        await self._run("put", name, self._put, name, data, {})

    async def get(self, name: str, offset: int = 0, length: int | None = None, limit: int = ANSWER_BYTES_MAX) -> bytes:
        check_name(name)
        check_range(offset, length)
        with self._another_way("get", name, offset, length):
            return await self._run("get", name, self._get, name, offset, length, limit)

    async def head(self, name: str) -> ObjectInfo:
        check_name(name)
        return await self._run("head", name, self._head, name)

    async def delete(self, names: Sequence[str]) -> None:
        for name in names:
            check_name(name)
        if names:
            await self._run("delete", "", self._delete, names)

    async def list(self, prefix: str, start_after: str = "", limit: int | None = None) -> list[ObjectInfo]:
        check_prefix(prefix)
        return await self._run("list", prefix, self._list, prefix, start_after, limit)

    async def close(self) -> None:
        self._transport.close()

    @contextlib.contextmanager
    def _another_way(self, *what: object) -> Iterator[None]:
        """The same again beside a first attempt that hangs: it must not go the same way."""
        if what in self._under_way:
            self._transport.distrust_idle()
        self._under_way[what] += 1
        try:
            yield
        finally:
            self._under_way[what] -= 1
            if not self._under_way[what]:
                del self._under_way[what]

    async def _run(self, verb: Verb, name: str, function: Callable[..., T], *arguments: object) -> T:
        call = Call(f"{verb} {name}")
        try:
            return await self._env.run("store", self._call, call, verb, name, function, *arguments)
        except asyncio.CancelledError:
            # Nobody waits for the answer: the thread is free for others. What was sent may still happen.
            call.end()
            raise

    def _call(self, call: Call, verb: Verb, name: str, function: Callable[..., T], *arguments: object) -> T:
        with self._transport.watching(call):
            return self._translated(verb, name, function, *arguments)

    def _translated(self, verb: Verb, name: str, function: Callable[..., T], *arguments: object) -> T:
        """`function(*arguments)`, with all that can go wrong turned into errors of this package."""
        try:
            return function(*arguments)
        except Refused as error:
            refused = self._error(verb, name, error.refusal)
            if isinstance(refused, AccessDenied) or not error.refusal.code:
                # Credentials may have expired, and new ones lie ready: the next attempt looks for them.
                self._credentials.look_again()
            raise refused from None
        except (HTTPError, OSError) as error:
            if (doubt := distrust(error)) is not None:
                self._transport.look_for_authorities()
                raise Untrusted(
                    f"the certificate of {self._endpoint} does not verify: {doubt}; if an authority of your own signed "
                    "it, name the file with that authority's certificate in AWS_CA_BUNDLE"
                ) from error
            raise Unavailable(f"{self.url} did not answer: {reason(error)}") from error
        except (ValueError, LookupError, ParseError) as error:  # of an unknown encoding the parser makes a LookupError
            raise Unavailable(f"{self.url} gave an answer that is not S3: {error}"[:400]) from error

    def _error(self, verb: Verb, name: str, refusal: StoreRefusal) -> StorageError:
        return error_for(refusal, verb=verb, name=name, bucket=self._bucket, url=self.url)

    def _put(self, name: str, data: Buffer, headers: dict[str, str]) -> None:
        body: Any = data if isinstance(data, bytes) else memoryview(data).cast("B")
        try:
            result = self._client._put_object(self._bucket, self._root + name, body, headers=dict(headers))
        except Refused as error:
            if "If-None-Match" not in headers or (error.refusal.status, error.refusal.code) != (412, ""):
                raise
            # Without a document it may be anybody's answer. If something is there, it is true all the same.
            self._head(name)
            raise Refused(replace(error.refusal, code="PreconditionFailed")) from None
        if not result.etag:
            raise ValueError("a write was confirmed without an ETag")

    def _get(self, name: str, offset: int, length: int | None, limit: int) -> bytes:
        if length == 0:
            answer_length(name, self._head(name).size, offset, 0)
            return b""
        try:
            response = self._client.get_object(self._bucket, self._root + name, offset, length or 0)
        except Refused as error:
            if not _is_beyond_the_end(error.refusal):
                raise
            if answer_length(name, self._head(name).size, offset, length, limit):
                raise Unavailable(f"{self.url} refused a range that is within {name}") from None
            return b""
        # A part comes with its length. A whole may be what was stored, which a copying tool has called that, or what
        # something on the way has made of it, which taken for the object would be damage: final, and mended. Of bytes
        # that are sealed that is longer, and so may be more than is ever read of such an object.
        coded = coding(response) if length is None and offset == 0 else ""
        try:
            size = announced(response, name, offset, length, limit)
            if size is None:
                data = self._transport.read_chunks(response, name, limit)
            else:
                data = self._transport.read_body(response, size)
        except BaseException as error:
            response.close()
            if coded and isinstance(error, Corrupt) and self._head(name).size <= limit:
                raise ValueError(f"an object came compressed on the way (Content-Encoding: {coded})") from None
            raise
        finally:
            response.release_conn()
        if coded and len(data) != self._head(name).size:
            raise ValueError(f"an object came compressed on the way (Content-Encoding: {coded})")
        return data

    def _head(self, name: str) -> ObjectInfo:
        try:
            response = self._client.get_object(self._bucket, self._root + name, 0, 1)
        except Refused as error:
            if not _is_beyond_the_end(error.refusal):
                raise
            return self._describe_empty(name)
        try:
            announced(response, name, 0, 1, ANSWER_BYTES_MAX)
            self._transport.read_body(response, 1)
            return ObjectInfo(name, total_size(response), _seconds(last_modified(response)))
        except BaseException:
            response.close()
            raise
        finally:
            response.release_conn()

    def _describe_empty(self, name: str) -> ObjectInfo:
        """An object that has no first byte, or a moment ago had none."""
        found = self._client.stat_object(self._bucket, self._root + name)
        if found.size is None or not found.etag:
            raise ValueError("an object was described without its size and ETag")
        return ObjectInfo(name, found.size, _seconds(found.last_modified))

    def _list(self, prefix: str, start_after: str, limit: int | None) -> Listing:
        found: Listing = []
        if limit == 0:
            return found
        previous = self._root + start_after if start_after else ""
        pages = list_pages(self._list_page, self._root + prefix, previous)
        for key, size, modified in chain.from_iterable(page.found for page in pages):
            if not key.startswith(self._root + prefix):
                raise ValueError("a listing shows what was not asked for")
            if key <= previous:
                raise Unsupported(f"{self.url} does not list objects in order of name; such a store cannot be used")
            previous = key
            if is_name(name := key.removeprefix(self._root)):
                found.append(ObjectInfo(name, size, modified))
                if len(found) == limit:
                    break
        return found

    def _list_page(self, query: dict[str, str]) -> bytes:
        return self._client._execute("GET", self._bucket, query_params=dict(query)).data

    def _delete(self, names: Sequence[str]) -> None:
        to_delete = [DeleteObject(self._root + name) for name in names]
        failures = [
            error for error in self._client.remove_objects(self._bucket, to_delete) if error.code != "NoSuchKey"
        ]
        for failure in failures:
            status = 403 if failure.code == "AccessDenied" else 200
            refusal = StoreRefusal(status, failure.code, failure.message or "", None, "")
            raise self._error("delete", (failure.name or "").removeprefix(self._root), refusal)


def _seconds(moment: datetime | None) -> float | None:
    """Seconds since 1970 of a time as the client gives it."""
    return None if moment is None else moment.timestamp()


def _is_beyond_the_end(refusal: StoreRefusal) -> bool:
    """Whether an object has no byte of the range that was asked for, and so is there."""
    return refusal.status == 416 and refusal.code != ""


def _parse_endpoint(endpoint: str) -> tuple[str, bool]:
    """(host with port, whether TLS is used) of an endpoint's URL."""
    try:
        parts = urlsplit(endpoint)
        usable = parts.scheme in ("http", "https") and parts.hostname and (parts.port or 1)
    except ValueError:  # brackets without their match, letters that stand for others, no port
        usable = False
    if not usable or parts.username or parts.path.strip("/"):
        raise Invalid("the endpoint must look like http://HOST:PORT or https://HOST: check AWS_ENDPOINT_URL_S3")
    return parts.netloc, parts.scheme == "https"
