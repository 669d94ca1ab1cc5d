"""A data SST: frames, then the sealed index that pins them. Builder and reader. No I/O.

    header 96 | frame ... frame | the same header 96 | sealed index (nonce 24 | ciphertext | tag 16)

Header and index stand together at the end, so one request brings what a start needs of an SST; the header at the
beginning is for who knows nothing but its name.

The index holds one row per block entry and one per range of zeros, as columns: numbers that grow are stored as
differences, every column is byte-shuffled (all lowest bytes first), and the whole is compressed. Plaintext of the
index:

    u8 codec | u32 size | compressed( u32 entries | u32 ranges | columns )

with the entry columns layer u32, block u32 (difference), kind u8, mask u64, sequence u64 (difference), offset u32
(difference), length u32, tag u64, and the range columns layer u32, first u32, end u32, sequence u64, allocated u8.
Rows are sorted by layer and block. Differences are modulo the width of the column.
"""

import struct
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from storage.buffers import Buffer
from storage.crypto.cipher import OVERHEAD_BYTES, TAG_BYTES, AuthenticationError, Cipher
from storage.errors import BrokenInvariant, Corrupt
from storage.format.blocks import EntryKind, RangeZero, SstEntry, SstRef
from storage.format.envelope import HEADER_BYTES, Header, ObjectKind, decode_header
from storage.format.frame import FrameCodec, FrameKind, compress, decompress
from storage.format.names import sst_name

ENTRY_COLUMNS: tuple[tuple[str, str, bool], ...] = (
    ("layer", "<u4", False),
    ("block", "<u4", True),
    ("kind", "u1", False),
    ("mask", "<u8", False),
    ("sequence", "<u8", True),
    ("offset", "<u4", True),
    ("length", "<u4", False),
    ("tag", "<u8", False),
)
"""Name, type and whether differences are stored, in the order of the format."""

RANGE_COLUMNS: tuple[tuple[str, str, bool], ...] = (
    ("layer", "<u4", False),
    ("first", "<u4", False),
    ("end", "<u4", False),
    ("sequence", "<u8", False),
    ("allocated", "u1", False),
)

_COUNTS = struct.Struct("<II")
_INDEX_HEAD = struct.Struct("<BI")

INDEX_NUMBER = 2**32 - 1
"""The index's number in the nonce; frames count from 0 and never get here."""

Columns = dict[str, NDArray[np.unsignedinteger]]


@dataclass(frozen=True, slots=True)
class SstIndex:
    """What one SST says: entries and ranges, as columns of equal length."""

    entries: Columns
    ranges: Columns


class SstBuilder:
    """Collects the frames of one SST in memory. Used in a thread; not shared."""

    def __init__(
        self, frames: FrameCodec, frame_cipher: Cipher, index_cipher: Cipher, header: Header, sst_id: str
    ) -> None:
        if header.kind is not ObjectKind.DATA:
            raise BrokenInvariant("an SST under the header of another kind would not be read again")
        self._frames = frames
        self._sealer = frame_cipher.sealer(header.nonce)
        self._index_cipher = index_cipher
        self._header = header
        self._id = sst_id
        self._out = bytearray(HEADER_BYTES)
        self._count = 0
        self.entries: list[SstEntry] = []
        self.ranges: list[RangeZero] = []

    def __len__(self) -> int:
        return len(self._out)

    def add_frame(self, *, layer: int, block: int, full: bool, mask: int, sequence: int, data: Buffer) -> SstEntry:
        """Seal the sectors of `mask` as a frame and note its entry."""
        kind = FrameKind.FULL if full else FrameKind.PATCH
        sealed = self._frames.encode(self._sealer, self._count, block=block, kind=kind, mask=mask, data=data)
        self._count += 1
        entry = SstEntry(
            layer=layer,
            block=block,
            kind=EntryKind.FULL if full else EntryKind.PATCH,
            mask=mask,
            sequence=sequence,
            offset=len(self._out),
            length=len(sealed),
            tag=sealed[-TAG_BYTES : -TAG_BYTES + 8],
        )
        self._out += sealed
        self.entries.append(entry)
        return entry

    def finish(self) -> tuple[SstRef, bytearray]:
        """Seal the index and fill in the header. Gives the reference to list and the object to upload."""
        index_offset = len(self._out)
        packed = encode_index(self.entries, self.ranges)
        codec, payload = compress(packed)
        plain = _INDEX_HEAD.pack(codec, len(packed)) + payload
        header = Header(
            kind=ObjectKind.DATA,
            epoch=self._header.epoch,
            store_id=self._header.store_id,
            nonce=self._header.nonce,
            link=self._header.link,
            acknowledged=self._header.acknowledged,
            size=index_offset + HEADER_BYTES + len(plain) + OVERHEAD_BYTES,
            index_offset=index_offset,
        ).encode()
        sealed = self._index_cipher.sealer(self._header.nonce).seal(INDEX_NUMBER, plain, header)
        self._out[:HEADER_BYTES] = header
        self._out += header
        self._out += sealed
        rows = len(self.entries) + len(self.ranges)
        return SstRef(self._id, len(self._out), index_offset, sealed[-TAG_BYTES:], rows), self._out


def open_index(cipher: Cipher, ref: SstRef, end: bytes, *, store_id: bytes) -> SstIndex:
    """Check and open the index of the SST `ref`, given everything from `index_offset` on."""
    name = sst_name(ref.id)
    header, sealed = end[:HEADER_BYTES], memoryview(end)[HEADER_BYTES:]
    parsed = decode_header(name, header, store_id=store_id, kinds=(ObjectKind.DATA,))
    if parsed.size != ref.size or parsed.index_offset != ref.index_offset or sealed[-TAG_BYTES:] != ref.tag:
        raise Corrupt(name, "it is not the object that the manifest or the log names")
    try:
        plain = cipher.open(sealed, header)
        codec, size = _INDEX_HEAD.unpack_from(plain)
        return decode_index(decompress(codec, memoryview(plain)[_INDEX_HEAD.size :], size))
    except AuthenticationError as error:
        raise Corrupt(name, "its index fails authentication") from error
    except (ValueError, struct.error) as error:
        raise Corrupt(name, f"its index is malformed: {error}") from error


def encode_index(entries: list[SstEntry], ranges: list[RangeZero]) -> bytes:
    """The columns of an index, before compression."""
    rows = [
        (
            e.layer,
            e.block,
            int(e.kind),
            e.mask,
            e.sequence,
            e.offset,
            e.length,
            int.from_bytes(e.tag, "little"),
        )
        for e in sorted(entries, key=lambda e: (e.layer, e.block, e.sequence))
    ]
    spans = [
        (r.layer, r.first, r.end, r.sequence, int(r.allocated))
        for r in sorted(ranges, key=lambda r: (r.layer, r.first))
    ]
    out = [_COUNTS.pack(len(rows), len(spans))]
    for table, columns in ((rows, ENTRY_COLUMNS), (spans, RANGE_COLUMNS)):
        for position, (_, kind, difference) in enumerate(columns):
            values = np.array([row[position] for row in table], dtype=kind)
            if difference and len(values):
                values = np.diff(values, prepend=values[:1] * 0)
            out.append(np.ascontiguousarray(values.view(np.uint8).reshape(-1, values.itemsize).T).tobytes())
    return b"".join(out)


def decode_index(packed: Buffer) -> SstIndex:
    """The columns back from `encode_index`; ValueError if the lengths do not fit."""
    entries, ranges = _COUNTS.unpack_from(packed)
    position = _COUNTS.size
    found: list[Columns] = []
    for rows, columns in ((entries, ENTRY_COLUMNS), (ranges, RANGE_COLUMNS)):
        table: Columns = {}
        for name, kind, difference in columns:
            width = np.dtype(kind).itemsize
            raw = np.frombuffer(packed, dtype=np.uint8, count=rows * width, offset=position)
            position += rows * width
            values = np.ascontiguousarray(raw.reshape(width, rows).T).view(kind).reshape(rows)
            table[name] = np.cumsum(values, dtype=kind) if difference else values
        found.append(table)
    if position != len(packed):
        raise ValueError("the columns have the wrong length")
    return SstIndex(*found)
