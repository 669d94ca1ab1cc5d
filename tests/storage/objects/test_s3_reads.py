"""What S3 answers to a GET: ranges, sizes, chunks, and what of that is not believed."""

import pytest

from storage.errors import (
    Corrupt,
    StorageError,
    Unavailable,
    Unsupported,
)
from storage.objects.base import ANSWER_BYTES_MAX
from storage.objects.s3 import S3Store
from tests.storage.objects.stubs import Answer, StubServer, http, send_and_hang_up


@pytest.fixture(autouse=True)
def aws(aws: None) -> None:
    """Nothing of this machine's own set-up, for all tests here."""


@pytest.fixture
def store(s3: S3Store) -> S3Store:
    return s3


def part(data: bytes, content_range: str, **more: str) -> bytes:
    return http(206, data, ETag='"e"', Content_Range=content_range, **more)


async def test_a_range_is_asked_for_and_checked(store: S3Store, stub: StubServer) -> None:
    stub.answer(part(bytes(20), "bytes 10-29/1000"))
    assert await store.get("wal/1", 10, 20) == bytes(20)
    assert stub.requests[0].headers["range"] == "bytes=10-29"
    stub.answer(part(bytes(990), "bytes 10-999/1000"))
    assert await store.get("wal/1", 10) == bytes(990)
    assert stub.requests[1].headers["range"] == "bytes=10-"


@pytest.mark.parametrize(
    ("answer", "kind"),
    [
        (http(200, bytes(1000), ETag='"e"'), Unsupported),
        (part(bytes(20), "bytes 11-30/1000"), Unavailable),
        (part(bytes(20), "bytes 0-19/1000"), Unavailable),
        (part(bytes(19), "bytes 10-28/1000"), Unavailable),
        (part(bytes(21), "bytes 10-30/1000"), Unavailable),
        (part(bytes(19), "bytes 10-29/1000"), Unavailable),
        (part(bytes(20), "bytes 10-29/*"), Unavailable),
        (part(bytes(20), "nonsense"), Unavailable),
        (http(206, bytes(20), ETag='"e"'), Unavailable),
        (part(bytes(15), "bytes 10-24/25"), Corrupt),
        (send_and_hang_up(part(bytes(20), "bytes 10-29/1000")[:-1]), Unavailable),
        (b'HTTP/1.1 206 So\r\nETag: "e"\r\nContent-Range: bytes 10-29/1000\r\n\r\n' + bytes(20), Unavailable),
    ],
)
async def test_another_range_than_asked_for_is_not_returned(
    store: S3Store, stub: StubServer, answer: Answer, kind: type[StorageError]
) -> None:
    stub.answer(answer)
    with pytest.raises(StorageError) as caught:
        await store.get("wal/1", 10, 20)
    assert type(caught.value) is kind


async def test_an_object_too_large_is_not_read(store: S3Store, stub: StubServer) -> None:
    length = str(ANSWER_BYTES_MAX + 1)
    stub.answer(send_and_hang_up(http(200, b"x", ETag='"e"', Content_Length=length)))
    with pytest.raises(Corrupt, match="no more than"):
        await store.get("wal/1")


async def test_a_cut_object_is_unavailable(store: S3Store, stub: StubServer) -> None:
    stub.answer(send_and_hang_up(http(200, bytes(1000), ETag='"e"', Content_Length="2000")))
    with pytest.raises(Unavailable):
        await store.get("wal/1")


def in_chunks(status: int, *chunks: bytes, **headers: str) -> bytes:
    """An answer that does not say how long it is (RFC 9112, 7.1)."""
    head = http(status, b"", **headers).replace(b"Content-Length: 0", b"Transfer-Encoding: chunked")
    return head + b"".join(b"%x\r\n%s\r\n" % (len(chunk), chunk) for chunk in (*chunks, b""))


async def test_an_object_may_come_in_chunks(store: S3Store, stub: StubServer) -> None:
    stub.answer(in_chunks(200, b"some", b"thing", ETag='"e"'))
    assert await store.get("wal/1") == b"something"
    stub.answer(in_chunks(206, b"et", b"hing", ETag='"e"', Content_Range="bytes 3-8/9"))
    assert await store.get("wal/1", 3, 6) == b"ething"
    assert await store.get("wal/1", 3) == b"ething"
    stub.answer(in_chunks(206, b"s", ETag='"e"', Content_Range="bytes 0-0/9"))
    assert (await store.head("wal/1")).size == 9


async def test_chunks_that_end_early_or_late_are_not_taken(store: S3Store, stub: StubServer) -> None:
    stub.answer(send_and_hang_up(in_chunks(200, b"some", b"thing", ETag='"e"')[:-7]))
    with pytest.raises(Unavailable):
        await store.get("wal/1")
    for chunks in ((b"some",), (b"some", b"thing")):
        stub.answer(in_chunks(206, *chunks, ETag='"e"', Content_Range="bytes 3-8/9"))
        with pytest.raises(Unavailable):
            await store.get("wal/1", 3, 6)
    stub.answer(in_chunks(200, b"some", b"thing", ETag='"e"'))
    with pytest.raises(Corrupt, match="no more than 8"):
        await store.get("wal/1", limit=8)


async def test_encoding_is_not_undone(store: S3Store, stub: StubServer) -> None:
    """What a store says about an encoding is not part of what we stored."""
    stub.answer(http(200, b"plain", ETag='"e"', Content_Encoding="gzip"))
    assert await store.get("wal/1") == b"plain"
