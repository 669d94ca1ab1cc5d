"""This file knows what it means when an S3 store refuses a request: by HTTP status first, then by error code.

Stores agree on the status far more than on the codes, and some answer without any, so the code only refines
what the status says. https://docs.aws.amazon.com/AmazonS3/latest/API/ErrorResponses.html
"""

import html
import re
from collections.abc import Mapping
from dataclasses import dataclass

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

MESSAGE_CHARACTERS_MAX = 200
"""Of the store's own words in a message of ours."""

_CODE = re.compile(rb"<Code>\s*([A-Za-z0-9_.]{1,80})\s*</Code>")
_MESSAGE = re.compile(rb"<Message>([^<]{1,1000})</Message>")
_FULL = ("QuotaExceeded", "StorageFull", "InsufficientStorage")
_CREDENTIALS = {
    "ExpiredToken": "they have expired",
    "InvalidAccessKeyId": "the store does not know the access key",
    "SignatureDoesNotMatch": "the secret key does not belong to the access key",
}
_WRONG_REGION = {"AuthorizationHeaderMalformed", "PermanentRedirect", "IllegalLocationConstraintException"}
_BUSY = {
    "RequestTimeout",
    "BadDigest",
    "IncompleteBody",
    "XAmzContentSHA256Mismatch",
    "SlowDown",
    "InternalError",
    "ServiceUnavailable",
}
"""Codes of faults on the way or in the store that come with a status of 400, or inside an answer with 200."""


@dataclass(frozen=True, slots=True)
class Refusal:
    """An answer that is not a success. `retry_after` in seconds; "" or None where the answer did not say."""

    status: int
    code: str
    message: str
    retry_after: float | None
    region: str

    @classmethod
    def parse(cls, status: int, headers: Mapping[str, str], body: bytes) -> "Refusal":
        """Take from an answer what it holds; whatever is not as it should be is left out."""
        code, message = _CODE.search(body), _MESSAGE.search(body)
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


def error_for(refusal: Refusal, *, action: str, name: str, bucket: str, url: str) -> StorageError:
    """The error that says what the caller should do. `action`: "read", "write", "list" or "delete"."""
    status, code = refusal.status, refusal.code
    what = f"{url} refused to {action} {name or 'objects'} ({refusal})"
    if status == 507 or any(part in code for part in _FULL):
        return OutOfSpace(f"{what}; make room, or raise the quota of bucket {bucket}")
    if code == "RequestTimeTooSkewed":
        return AccessDenied(f"{what}; the clock of this machine is off: set it")
    if status in (301, 302, 303, 307, 308) or code in _WRONG_REGION:
        where = f"set AWS_REGION={refusal.region}" if refusal.region else "check the endpoint and AWS_REGION"
        return AccessDenied(f"{what}; bucket {bucket} is served elsewhere: {where}")
    if code in _CREDENTIALS:
        return AccessDenied(f"{what}; check the credentials: {_CREDENTIALS[code]}")
    if status in (401, 403):
        return AccessDenied(f"{what}; check the credentials and what the policy of bucket {bucket} allows")
    if status == 404:
        if code == "NoSuchBucket":
            return NotFound(f"there is no bucket {bucket} at {url}; create it first")
        return NotFound(f"there is no {name} in bucket {bucket} ({url})")
    if status == 412:
        return AlreadyExists(f"{name} is in {url} already")
    if status in (408, 409, 425, 429) or code in _BUSY or (status >= 500 and status not in (501, 505)):
        return Unavailable(f"{what}; it will take it later", retry_after=refusal.retry_after)
    if status in (405, 501):
        return Unsupported(f"{what}; it cannot do what is needed here")
    return Invalid(what)
