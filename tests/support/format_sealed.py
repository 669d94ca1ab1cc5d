"""What is sealed, compressed and shuffled in a store, opened: the parts of `format_reader` that know no object. Nothing
of this project is in it. Numbers in comments are sections of docs/format.md.
"""

import struct

import lz4.block
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.kdf.hkdf import HKDF
from nacl.bindings import crypto_aead_xchacha20poly1305_ietf_decrypt
from nacl.exceptions import CryptoError

CROCKFORD = "0123456789ABCDEFGHJKMNPQRSTVWXYZ"

Layout = tuple[tuple[int, bool], ...]
"""Columns: width in bytes, and whether differences are stored."""


def check(condition: bool, complaint: str) -> None:
    if not condition:
        raise ValueError(complaint)


def hkdf(key: bytes, salt: bytes | None, info: bytes, length: int = 32) -> bytes:
    return HKDF(SHA256(), length, salt, info).derive(key)


def open_sealed(key: bytes, sealed: bytes, associated: bytes, prefix: bytes | None, number: int = 0) -> bytes:
    """2: `nonce 24 | ciphertext | tag 16`, the nonce being `prefix | number`."""
    nonce = sealed[:24]
    check(prefix is None or nonce == prefix + struct.pack("<Q", number), "a nonce is not the one it must be")
    try:
        return bytes(crypto_aead_xchacha20poly1305_ietf_decrypt(sealed[24:], associated, nonce, key))
    except CryptoError as error:
        raise ValueError("something sealed does not open") from error


def unpack(codec: int, payload: bytes, size: int) -> bytes:
    check(codec in (0, 1), "unknown codec")
    data = payload if codec == 0 else bytes(lz4.block.decompress(payload, uncompressed_size=size))
    check(len(data) == size, "a payload has the wrong size")
    return data


def ulid_text(raw: bytes) -> str:
    value = int.from_bytes(raw, "big")
    return "".join(CROCKFORD[value >> shift & 31] for shift in range(125, -1, -5))


def unshuffle(packed: bytes, at: int, rows: int, layout: Layout) -> tuple[list[tuple[int, ...]], int]:
    """7: the rows of columns that begin at byte `at`, and where these end."""
    columns = []
    for width, differences in layout:
        shuffled = packed[at : at + rows * width]
        check(len(shuffled) == rows * width, "columns that are cut short")
        at += rows * width
        column = [int.from_bytes(shuffled[row::rows], "little") for row in range(rows)]
        if differences:
            for row in range(1, rows):
                column[row] = (column[row] + column[row - 1]) % 2 ** (8 * width)
        columns.append(column)
    return list(zip(*columns, strict=True)), at
