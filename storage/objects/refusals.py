"""Refusals: which answers of an S3 store are asked again and which are final, as a table, with the error of each row.

Two rules come before the table. An answer without S3's error document is not S3's: a proxy, a load balancer or a
restarting gateway spoke in its place, so whatever its status, it is asked again. And nothing about a single object is
concluded from silence: absent is what a well-formed NoSuchKey says, nothing else.

A running writer outlives everything in the table: what ends a command that opens a store (no such bucket, refused
credentials, a request that the store does not know) is asked again there until somebody has mended it, since the same
request was answered well before. See docs/store-answers.md, which holds the same table.
https://docs.aws.amazon.com/AmazonS3/latest/API/ErrorResponses.html
"""

import html
import re
from collections.abc import Mapping
from dataclasses import dataclass
from fnmatch import fnmatchcase
from typing import Literal

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

Verb = Literal["create", "put", "get", "head", "list", "delete"]

MESSAGE_CHARACTERS_MAX = 200
"""Of the store's own words in a message of ours."""

TOO_LARGE = 413

_DOCUMENT = re.compile(rb"(?:\xef\xbb\xbf)?\s*(?:<\?xml[^>]*\?>)?\s*<Error[\s>]")
_CODE = re.compile(rb"<Code>\s*([A-Za-z0-9_.]{1,80})\s*</Code>")
_MESSAGE = re.compile(rb"<Message>([^<]{1,1000})</Message>")
_ACTIONS = {"create": "write", "put": "write", "get": "read", "head": "read", "list": "list", "delete": "delete"}


@dataclass(frozen=True, slots=True)
class StoreRefusal:
    """An answer that is not a success.

    `code` is "" where it came without S3's error document, and the message and the region where they were not said;
    `retry_after` in seconds.
    """

    status: int
    code: str
    message: str
    retry_after: float | None
    region: str

    @classmethod
    def parse(cls, status: int, headers: Mapping[str, str], body: bytes) -> "StoreRefusal":
        """Take from an answer what it holds; whatever is not as it should be is left out."""
        document = body if _DOCUMENT.match(body) else b""
        code, message = _CODE.search(document), _MESSAGE.search(document)
        pause = headers.get("Retry-After", "").strip()
        words = html.unescape(message.group(1).decode("utf-8", "replace")) if message else ""
        return cls(
            status,
            code.group(1).decode() if code else "",
            " ".join(words.split())[:MESSAGE_CHARACTERS_MAX],
            float(pause) if pause.isascii() and pause.isdigit() else None,
            headers.get("x-amz-bucket-region", ""),
        )

    def __str__(self) -> str:
        known = " ".join(part for part in (str(self.status), self.code) if part)
        return f"{known}: {self.message}" if self.message else known


@dataclass(frozen=True, slots=True)
class Row:
    """One row of the table. Without statuses, codes or verbs it is for all of them."""

    error: type[StorageError]
    message: str
    why: str
    codes: tuple[str, ...] = ()
    """With `*` for any characters. "" is the answer without a document."""
    statuses: tuple[int, ...] = ()
    verbs: tuple[Verb, ...] = ()

    def fits(self, refusal: StoreRefusal, verb: Verb) -> bool:
        """Whether this row is about such an answer."""
        return (
            (not self.codes or any(fnmatchcase(refusal.code, code) for code in self.codes))
            and (not self.statuses or refusal.status in self.statuses)
            and (not self.verbs or verb in self.verbs)
        )


_LATER = "{what}; it is asked again"
_CREDENTIALS = "{what}; check the credentials: "

_LIMIT = "takes no body of that size; raise its limit (nginx: client_max_body_size)"

TABLE = (
    Row(
        Unavailable,
        "{what}, without S3's error document: something on the way (a proxy, a load balancer) " + _LIMIT,
        "not S3's answer: a limit must be raised on the way to it",
        codes=("",),
        statuses=(TOO_LARGE,),
    ),
    Row(
        Unavailable,
        "{what}, without S3's error document: something on the way may have answered in its place (a proxy, a load "
        "balancer), or {endpoint} is no S3 store",
        "not S3's answer: it says nothing of the store",
        codes=("",),
    ),
    Row(
        NotFound,
        "there is no {name} in bucket {bucket} ({url})",
        "the store says that there is no such object",
        codes=("NoSuchKey",),
        statuses=(404,),
        verbs=("get", "head"),
    ),
    Row(
        AlreadyExists,
        "{name} is in {url} already",
        "the store says that the name is taken; whoever hears it reads what is there",
        statuses=(412,),
        verbs=("create",),
    ),
    Row(
        NoBucket,
        "there is no bucket {bucket} at {url}; create it first",
        "a bucket must be made, or the right one named",
        codes=("NoSuchBucket",),
    ),
    Row(
        AccessDenied,
        "{what}; the clock of this machine is off: set it",
        "the clock must be set",
        codes=("RequestTimeTooSkewed", "RequestExpired"),
    ),
    Row(
        AccessDenied,
        _CREDENTIALS + "they have expired",
        "new credentials must be given; they are looked up again for each attempt",
        codes=("ExpiredToken", "TokenRefreshRequired"),
    ),
    Row(
        AccessDenied,
        _CREDENTIALS + "the store does not know the access key",
        "the right credentials must be given",
        codes=("InvalidAccessKeyId",),
    ),
    Row(
        AccessDenied,
        _CREDENTIALS + "the secret key does not belong to the access key",
        "the right credentials must be given",
        codes=("SignatureDoesNotMatch",),
    ),
    Row(
        AccessDenied,
        _CREDENTIALS + "the store does not know the session token",
        "the right credentials must be given",
        codes=("InvalidToken",),
    ),
    Row(
        AccessDenied,
        "{what}; bucket {bucket} is served elsewhere: {where}",
        "the right region or endpoint must be named",
        codes=("AuthorizationHeaderMalformed", "*Redirect", "IllegalLocationConstraintException"),
    ),
    Row(
        OutOfSpace,
        "{what}; make room, or raise the quota of bucket {bucket}",
        "somebody must make room",
        codes=("*QuotaExceeded*", "*StorageFull*", "InsufficientStorage*"),
    ),
    Row(
        OutOfSpace,
        "{what}; make room, or raise the quota of bucket {bucket}",
        "somebody must make room",
        statuses=(507,),
    ),
    Row(
        Unavailable,
        _LATER,
        "a fault on the way or in the store, which passes",
        codes=(
            "RequestTimeout",
            "BadDigest",
            "IncompleteBody",
            "XAmzContentSHA256Mismatch",
            "SlowDown*",
            "InternalError",
            "ServiceUnavailable",
        ),
    ),
    Row(
        AccessDenied,
        "{what}; check the credentials, and what the policy of bucket {bucket} allows: without permission to list it "
        "(s3:ListBucket) this is also the answer for an object that is not there",
        "a policy must be mended; the answer for a missing object too, if only listing is not allowed",
        statuses=(401, 403),
        verbs=("get", "head"),
    ),
    Row(
        AccessDenied,
        "{what}; check the credentials, and what the policy of bucket {bucket} allows",
        "a policy must be mended",
        statuses=(401, 403),
    ),
    Row(
        Unavailable,
        _LATER,
        "the store is busy, or broken for now",
        statuses=(408, 409, 425, 429, 500, 502, 503, 504),
    ),
    Row(
        Unavailable,
        _LATER,
        "makes no sense as an answer to this request",
        statuses=(404, 412),
    ),
    Row(
        Unavailable,
        _LATER,
        "one object of a deletion of many failed",
        statuses=(200,),
        verbs=("delete",),
    ),
    Row(
        Unsupported,
        "{what}; it " + _LIMIT,
        "a limit must be raised",
        statuses=(TOO_LARGE,),
    ),
    Row(
        Unsupported,
        "{what}; it does not do what is needed here",
        "the store does not know the request, or does not want it",
    ),
)
"""What each answer means; the first row that fits counts."""


def row_for(refusal: StoreRefusal, verb: Verb) -> Row:
    """The row of the table that an answer belongs to. The last one fits all."""
    return next(row for row in TABLE if row.fits(refusal, verb))


def error_for(refusal: StoreRefusal, *, verb: Verb, name: str, bucket: str, url: str) -> StorageError:
    """The error that says what the caller should do about an answer."""
    row = row_for(refusal, verb)
    message = row.message.format(
        what=f"{url} refused to {_ACTIONS[verb]} {name or 'objects'} ({refusal})",
        name=name,
        bucket=bucket,
        url=url,
        endpoint=url.partition("endpoint=")[2] or url,
        where=f"set AWS_REGION={refusal.region}" if refusal.region else "check the endpoint and AWS_REGION",
    )
    if row.error is Unavailable:
        return Unavailable(message, retry_after=refusal.retry_after, too_large=refusal.status == TOO_LARGE)
    return row.error(message)
