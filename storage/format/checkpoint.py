"""A checkpoint: the index in memory as it was at one moment, so that a start reads it instead of every SST. No I/O.

    header 96 | part ... | the same header 96 | sealed trailer

It stands under `compacted/`, named by a ULID, as a data SST does, and is put together alike: parts that can be read and
opened one by one, and behind them a trailer that says where they are and pins them.

- A *part* holds rows of one layer, blocks ascending, as columns (`columns`): `nonce 24 | ciphertext | tag 16` over
  `u8 codec | u32 size | compressed(columns)`. Its associated data is `part`, the store's id, the ULID of the checkpoint
  and the number of the part.
- The *trailer* is `u8 codec | u32 size | compressed(msgpack of Trailer)`, sealed with the header as associated data.

Places are (position in the table of the trailer, byte offset); positions count from 1, so that position 0 with the
offsets 0 and 1 can stand for zeros, as locations do (`blocks`). A checkpoint knows no sequences: all that it holds is
older than every row of an SST that it does not (docs/decisions, "checkpoints").
"""

import struct
from collections.abc import Sequence
from dataclasses import dataclass
from enum import IntEnum

import msgspec

from storage.buffers import Buffer
from storage.crypto.cipher import OVERHEAD_BYTES, TAG_BYTES, AuthenticationError, Cipher
from storage.errors import Corrupt, Unsupported
from storage.format.blocks import SstRef
from storage.format.columns import Columns, Layout, pack_columns, row_bytes, unpack_columns
from storage.format.envelope import HEADER_BYTES, Header, ObjectKind, decode_header, opener
from storage.format.frame import compress, decompress
from storage.format.names import sst_name
from storage.format.sizes import TRAILER_BYTES_MAX
from storage.format.sst_list import SstList
from storage.format.trunks import TrunkRef


class PartKind(IntEnum):
    """What the rows of a part say; part of the format."""

    BASES = 1
    """Frames of whole blocks."""
    ZEROS = 2
    """Blocks [first, end) that are zeros and allocated."""
    PATCHES = 3
    """What lies over bases: the rows of a block from the oldest to the newest."""
    KEPT = 4
    """Of a snapshot: blocks [first, end) that newer layers replaced since; of all others its rows say nothing."""


_PLACE: Layout = (
    ("sst", "<u4", True),
    ("offset", "<u4", True),
    ("length", "<u4", False),
    ("tag", "<u8", False),
)

LAYOUTS: dict[PartKind, Layout] = {
    PartKind.BASES: (("block", "<u4", True), *_PLACE),
    PartKind.ZEROS: (("first", "<u4", True), ("end", "<u4", True)),
    PartKind.PATCHES: (("block", "<u4", True), ("mask", "<u8", False), *_PLACE),
    PartKind.KEPT: (("first", "<u4", True), ("end", "<u4", True)),
}

ROWS_PER_PART = 1 << 17
"""Three megabytes before compression: what a thread opens at a time."""

OFFSET_MAX = 2**32 - 1
"""The largest number that a header has room for."""

TRAILER_NUMBER = 2**32 - 1
"""The trailer's number in the nonce; parts count from 0 and never get here."""

_HEAD = struct.Struct("<BI")
_LABEL = struct.Struct("<4s16s16sI")


class Part(msgspec.Struct, frozen=True, array_like=True):
    """Where one part lies, and what it is."""

    layer: int
    kind: int
    rows: int
    offset: int
    length: int
    tag: bytes
    """16 bytes: the tag of the part, which pins it."""


@dataclass(frozen=True, slots=True)
class Trailer:
    """What a checkpoint says of itself."""

    sequence: int
    """Every operation in it has a sequence up to this one, and all of those of trunks are."""
    ssts: SstList
    """The data SSTs whose entries it holds; places refer to them by position, from 1."""
    parts: list[Part]
    trunks: list[TrunkRef]
    """All layers. A part of one that is not among them would be damage."""


class _TrailerRecord(msgspec.Struct, frozen=True, array_like=True):
    """A `Trailer` as it is packed."""

    sequence: int
    ssts: list[SstRef]
    parts: list[Part]
    trunks: list[TrunkRef]


@dataclass(slots=True)
class CheckpointBuilder:
    """Collects the parts of one checkpoint in memory. Used in a thread; not shared."""

    cipher: Cipher
    header: Header
    id: str
    out: bytearray
    parts: list[Part]

    @classmethod
    def begin(cls, cipher: Cipher, header: Header, sst_id: str) -> "CheckpointBuilder":
        """An empty one under a name and a nonce that nothing else has."""
        return cls(cipher, header, sst_id, bytearray(HEADER_BYTES), [])

    def add(self, layer: int, kind: PartKind, columns: Columns) -> None:
        """Seal rows of a layer, at most `ROWS_PER_PART`. Unsupported: there is no room for them."""
        packed = pack_columns(columns, LAYOUTS[kind])
        codec, payload = compress(packed)
        number = len(self.parts)
        sealed = self.cipher.sealer(self.header.nonce).seal(
            number, _HEAD.pack(codec, len(packed)) + payload, _label(self.header, number)
        )
        rows = len(next(iter(columns.values())))
        _check_offset(len(self.out) + len(sealed))
        self.parts.append(Part(layer, int(kind), rows, len(self.out), len(sealed), sealed[-TAG_BYTES:]))
        self.out += sealed

    def finish(self, *, sequence: int, ssts: Sequence[SstRef], trunks: list[TrunkRef]) -> tuple[SstRef, bytearray]:
        """Seal the trailer and fill in the header. Gives the reference for the manifest, and the object. Unsupported:
        it lists more than anybody would read.
        """
        offset = len(self.out)
        packed = msgspec.msgpack.encode(_TrailerRecord(sequence, list(ssts), self.parts, trunks))
        codec, payload = compress(packed)
        _check_trailer(HEADER_BYTES + _HEAD.size + len(payload) + OVERHEAD_BYTES)
        plain = _HEAD.pack(codec, len(packed)) + payload
        header = Header(
            kind=ObjectKind.CHECKPOINT,
            epoch=self.header.epoch,
            store_id=self.header.store_id,
            nonce=self.header.nonce,
            link=self.header.link,
            acknowledged=self.header.acknowledged,
            size=offset + HEADER_BYTES + len(plain) + OVERHEAD_BYTES,
            index_offset=offset,
            key_id=self.cipher.key_id,
        ).encode()
        sealed = self.cipher.sealer(self.header.nonce).seal(TRAILER_NUMBER, plain, header)
        self.out[:HEADER_BYTES] = header
        self.out += header
        self.out += sealed
        rows = sum(part.rows for part in self.parts)
        return SstRef(self.id, len(self.out), offset, sealed[-TAG_BYTES:], rows, self.cipher.key_id), self.out


def _check_offset(offset: int) -> None:
    """Of the trailer, which the header has as a u32; and a store takes no more than 5 GiB in one PUT."""
    if offset > OFFSET_MAX:
        raise Unsupported(
            f"the index of this store is too large for a checkpoint, which has at most {OFFSET_MAX} bytes of rows: "
            "nothing is lost, but starts take longer and space is not given back; move disks to another store"
        )


def _check_trailer(length: int) -> None:
    """A manifest must never name what nobody reads: then the store could not be opened any more."""
    if length > TRAILER_BYTES_MAX:
        raise Unsupported(
            f"the list of the SSTs of this store is too long for a checkpoint, which has at most {TRAILER_BYTES_MAX} "
            "bytes of it: nothing is lost, but starts take longer and space is not given back; move disks to another "
            "store"
        )


def open_trailer(cipher: Cipher, ref: SstRef, end: bytes, *, store_id: bytes) -> tuple[Header, Trailer]:
    """Check and open the trailer of the checkpoint `ref`, given everything from `index_offset` on; Corrupt."""
    name = sst_name(ref.id)
    raw, sealed = end[:HEADER_BYTES], memoryview(end)[HEADER_BYTES:]
    header = decode_header(name, raw, store_id=store_id, kinds=(ObjectKind.CHECKPOINT,))
    if (header.size, header.index_offset, header.key_id) != (ref.size, ref.index_offset, ref.key_id) or (
        sealed[-TAG_BYTES:] != ref.tag
    ):
        raise Corrupt(name, "it is not the checkpoint that the manifest names")
    try:
        plain = _opened(opener(cipher, name, ref.key_id), sealed, raw)
        found = msgspec.msgpack.decode(plain, type=_TrailerRecord)
        return header, Trailer(found.sequence, SstList.of(found.ssts), found.parts, found.trunks)
    except AuthenticationError as error:
        raise Corrupt(name, "its trailer fails authentication") from error
    except (ValueError, struct.error, msgspec.MsgspecError) as error:
        raise Corrupt(name, f"its trailer is malformed: {error}") from error


def open_part(cipher: Cipher, name: str, header: Header, number: int, part: Part, sealed: Buffer) -> Columns:
    """The rows of part `number`, given its bytes; Corrupt if they are not those that the trailer pins."""
    if len(sealed) != part.length or bytes(sealed[-TAG_BYTES:]) != part.tag:
        raise Corrupt(name, f"its part {number} is not the one that its trailer names")
    try:
        layout = LAYOUTS[PartKind(part.kind)]
        packed = _opened(opener(cipher, name, header.key_id), sealed, _label(header, number))
        if len(packed) != part.rows * row_bytes(layout):
            raise ValueError("the columns have the wrong length")
        return unpack_columns(packed, 0, part.rows, layout)[0]
    except AuthenticationError as error:
        raise Corrupt(name, f"its part {number} fails authentication") from error
    except (ValueError, struct.error) as error:
        raise Corrupt(name, f"its part {number} is malformed: {error}") from error


def _opened(cipher: Cipher, sealed: Buffer, associated: bytes) -> bytes:
    plain = cipher.open(sealed, associated)
    codec, size = _HEAD.unpack_from(plain)
    return bytes(decompress(codec, memoryview(plain)[_HEAD.size :], size))


def _label(header: Header, number: int) -> bytes:
    return _LABEL.pack(b"part", header.store_id, header.link, number)
