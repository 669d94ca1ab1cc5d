import random

import lz4.block
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from storage.crypto.cipher import AuthenticationError, Cipher
from storage.format.frame import (
    BLOCK_BYTES,
    FRAME_VERSION,
    FULL_MASK,
    LZ4,
    RAW,
    SECTOR_BYTES,
    SECTORS,
    FrameCodec,
    FrameKind,
    compress,
    decompress,
    is_zero,
    sectors_of,
)

STORE_ID = bytes(range(16))
CIPHER = Cipher(bytes(range(32)))
CODEC = FrameCodec(CIPHER, STORE_ID)
PREFIX = b"prefix of object"

masks = st.one_of(st.integers(1, FULL_MASK), st.sampled_from([1, 1 << 63, FULL_MASK, FULL_MASK - 1]))


@st.composite
def sectors(draw: st.DrawFn, mask: int) -> bytes:
    """The sectors of a mask, each of them noise, text or zeros."""
    chance = random.Random(draw(st.integers(0, 1 << 32)))
    kinds = draw(st.sampled_from(["noise", "text", "zeros", "mixed"]))
    parts = []
    for _ in range(mask.bit_count()):
        kind = chance.choice(["noise", "text", "zeros"]) if kinds == "mixed" else kinds
        if kind == "noise":
            parts.append(chance.randbytes(SECTOR_BYTES))
        elif kind == "text":
            parts.append((b"sector %d " % chance.getrandbits(20)).ljust(64, b".") * (SECTOR_BYTES // 64))
        else:
            parts.append(bytes(SECTOR_BYTES))
    return b"".join(parts)


@given(st.data(), st.integers(0, (1 << 32) - 1), st.integers(0, (1 << 64) - 1))
def test_frames_come_back(data: st.DataObject, block: int, number: int) -> None:
    mask = data.draw(masks)
    content = data.draw(sectors(mask))
    kind = FrameKind.FULL if mask == FULL_MASK else FrameKind.PATCH
    given_as = data.draw(st.sampled_from([bytes, bytearray, memoryview]))
    sealed = CODEC.encode(CIPHER.sealer(PREFIX), number, block=block, kind=kind, mask=mask, data=given_as(content))
    assert CODEC.decode(sealed, block=block, kind=kind) == (mask, content)
    assert CODEC.decode(memoryview(bytearray(sealed)), block=block, kind=kind) == (mask, content)


@given(masks, st.integers(-2 * SECTOR_BYTES, 2 * SECTOR_BYTES).filter(bool))
def test_data_must_fill_the_mask(mask: int, difference: int) -> None:
    size = mask.bit_count() * SECTOR_BYTES + difference
    with pytest.raises(ValueError, match="do not fill"):
        encode(mask, bytes(max(size, 0)))


@pytest.mark.parametrize("mask", [0, -1, FULL_MASK + 1, 1 << 64])
def test_a_mask_names_sectors_of_the_block(mask: int) -> None:
    with pytest.raises(ValueError, match="no mask"):
        encode(mask, bytes(SECTOR_BYTES))


def test_a_full_frame_is_full() -> None:
    content = bytes((SECTORS - 1) * SECTOR_BYTES)
    with pytest.raises(ValueError, match="a full frame"):
        CODEC.encode(CIPHER.sealer(PREFIX), 0, block=0, kind=FrameKind.FULL, mask=FULL_MASK >> 1, data=content)


def test_a_frame_belongs_to_its_block_kind_and_store() -> None:
    content = random.Random(1).randbytes(BLOCK_BYTES)
    sealed = CODEC.encode(CIPHER.sealer(PREFIX), 3, block=7, kind=FrameKind.FULL, mask=FULL_MASK, data=content)
    assert CODEC.decode(sealed, block=7, kind=FrameKind.FULL) == (FULL_MASK, content)
    with pytest.raises(AuthenticationError):
        CODEC.decode(sealed, block=8, kind=FrameKind.FULL)
    with pytest.raises(AuthenticationError):
        CODEC.decode(sealed, block=7, kind=FrameKind.PATCH)
    with pytest.raises(AuthenticationError):
        FrameCodec(CIPHER, bytes(16)).decode(sealed, block=7, kind=FrameKind.FULL)
    with pytest.raises(AuthenticationError):
        FrameCodec(Cipher(bytes(32)), STORE_ID).decode(sealed, block=7, kind=FrameKind.FULL)


@pytest.mark.parametrize("mask", [1 << 63 | 5, FULL_MASK])
def test_a_frame_that_is_sealed_anew_is_what_it_was(mask: int) -> None:
    kind = FrameKind.FULL if mask == FULL_MASK else FrameKind.PATCH
    content = random.Random(1).randbytes(mask.bit_count() * SECTOR_BYTES)
    sealed = CODEC.encode(CIPHER.sealer(PREFIX), 3, block=7, kind=kind, mask=mask, data=content)
    newer = Cipher(bytes(32), key_id=2)
    again = CODEC.reseal(sealed, newer.sealer(PREFIX), 4, block=7, full=kind is FrameKind.FULL)
    assert len(again) == len(sealed)
    assert FrameCodec(newer, STORE_ID).decode(again, block=7, kind=kind) == (mask, content)
    for block, full in ((8, kind is FrameKind.FULL), (7, kind is not FrameKind.FULL)):
        with pytest.raises(AuthenticationError):
            CODEC.reseal(sealed, newer.sealer(PREFIX), 4, block=block, full=full)


def test_every_flipped_bit_of_a_frame_is_refused() -> None:
    sealed = encode(1, (b"sector 1 " * 500)[:SECTOR_BYTES])
    assert len(sealed) < 120
    for bit in range(len(sealed) * 8):
        changed = bytearray(sealed)
        changed[bit // 8] ^= 1 << bit % 8
        with pytest.raises(AuthenticationError):
            CODEC.decode(changed, block=0, kind=FrameKind.PATCH)


@pytest.mark.parametrize(
    ("kind", "plaintext", "complaint"),
    [
        (FrameKind.PATCH, b"\x00" + bytes(7), "too few"),
        (FrameKind.PATCH, b"\x00" + bytes(8), "no mask"),
        (FrameKind.FULL, b"\x00" + b"\x7f" * 8 + bytes(56 * SECTOR_BYTES), "a full frame"),
        (FrameKind.PATCH, b"\x00" + b"\x01" + bytes(7) + bytes(SECTOR_BYTES - 1), "raw bytes"),
        (FrameKind.PATCH, b"\x02" + b"\x01" + bytes(7) + bytes(SECTOR_BYTES), "unknown codec"),
        (FrameKind.PATCH, b"\x01" + b"\x01" + bytes(7) + b"\x60short!", "6 bytes decompressed"),
        (FrameKind.PATCH, b"\x01" + b"\x01" + bytes(7) + b"\xf0not LZ4", "cannot decompress"),
    ],
)
def test_a_sealed_frame_that_makes_no_sense_is_refused(kind: FrameKind, plaintext: bytes, complaint: str) -> None:
    sealed = CIPHER.sealer(PREFIX).seal(0, plaintext, associated(block=0, kind=kind))
    with pytest.raises(ValueError, match=complaint) as raised:
        CODEC.decode(sealed, block=0, kind=kind)
    assert not isinstance(raised.value, AuthenticationError)


def test_noise_is_stored_raw_and_not_copied() -> None:
    noise = memoryview(random.Random(2).randbytes(BLOCK_BYTES))
    codec, payload = compress(noise)
    assert codec == RAW
    assert payload is noise
    sealed = CODEC.encode(CIPHER.sealer(PREFIX), 0, block=0, kind=FrameKind.FULL, mask=FULL_MASK, data=noise)
    assert len(sealed) == 24 + 9 + BLOCK_BYTES + 16


@pytest.mark.parametrize(("noise_percent", "expected"), [(90, LZ4), (97, RAW)])
def test_compression_is_kept_where_it_gains(noise_percent: int, expected: int) -> None:
    noise = random.Random(3).randbytes(BLOCK_BYTES * noise_percent // 100)
    content = noise + bytes(BLOCK_BYTES - len(noise))
    codec, payload = compress(content)
    assert codec == expected
    assert decompress(codec, payload, len(content)) == content
    assert (len(payload) <= len(content) * 0.94) == (codec == LZ4)


@given(st.binary(max_size=300), st.integers(1, 40))
def test_compressed_bytes_of_any_size_come_back(piece: bytes, repeats: int) -> None:
    content = piece * repeats
    codec, payload = compress(content)
    assert decompress(codec, payload, len(content)) == content


@given(st.sampled_from([RAW, LZ4]), st.binary(max_size=200), st.integers(-1, 5000))
def test_decompress_gives_the_size_or_an_error(codec: int, payload: bytes, size: int) -> None:
    try:
        data = decompress(codec, payload, size)
    except ValueError:
        return
    assert len(data) == size


@pytest.mark.parametrize("size", [SECTOR_BYTES - 1, SECTOR_BYTES + 1, 1, 0, -1])
def test_a_compressed_payload_has_one_size(size: int) -> None:
    codec, payload = compress(b"a" * SECTOR_BYTES)
    assert codec == LZ4
    with pytest.raises(ValueError, match=r"cannot decompress|are due|no size"):
        decompress(codec, payload, size)


def test_a_bomb_allocates_nothing() -> None:
    """16 MiB of zeros in 64 KiB; and a payload that claims 2 GiB where LZ4 would look for a size."""
    bomb = lz4.block.compress(bytes(16 << 20), store_size=False)
    with pytest.raises(ValueError, match="cannot decompress"):
        decompress(LZ4, bomb, SECTOR_BYTES)
    with pytest.raises(ValueError, match="no size"):
        decompress(LZ4, b"\xff\xff\xff\x7f" + bomb, -1)


def test_a_codec_that_lies_is_noticed_before_sealing(monkeypatch: pytest.MonkeyPatch) -> None:
    right = lz4.block.decompress

    def one_bit_off(payload: bytes, uncompressed_size: int) -> bytes:
        data = bytearray(right(payload, uncompressed_size=uncompressed_size))
        data[-1] ^= 1
        return bytes(data)

    monkeypatch.setattr(lz4.block, "decompress", one_bit_off)
    with pytest.raises(RuntimeError, match="did not give back"):
        encode(1, b"a" * SECTOR_BYTES)


@given(st.integers(0, 3 * BLOCK_BYTES), st.integers(0, 3 * BLOCK_BYTES), st.integers(0, 255))
@example(BLOCK_BYTES + 1, 0, 1)
@example(BLOCK_BYTES + 1, BLOCK_BYTES, 1)
@example(3 * BLOCK_BYTES, BLOCK_BYTES, 255)
def test_is_zero(size: int, at: int, value: int) -> None:
    data = bytearray(size)
    if at < size:
        data[at] = value
    expected = value == 0 or at >= size
    for buffer in (bytes(data), data, memoryview(data)):
        assert is_zero(buffer) is expected


@given(st.integers(0, FULL_MASK))
def test_sectors_of(mask: int) -> None:
    assert sectors_of(mask) == [sector for sector in range(SECTORS) if mask >> sector & 1]


def test_sectors_of_everything() -> None:
    assert sectors_of(FULL_MASK) == list(range(SECTORS))


def test_golden_frame() -> None:
    """A frame of version 1 written once: it must open for ever, whatever LZ4 writes today."""
    sealed = bytes.fromhex(GOLDEN_FRAME)
    content = (b"golden sector 5." * 256) + (b"golden sector 9." * 256)
    assert CODEC.decode(sealed, block=0x01020304, kind=FrameKind.PATCH) == (1 << 5 | 1 << 9, content)


def encode(mask: int, data: bytes) -> bytes:
    return CODEC.encode(CIPHER.sealer(PREFIX), 0, block=0, kind=FrameKind.PATCH, mask=mask, data=data)


def associated(*, block: int, kind: FrameKind) -> bytes:
    return FRAME_VERSION.to_bytes(2, "little") + STORE_ID + block.to_bytes(4, "little") + bytes([kind])


GOLDEN_FRAME = (
    "707265666978206f66206f626a65637402010000000000000332f68ced12898df159288050cad338ba2d12b36d8df5b4"
    "6d80a2739966041288585d626b07a5961801c89bfff662e89b1c697feb81a9421f280fe5e0d2127058cf2afac6a65e5b"
    "55e08dc8102bc440c1263d629fc8b2eafd4e"
)
