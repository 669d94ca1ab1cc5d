"""Sealed objects: what is sealed opens, and nothing else does."""

import random
import struct
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from storage.crypto.cipher import OVERHEAD_BYTES, Cipher
from storage.errors import BrokenInvariant, Corrupt, Unsupported
from storage.format.envelope import (
    HEADER,
    HEADER_BYTES,
    NO_LINK,
    PART_BYTES_MAX,
    Header,
    ObjectKind,
    decode_header,
    is_retired,
    open_object,
    seal_object,
)
from storage.format.frame import compress

STORE_ID = bytes(range(16))
CIPHER = Cipher(bytes(range(32)))
NAME = "wal/00000000000000000042.sst"


def header(kind: ObjectKind = ObjectKind.WAL, number: int = 42) -> Header:
    return Header(
        kind=kind,
        epoch=3,
        store_id=STORE_ID,
        nonce=b"nonce of object.",
        number=number,
        link=b"link to the last",
        acknowledged=41,
    )


def open_it(raw: bytes, *, number: int = 42, kinds: tuple[ObjectKind, ...] = (ObjectKind.WAL,)) -> bytes:
    return open_object(CIPHER, NAME, raw, store_id=STORE_ID, kinds=kinds, number=number)[1]


@given(st.integers(0, 3 * PART_BYTES_MAX), st.booleans(), st.integers(0, 99))
def test_what_is_sealed_opens(size: int, noise: bool, seed: int) -> None:
    body = random.Random(seed).randbytes(size) if noise else (b"text %d " % seed * size)[:size]
    raw, tag = seal_object(CIPHER, header(), body)
    found, opened, found_tag = open_object(
        CIPHER, NAME, raw, store_id=STORE_ID, kinds=(ObjectKind.FENCE, ObjectKind.WAL), number=42
    )
    assert opened == body
    assert found_tag == tag == raw[-16:]
    assert (found.kind, found.epoch, found.number, found.link, found.acknowledged, found.size, found.parts) == (
        ObjectKind.WAL,
        3,
        42,
        b"link to the last",
        41,
        len(raw),
        max(-(-size // PART_BYTES_MAX), 1),
    )


@given(st.integers(0, 20), st.integers(1, 8))
def test_what_is_sealed_in_small_parts_opens(size: int, part_bytes: int) -> None:
    raw, _ = seal_object(CIPHER, header(), bytes(range(size)), part_bytes)
    found, opened, _ = open_object(CIPHER, NAME, raw, store_id=STORE_ID, kinds=(ObjectKind.WAL,), number=42)
    assert (opened, found.parts) == (bytes(range(size)), max(-(-size // part_bytes), 1))


def test_no_part_is_sealed_that_nobody_opens() -> None:
    with pytest.raises(BrokenInvariant):
        seal_object(CIPHER, header(), bytes(PART_BYTES_MAX + 1), PART_BYTES_MAX + 1)


@pytest.mark.parametrize("body", [b"", b"body", bytes(PART_BYTES_MAX) + b"second part"])
def test_no_bit_can_be_changed(body: bytes) -> None:
    raw, _ = seal_object(CIPHER, header(), body)
    for position in range(len(raw)):
        for bit in range(8):
            damaged = bytearray(raw)
            damaged[position] ^= 1 << bit
            with pytest.raises((Corrupt, Unsupported)) as caught:
                open_it(bytes(damaged))
            assert NAME in str(caught.value)


@pytest.mark.parametrize("body", [b"", b"body", random.Random(1).randbytes(PART_BYTES_MAX + 5)])
def test_no_byte_can_be_missing_or_added(body: bytes) -> None:
    raw, _ = seal_object(CIPHER, header(), body)
    lengths = range(len(raw)) if len(raw) < 1000 else [*range(200), *range(len(raw) - 200, len(raw))]
    for length in lengths:
        with pytest.raises(Corrupt):
            open_it(raw[:length])
    for more in (b"\0", raw[HEADER_BYTES:], raw):
        with pytest.raises(Corrupt):
            open_it(raw + more)


def test_an_object_without_parts_proves_nothing() -> None:
    """Its header alone is sealed by nothing, so whoever can write to the bucket could make one: an empty object of the
    log in place of the last one, or a fence that hides the next sixteen.
    """
    for kind in ObjectKind:
        forged = HEADER.pack(
            b"NBDSTORE", 1, kind, 1, 3, STORE_ID, b"forged nonce....", 42, NO_LINK, 41, HEADER_BYTES, 0, 0
        )
        with pytest.raises(Corrupt):
            open_it(forged, kinds=tuple(ObjectKind))


def test_parts_cannot_be_moved() -> None:
    """Not within an object, not to another object, not under another header."""
    body = random.Random(2).randbytes(2 * PART_BYTES_MAX)
    raw, _ = seal_object(CIPHER, header(), body)
    (length,) = struct.unpack_from("<I", raw, HEADER_BYTES)
    size = 4 + length
    first, second = raw[HEADER_BYTES : HEADER_BYTES + size], raw[HEADER_BYTES + size :]
    assert len(first) == len(second)
    for parts in (second + first, first + first, second + second):
        with pytest.raises(Corrupt):
            open_it(raw[:HEADER_BYTES] + parts)
    other, _ = seal_object(CIPHER, header(number=43), body)
    with pytest.raises(Corrupt):
        open_it(raw[:HEADER_BYTES] + other[HEADER_BYTES:])


def test_a_part_cannot_be_left_out_by_whoever_corrects_the_header() -> None:
    body = random.Random(3).randbytes(2 * PART_BYTES_MAX)
    raw, _ = seal_object(CIPHER, header(), body)
    size = HEADER_BYTES + (len(raw) - HEADER_BYTES) // 2
    shorter = bytearray(raw[:size])
    struct.pack_into("<QI", shorter, 80, size, 1)
    with pytest.raises(Corrupt):
        open_it(bytes(shorter))


@pytest.mark.parametrize(
    ("field", "value", "expected"),
    [
        ("magic", b"NBDSTORF", "does not begin as an object"),
        ("version", struct.pack("<H", 2), "format version 2"),
        ("version", struct.pack("<H", 0), "format version 0"),
        ("kind", b"\2", "not the kind"),
        ("kind", b"\x63", "not the kind"),
        ("key", b"\0", "not the kind"),
        ("key", b"\2", "data key 2"),
        ("store", b"another store...", "another store"),
        ("number", struct.pack("<Q", 7), "number 7"),
        ("size", struct.pack("<Q", 7), "instead of 7"),
    ],
)
def test_the_reason_is_named(field: str, value: bytes, expected: str) -> None:
    raw, _ = seal_object(CIPHER, header(), b"body")
    offset = {"magic": 0, "version": 8, "kind": 10, "key": 11, "store": 16, "number": 48, "size": 80}[field]
    changed = raw[:offset] + value + raw[offset + len(value) :]
    with pytest.raises((Corrupt, Unsupported), match=expected) as caught:
        open_it(changed)
    assert isinstance(caught.value, Unsupported) == (field == "version")


def test_a_part_that_would_take_more_memory_than_any_is_not_opened() -> None:
    """Whoever has the key may have sealed it: a program with a fault, or of another version."""
    size = PART_BYTES_MAX + 1
    codec, payload = compress(bytes(size))
    part = struct.pack("<BI", codec, size) + payload
    whole = HEADER_BYTES + 4 + OVERHEAD_BYTES + len(part)
    clear = replace(header(), size=whole).encode()
    sealed = CIPHER.sealer(header().nonce).seal(0, part, clear + struct.pack("<I", 0))
    with pytest.raises(Corrupt, match="too large"):
        open_it(clear + struct.pack("<I", len(sealed)) + sealed)


def test_a_key_is_retired_once_a_newer_one_does_without_it() -> None:
    """What is under a newer key than a process has is not for it to pass over."""
    key = bytes(range(32))
    cipher = Cipher(key, key_id=4, older=[Cipher(key, key_id=3)])
    assert [key_id for key_id in range(1, 7) if is_retired(cipher, key_id)] == [1, 2]


def test_it_opens_under_its_own_number_and_kind_only() -> None:
    raw, _ = seal_object(CIPHER, header(), b"body")
    with pytest.raises(Corrupt):
        open_it(raw, number=41)
    with pytest.raises(Corrupt):
        open_it(raw, kinds=(ObjectKind.FENCE, ObjectKind.MANIFEST))
    with pytest.raises(Corrupt):
        open_object(Cipher(bytes(32)), NAME, raw, store_id=STORE_ID, kinds=(ObjectKind.WAL,), number=42)
    with pytest.raises(Corrupt):
        open_object(CIPHER, NAME, raw, store_id=bytes(16), kinds=(ObjectKind.WAL,), number=42)


def test_a_header_is_read_by_itself() -> None:
    raw, _ = seal_object(CIPHER, header(), b"body")
    found = decode_header(NAME, raw[:HEADER_BYTES], store_id=STORE_ID, kinds=(ObjectKind.WAL,))
    assert (found.number, found.acknowledged, found.size) == (42, 41, len(raw))
    for length in range(HEADER_BYTES):
        with pytest.raises(Corrupt, match="less than a header"):
            decode_header(NAME, raw[:length], store_id=STORE_ID, kinds=(ObjectKind.WAL,))


def test_the_sealed_form_does_not_show_the_body() -> None:
    raw, _ = seal_object(CIPHER, header(), b"a secret text that repeats " * 1000)
    assert b"secret" not in raw
    assert len(raw) < 1000 + OVERHEAD_BYTES
