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
from tests.storage.objects.calls import ask
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
    stub.answer(
        http(200, b"plain", ETag='"e"', Content_Encoding="gzip"),
        http(206, b"p", ETag='"e"', Content_Encoding="gzip", Content_Range="bytes 0-0/5"),
    )
    assert await store.get("wal/1") == b"plain"
    stub.answer(http(206, b"lain", ETag='"e"', Content_Encoding="gzip", Content_Range="bytes 1-4/5"))
    assert await store.get("wal/1", 1, 4) == b"lain"


@pytest.mark.parametrize("coding", ["gzip", "GZIP", "br", "aws-chunked, gzip"])
@pytest.mark.parametrize("chunked", [False, True])
@pytest.mark.parametrize("limit", [5, ANSWER_BYTES_MAX])
async def test_what_was_compressed_on_the_way_is_not_the_object(
    store: S3Store, stub: StubServer, coding: str, chunked: bool, limit: int
) -> None:
    """It was asked for as it is. Who compresses it all the same gives other bytes, which would seem to be damaged. What
    is sealed gets longer by that, and is read with its size as the limit.
    """
    answer = in_chunks(200, b"deflated", ETag='"e"', Content_Encoding=coding)
    if not chunked:
        answer = http(200, b"deflated", ETag='"e"', Content_Encoding=coding)
    stub.answer(answer, http(206, b"p", ETag='"e"', Content_Range="bytes 0-0/5"))
    with pytest.raises(Unavailable, match=rf"not S3: an object came compressed on the way .*{coding}"):
        await store.get("wal/1", limit=limit)


@pytest.mark.parametrize("coding", ["", "identity", "aws-chunked", "AWS-chunked, identity"])
async def test_how_an_object_was_sent_is_no_encoding(store: S3Store, stub: StubServer, coding: str) -> None:
    """Some stores keep it, and tell whoever reads the object: nothing is asked for again."""
    stub.answer(http(200, b"plain", ETag='"e"', Content_Encoding=coding))
    assert await store.get("wal/1") == b"plain"
    assert len(stub.requests) == 1


@pytest.mark.parametrize("operation", ["range", "head"])
async def test_a_part_that_was_compressed_has_another_length(store: S3Store, stub: StubServer, operation: str) -> None:
    part = {"range": "bytes 10-29/612", "head": "bytes 0-0/612"}[operation]
    for answer in (http, in_chunks):
        stub.answer(answer(206, bytes(38), ETag='"e"', Content_Encoding="gzip", Content_Range=part))
        with pytest.raises(Unavailable, match="not S3: "):
            await ask(store, operation)
