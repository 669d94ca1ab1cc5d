"""The S3 store before a server that misbehaves, and the few things that only a real one shows."""

import asyncio
import base64
import hashlib
import ssl
import uuid
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from storage.env import RealEnv
from storage.errors import (
    AccessDenied,
    Invalid,
    NoBucket,
    OutOfSpace,
    StorageError,
    Unavailable,
    Unsupported,
    Untrusted,
)
from storage.objects import transport
from storage.objects.base import ObjectInfo
from storage.objects.s3 import S3Store
from tests.storage.objects.calls import OPERATIONS, SECRET, ask
from tests.storage.objects.stubs import Answer, StubServer, certificate, hang_up, http, refusal, send_and_hang_up
from tests.support.examples import first_soon
from tests.support.minio import BUCKET, PASSWORD, USER, RunningMinio
from tests.support.processes import unused_port


@pytest.fixture(autouse=True)
def aws(aws: None) -> None:
    """Nothing of this machine's own set-up, for all tests here."""


@pytest.fixture
def store(s3: S3Store) -> S3Store:
    return s3


CREATED = http(200, ETag='"e"')
UNKNOWN_ENCODING = b'<?xml version="1.0" encoding="x-nobodys"?><ListBucketResult/>'


async def test_a_create_is_one_conditional_put(store: S3Store, stub: StubServer) -> None:
    stub.answer(CREATED)
    body = bytes(12 << 20)  # the client would make parts of this
    await store.create("wal/1.sst", body)
    (request,) = stub.requests
    assert (request.method, request.target) == ("PUT", "/bucket/some/prefix/wal/1.sst")
    assert request.body == body
    assert request.headers["if-none-match"] == "*"
    assert request.headers["content-length"] == str(len(body))
    assert request.headers["x-amz-content-sha256"] == hashlib.sha256(body).hexdigest()
    assert "if-none-match" in request.headers["authorization"], "the condition is not signed"
    assert "x-amz-meta-if-none-match" not in request.headers


async def test_a_put_has_no_condition(store: S3Store, stub: StubServer) -> None:
    stub.answer(CREATED)
    await store.put("x", b"data")
    assert "if-none-match" not in stub.requests[0].headers


@pytest.mark.parametrize("operation", first_soon(OPERATIONS, 2))
@pytest.mark.parametrize(
    ("answer", "kind"),
    [
        (refusal(503, "SlowDown", Retry_After="3"), Unavailable),
        (refusal(500, "InternalError"), Unavailable),
        (http(502, b"<html>bad gateway</html>", Content_Type="text/html"), Unavailable),
        (http(504, b"\xff\xfe not text"), Unavailable),
        (refusal(409, "ConditionalRequestConflict"), Unavailable),
        (http(429), Unavailable),
        (refusal(403, "AccessDenied"), AccessDenied),
        (http(403), Unavailable),
        (refusal(507, "XMinioStorageFull"), OutOfSpace),
        (http(307, Location="http://127.0.0.1:1/elsewhere"), Unavailable),
        (refusal(301, "PermanentRedirect", Location="http://127.0.0.1:1/elsewhere"), AccessDenied),
        (http(404), Unavailable),
        (send_and_hang_up(b"HTTP/1.1 999 What\r\n\r\n"), Unavailable),
        (send_and_hang_up(b"this is not HTTP\r\n\r\n"), Unavailable),
        (hang_up, Unavailable),
        (send_and_hang_up(b"HTTP/1.1 200 OK\r\nContent-Le"), Unavailable),
        (http(403, b"x" * (transport.REFUSAL_BYTES_MAX + 1)), Unavailable),
    ],
)
async def test_a_refusal_is_passed_on_and_nothing_is_asked_twice(
    store: S3Store, stub: StubServer, operation: str, answer: Answer, kind: type[StorageError]
) -> None:
    stub.answer(answer)
    with pytest.raises(StorageError) as caught:
        await ask(store, operation)
    assert type(caught.value) is kind
    assert SECRET not in str(caught.value)
    assert len(stub.requests) == 1


async def test_the_pause_a_store_asks_for_is_told(store: S3Store, stub: StubServer) -> None:
    stub.answer(refusal(503, "SlowDown", Retry_After="3"))
    with pytest.raises(Unavailable) as caught:
        await store.create("wal/1", b"")
    assert caught.value.retry_after == 3


async def test_a_missing_bucket_is_named(store: S3Store, stub: StubServer) -> None:
    stub.answer(refusal(404, "NoSuchBucket"))
    with pytest.raises(NoBucket, match="no bucket bucket at s3://bucket/some/prefix"):
        await store.list("")


@pytest.mark.parametrize("operation", ["create", "put", "get", "range", "head"])
async def test_a_success_that_bears_no_mark_of_s3_is_not_believed(
    store: S3Store, stub: StubServer, operation: str
) -> None:
    """A gateway that wants a login answers 200 to anything."""
    stub.answer(http(206 if operation == "range" else 200, b"<html>log in</html>", Content_Type="text/html"))
    with pytest.raises(Unavailable, match="not S3"):
        await ask(store, operation)


@pytest.mark.parametrize("operation", ["list", "delete"])
@pytest.mark.parametrize(
    "body", [b"", b"<html>log in</html>", b"<ListBucketResult", b"\xff", b"<a>&b;</a>", UNKNOWN_ENCODING]
)
async def test_nonsense_in_place_of_xml_is_not_believed(
    store: S3Store, stub: StubServer, operation: str, body: bytes
) -> None:
    stub.answer(http(200, body))
    with pytest.raises(Unavailable):
        await ask(store, operation)


def listing(*keys: str, truncated: str = "false", token: str = "") -> bytes:
    contents = "".join(f"<Contents><Key>{key}</Key><Size>5</Size></Contents>" for key in keys)
    xml = (
        f"<ListBucketResult><Name>bucket</Name><EncodingType>url</EncodingType><IsTruncated>{truncated}</IsTruncated>"
        f"<NextContinuationToken>{token}</NextContinuationToken>{contents}</ListBucketResult>"
    )
    return http(200, xml.encode(), Content_Type="application/xml")


async def test_an_answer_that_is_too_long_is_not_kept(store: S3Store, stub: StubServer) -> None:
    stub.answer(http(200, bytes(transport.LISTING_BYTES_MAX + 1)))
    with pytest.raises(Unavailable, match="longer than"):
        await store.list("wal/")


async def test_pages_are_put_together_and_foreign_names_left_out(store: S3Store, stub: StubServer) -> None:
    stub.answer(
        listing("some/prefix/wal/1", "some/prefix/wal/1%2B", "some/prefix/wal/2", truncated="true", token="t"),
        listing("some/prefix/wal/3", "some/prefix/wal/4"),
    )
    assert await store.list("wal/", "wal/0") == [ObjectInfo(f"wal/{n}", 5) for n in (1, 2, 3, 4)]
    first, second = (request.target for request in stub.requests)
    assert "prefix=some%2Fprefix%2Fwal%2F" in first
    assert "start-after=some%2Fprefix%2Fwal%2F0" in first
    assert "continuation-token=t" in second


async def test_no_page_is_asked_for_beyond_the_limit(store: S3Store, stub: StubServer) -> None:
    stub.answer(listing("some/prefix/wal/1", "some/prefix/wal/2", truncated="true", token="t"))
    assert [item.name for item in await store.list("wal/", "", 2)] == ["wal/1", "wal/2"]
    assert len(stub.requests) == 1


@pytest.mark.parametrize("keys", [("wal/2", "wal/1"), ("wal/1", "wal/1"), ("wal/0",)])
async def test_a_listing_out_of_order_is_refused(store: S3Store, stub: StubServer, keys: tuple[str, ...]) -> None:
    stub.answer(listing(*(f"some/prefix/{key}" for key in keys)))
    with pytest.raises(Unsupported, match="order"):
        await store.list("wal/", "wal/0")


async def test_a_listing_of_something_else_is_not_believed(store: S3Store, stub: StubServer) -> None:
    stub.answer(listing("other/prefix/wal/1"))
    with pytest.raises(Unavailable):
        await store.list("wal/")


async def test_a_deletion_that_failed_for_some_is_told(store: S3Store, stub: StubServer) -> None:
    body = (
        b"<DeleteResult><Error><Key>some/prefix/wal/1</Key><Code>%s</Code><Message>m</Message></Error></DeleteResult>"
    )
    for code, kind in ((b"AccessDenied", AccessDenied), (b"InternalError", Unavailable), (b"SlowDown", Unavailable)):
        stub.answer(http(200, body % code))
        with pytest.raises(kind, match="wal/1"):
            await store.delete(["wal/1"])
    stub.answer(http(200, body % b"NoSuchKey"))
    await store.delete(["wal/1"])


async def test_deletions_are_batched(store: S3Store, stub: StubServer) -> None:
    stub.answer(http(200, b"<DeleteResult></DeleteResult>"))
    await store.delete([f"wal/{number}" for number in range(2001)])
    assert [request.body.count(b"<Key>") for request in stub.requests] == [1000, 1000, 1]
    await store.delete([])
    assert len(stub.requests) == 3


async def test_a_server_that_is_not_there_is_unavailable(env: RealEnv) -> None:
    store = S3Store.from_environment("bucket", "", env, endpoint=f"http://127.0.0.1:{unused_port()}")
    for operation in OPERATIONS:
        with pytest.raises(Unavailable, match=r"s3://bucket\?endpoint=.* did not answer: Connection refused"):
            await ask(store, operation)
    await store.close()


async def test_the_address_tells_endpoints_apart(env: RealEnv, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("AWS_ENDPOINT_URL_S3", raising=False)

    def url(prefix: str = "p", **variables: str) -> str:
        with monkeypatch.context() as context:
            for name, value in variables.items():
                context.setenv(name, value)
            return S3Store.from_environment("bucket", prefix, env).url

    assert url() == "s3://bucket/p"
    assert url("") == "s3://bucket"
    assert url(AWS_ENDPOINT_URL="http://a:9000/") == "s3://bucket/p?endpoint=http://a:9000"
    both = url(AWS_ENDPOINT_URL="http://a:9000", AWS_ENDPOINT_URL_S3="https://b")
    assert both == "s3://bucket/p?endpoint=https://b"


@pytest.mark.parametrize(
    "endpoint",
    [
        "ftp://host",
        "host:9000",
        "http://",
        "http://user:hunter2@host",
        "http://host/x",
        "http://[::1:9000",
        "http://h\u2100",
        "http://u:hunter2@[h",
        "http://h:99999",
    ],
)
async def test_a_bad_endpoint_is_refused_without_repeating_it(env: RealEnv, endpoint: str) -> None:
    with pytest.raises(Invalid, match="AWS_ENDPOINT_URL_S3") as caught:
        S3Store.from_environment("bucket", "", env, endpoint=endpoint)
    assert "hunter2" not in str(caught.value)


@pytest.mark.parametrize("bucket", ["", "ab", "Upper", "a_b", "a..b", "192.168.0.1", "-a-", "a" * 64])
async def test_a_bad_bucket_is_refused(env: RealEnv, bucket: str) -> None:
    with pytest.raises(Invalid, match="bucket"):
        S3Store.from_environment(bucket, "", env, endpoint="http://localhost:1")


async def test_the_region_is_signed_for(stub: StubServer, env: RealEnv, monkeypatch: pytest.MonkeyPatch) -> None:
    stub.answer(CREATED)
    for variables, region in (
        ({}, "us-east-1"),
        ({"AWS_DEFAULT_REGION": "eu-south-2"}, "eu-south-2"),
        ({"AWS_REGION": "eu-west-1", "AWS_DEFAULT_REGION": "eu-south-2"}, "eu-west-1"),
    ):
        for name, value in variables.items():
            monkeypatch.setenv(name, value)
        store = S3Store.from_environment("bucket", "", env, endpoint=stub.endpoint)
        await store.put("x", b"")
        await store.close()
        assert f"/{region}/s3/aws4_request" in stub.requests[-1].headers["authorization"]
    assert len(stub.requests) == 3, "the region was asked for"


async def test_certificates_that_cannot_be_read_are_told(env: RealEnv, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_CA_BUNDLE", "/not/there")
    with pytest.raises(Invalid, match=r"/not/there.*AWS_CA_BUNDLE"):
        S3Store.from_environment("bucket", "", env, endpoint="https://localhost:1")
    store = S3Store.from_environment("bucket", "", env, endpoint="http://localhost:1")
    await store.close()


async def test_tls_is_verified(env: RealEnv, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = certificate(tmp_path)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(file)
    with StubServer(tls=context) as stub:
        stub.answer(CREATED)
        store = S3Store.from_environment("bucket", "", env, endpoint=stub.endpoint)
        with pytest.raises(Untrusted, match=r"self-signed certificate; .*AWS_CA_BUNDLE"):
            await store.create("wal/1", b"data")
        await store.close()
        assert stub.requests == []

        monkeypatch.setenv("AWS_CA_BUNDLE", str(file))
        store = S3Store.from_environment("bucket", "", env, endpoint=stub.endpoint)
        await store.create("wal/1", memoryview(b"data"))
        await store.close()
        (request,) = stub.requests
        assert request.headers["if-none-match"] == "*"
        assert request.headers["x-amz-content-sha256"] == "UNSIGNED-PAYLOAD"
        assert request.headers["content-md5"] == base64.b64encode(hashlib.md5(b"data").digest()).decode()


@pytest.fixture
async def real(minio: RunningMinio, env: RealEnv, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[S3Store]:
    for name, value in minio.environment().items():
        monkeypatch.setenv(name, value)
    store = S3Store.from_environment(BUCKET, f"s3/{uuid.uuid4().hex}", env)
    yield store
    await store.close()


@pytest.mark.integration
async def test_a_real_listing_has_pages(real: S3Store) -> None:
    expected = [f"wal/{number:04}" for number in range(1050)]
    for start in range(0, 1050, 25):
        await asyncio.gather(*(real.create(name, b"") for name in expected[start : start + 25]))
    assert [item.name for item in await real.list("wal/")] == expected
    assert [item.name for item in await real.list("wal/", "wal/0020")] == expected[21:]
    assert [item.name for item in await real.list("", "", 1001)] == expected[:1001]
    await real.delete(expected)
    assert await real.list("") == []


@pytest.mark.integration
async def test_a_large_object_goes_and_comes_whole(real: S3Store) -> None:
    data = bytearray(range(256)) * (40 << 12)
    await real.create("large", data)
    assert await real.get("large") == data
    assert await real.get("large", 5, 33 << 20) == data[5 : 5 + (33 << 20)]


@pytest.mark.integration
async def test_real_refusals_are_told_apart(minio: RunningMinio, env: RealEnv, monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in minio.environment().items():
        monkeypatch.setenv(name, value)
    store = S3Store.from_environment("no-such-bucket", "", env)
    for operation in OPERATIONS:
        with pytest.raises(NoBucket, match="no bucket no-such-bucket"):
            await ask(store, operation)
    await store.close()
    for variable, value, words in (
        ("AWS_ACCESS_KEY_ID", "nobody", "does not know the access key"),
        ("AWS_SECRET_ACCESS_KEY", SECRET, "secret key does not belong"),
    ):
        with monkeypatch.context() as context:
            context.setenv(variable, value)
            store = S3Store.from_environment(BUCKET, "", env)
            for operation in OPERATIONS:
                with pytest.raises(AccessDenied, match=words) as caught:
                    await ask(store, operation)
                assert PASSWORD not in str(caught.value)
                assert SECRET not in str(caught.value)
            await store.close()
    assert USER
