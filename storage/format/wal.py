"""The records inside a WAL object: what one group commit says, in the order it happened. Pure.

An *operation* is a plain tuple, since one is made for every write on the fast path:

    (sequence, offset, data)                    a write of `data` at byte `offset` of the layer
    (sequence, offset, length, allocated)       a discard or a write of zeroes; any length

A WAL object holds a list of `LayerLogRecords`; replaying them in order gives the state its writer acknowledged. Wire
form of a record: `u8 type | u8 flags | u32 layer | u64 sequence | u64 offset | u64 length`, then `length` bytes for
WRITE and META, the fields of `_SST` for TABLE, those of `_LOCATOR` for LOCATOR.
"""

import struct
from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass, field
from enum import IntEnum
from typing import final

import msgspec
from ulid import ULID

from storage.buffers import Buffer
from storage.crypto.cipher import FIRST_KEY_ID
from storage.errors import Corrupt
from storage.format.blocks import EntryKind, SstEntry, SstRef

WriteOp = tuple[int, int, Buffer]
ZeroOp = tuple[int, int, int, bool]
Op = WriteOp | ZeroOp

WINDOW = 16
"""A writer has nothing in flight at or above its lowest unresolved number + 16."""

_RECORD = struct.Struct("<BBIQQQ")
_SST = struct.Struct("<16sQI16sI")
_LOCATOR = struct.Struct("<16sBQIIQ")

TREE = 0
"""The number in place of a layer's where changes of the tree of names go the way of operations; no layer has it."""


class RecordType(IntEnum):
    """First byte of a record; part of the format."""

    WRITE = 1
    ZERO = 2
    META = 3
    TABLE = 4
    LOCATOR = 5


@dataclass(slots=True)
class LayerLogRecords:
    """What one WAL object says of one layer: operations, and frames that lie in data SSTs already."""

    layer: int
    ops: list[Op] = field(default_factory=list)
    ssts: list[SstRef] = field(default_factory=list)
    located: list[tuple[str, SstEntry]] = field(default_factory=list)
    """Frames uploaded before this record: (SST id, entry)."""

    @property
    def sequence(self) -> int:
        """The highest sequence in it."""
        ops = max((op[0] for op in self.ops), default=0)
        return max(ops, max((entry.sequence for _, entry in self.located), default=0))


class Uploaded(msgspec.Struct, frozen=True, gc=False):
    """A data SST that frames of a cut were uploaded in. `sequence` is the cut's highest: a manifest that holds that
    listed the SST, and it may be gone since.
    """

    sequence: int
    sst: SstRef


@final
class Meta(msgspec.Struct, frozen=True, gc=False):
    """A change of the tree of names, opaque here."""

    sequence: int
    record: bytes


class Located(msgspec.Struct, frozen=True, gc=False):
    """A frame in a data SST that stands for a whole block."""

    sst: str
    entry: SstEntry


Replayed = tuple[int, Op | Meta | Uploaded | Located]
"""(layer, what happened); the layer is 0 for Meta."""


def sequence_of(record: Op | Meta | Uploaded | Located) -> int:
    """The sequence of a record."""
    if isinstance(record, tuple):
        return record[0]
    return record.entry.sequence if isinstance(record, Located) else record.sequence


def encode(layers: list[LayerLogRecords], metas: list[Meta]) -> bytes:
    """The body of a WAL object. Tree changes come first, then each layer's records by sequence."""
    out: list[Buffer] = []
    pack = _RECORD.pack
    for meta in metas:
        out.append(pack(RecordType.META, 0, 0, meta.sequence, 0, len(meta.record)))
        out.append(meta.record)
    for records in layers:
        layer = records.layer
        for sst in records.ssts:
            out.append(pack(RecordType.TABLE, 0, layer, records.sequence, 0, 0))
            out.append(_pack_sst(sst))
        # A locator holds everything up to its sequence, so it comes after operations of the same sequence.
        located = deque(sorted(records.located, key=lambda pair: pair[1].sequence))
        for op in records.ops:
            while located and located[0][1].sequence < op[0]:
                out += _pack_locator(*located.popleft())
            if len(op) == 3:
                out.append(pack(RecordType.WRITE, 0, layer, op[0], op[1], len(op[2])))
                out.append(op[2])
            else:
                out.append(pack(RecordType.ZERO, op[3], layer, op[0], op[1], op[2]))
        for pair in located:
            out += _pack_locator(*pair)
    return b"".join(out)


def _pack_sst(sst: SstRef) -> bytes:
    return _SST.pack(ULID.from_str(sst.id).bytes, sst.size, sst.index_offset, sst.tag, sst.entries)


def _pack_locator(sst_id: str, entry: SstEntry) -> tuple[bytes, bytes]:
    return (
        _RECORD.pack(RecordType.LOCATOR, 0, entry.layer, entry.sequence, entry.block, 0),
        _LOCATOR.pack(ULID.from_str(sst_id).bytes, entry.kind, entry.mask, entry.offset, entry.length, entry.tag),
    )


def decode(name: str, body: bytes, key_id: int = FIRST_KEY_ID) -> Iterator[Replayed]:
    """The records of the WAL object `name`, in order. Write payloads are views of `body`. `key_id`: of the data key
    that the object is sealed under, and so are the SSTs that it refers to, which its writer made.
    """
    view = memoryview(body)
    position = 0
    while position < len(body):
        try:
            kind, flags, layer, sequence, offset, length = _RECORD.unpack_from(body, position)
            position += _RECORD.size
            if kind in (RecordType.WRITE, RecordType.META):
                if position + length > len(body):
                    raise ValueError("a record reaches past the end")
                data = view[position : position + length]
                position += length
                yield (
                    (layer, (sequence, offset, data)) if kind == RecordType.WRITE else (0, Meta(sequence, bytes(data)))
                )
            elif kind == RecordType.ZERO:
                yield layer, (sequence, offset, length, bool(flags))
            elif kind == RecordType.TABLE:
                raw, size, index_offset, tag, entries = _SST.unpack_from(body, position)
                position += _SST.size
                ref = SstRef(str(ULID.from_bytes(raw)), size, index_offset, tag, entries, key_id)
                yield layer, Uploaded(sequence, ref)
            elif kind == RecordType.LOCATOR:
                raw, entry_kind, mask, frame_offset, frame_length, tag = _LOCATOR.unpack_from(body, position)
                position += _LOCATOR.size
                entry = SstEntry(layer, offset, EntryKind(entry_kind), mask, sequence, frame_offset, frame_length, tag)
                yield layer, Located(str(ULID.from_bytes(raw)), entry)
            else:
                raise ValueError(f"a record has the unknown type {kind}")
        except (ValueError, struct.error) as error:
            raise Corrupt(name, str(error)) from error
