"""A data SST: frames, then the sealed index that pins them. Builder and reader. No I/O.

    header 96 | frame ... frame | the same header 96 | sealed index (nonce 24 | ciphertext | tag 16)

Header and index stand together at the end, so one request brings what a start needs of an SST; the header at the
beginning is for who knows nothing but its name.

The index holds one row per block entry and one per range of zeros, as columns: numbers that grow are stored as
differences, every column is byte-shuffled (all lowest bytes first), and the whole is compressed. Plaintext of the
index:

    u8 codec | u32 size | compressed( u32 entries | u32 ranges | u32 moved | u32 victims | 16 bytes a victim | columns )

with the entry columns layer u32, block u32 (difference), kind u8, mask u64, sequence u64 (difference), offset u32
(difference), length u32, tag u64, the range columns layer u32, first u32, end u32, sequence u64, allocated u8, and the
columns of moved frames victim u32, old u32, offset u32 (difference). Entries and ranges are sorted by layer and block.

An SST made by a repack holds frames that lay in others, its *victims*: each moved row says that what began at byte
`old` of victim number `victim` begins at `offset` here. Its entries are copies of the victims' own, sequences
included; they say nothing new, and only who has lost all manifests needs them.
"""

import struct
from collections.abc import Sequence
from dataclasses import dataclass

import msgspec
import numpy as np
from ulid import ULID

from storage.buffers import Buffer
from storage.crypto.cipher import OVERHEAD_BYTES, TAG_BYTES, AuthenticationError, Cipher
from storage.errors import BrokenInvariant, Corrupt
from storage.format.blocks import EntryKind, RangeZero, SstEntry, SstRef
from storage.format.columns import Columns, Layout, pack_columns, unpack_columns
from storage.format.envelope import HEADER_BYTES, Header, ObjectKind, decode_header, opener
from storage.format.frame import FULL_MASK, FrameCodec, FrameKind, compress, decompress, short_tag
from storage.format.names import sst_name

ENTRY_COLUMNS: Layout = (
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

RANGE_COLUMNS: Layout = (
    ("layer", "<u4", False),
    ("first", "<u4", False),
    ("end", "<u4", False),
    ("sequence", "<u8", False),
    ("allocated", "u1", False),
)

MOVED_COLUMNS: Layout = (("victim", "<u4", False), ("old", "<u4", False), ("offset", "<u4", True))

_COUNTS = struct.Struct("<IIII")
_INDEX_HEAD = struct.Struct("<BI")

INDEX_NUMBER = 2**32 - 1
"""The index's number in the nonce; frames count from 0 and never get here."""


@dataclass(frozen=True, slots=True)
class SstIndex:
    """What one SST says: entries, ranges and moved frames, as columns of equal length."""

    entries: Columns
    ranges: Columns
    moved: Columns
    victims: list[str]
    """Ids of the SSTs that `moved` speaks of, by number; empty unless it was made by a repack."""


class Moved(msgspec.Struct, frozen=True, gc=False):
    """A frame that lay at byte `old` of the SST `victim` and lies at byte `offset` of this one."""

    victim: str
    old: int
    offset: int


class SstBuilder:
    """Collects the frames of one SST in memory. Used in a thread; not shared."""

    def __init__(
        self, frames: FrameCodec, frame_cipher: Cipher, index_cipher: Cipher, header: Header, sst_id: str
    ) -> None:
        if header.kind is not ObjectKind.DATA:
            raise BrokenInvariant("an SST under the header of another kind would not be read again")
        self._frames = frames
        if frame_cipher.key_id != index_cipher.key_id:
            raise BrokenInvariant("an SST is of one data key, which its header names")
        self._sealer = frame_cipher.sealer(header.nonce)
        self._index_cipher = index_cipher
        self._header = header
        self._id = sst_id
        self._out = bytearray(HEADER_BYTES)
        self._count = 0
        self.entries: list[SstEntry] = []
        self.ranges: list[RangeZero] = []
        self.moved: list[Moved] = []

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
            tag=short_tag(sealed),
        )
        self._out += sealed
        self.entries.append(entry)
        return entry

    def add_zeros(self, *, layer: int, block: int, sequence: int) -> SstEntry:
        """Note that a whole block is zeros."""
        entry = SstEntry(layer, block, EntryKind.ZERO, FULL_MASK, sequence)
        self.entries.append(entry)
        return entry

    def add_moved(self, entry: SstEntry, victim: str, sealed: Buffer, codec: FrameCodec | None) -> SstEntry:
        """Copy a frame as it lies in another SST, whose own entry says what it is; with `codec`, that of an older data
        key, it is sealed anew. Gives its entry here.
        """
        if codec is not None:
            sealed = codec.reseal(
                sealed, self._sealer, self._count, block=entry.block, full=entry.kind is EntryKind.FULL
            )
        self._count += 1
        moved = msgspec.structs.replace(entry, offset=len(self._out), tag=short_tag(sealed))
        self._out += sealed
        self.entries.append(moved)
        self.moved.append(Moved(victim, entry.offset, moved.offset))
        return moved

    def finish(self) -> tuple[SstRef, bytearray]:
        """Seal the index and fill in the header. Gives the reference to list and the object to upload."""
        index_offset = len(self._out)
        packed = encode_index(self.entries, self.ranges, self.moved)
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
            key_id=self._index_cipher.key_id,
        ).encode()
        sealed = self._index_cipher.sealer(self._header.nonce).seal(INDEX_NUMBER, plain, header)
        self._out[:HEADER_BYTES] = header
        self._out += header
        self._out += sealed
        rows = len(self.entries) + len(self.ranges)
        tag, key_id = sealed[-TAG_BYTES:], self._index_cipher.key_id
        return SstRef(self._id, len(self._out), index_offset, tag, rows, key_id), self._out


def open_index(cipher: Cipher, ref: SstRef, end: bytes, *, store_id: bytes) -> SstIndex:
    """Check and open the index of the SST `ref`, given everything from `index_offset` on."""
    name = sst_name(ref.id)
    header, sealed = end[:HEADER_BYTES], memoryview(end)[HEADER_BYTES:]
    parsed = decode_header(name, header, store_id=store_id, kinds=(ObjectKind.DATA,))
    if (parsed.size, parsed.index_offset, parsed.key_id) != (ref.size, ref.index_offset, ref.key_id) or (
        sealed[-TAG_BYTES:] != ref.tag
    ):
        raise Corrupt(name, "it is not the object that the manifest or the log names")
    try:
        plain = opener(cipher, name, ref.key_id).open(sealed, header)
        codec, size = _INDEX_HEAD.unpack_from(plain)
        return decode_index(decompress(codec, memoryview(plain)[_INDEX_HEAD.size :], size))
    except AuthenticationError as error:
        raise Corrupt(name, "its index fails authentication") from error
    except (ValueError, struct.error) as error:
        raise Corrupt(name, f"its index is malformed: {error}") from error


def encode_index(entries: list[SstEntry], ranges: list[RangeZero], moved: Sequence[Moved] = ()) -> bytes:
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
            e.tag,
        )
        for e in sorted(entries, key=lambda e: (e.layer, e.block, e.sequence))
    ]
    spans = [
        (r.layer, r.first, r.end, r.sequence, int(r.allocated))
        for r in sorted(ranges, key=lambda r: (r.layer, r.first))
    ]
    victims = {victim: number for number, victim in enumerate(sorted({m.victim for m in moved}))}
    places = [(victims[m.victim], m.old, m.offset) for m in sorted(moved, key=lambda m: m.offset)]
    out = [_COUNTS.pack(len(rows), len(spans), len(places), len(victims))]
    out += [ULID.from_str(victim).bytes for victim in victims]
    for table, layout in ((rows, ENTRY_COLUMNS), (spans, RANGE_COLUMNS), (places, MOVED_COLUMNS)):
        columns = {name: np.array([row[at] for row in table], dtype=kind) for at, (name, kind, _) in enumerate(layout)}
        out.append(pack_columns(columns, layout))
    return b"".join(out)


def decode_index(packed: Buffer) -> SstIndex:
    """The columns back from `encode_index`; ValueError if the lengths do not fit."""
    entries, ranges, moved, count = _COUNTS.unpack_from(packed)
    position = _COUNTS.size + 16 * count
    names = memoryview(packed)[_COUNTS.size : position]
    if len(names) != 16 * count:
        raise ValueError("its names are not all there")
    victims = [str(ULID.from_bytes(bytes(names[at : at + 16]))) for at in range(0, len(names), 16)]
    rows, position = unpack_columns(packed, position, entries, ENTRY_COLUMNS)
    spans, position = unpack_columns(packed, position, ranges, RANGE_COLUMNS)
    places, position = unpack_columns(packed, position, moved, MOVED_COLUMNS)
    if position != len(packed):
        raise ValueError("the columns have the wrong length")
    if len(places["victim"]) and int(places["victim"].max()) >= count:
        raise ValueError("a frame was moved from an SST without a name")
    return SstIndex(rows, spans, places, victims)
