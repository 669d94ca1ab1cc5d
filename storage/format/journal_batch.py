"""The journal as bytes: segments of batches, each of which is what one pass of the event loop wrote. Pure.

    batch      tag 16 | u32 CRC-32 | "NBDJ" | u32 entries | u64 length of the entries | entries
    entry      u8 kind | u8 allocated | 2 bytes 0 | u32 layer | u64 sequence | u64 previous | u64 offset | u64 length,
               then `length` bytes for WRITE and META

The tag is a GMAC over all from "NBDJ" on, at the place (segment, position of the batch in it): no batch passes for
another one, of this journal or of another. The CRC is that of the tag and what stands before the entries: it tells a
batch that was cut off by the end of its process from one whose length is wrong. `previous` is the operation before it
in the same queue, so that nothing can be missing between two of them, or between the log and the journal, unnoticed.
"""

import struct
import zlib
from collections.abc import Sequence
from enum import IntEnum

import msgspec

from storage.buffers import Buffer
from storage.crypto.mac import TAG_BYTES, Authenticator
from storage.errors import Corrupt
from storage.format.wal import Meta, Op

_START = struct.Struct("<4sIQ")
_BATCH = struct.Struct(f"<{TAG_BYTES}sI{_START.size}s")
_ENTRY = struct.Struct("<BBxxIQQQQ")
_BATCH_PLACE = struct.Struct("<QI")
_MAGIC = b"NBDJ"

JOINED_BYTES_MAX = 32 * 1024
"""Data of this size and more is written from where it lies; less is cheaper to copy to its neighbours."""

TREE = 0
"""The layer of changes of the tree of names, which no layer has."""


class OperationKind(IntEnum):
    """First byte of an entry; part of the format."""

    WRITE = 1
    ZERO = 2
    META = 3


class JournalEntry(msgspec.Struct, frozen=True, gc=False):
    """One operation, of `layer` (`TREE` for a change of the tree); `previous` is the sequence before it there."""

    layer: int
    previous: int
    op: Op | Meta

    @property
    def sequence(self) -> int:
        """Its number."""
        return self.op.sequence if isinstance(self.op, Meta) else self.op[0]


def encode(
    seal: Authenticator, segment: int, position: int, entries: Sequence[tuple[int, int, Op | Meta]]
) -> list[Buffer]:
    """One batch of (layer, previous, operation), as buffers to be written one after the other."""
    first: list[Buffer] = [b""]
    parts: list[Buffer] = []
    joined = first
    pack = _ENTRY.pack
    length = 0
    for layer, previous, op in entries:
        if isinstance(op, Meta):
            data: Buffer = op.record
            joined.append(pack(OperationKind.META, 0, layer, op.sequence, previous, 0, len(data)))
        elif len(op) == 3:
            data = op[2]
            joined.append(pack(OperationKind.WRITE, 0, layer, op[0], previous, op[1], len(data)))
        else:
            data = b""
            joined.append(pack(OperationKind.ZERO, op[3], layer, op[0], previous, op[1], op[2]))
        length += _ENTRY.size + len(data)
        if len(data) < JOINED_BYTES_MAX:
            joined.append(data)
        else:
            if joined is not first:
                parts.append(b"".join(joined))
            parts.append(data)
            joined = []
    if joined and joined is not first:
        parts.append(b"".join(joined))
    start = first[0] = _START.pack(_MAGIC, len(entries), length)
    parts.insert(0, b"".join(first))
    tag = seal.tag(_BATCH_PLACE.pack(segment, position), parts)
    return [tag + zlib.crc32(start, zlib.crc32(tag)).to_bytes(4, "little"), *parts]


def decode(name: str, raw: bytes, seal: Authenticator, segment: int, *, last: bool) -> tuple[list[JournalEntry], int]:
    """The entries of a segment, in order, and the length of the whole batches; data are views of `raw`.

    The `last` segment may end in a batch that was cut off, which nobody was told of; anything else that does not fit
    is Corrupt.
    """
    view = memoryview(raw)
    entries: list[JournalEntry] = []
    at = position = 0
    while at < len(raw):
        end = _end_of_batch(name, raw, at)
        if end is None:
            if last:
                break
            raise Corrupt(name, "a batch is cut off, and others came after it")
        tag, _, start = _BATCH.unpack_from(raw, at)
        body = at + _BATCH.size
        if not seal.is_sound(_BATCH_PLACE.pack(segment, position), [view[body - _START.size : end]], tag):
            raise Corrupt(name, f"the batch at byte {at} is not what was written there")
        entries += _entries(name, view[body:end], _START.unpack(start)[1])
        at, position = end, position + 1
    return entries, at


def _end_of_batch(name: str, raw: bytes, at: int) -> int | None:
    """Where the batch at `at` ends; None: behind the end of what is there."""
    if len(raw) - at < _BATCH.size:
        return None
    tag, crc, start = _BATCH.unpack_from(raw, at)
    magic, _, length = _START.unpack(start)
    if magic != _MAGIC or zlib.crc32(start, zlib.crc32(tag)) != crc:
        raise Corrupt(name, f"what stands at byte {at} is no batch")
    end = at + _BATCH.size + int(length)
    return end if end <= len(raw) else None


def _entries(name: str, body: memoryview, count: int) -> list[JournalEntry]:
    """The entries of a batch that is sound."""
    found: list[JournalEntry] = []
    at = 0
    try:
        while at < len(body):
            kind, allocated, layer, sequence, previous, offset, length = _ENTRY.unpack_from(body, at)
            at += _ENTRY.size
            op: Op | Meta
            if kind == OperationKind.ZERO:
                op = (sequence, offset, length, bool(allocated))
            else:
                data = body[at : at + length]
                at += length
                op = (
                    (sequence, offset, data)
                    if OperationKind(kind) is OperationKind.WRITE
                    else Meta(sequence, bytes(data))
                )
            found.append(JournalEntry(layer, previous, op))
    except (ValueError, struct.error) as error:
        raise Corrupt(name, str(error)) from error
    if at != len(body) or len(found) != count:
        raise Corrupt(name, "a batch does not hold what its header says")
    return found
