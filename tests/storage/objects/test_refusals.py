"""The table of a store's answers, row by row, from a server that answers exactly that: at opening and while running."""

import asyncio
from collections.abc import Callable
from pathlib import Path

import pytest

from storage.env import RealEnv
from storage.errors import (
    AccessDenied,
    AlreadyExists,
    NoBucket,
    NotFound,
    OutOfSpace,
    StorageError,
    Unavailable,
    Unsupported,
)
from storage.objects.refusals import MESSAGE_CHARACTERS_MAX, TABLE, Row, StoreRefusal, Verb, error_for, row_for
from storage.objects.retry import MENDABLE, RetryingStore
from storage.objects.s3 import S3Store
from tests.storage.objects.calls import OPERATIONS, ask
from tests.storage.objects.stubs import Answer, StubServer, http, refusal

VERBS: tuple[Verb, ...] = ("create", "put", "get", "head", "list", "delete")

WITHOUT_DOCUMENT = [200, 201, 302, 400, 401, 403, 404, 405, 408, 409, 411, 413, 416, 429, 500, 501, 502, 503, 505, 507]

CASES: list[tuple[int, str, tuple[Verb, ...], type[StorageError], str]] = [
    (404, "NoSuchKey", ("get", "head"), NotFound, "no wal/1 in bucket bucket"),
    (404, "NoSuchKey", ("create", "put", "list", "delete"), Unavailable, "404 NoSuchKey"),
    (412, "PreconditionFailed", ("create",), AlreadyExists, "wal/1 is in"),
    (412, "PreconditionFailed", ("put", "get", "list", "delete"), Unavailable, "412"),
    (404, "NoSuchBucket", VERBS, NoBucket, "no bucket bucket .*create it"),
    (403, "AccessDenied", ("create", "put", "list", "delete"), AccessDenied, "policy of bucket bucket allows$"),
    (403, "AccessDenied", ("get", "head"), AccessDenied, "s3:ListBucket.* for an object that is not there"),
    (401, "Unauthorized", VERBS, AccessDenied, "credentials"),
    (403, "RequestTimeTooSkewed", VERBS, AccessDenied, "clock of this machine is off"),
    (403, "InvalidAccessKeyId", VERBS, AccessDenied, "does not know the access key"),
    (403, "SignatureDoesNotMatch", VERBS, AccessDenied, "secret key does not belong"),
    (400, "ExpiredToken", VERBS, AccessDenied, "expired"),
    (403, "ExpiredToken", VERBS, AccessDenied, "expired"),
    (400, "TokenRefreshRequired", VERBS, AccessDenied, "expired"),
    (400, "InvalidToken", VERBS, AccessDenied, "session token"),
    (301, "PermanentRedirect", VERBS, AccessDenied, "AWS_REGION=eu-west-1"),
    (307, "TemporaryRedirect", VERBS, AccessDenied, "AWS_REGION=eu-west-1"),
    (400, "AuthorizationHeaderMalformed", VERBS, AccessDenied, "AWS_REGION=eu-west-1"),
    (507, "XMinioStorageFull", VERBS, OutOfSpace, "make room"),
    (507, "Full", VERBS, OutOfSpace, "make room"),
    (400, "XMinioAdminBucketQuotaExceeded", VERBS, OutOfSpace, "quota of bucket bucket"),
    (403, "QuotaExceeded", VERBS, OutOfSpace, "quota of bucket bucket"),
    (408, "Timeout", VERBS, Unavailable, "408"),
    (409, "ConditionalRequestConflict", VERBS, Unavailable, "409"),
    (409, "OperationAborted", VERBS, Unavailable, "409"),
    (429, "TooManyRequests", VERBS, Unavailable, "429"),
    (400, "RequestTimeout", VERBS, Unavailable, "RequestTimeout"),
    (400, "BadDigest", VERBS, Unavailable, "BadDigest"),
    (500, "InternalError", VERBS, Unavailable, "500"),
    (503, "SlowDownWrite", VERBS, Unavailable, "SlowDown"),
    (504, "GatewayTimeout", VERBS, Unavailable, "504"),
    (404, "NoSuchUpload", VERBS, Unavailable, "404"),
    (501, "NotImplemented", VERBS, Unsupported, "501"),
    (405, "MethodNotAllowed", VERBS, Unsupported, "405"),
    (400, "InvalidArgument", VERBS, Unsupported, "InvalidArgument"),
    (413, "EntityTooLarge", VERBS, Unsupported, "EntityTooLarge.*client_max_body_size"),
]


class ImpatientEnv(RealEnv):
    """Tries again at once."""

    def jitter(self) -> float:
        return 0.0


GOOD: dict[str, Answer] = {
    "create": http(200, ETag='"e"'),
    "put": http(200, ETag='"e"'),
    "get": http(200, b"data", ETag='"e"'),
    "range": http(206, bytes(20), ETag='"e"', Content_Range="bytes 10-29/100"),
    "head": http(206, b"d", ETag='"e"', Content_Range="bytes 0-0/4"),
    "list": http(200, b"<ListBucketResult><Name>bucket</Name><IsTruncated>false</IsTruncated></ListBucketResult>"),
    "delete": http(200, b"<DeleteResult></DeleteResult>"),
}


async def asked(
    stub: StubServer, s3: S3Store, operation: str, answer: Answer, *, opening: bool
) -> tuple[StorageError | None, int]:
    """What comes of a call that is answered like this once, and then well; and the requests it made."""
    stub.requests.clear()
    stub.answer(answer, GOOD[operation])
    store = RetryingStore(s3, ImpatientEnv(), 20 if opening else None)
    try:
        await asyncio.wait_for(ask(store, operation), 20)
    except StorageError as error:
        return error, len(stub.requests)
    return None, len(stub.requests)


@pytest.mark.parametrize(("status", "code", "verbs", "kind", "words"), CASES)
async def test_what_a_store_says_is_taken_as_the_table_has_it(
    s3: S3Store,
    stub: StubServer,
    status: int,
    code: str,
    verbs: tuple[Verb, ...],
    kind: type[StorageError],
    words: str,
) -> None:
    answer = refusal(status, code, x_amz_bucket_region="eu-west-1")
    for verb in verbs:
        for operation in ("get", "range") if verb == "get" else (verb,):
            assert row_for(StoreRefusal(status, code, "", None, ""), verb).error is kind
            error, requests = await asked(stub, s3, operation, answer, opening=True)
            if kind is Unavailable:
                assert (error, requests) == (None, 2), f"{verb} is not asked again"
            else:
                assert type(error) is kind
                assert requests == 1
            error, requests = await asked(stub, s3, operation, answer, opening=False)
            if kind in (NotFound, AlreadyExists):
                assert type(error) is kind
                assert requests == 1
            else:
                assert (error, requests) == (None, 2), f"{verb} ends a running writer"
            stub.answer(answer)
            with pytest.raises(kind, match=words) as caught:
                await ask(s3, operation)
            assert str(caught.value).count("\n") == 0


HTML = b"<html><head><title>404</title></head><body><h1>page not found</h1><Code>NoSuchKey</Code></body></html>"


OTHER_BODIES = (b"", b"404 page not found\n", b"<Error></Error>", b"\xff\xfe\x00")


@pytest.mark.parametrize("operation", OPERATIONS)
@pytest.mark.parametrize("body", [HTML, *(pytest.param(body, marks=pytest.mark.slow) for body in OTHER_BODIES)])
async def test_an_answer_without_the_document_is_not_the_stores(
    s3: S3Store, stub: StubServer, operation: str, body: bytes
) -> None:
    for status in WITHOUT_DOCUMENT:
        if status == 200 and operation not in ("list", "delete"):
            continue
        for opening in (True, False):
            error, requests = await asked(stub, s3, operation, http(status, body), opening=opening)
            assert (error, requests) == (None, 2), f"{status} is believed"
    stub.answer(http(405, body))
    with pytest.raises(Unavailable, match=r"405.*something on the way"):
        await ask(s3, operation)


async def test_one_object_of_a_deletion_that_fails_is_asked_for_again(s3: S3Store, stub: StubServer) -> None:
    error = b"<Error><Key>wal/1</Key><Code>Whatever</Code><Message>because</Message></Error>"
    for opening in (True, False):
        answer = http(200, b"<DeleteResult>" + error + b"</DeleteResult>")
        assert await asked(stub, s3, "delete", answer, opening=opening) == (None, 2)


async def test_a_taken_name_without_a_document_is_looked_at(s3: S3Store, stub: StubServer) -> None:
    """Some stores may say no more than the status, and a proxy may say it of nothing."""
    there, absent = GOOD["head"], refusal(404, "NoSuchKey")
    for bare in (http(412), http(412, b"not XML"), http(412, HTML)):
        stub.answer(bare, there)
        with pytest.raises(AlreadyExists, match="wal/1"):
            await s3.create("wal/1", b"")
        stub.answer(bare, absent)
        with pytest.raises(Unavailable):
            await s3.create("wal/1", b"")


async def test_a_head_is_answered_with_a_body(s3: S3Store, stub: StubServer) -> None:
    """A HEAD's bare 400 would say nothing: an expired token ended the server once, and new ones came too late."""
    for answer, kind in (
        (refusal(400, "ExpiredToken"), AccessDenied),
        (refusal(404, "NoSuchKey"), NotFound),
        (http(400), Unavailable),
        (http(404), Unavailable),
    ):
        stub.answer(answer)
        with pytest.raises(kind):
            await s3.head("manifest/1")
    stub.answer(refusal(416, "InvalidRange"), http(200, ETag='"e"', Last_Modified="Wed, 21 Oct 2026 07:28:00 GMT"))
    assert (await s3.head("manifest/1")).size == 0
    assert stub.requests[-1].method == "HEAD"
    for date, when in (("Wed, 21 Oct 2026 07:28:00 GMT", 1792567680.0), ("nonsense", None)):
        stub.answer(http(206, b"d", ETag='"e"', Content_Range="bytes 0-0/4", Last_Modified=date))
        found = await s3.head("manifest/1")
        assert (found.size, found.modified) == (4, when)
    stub.answer(refusal(416, "InvalidRange"), http(404))
    with pytest.raises(Unavailable):
        await s3.head("manifest/1")


async def test_refused_credentials_are_looked_up_again(
    s3: S3Store, stub: StubServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = RetryingStore(s3, ImpatientEnv(), None)
    for number, answer in enumerate((refusal(400, "ExpiredToken"), refusal(403, "InvalidAccessKeyId"), http(400))):

        def renewed(_: object, answer: Answer = answer, name: str = f"renewed{number}") -> None:
            monkeypatch.setenv("AWS_ACCESS_KEY_ID", name)

        first = answer
        stub.answer(answering(first, renewed), GOOD["put"])
        await asyncio.wait_for(store.put("x", b""), 20)
        assert f"Credential=renewed{number}/" in stub.requests[-1].headers["authorization"]


def answering(answer: Answer, then: Callable[[object], None]) -> Answer:
    """Send an answer, do something, and hang up."""
    assert isinstance(answer, bytes)
    data: bytes = answer

    def act(connection: object) -> None:
        then(connection)
        connection.sendall(data)  # type: ignore[attr-defined]

    return act


def test_every_row_of_the_table_has_a_case() -> None:
    met = {
        id(row_for(StoreRefusal(status, code, "", None, ""), verb))
        for status, code, verbs, _, _ in CASES
        for verb in verbs
    }
    met.add(id(row_for(StoreRefusal(400, "", "", None, ""), "get")))
    met.add(id(row_for(StoreRefusal(413, "", "", None, ""), "put")))
    met.add(id(row_for(StoreRefusal(200, "Whatever", "", None, ""), "delete")))
    assert [row.why for row in TABLE if id(row) not in met] == []


EXIT_STATUS = {AccessDenied: 13, NoBucket: 10, OutOfSpace: 22, Unsupported: 14}


def in_words(row: Row) -> str:
    """A row as the document has it."""
    answer = " or ".join(f"`{code}`" for code in row.codes if code) or ("no document" if row.codes else "")
    statuses = ", ".join(str(status) for status in row.statuses)
    answer = " ".join(part for part in (statuses, answer) if part) or "any other"
    verbs = ", ".join(row.verbs) or "all"
    if row.error is Unavailable:
        opening = running = "asked again"
    elif row.error in MENDABLE:
        opening, running = f"ends, status {EXIT_STATUS[row.error]}", "asked again"
    else:
        opening = running = "absent" if row.error is NotFound else "taken"
    return f"| {answer} | {verbs} | {opening} | {running} | {row.why} |"


def test_the_document_holds_the_same_table() -> None:
    text = (Path(__file__).parents[3] / "docs" / "store-answers.md").read_text()
    written = [line for line in text.partition("\n\nThe verbs")[0].splitlines() if line.startswith("|")][2:]
    assert written == [in_words(row) for row in TABLE]


def test_an_answer_is_taken_apart() -> None:
    body = b"<?xml?><Error>\n<Code> SlowDown </Code><Message>Please &amp; reduce\n your rate.</Message></Error>"
    parsed = StoreRefusal.parse(503, {"Retry-After": "7", "x-amz-bucket-region": "eu-west-1"}, body)
    assert parsed == StoreRefusal(503, "SlowDown", "Please & reduce your rate.", 7.0, "eu-west-1")
    error = error_for(parsed, verb="put", name="wal/1", bucket="b", url="s3://b/p")
    assert isinstance(error, Unavailable)
    assert error.retry_after == 7.0


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"<html>504</html>",
        b"\xff\xfe\x00",
        b"<Code>NoSuchKey</Code>",
        b"<html><Error><Code>NoSuchKey</Code></Error></html>",
        b"<Error><Code>" + b"A" * 1000,
        b"<Error><Code></Code>",
        b"<Errors><Code>NoSuchKey</Code></Errors>",
    ],
)
def test_an_answer_that_is_not_s3_has_no_code(body: bytes) -> None:
    for pause in ("", "soon", "-1", "1e9", "Wed, 21 Oct 2026 07:28:00 GMT", "²"):
        assert StoreRefusal.parse(502, {"Retry-After": pause}, body) == StoreRefusal(502, "", "", None, "")


@pytest.mark.parametrize("start", [b"", b"<?xml version='1.0'?>", b"\xef\xbb\xbf<?xml version='1.0'?>\n", b"\n  "])
def test_documents_begin_in_several_ways(start: bytes) -> None:
    for root in (b"<Error>", b"<Error xmlns='http://s3.amazonaws.com/doc/2006-03-01/'>"):
        assert StoreRefusal.parse(404, {}, start + root + b"<Code>NoSuchKey</Code></Error>").code == "NoSuchKey"


def test_the_words_of_a_store_are_bounded() -> None:
    body = b"<Error><Code>X</Code><Message>%s</Message></Error>" % (b"word " * 199)
    parsed = StoreRefusal.parse(400, {}, body)
    assert len(parsed.message) == MESSAGE_CHARACTERS_MAX
    bad = StoreRefusal.parse(400, {}, b"<Error><Message>\xff\xfe</Message>")
    assert bad.message == "\ufffd\ufffd"
