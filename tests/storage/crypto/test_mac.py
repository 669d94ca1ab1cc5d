"""Authentication codes over many buffers."""

from storage.crypto.mac import Authenticator
from storage.secret import Secret

KEY = bytes.fromhex("78dc4e0aaf52d935c3c01eea57428f00ca1fd475f5da86a49c8dd73d68c8e223")
NONCE = bytes.fromhex("d79cf22d504cc793c3fb6c8a")
DATA = bytes.fromhex("b96baa8c1c75a671bfb2d08d06be5f36")
TAG = bytes.fromhex("3e5d486aa2e30b22e040b85723a06e76")
"""NIST, gcmEncryptExtIV256: no plaintext, 128 bits of associated data."""


def test_the_vector_of_nist_however_it_is_cut() -> None:
    made = Authenticator(Secret(KEY))
    assert made.tag(NONCE, [DATA]) == TAG
    for at in range(len(DATA) + 1):
        assert made.tag(NONCE, [DATA[:at], memoryview(DATA)[at:]]) == TAG
    assert made.is_sound(NONCE, [DATA], TAG)


def test_another_place_key_or_bit_is_noticed() -> None:
    made = Authenticator(Secret(KEY))
    assert not made.is_sound(bytes(12), [DATA], TAG)
    assert not Authenticator(Secret(bytes(32))).is_sound(NONCE, [DATA], TAG)
    assert not made.is_sound(NONCE, [DATA[:-1] + b"x"], TAG)
    assert not made.is_sound(NONCE, [DATA], bytes(16))


def test_the_key_is_wiped() -> None:
    key = Secret(KEY)
    Authenticator(key)
    assert bytes(key) == bytes(32)
