"""Snapshot streams: what one snapshot holds, or what it has that another one has not, as bytes that cannot be cut or
altered unnoticed.

docs/format.md says what each byte means. Neither side reads or writes anything here: bytes go in and come out.
"""

from __future__ import annotations

import hashlib
import struct
from collections.abc import Iterator
from enum import IntEnum

import msgspec

from storage.errors import Corrupt, Unsupported
from storage.units import KIB

STREAM_MAGIC = b"nbdserver stream"
"""What a stream begins with."""

ALIKE_BYTES_MIN = 10
"""So many bytes of the magic at its place make a stream, if a damaged one: it is not taken for something else."""

STREAM_VERSION = 1

RANGE_BYTES_MAX = 256 * KIB
"""Of one record, which both sides hold in memory."""

HEADER_BYTES_MAX = 64 * KIB

_RECORD_HEAD = struct.Struct("<BQQ")
_CHECK_BYTES = 16


class _RecordKind(IntEnum):
    HEADER = 1
    DATA = 2
    ZERO = 3
    END = 4
    FAILURE = 5


class StreamHeader(msgspec.Struct, frozen=True, array_like=True):
    """What a stream is of; times in nanoseconds since 1970, sizes in bytes."""

    version: int
    store: bytes
    """The identity of the store that it comes from."""
    device: str
    snapshot: str
    identity: bytes
    born: int
    size: int
    base: bytes = b""
    """The identity of the snapshot that it goes on from; nothing: it holds all, and what it leaves out is zeros."""
    base_name: str = ""


Range = tuple[int, bytes | int]
"""Where, and the data there; or how many zeros."""


class SourceFailed(Exception):
    """Whoever made the stream could not go on; the argument is its reason, as it was sent."""


def is_stream(head: bytes) -> bool:
    """Whether what begins so is a stream, or one that is damaged."""
    return sum(one == other for one, other in zip(head, STREAM_MAGIC, strict=False)) >= ALIKE_BYTES_MIN


def damaged(detail: str) -> Corrupt:
    """The error for what is no whole stream."""
    return Corrupt("the snapshot stream", detail)


class StreamEncoder:
    """Makes one stream: the header, then ranges in ascending order, then the end."""

    def __init__(self) -> None:
        self._check = bytes(_CHECK_BYTES)

    def header(self, header: StreamHeader) -> bytes:
        """The beginning."""
        return STREAM_MAGIC + self._record(_RecordKind.HEADER, 0, msgspec.msgpack.encode(header))

    def data(self, offset: int, data: bytes | bytearray | memoryview) -> Iterator[bytes]:
        """A range that holds this."""
        for at in range(0, len(data), RANGE_BYTES_MAX):
            yield self._record(_RecordKind.DATA, offset + at, data[at : at + RANGE_BYTES_MAX])

    def zeros(self, offset: int, length: int) -> bytes:
        """A range that holds zeros."""
        return self._record(_RecordKind.ZERO, offset, b"", length)

    def end(self, size: int) -> bytes:
        """All of it was sent."""
        return self._record(_RecordKind.END, size, b"")

    def failure(self, reason: bytes) -> bytes:
        """The last record of one that cannot go on; only on the way between two processes."""
        return self._record(_RecordKind.FAILURE, 0, reason)

    def _record(self, kind: int, offset: int, body: bytes | bytearray | memoryview, length: int | None = None) -> bytes:
        head = _RECORD_HEAD.pack(kind, offset, len(body) if length is None else length)
        self._check = _next_check(self._check, head, body)
        return b"".join((head, body, self._check))


class StreamDecoder:
    """Takes one stream apart, in whatever pieces it comes.

    Invariant: `position` is the end of the last range, and no range begins before it.
    """

    def __init__(self) -> None:
        self.header: StreamHeader | None = None
        self.position = 0
        self.ended = False
        self._buffer = bytearray()
        self._check = bytes(_CHECK_BYTES)
        self._began = False

    def feed(self, data: bytes) -> list[Range]:
        """The ranges that are there with what comes next. Corrupt, Unsupported; SourceFailed: it ends with a reason."""
        self._buffer += data
        if not self._began:
            if len(self._buffer) < len(STREAM_MAGIC):
                return []
            if self._buffer[: len(STREAM_MAGIC)] != STREAM_MAGIC:
                raise damaged("it does not begin as one does")
            del self._buffer[: len(STREAM_MAGIC)]
            self._began = True
        at, ranges = 0, []
        while (end := self._record_end(at)) is not None:
            found = self._take(bytes(self._buffer[at:end]))
            at = end
            if found is not None:
                ranges.append(found)
        del self._buffer[:at]
        return ranges

    def finish(self) -> None:
        """The stream is at its end. Corrupt: it was cut off."""
        if not self.ended or self._buffer:
            raise damaged("it was cut off before its end")

    def _record_end(self, at: int) -> int | None:
        """Where the record at this place of the buffer ends; None: not all of it is there."""
        if self.ended and len(self._buffer) > at:
            raise damaged("something follows its end")
        if len(self._buffer) < at + _RECORD_HEAD.size:
            return None
        kind, _, length = _RECORD_HEAD.unpack_from(self._buffer, at)
        body = length if kind in (_RecordKind.HEADER, _RecordKind.DATA, _RecordKind.FAILURE) else 0
        if body > (RANGE_BYTES_MAX if kind == _RecordKind.DATA else HEADER_BYTES_MAX):
            raise damaged("a record has an impossible length")
        end = at + _RECORD_HEAD.size + int(body) + _CHECK_BYTES
        return end if len(self._buffer) >= end else None

    def _take(self, record: bytes) -> Range | None:
        kind, offset, length = _RECORD_HEAD.unpack_from(record)
        head, body, check = (
            record[: _RECORD_HEAD.size],
            record[_RECORD_HEAD.size : -_CHECK_BYTES],
            record[-_CHECK_BYTES:],
        )
        self._check = _next_check(self._check, head, body)
        if check != self._check:
            raise damaged("a checksum does not fit")
        if kind == _RecordKind.FAILURE:
            raise SourceFailed(body)
        if kind == _RecordKind.HEADER and self.header is None:
            self.header = _decode_header(body)
            return None
        if self.header is None or kind not in (_RecordKind.DATA, _RecordKind.ZERO, _RecordKind.END):
            raise damaged("a record is not where it can be")
        if kind == _RecordKind.END:
            if offset != self.header.size:
                raise damaged("it ends with another size than it began with")
            self.ended = True
            return None
        if offset < self.position or offset + length > self.header.size or not length:
            raise damaged("a range lies where it cannot")
        self.position = offset + length
        return offset, body if kind == _RecordKind.DATA else length


def _decode_header(body: bytes) -> StreamHeader:
    try:
        (version, *_) = msgspec.msgpack.decode(body, type=list)
        if not isinstance(version, int):
            raise damaged("its header does not begin with a version")
        if version != STREAM_VERSION:
            raise Unsupported(f"the snapshot stream has format version {version}; this program knows {STREAM_VERSION}")
        return msgspec.msgpack.decode(body, type=StreamHeader)
    except (msgspec.MsgspecError, ValueError, RecursionError) as error:  # the last one: lists in lists, without an end
        raise damaged(f"its header: {error}") from error


def _next_check(check: bytes, head: bytes, body: bytes | bytearray | memoryview) -> bytes:
    """What a record is checked by: it rests on all that came before, so the last one stands for the whole."""
    digest = hashlib.sha256(check)
    digest.update(head)
    digest.update(body)
    return digest.digest()[:_CHECK_BYTES]
