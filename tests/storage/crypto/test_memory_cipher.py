"""The cipher that writes into memory which is there."""

from storage.crypto.memory_cipher import TAG_BYTES, MemoryCipher
from storage.secret import Secret

KEY = bytes.fromhex("feffe9928665731c6d6a8f9467308308feffe9928665731c6d6a8f9467308308")
NONCE = bytes.fromhex("cafebabefacedbaddecaf888")
DATA = bytes.fromhex(
    "d9313225f88406e5a55909c5aff5269a86a7a9531534f7da2e4c303d8a318a721c3c0c95956809532fcf0e2449a6b525"
    "b16aedf5aa0de657ba637b39"
)
ASSOCIATED = bytes.fromhex("feedfacedeadbeeffeedfacedeadbeefabaddad2")
SEALED = bytes.fromhex(
    "522dc1f099567d07f47f37a32a84427d643a8cdcbfe5c0c97598a2bd2555d1aa8cb08e48590dbb3da7b08b1056828838"
    "c5f61e6393ba7a0abcc9f662" + "76fc6ece0f4e1768cddf8853bb2d551b"
)
"""Test case 16 of McGrew and Viega, "The Galois/Counter Mode of Operation"."""

OF_NIST = "78dc4e0aaf52d935c3c01eea57428f00ca1fd475f5da86a49c8dd73d68c8e223", "d79cf22d504cc793c3fb6c8a"
NOTHING, ITS_TAG = "b96baa8c1c75a671bfb2d08d06be5f36", "3e5d486aa2e30b22e040b85723a06e76"
"""NIST, gcmEncryptExtIV256: no plaintext, 128 bits of associated data."""


def sealed(key: bytes, nonce: bytes, data: bytes, associated: bytes) -> bytes:
    target = bytearray(len(data) + TAG_BYTES)
    MemoryCipher(Secret(key)).seal_into(memoryview(target), nonce, data, associated)
    return bytes(target)


def test_the_vectors() -> None:
    assert sealed(KEY, NONCE, DATA, ASSOCIATED) == SEALED
    assert MemoryCipher(Secret(KEY)).open(NONCE, SEALED, ASSOCIATED) == DATA
    key, nonce = map(bytes.fromhex, OF_NIST)
    assert sealed(key, nonce, b"", bytes.fromhex(NOTHING)).hex() == ITS_TAG
    assert MemoryCipher(Secret(key)).open(nonce, bytes.fromhex(ITS_TAG), bytes.fromhex(NOTHING)) == b""


def test_another_place_key_or_bit_is_noticed() -> None:
    made = MemoryCipher(Secret(KEY))
    assert made.open(bytes(12), SEALED, ASSOCIATED) is None
    assert MemoryCipher(Secret(bytes(32))).open(NONCE, SEALED, ASSOCIATED) is None
    assert made.open(NONCE, SEALED, ASSOCIATED[:-1]) is None
    for at in range(len(SEALED)):
        assert made.open(NONCE, SEALED[:at] + bytes([SEALED[at] ^ 1]) + SEALED[at + 1 :], ASSOCIATED) is None
        assert made.open(NONCE, SEALED[:at], ASSOCIATED) is None


def test_the_key_is_wiped() -> None:
    key = Secret(KEY)
    MemoryCipher(key)
    assert bytes(key) == bytes(32)
