"""The envelope of every sealed object: its clear header, and its body sealed in parts. Pure.

The header is associated data of every part it precedes, so no field of it can be changed, and no part can be moved to
another object, position or name. Layout, little-endian, 96 bytes:

    0  8s  magic "NBDSTORE"        48  u64  number in the object's name, 0 for names that are ULIDs
    8  u16 format version          56  16s  link: the predecessor's tag; the ULID where the name is one
    10 u8  kind of object          72  u64  acknowledged: highest WAL number acknowledged when this was sealed
    11 u8  key id                  80  u64  size of the whole object in bytes
    12 u32 writer's epoch          88  u32  parts sealed
    16 16s store id                92  u32  byte offset of the index (data SSTs), else 0
    32 16s nonce: 16 fresh random bytes, the identity of this object and of its writer's attempt

A body is a sequence of parts `u32 length | nonce 24 | ciphertext | tag 16`. The *tag of an object* is the tag of its
last part; since every part is bound to the same header, it stands for the whole.
"""

import struct
from dataclasses import dataclass
from enum import IntEnum

from storage.buffers import Buffer
from storage.crypto.cipher import (
    FIRST_KEY_ID,
    OVERHEAD_BYTES,
    PREFIX_BYTES,
    STORE_ID_BYTES,
    TAG_BYTES,
    AuthenticationError,
    Cipher,
    UnknownKey,
)
from storage.errors import BrokenInvariant, Corrupt, KeyChanged, Unsupported
from storage.format.frame import compress, decompress
from storage.units import KIB

OBJECT_MAGIC = b"NBDSTORE"
FORMAT_VERSION = 1

HEADER = struct.Struct("<8sHBBI16s16sQ16sQQII")
HEADER_BYTES = HEADER.size
assert HEADER_BYTES == 96

PART_BYTES_MAX = 256 * KIB
"""Plaintext of one part: 66 us of AEAD, short enough for the event loop."""

_LENGTH = struct.Struct("<I")
_PART_NUMBER = struct.Struct("<I")
_PART_HEAD = struct.Struct("<BI")

FIRST_PART_BYTES = HEADER_BYTES + _LENGTH.size + OVERHEAD_BYTES + _PART_HEAD.size + PART_BYTES_MAX
"""What holds the header and the whole first part of an object that is at least this long."""

NO_LINK = bytes(TAG_BYTES)


class ObjectKind(IntEnum):
    """What an object is; part of the format (kind 1 is the keys object, which has a layout of its own)."""

    MANIFEST = 2
    WAL = 3
    FENCE = 4
    DATA = 5
    METADATA = 6
    CHECKPOINT = 7
    SIGN = 8
    ATTACHED = 9


@dataclass(frozen=True, slots=True)
class Header:
    """The clear header; see the module docstring for the meaning of each field."""

    kind: ObjectKind
    epoch: int
    store_id: bytes
    nonce: bytes
    number: int = 0
    link: bytes = NO_LINK
    acknowledged: int = 0
    size: int = 0
    parts: int = 1
    index_offset: int = 0
    key_id: int = FIRST_KEY_ID
    """Of the data key that all of the object is sealed under: whoever seals it fills that in."""

    def encode(self) -> bytes:
        """The 96 bytes of this header."""
        if len(self.nonce) != PREFIX_BYTES or len(self.link) != TAG_BYTES or len(self.store_id) != STORE_ID_BYTES:
            raise BrokenInvariant("a header has fields of another length: they would be cut off or filled up unseen")
        return HEADER.pack(
            OBJECT_MAGIC,
            FORMAT_VERSION,
            self.kind,
            self.key_id,
            self.epoch,
            self.store_id,
            self.nonce,
            self.number,
            self.link,
            self.acknowledged,
            self.size,
            self.parts,
            self.index_offset,
        )


def decode_header(name: str, raw: Buffer, *, store_id: bytes, kinds: tuple[ObjectKind, ...]) -> Header:
    """Parse the header at the start of the object called `name`.

    Corrupt if it is no header of this store and of one of `kinds`; Unsupported for a later format version.
    """
    if len(raw) < HEADER_BYTES:
        raise Corrupt(name, f"it has {len(raw)} bytes, less than a header")
    (
        magic,
        version,
        kind,
        key_id,
        epoch,
        owner,
        nonce,
        number,
        link,
        acknowledged,
        size,
        parts,
        index_offset,
    ) = HEADER.unpack_from(raw)
    if magic != OBJECT_MAGIC:
        raise Corrupt(name, "it does not begin as an object of this program")
    if version != FORMAT_VERSION:
        raise Unsupported(
            f"{name} has format version {version}; this program knows version {FORMAT_VERSION}: use a newer one"
        )
    if owner != store_id:
        raise Corrupt(name, "it belongs to another store")
    if kind not in kinds or not key_id:
        raise Corrupt(name, "it is not the kind of object its name says")
    return Header(
        kind=ObjectKind(kind),
        epoch=epoch,
        store_id=owner,
        nonce=nonce,
        number=number,
        link=link,
        acknowledged=acknowledged,
        size=size,
        parts=parts,
        index_offset=index_offset,
        key_id=key_id,
    )


def opener(cipher: Cipher, name: str, key_id: int) -> Cipher:
    """What opens an object whose header names this data key. KeyChanged: it is newer than all that are known. Corrupt:
    it is none that the store uses any more.
    """
    try:
        return cipher.under(key_id)
    except UnknownKey as error:
        if error.newer:
            raise KeyChanged(name, key_id) from None
        raise Corrupt(name, f"it is sealed under data key {key_id}, which was retired") from None


def is_retired(cipher: Cipher, key_id: int) -> bool:
    """Whether what this data key sealed can be opened no more: a rotation has ended since. So it is with the take-overs
    and fences from before it, which stay for their names alone, and with leftovers.
    """
    try:
        cipher.under(key_id)
    except UnknownKey as error:
        return not error.newer
    return False


def seal_object(
    cipher: Cipher, header: Header, body: bytes | bytearray, part_bytes: int = PART_BYTES_MAX
) -> tuple[bytes, bytes]:
    """Seal `body`, in parts of `part_bytes`, behind `header` (whose `size` and `parts` are filled in here). Gives the
    object and its tag.
    """
    if part_bytes > PART_BYTES_MAX:
        raise BrokenInvariant(f"parts of {part_bytes} bytes are sealed, and whoever reads them refuses those")
    pieces = [memoryview(body)[i : i + part_bytes] for i in range(0, len(body), part_bytes)] or [memoryview(b"")]
    packed = []
    for piece in pieces:
        codec, payload = compress(piece)
        packed.append(_PART_HEAD.pack(codec, len(piece)) + payload)
    size = HEADER_BYTES + sum(_LENGTH.size + OVERHEAD_BYTES + len(part) for part in packed)
    clear = Header(
        kind=header.kind,
        epoch=header.epoch,
        store_id=header.store_id,
        nonce=header.nonce,
        number=header.number,
        link=header.link,
        acknowledged=header.acknowledged,
        size=size,
        parts=len(packed),
        key_id=cipher.key_id,
    ).encode()
    sealer = cipher.sealer(header.nonce)
    out = [clear]
    for number, part in enumerate(packed):
        sealed = sealer.seal(number, part, clear + _PART_NUMBER.pack(number))
        out.append(_LENGTH.pack(len(sealed)))
        out.append(sealed)
    return b"".join(out), out[-1][-TAG_BYTES:]


def open_object(
    cipher: Cipher, name: str, raw: bytes, *, store_id: bytes, kinds: tuple[ObjectKind, ...], number: int = 0
) -> tuple[Header, bytes, bytes]:
    """Check and open a whole object. Gives its header, its body and its tag; Corrupt names the object and the
    reason.
    """
    header = _check_header(name, raw, len(raw), store_id=store_id, kinds=kinds, number=number)
    cipher = opener(cipher, name, header.key_id)
    body: list[Buffer] = []
    position = HEADER_BYTES
    for part_number in range(header.parts):
        part, position = _open_part(cipher, name, raw, position, part_number)
        body.append(part)
    if position != len(raw):
        raise Corrupt(name, "it has bytes behind its last part")
    return header, b"".join(body), raw[-TAG_BYTES:]


def check_first_part(
    cipher: Cipher,
    name: str,
    first: bytes,
    size: int,
    *,
    store_id: bytes,
    kinds: tuple[ObjectKind, ...],
    number: int = 0,
) -> None:
    """Corrupt unless `first`, FIRST_PART_BYTES of an object of `size` bytes, begins one that was sealed with the key.

    The header is bound to the part, so the object was made with this number and size.
    """
    header = _check_header(name, first, size, store_id=store_id, kinds=kinds, number=number)
    _open_part(opener(cipher, name, header.key_id), name, first, HEADER_BYTES, 0)


def _check_header(
    name: str, raw: bytes, size: int, *, store_id: bytes, kinds: tuple[ObjectKind, ...], number: int
) -> Header:
    header = decode_header(name, raw, store_id=store_id, kinds=kinds)
    if header.number != number:
        raise Corrupt(name, f"it carries number {header.number}")
    if header.size != size:
        raise Corrupt(name, f"it has {size} bytes instead of {header.size}")
    if not header.parts:
        # The parts are what authenticates the header: without one, anybody could have made it.
        raise Corrupt(name, "nothing in it is sealed")
    return header


def _open_part(cipher: Cipher, name: str, raw: bytes, position: int, part_number: int) -> tuple[Buffer, int]:
    """The content of the part at `position`, at most PART_BYTES_MAX, and where the next one begins."""
    if position + _LENGTH.size > len(raw):
        raise Corrupt(name, "a part is missing")
    (length,) = _LENGTH.unpack_from(raw, position)
    position += _LENGTH.size
    if length < OVERHEAD_BYTES + _PART_HEAD.size or position + length > len(raw):
        raise Corrupt(name, "a part has an impossible length")
    try:
        sealed = memoryview(raw)[position : position + length]
        packed = cipher.open(sealed, raw[:HEADER_BYTES] + _PART_NUMBER.pack(part_number))
        codec, size = _PART_HEAD.unpack_from(packed)
        if size > PART_BYTES_MAX:
            raise ValueError("a part is too large")
        return decompress(codec, memoryview(packed)[_PART_HEAD.size :], size), position + length
    except AuthenticationError as error:
        raise Corrupt(name, "it fails authentication") from error
    except (ValueError, struct.error) as error:
        raise Corrupt(name, str(error)) from error
