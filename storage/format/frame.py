"""Frames: sectors, compressed and sealed, and back.

It guarantees that `FrameCodec.decode` gives exactly the sectors that were encoded for that block of that
store, or an error: never other bytes, never zeros. It knows nothing of layers, SSTs or where a frame lies, so
that a frame can be moved without being opened.

What a frame costs on one quiet core, measured: a full block of 256 KiB that does not compress 74 us of AEAD, 18 us of
LZ4 finding that out, and two copies of 6 us; one that does compress less AEAD, and a decompression of some 20 us that
proves the payload before it is sealed. (A codec bug or a flipped bit in memory would otherwise be sealed for ever.) One
sector: 5 us. All this holds only where the allocator keeps freed memory: page faults for three fresh buffers a block
cost several times as much, so a program should raise the thresholds of mallopt(3).
"""

from enum import IntEnum
from struct import Struct

import lz4.block

from storage.buffers import Buffer
from storage.crypto.cipher import STORE_ID_BYTES, TAG_BYTES, Cipher, Sealer
from storage.errors import BrokenInvariant
from storage.units import KIB

SECTOR_BYTES = 4096
BLOCK_BYTES = 256 * KIB
SECTORS = 64
FULL_MASK = (1 << SECTORS) - 1
BLOCK_SHIFT = 18
SECTOR_SHIFT = 12
BLOCK_OFFSET = BLOCK_BYTES - 1
SECTOR_OFFSET = SECTOR_BYTES - 1
"""Masks of a byte's place in its block, and in its sector."""
assert SECTORS * SECTOR_BYTES == BLOCK_BYTES
assert 1 << BLOCK_SHIFT == BLOCK_BYTES
assert 1 << SECTOR_SHIFT == SECTOR_BYTES

ZERO_SECTOR = bytes(SECTOR_BYTES)
"""Stands in a frame for zeros among data."""

FRAME_VERSION = 1
"""Part of the associated data of every frame; another layout of the plaintext needs another number."""

RAW = 0
LZ4 = 1
"""The codec byte: what the payload is. Zero for bytes as they are, one for an LZ4 block without a size in
front."""

SHORT_TAG_BYTES = 8
"""Enough to tell the frames of one SST from each other: each also has to open under its key and block."""

GAIN_PERCENT_MIN = 6
"""Compression that saves less is not kept: it would cost a decompression at every read for next to
nothing."""

_ZERO_BLOCK = bytes(BLOCK_BYTES)
_HEADER = Struct("<BQ")
_ASSOCIATED = Struct("<H16sIB")


class FrameKind(IntEnum):
    """What a frame holds: all sectors of a block, or some of them."""

    FULL = 1
    PATCH = 2


def is_zero(data: Buffer) -> bool:
    """Whether all bytes are zero. `startswith` is a memcmp without a copy; `==` with a memoryview is 100
    times slower."""
    if len(data) <= BLOCK_BYTES:
        return _ZERO_BLOCK.startswith(data)
    view = memoryview(data)
    return all(_ZERO_BLOCK.startswith(view[at : at + BLOCK_BYTES]) for at in range(0, len(view), BLOCK_BYTES))


def sectors_of(mask: int) -> list[int]:
    """The numbers of the sectors in a mask, ascending."""
    if mask == FULL_MASK:
        return list(range(SECTORS))
    sectors = []
    while mask:
        sectors.append((mask & -mask).bit_length() - 1)
        mask &= mask - 1
    return sectors


def compress(data: Buffer) -> tuple[int, Buffer]:
    """(codec byte, payload). The payload of RAW is `data` itself, not a copy.

    What LZ4 made is decompressed and compared before it is returned; RuntimeError if it differs.
    """
    packed: bytes = lz4.block.compress(data, store_size=False)
    if len(packed) * 100 > len(data) * (100 - GAIN_PERCENT_MIN):
        return RAW, data
    unpacked: bytes = lz4.block.decompress(packed, uncompressed_size=len(data))
    if len(unpacked) != len(data) or not unpacked.startswith(data):
        raise RuntimeError("LZ4 did not give back what it compressed: this host is faulty")
    return LZ4, packed


def decompress(codec: int, payload: Buffer, size: int) -> Buffer:
    """The `size` bytes that `compress` was given; never allocates more. ValueError if the payload is anything else.

    What was stored raw is the payload itself, not a copy.
    """
    if codec == RAW:
        if len(payload) != size:
            raise ValueError(f"{len(payload)} raw bytes where {size} are due")
        return payload
    if codec != LZ4:
        raise ValueError(f"unknown codec {codec}")
    if size <= 0:
        raise ValueError(f"{size} is no size of a compressed payload")
    try:
        data: bytes = lz4.block.decompress(payload, uncompressed_size=size)
    except lz4.block.LZ4BlockError as error:
        raise ValueError(f"LZ4 cannot decompress the payload: {error}") from None
    if len(data) != size:
        raise ValueError(f"{len(data)} bytes decompressed where {size} are due")
    return data


def short_tag(sealed: Buffer) -> int:
    """What an index keeps of the tag of a sealed frame: its first 8 bytes, the lowest first."""
    return int.from_bytes(memoryview(sealed)[-TAG_BYTES : -TAG_BYTES + SHORT_TAG_BYTES], "little")


class FrameCodec:
    """Encodes and decodes the frames of one store. Thread-safe, keeps no state between calls."""

    def __init__(self, cipher: Cipher, store_id: bytes) -> None:
        if len(store_id) != STORE_ID_BYTES:
            raise BrokenInvariant(f"a store id has {STORE_ID_BYTES} bytes, not {len(store_id)}")
        self._cipher = cipher
        self._store_id = store_id

    def under(self, key_id: int) -> "FrameCodec":
        """That of frames which this data key sealed. UnknownKey."""
        cipher = self._cipher.under(key_id)
        return self if cipher is self._cipher else FrameCodec(cipher, self._store_id)

    def reseal(self, sealed: Buffer, sealer: Sealer, number: int, *, block: int, full: bool) -> bytes:
        """A frame sealed anew, as number `number` of another object: its content is as it was, and so is its length.
        AuthenticationError: it does not open.
        """
        associated = self._associated(block, FrameKind.FULL if full else FrameKind.PATCH)
        return sealer.seal(number, self._cipher.open(sealed, associated), associated)

    def encode(self, sealer: Sealer, number: int, *, block: int, kind: FrameKind, mask: int, data: Buffer) -> bytes:
        """One frame: the sectors of `mask`, ascending and contiguous in `data`, sealed as number `number` of
        an object.

        Sealed is `codec u8 | layout mask u64 | payload`, little-endian. Associated data is `frame version u16
        | store id 16 | block u32 | kind u8`, and nothing that changes when a frame moves (repack, clone,
        absorb): that a frame is the right one among those of a block is for the index to say, which pins 8
        bytes of each tag.
        """
        _check_layout(kind, mask)
        if len(data) != mask.bit_count() * SECTOR_BYTES:
            raise ValueError(f"{len(data)} bytes do not fill {mask.bit_count()} sectors")
        codec, payload = compress(data)
        plaintext = b"".join((_HEADER.pack(codec, mask), payload))
        return sealer.seal(number, plaintext, self._associated(block, kind))

    def decode(self, sealed: Buffer, *, block: int, kind: FrameKind) -> tuple[int, Buffer]:
        """(layout mask, sectors) of one frame. AuthenticationError if it is not a frame of this store, block
        and kind; ValueError if it opens and yet makes no sense, which only a bug at its writing can cause."""
        plaintext = self._cipher.open(sealed, self._associated(block, kind))
        if len(plaintext) < _HEADER.size:
            raise ValueError(f"{len(plaintext)} bytes are too few for a frame")
        codec, mask = _HEADER.unpack_from(plaintext)
        _check_layout(kind, mask)
        payload = memoryview(plaintext)[_HEADER.size :]
        return mask, decompress(codec, payload, mask.bit_count() * SECTOR_BYTES)

    def _associated(self, block: int, kind: FrameKind) -> bytes:
        return _ASSOCIATED.pack(FRAME_VERSION, self._store_id, block, kind)


def _check_layout(kind: FrameKind, mask: int) -> None:
    """The rules for both ends: a frame has at least one sector, none beyond the block, and FULL means all."""
    if not 0 < mask <= FULL_MASK:
        raise ValueError(f"{mask:#x} is no mask of sectors")
    if kind is FrameKind.FULL and mask != FULL_MASK:
        raise ValueError(f"a full frame with the mask {mask:#x}")
