"""What a refusal of an S3 store means to the caller."""

import pytest

from storage.errors import (
    AccessDenied,
    AlreadyExists,
    Invalid,
    NotFound,
    OutOfSpace,
    StorageError,
    Unavailable,
    Unsupported,
)
from storage.objects.refusals import MESSAGE_CHARACTERS_MAX, Refusal, error_for

CASES: list[tuple[int, str, type[StorageError], str]] = [
    (403, "AccessDenied", AccessDenied, "policy of bucket b"),
    (403, "", AccessDenied, "policy of bucket b"),
    (401, "Unauthorized", AccessDenied, "credentials"),
    (403, "RequestTimeTooSkewed", AccessDenied, "clock of this machine is off"),
    (403, "InvalidAccessKeyId", AccessDenied, "does not know the access key"),
    (403, "SignatureDoesNotMatch", AccessDenied, "secret key does not belong"),
    (400, "ExpiredToken", AccessDenied, "expired"),
    (301, "PermanentRedirect", AccessDenied, "AWS_REGION=eu-west-1"),
    (307, "TemporaryRedirect", AccessDenied, "AWS_REGION=eu-west-1"),
    (400, "AuthorizationHeaderMalformed", AccessDenied, "AWS_REGION=eu-west-1"),
    (404, "NoSuchKey", NotFound, "no wal/1 in bucket b"),
    (404, "", NotFound, "no wal/1 in bucket b"),
    (404, "NoSuchBucket", NotFound, "no bucket b .*create it"),
    (412, "PreconditionFailed", AlreadyExists, "wal/1 is in"),
    (412, "", AlreadyExists, "wal/1 is in"),
    (409, "ConditionalRequestConflict", Unavailable, "409"),
    (409, "OperationAborted", Unavailable, "409"),
    (429, "TooManyRequests", Unavailable, "429"),
    (408, "", Unavailable, "408"),
    (400, "RequestTimeout", Unavailable, "RequestTimeout"),
    (400, "BadDigest", Unavailable, "BadDigest"),
    (500, "InternalError", Unavailable, "500"),
    (502, "", Unavailable, "502"),
    (503, "SlowDown", Unavailable, "SlowDown"),
    (504, "", Unavailable, "504"),
    (507, "", OutOfSpace, "quota of bucket b"),
    (507, "XMinioStorageFull", OutOfSpace, "make room"),
    (400, "XMinioAdminBucketQuotaExceeded", OutOfSpace, "quota of bucket b"),
    (403, "QuotaExceeded", OutOfSpace, "quota of bucket b"),
    (501, "NotImplemented", Unsupported, "501"),
    (405, "MethodNotAllowed", Unsupported, "405"),
    (400, "InvalidArgument", Invalid, "InvalidArgument"),
]


@pytest.mark.parametrize(("status", "code", "kind", "words"), CASES)
def test_every_refusal_says_what_to_do(status: int, code: str, kind: type[StorageError], words: str) -> None:
    refusal = Refusal(status, code, "", None, "eu-west-1")
    error = error_for(refusal, action="write", name="wal/1", bucket="b", url="s3://b/p")
    assert type(error) is kind
    assert error.args[0].count("\n") == 0
    with pytest.raises(kind, match=words):
        raise error


def test_an_answer_is_taken_apart() -> None:
    body = b"<?xml?><Error>\n<Code> SlowDown </Code><Message>Please &amp; reduce\n your rate.</Message></Error>"
    parsed = Refusal.parse(503, {"Retry-After": "7", "x-amz-bucket-region": "eu-west-1"}, body)
    assert parsed == Refusal(503, "SlowDown", "Please & reduce your rate.", 7.0, "eu-west-1")
    error = error_for(parsed, action="write", name="wal/1", bucket="b", url="s3://b/p")
    assert isinstance(error, Unavailable)
    assert error.retry_after == 7.0


@pytest.mark.parametrize("body", [b"", b"<html>504</html>", b"\xff\xfe\x00", b"<Code>" + b"A" * 1000, b"<Code></Code>"])
def test_an_answer_that_is_not_s3_is_told_by_its_status(body: bytes) -> None:
    for pause in ("", "soon", "-1", "1e9", "Wed, 21 Oct 2026 07:28:00 GMT", "²"):
        assert Refusal.parse(502, {"Retry-After": pause}, body) == Refusal(502, "", "", None, "")


def test_the_words_of_a_store_are_bounded() -> None:
    body = b"<Error><Code>X</Code><Message>%s</Message></Error>" % (b"word " * 199)
    parsed = Refusal.parse(400, {}, body)
    assert len(parsed.message) == MESSAGE_CHARACTERS_MAX
    bad = Refusal.parse(400, {}, b"<Message>\xff\xfe</Message>")
    assert bad.message == "\ufffd\ufffd"
