"""The journal as bytes: segments of batches, of what one pass of the event loop wrote. No I/O.

    segment    u64 end | u64 answered, in the order of bytes of this machine | batches | anything, from `end` on
    batch      "NBDJ" | u32 entries | u64 length of the data | entries | data, sealed | tag 16
    entry      u8 kind | u8 allocated | 2 bytes 0 | u32 layer | u64 sequence | u64 previous | u64 offset | u64 length
    data       `length` bytes of each entry that is a WRITE or META

A segment lies in memory that is written over and over, so where it ends is written in it: a batch first, then `end`,
then `answered`, each of the two in one store of the processor. A process that is killed between any two of its
instructions leaves `answered` where the batches end, or where the last one begins, which nobody was told of then.
Anything else is damage: everything up to `end` has to be sound.

The data is sealed with all that is before it associated, at the place (segment, position of the batch in it): no batch
passes for another one, of this journal or of another, or of what lay there before. A place is never used twice, so the
number of a segment is never that of another one that there was. `previous` is the operation before it in the same
queue, so that nothing can be missing between two of them, or between the log and the journal, unnoticed.
"""

import struct
from collections.abc import Sequence
from enum import IntEnum
from itertools import islice
from mmap import mmap

import msgspec

from storage.buffers import Buffer
from storage.crypto.memory_cipher import TAG_BYTES, MemoryCipher
from storage.errors import Corrupt
from storage.format.wal import Meta, Op
from storage.units import KIB

_ENDS = struct.Struct("@QQ")
_END, _ANSWERED = struct.Struct("@Q"), 8
_START = struct.Struct("<4sIQ")
_BATCH_BYTES = _START.size + TAG_BYTES
"""Of a batch without entries and data."""
_ENTRY = struct.Struct("<BBxxIQQQQ")
_ENTRY_WORDS = struct.Struct("<IIQQQQ")
"""The same bytes: kind and allocated as one number, which is quicker to pack."""
_BATCH_PLACE = struct.Struct("<QI")
_MAGIC = b"NBDJ"

SEGMENT_BYTES_MIN = _ENDS.size + _BATCH_BYTES + _ENTRY.size
"""Bytes that a segment for one operation without data takes: smaller ones are of no use."""

JOINED_BYTES_MAX = 256 * KIB
"""Data of several operations is joined, in memory that was just used, and sealed as one piece: 32 writes of 4 KiB cost
little more than one of 128 KiB. What would make more than this is a batch of its own, and is sealed from where it lies.
"""

Memory = mmap
"""What a segment is written to, under a kind and a name that say so."""


class OperationKind(IntEnum):
    """First byte of an entry; part of the format."""

    WRITE = 1
    ZERO = 2
    META = 3


_WRITE, _ZERO, _META = (int(kind) for kind in OperationKind)
"""As plain numbers, which are quicker to pack."""

_ALLOCATED = 1 << 8


class JournalEntry(msgspec.Struct, frozen=True, gc=False):
    """One operation, of `layer` (`TREE` for a change of the tree); `previous` is the sequence before it there."""

    layer: int
    previous: int
    op: Op | Meta

    @property
    def sequence(self) -> int:
        """Its number."""
        return self.op.sequence if isinstance(self.op, Meta) else self.op[0]


def clear(memory: Memory) -> int:
    """Make it a segment without a batch; gives where the first one belongs. Whatever it held is gone."""
    _ENDS.pack_into(memory, 0, _ENDS.size, _ENDS.size)
    return _ENDS.size


def append(
    memory: Memory,
    at: int,
    cipher: MemoryCipher,
    place: tuple[int, int],
    entries: Sequence[tuple[object, int, int, Op | Meta]],
    first: int,
) -> tuple[int, int]:
    """Write some of the entries (_, layer, previous, operation), from `first` on, as one batch at the end of a segment,
    which is `at`: as many as go together and as there is room for. `place` is the segment and the batch's position in
    it.

    Gives the first entry that is not in it, and where the segment ends now.
    """
    pack, entry_bytes = _ENTRY_WORDS.pack, _ENTRY_WORDS.size
    room = len(memory) - at - _BATCH_BYTES
    heads, size = [b""], 0
    parts: list[Buffer] = []
    data: Buffer
    for _, layer, previous, op in islice(entries, first, None):
        if type(op) is Meta:
            data = op.record
            head = pack(_META, layer, op.sequence, previous, 0, len(data))
        elif len(op) == 3:
            sequence, offset, data = op
            head = pack(_WRITE, layer, sequence, previous, offset, len(data))
        else:
            data = b""
            head = pack(_ZERO | _ALLOCATED * op[3], layer, op[0], previous, op[1], op[2])
        grown = size + len(data)
        if len(heads) * entry_bytes + grown > room or (grown > JOINED_BYTES_MAX and parts):
            break
        heads.append(head)
        parts.append(data)
        size = grown
    if not parts:
        return first, at
    heads[0] = _START.pack(_MAGIC, len(parts), size)
    associated = b"".join(heads)
    sealed = at + len(associated)
    end = sealed + size + TAG_BYTES
    memory[at:sealed] = associated
    with memoryview(memory) as view, view[sealed:end] as target:
        data = parts[0] if len(parts) == 1 else b"".join(parts)
        cipher.seal_into(target, _BATCH_PLACE.pack(*place), data, associated)
    _END.pack_into(memory, 0, end)
    _END.pack_into(memory, _ANSWERED, end)
    return first + len(parts), end


def room_for(op: Op | Meta) -> int:
    """The size of a segment that has room for this operation alone."""
    data = op.record if isinstance(op, Meta) else op[2] if len(op) == 3 else b""
    return SEGMENT_BYTES_MIN + len(data)


def decode(name: str, raw: bytes, cipher: MemoryCipher, segment: int) -> list[JournalEntry]:
    """The entries of a segment, in order; data are views of what was opened. Corrupt: a part of it is not what was
    written."""
    if len(raw) < _ENDS.size:
        raise Corrupt(name, "it is too short")
    end, answered = _ENDS.unpack_from(raw)
    view = memoryview(raw)
    entries: list[JournalEntry] = []
    limit = min(end, len(raw))
    at = last = _ENDS.size
    position = 0
    while at < end:
        magic, count, length = _START.unpack_from(raw, at) if at + _BATCH_BYTES <= limit else (b"", 0, 0)
        sealed = at + _START.size + count * _ENTRY.size
        behind = sealed + length + TAG_BYTES
        if magic != _MAGIC or behind > limit:
            raise Corrupt(name, f"what stands at byte {at} is no batch")
        data = cipher.open(_BATCH_PLACE.pack(segment, position), view[sealed:behind], view[at:sealed])
        if data is None:
            raise Corrupt(name, f"the batch at byte {at} is not what was written there")
        entries += _entries(name, view[at + _START.size : sealed], memoryview(data))
        last, at, position = at, behind, position + 1
    if at != end or answered not in (end, last):
        raise Corrupt(name, "it does not end where it says")
    return entries


def _entries(name: str, heads: memoryview, body: memoryview) -> list[JournalEntry]:
    """The entries of a batch that is sound."""
    found: list[JournalEntry] = []
    at = 0
    try:
        for kind, allocated, layer, sequence, previous, offset, length in _ENTRY.iter_unpack(heads):
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
    except ValueError as error:
        raise Corrupt(name, str(error)) from error
    if at != len(body):
        raise Corrupt(name, "a batch does not hold what its header says")
    return found
