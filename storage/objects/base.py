"""The interface that every object store offers, and the rules for object names.

All methods are coroutines. Errors are those of `storage.errors`; a store maps its own errors at its own seam.
Buffers handed in are never kept after the call returns, buffers handed out belong to the caller. A call
that is cancelled may still happen, now or later: its buffer must not change.
"""

import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Protocol

from storage.buffers import Buffer
from storage.errors import Corrupt, Invalid
from storage.units import MIB

DELETE_BATCH_MAX = 1000
"""Names in one delete request: the limit of S3's DeleteObjects."""

LIST_PAGE_MAX = 1000
"""Names in one answer to a listing: the limit of S3's ListObjectsV2."""

ANSWER_BYTES_MAX = 64 * MIB
"""The longest answer to a get unless its caller says otherwise: nothing that lies in a store is read into memory before
its size was compared with what such an object may have.
"""

_NAME = re.compile(r"[A-Za-z0-9_.-]+(/[A-Za-z0-9_.-]+)*\Z")


@dataclass(frozen=True, slots=True)
class ObjectInfo:
    """One object as a listing or a head shows it; `size` in bytes.

    `modified` is when it was put there, in seconds since 1970 by the *store's* clock, which may differ from ours: it
    can only be compared with that of another object. None where the store does not say.
    """

    name: str
    size: int
    modified: float | None = field(default=None, compare=False)


@dataclass(frozen=True, slots=True)
class Capabilities:
    """What a store claims to do; the probe finds out whether it is true."""

    conditional_create: bool
    remote: bool = False
    """Requests travel: one may have no answer ever while another one would be answered, and what answers may be
    something on the way.
    """


Listing = list[ObjectInfo]
"""What `list` answers, for use inside classes where that word means their method."""


class ObjectStore(Protocol):
    """A flat map from names to immutable bytes, strongly consistent."""

    @property
    def url(self) -> str:
        """Where this store is, for messages and for the anchor file. Never holds a secret."""

    @property
    def capabilities(self) -> Capabilities:
        """What this store claims to do; the same for its whole life."""

    async def create(self, name: str, data: Buffer) -> None:
        """Put an object that must not exist yet; atomic and durable on return.

        AlreadyExists: the name is taken (perhaps by this very call's lost first attempt). Unavailable: the
        outcome is unknown.
        """

    async def put(self, name: str, data: Buffer) -> None:
        """Put an object, replacing what was there; atomic and durable on return."""

    async def get(self, name: str, offset: int = 0, length: int | None = None, limit: int = ANSWER_BYTES_MAX) -> bytes:
        """The bytes [offset, offset + length) of an object, or all from `offset`; NotFound if it is missing.

        The answer has exactly the length asked for: a range that reaches past the end of the object is
        Corrupt, and an answer cut short on the way is Unavailable. An answer that would be longer than `limit`
        bytes is Corrupt too, and none of it is read.
        """

    async def head(self, name: str) -> ObjectInfo:
        """Size of an object; NotFound if it is not there."""

    async def list(self, prefix: str, start_after: str = "", limit: int | None = None) -> list[ObjectInfo]:
        """The first `limit` objects in order of name whose name has `prefix` and comes after `start_after`.

        What is there but has no name that `check_name` takes is not shown.
        """

    async def delete(self, names: Sequence[str]) -> None:
        """Delete any number of objects, 1,000 a request; names that are not there are no error."""

    async def close(self) -> None:
        """Give back connections. The store must not be used afterwards."""


def is_name(name: str) -> bool:
    """Whether `name` is a relative path of plain components (no `.` or `..`, no empty ones)."""
    return _NAME.match(name) is not None and not any(part in (".", "..") for part in name.split("/"))


def check_name(name: str) -> None:
    """Raise Invalid unless `name` may name an object: parts of letters, digits, `_`, `.` and `-`, with `/` between."""
    if not is_name(name):
        raise Invalid(f"not an object name: {name[:80]!r}")


def check_prefix(prefix: str) -> None:
    """Raise Invalid unless names of objects may begin with `prefix`; "" is the beginning of all of them."""
    if prefix and not is_name(prefix + "x"):
        raise Invalid(f"no object's name begins like this: {prefix[:80]!r}")


def check_range(offset: int, length: int | None) -> None:
    """Raise Invalid unless `offset` and `length` of a get are not negative."""
    if offset < 0 or (length is not None and length < 0):
        raise Invalid(f"not a range of bytes: offset={offset} length={length}")


def answer_length(name: str, size: int, offset: int, length: int | None, limit: int = ANSWER_BYTES_MAX) -> int:
    """Bytes that a get of an object of `size` bytes answers; Corrupt past the object's end and over the limit."""
    wanted = max(size - offset, 0) if length is None else length
    if offset + wanted > size:
        raise Corrupt(name, f"bytes up to {offset + wanted} were asked for, it has {size}")
    if wanted > limit:
        raise Corrupt(name, f"it has {size} bytes, and no more than {limit} are ever read of such an object at once")
    return wanted
