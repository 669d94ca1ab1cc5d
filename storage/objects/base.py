"""This file knows the interface every object store offers, and the rules for object names.

All methods are coroutines. Errors are those of `storage.errors`; a store maps its own errors at its own seam. Buffers
handed in are never kept after the call returns, buffers handed out belong to the caller.
"""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

from storage.errors import Invalid

Buffer = bytes | bytearray | memoryview

DELETE_BATCH_MAX = 1000
"""Names in one delete request: the limit of S3's DeleteObjects."""

_NAME = re.compile(r"[A-Za-z0-9_.-]+(/[A-Za-z0-9_.-]+)*\Z")


@dataclass(frozen=True, slots=True)
class ObjectInfo:
    """One object as a listing or a head shows it; `size` in bytes."""

    name: str
    size: int


@dataclass(frozen=True, slots=True)
class Capabilities:
    """What a store claims to do; the probe finds out whether it is true."""

    conditional_create: bool


class ObjectStore(Protocol):
    """A flat map from names to immutable bytes, strongly consistent."""

    @property
    def url(self) -> str:
        """Where this store is, for messages and for the anchor file. Never holds a secret."""

    @property
    def capabilities(self) -> Capabilities: ...

    async def create(self, name: str, data: Buffer) -> None:
        """Put an object that must not exist yet; atomic and durable on return.

        AlreadyExists: the name is taken (perhaps by this very call's lost first attempt). Unavailable: unknown outcome.
        """

    async def put(self, name: str, data: Buffer) -> None:
        """Put an object, replacing what was there; atomic and durable on return."""

    async def get(self, name: str, offset: int = 0, length: int | None = None) -> bytes:
        """The bytes [offset, offset + length) of an object, or all from `offset`. NotFound if there is no such object.

        The answer has exactly the length asked for: a range that reaches past the end of the object is Corrupt, and an
        answer cut short on the way is Unavailable.
        """

    async def head(self, name: str) -> ObjectInfo:
        """Size of an object; NotFound if it is not there."""

    async def list(self, prefix: str, start_after: str = "", limit: int | None = None) -> list[ObjectInfo]:
        """Objects whose name starts with `prefix` and is greater than `start_after`, in order of name, at most `limit`."""

    async def delete(self, names: Sequence[str]) -> None:
        """Delete objects; names that are not there are no error. Any number of names, one request per 1000."""

    async def close(self) -> None:
        """Give back connections. The store must not be used afterwards."""


def check_name(name: str) -> None:
    """Raise Invalid unless `name` is a relative path of plain components (no `.` or `..`, no empty ones)."""
    if not _NAME.match(name) or any(part in (".", "..") for part in name.split("/")):
        raise Invalid(f"not an object name: {name[:80]!r}")
