import hmac
import random
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor

import pytest
from cryptography.hazmat.primitives.ciphers import Cipher as RawCipher
from cryptography.hazmat.primitives.ciphers import algorithms
from cryptography.hazmat.primitives.ciphers.aead import ChaCha20Poly1305
from nacl.bindings import (
    crypto_aead_xchacha20poly1305_ietf_decrypt,
    crypto_aead_xchacha20poly1305_ietf_encrypt,
)

from storage.crypto import cipher as crypto
from storage.crypto.cipher import NONCE_BYTES, OVERHEAD_BYTES, PREFIX_BYTES, AuthenticationError, Cipher, derive

SUNSCREEN = (
    b"Ladies and Gentlemen of the class of '99: If I could offer you only one tip for the future, "
    b"sunscreen would be it."
)
SUNSCREEN_ASSOCIATED = bytes.fromhex("50515253c0c1c2c3c4c5c6c7")
SUNSCREEN_KEY = bytes(range(0x80, 0xA0))


def test_hchacha20_draft_vector() -> None:
    """draft-irtf-cfrg-xchacha-03, section 2.2.1."""
    subkey = crypto.hchacha20(bytes(range(32)), bytes.fromhex("000000090000004a0000000031415927"))
    assert subkey.hex() == "82413b4227b27bfed30e42508a877d73a0f9e4d58a74a853c12ec41326d3ecdc"


def test_xchacha20_poly1305_draft_vector() -> None:
    """draft-irtf-cfrg-xchacha-03, appendix A.3.1."""
    nonce = bytes(range(0x40, 0x58))
    expected = bytes.fromhex(
        "bd6d179d3e83d43b9576579493c0e939572a1700252bfaccbed2902c21396cbb"
        "731c7f1b0b4aa6440bf3a82f4eda7e39ae64c6708c54c216cb96b72e1213b452"
        "2f8c9ba40db5d945b11b69b982c1bb9e3f3fac2bc369488f76b2383565d3fff9"
        "21f9664c97637da9768812f615c68b13b52e"
        "c0875924c1c7987947deafd8780acf49"
    )
    cipher = Cipher(SUNSCREEN_KEY)
    number = int.from_bytes(nonce[PREFIX_BYTES:], "little")
    sealed = cipher.sealer(nonce[:PREFIX_BYTES]).seal(number, SUNSCREEN, SUNSCREEN_ASSOCIATED)
    assert sealed == nonce + expected
    assert cipher.open(sealed, SUNSCREEN_ASSOCIATED) == SUNSCREEN


def test_chacha20_block_vector() -> None:
    """RFC 8439, section 2.3.2: the library's raw ChaCha20 takes counter and nonce as we hand them over."""
    prefix = (1).to_bytes(4, "little") + bytes.fromhex("000000090000004a00000000")
    raw = RawCipher(algorithms.ChaCha20(bytes(range(32)), prefix), mode=None)
    assert raw.encryptor().update(bytes(64)).hex() == (
        "10f1e7e4d13b5915500fdd1fa32071c4c7d1f4c733c068030422aa9ac3d46c4e"
        "d2826446079faa0914c2d705d98b02a2b5129cd1de164eb9cbd083e8a2503c4e"
    )


def test_chacha20_poly1305_vector() -> None:
    """RFC 8439, section 2.8.2."""
    nonce = bytes.fromhex("070000004041424344454647")
    sealed = ChaCha20Poly1305(SUNSCREEN_KEY).encrypt(nonce, SUNSCREEN, SUNSCREEN_ASSOCIATED)
    assert sealed.hex() == (
        "d31a8d34648e60db7b86afbc53ef7ec2a4aded51296e08fea9e2b5a736ee62d6"
        "3dbea45e8ca9671282fafb69da92728b1a71de0a9e060b2905d6a5b67ecd3b36"
        "92ddbd7f2d778b8c9803aee328091b58fab324e4fad675945585808b4831d7bc"
        "3ff4def08e4b7a9de576d26586cec64b6116"
        "1ae10b594f09e26a7e902ecbd0600691"
    )


def test_equals_pynacl_on_a_thousand_messages() -> None:
    chance = random.Random(8439)
    for at in range(1000):
        key, prefix = chance.randbytes(32), chance.randbytes(PREFIX_BYTES)
        if at % 10 == 0:
            prefix = b"\xff" * 8 + prefix[8:]  # the block counter inside the raw cipher stands at its end
        number = chance.getrandbits(64)
        message = chance.randbytes(chance.choice([0, 1, 15, 16, 17, 63, 64, 65, 255, 4105, 70000]))
        associated = chance.randbytes(chance.randrange(40))
        nonce = prefix + number.to_bytes(8, "little")
        cipher = Cipher(key)
        ours = cipher.sealer(prefix).seal(number, message, associated)
        theirs = crypto_aead_xchacha20poly1305_ietf_encrypt(message, associated, nonce, key)
        assert ours == nonce + theirs
        assert crypto_aead_xchacha20poly1305_ietf_decrypt(theirs, associated, nonce, key) == message
        assert cipher.open(memoryview(bytearray(nonce + theirs)), associated) == message


def test_every_flipped_bit_is_refused() -> None:
    cipher = Cipher(bytes(32))
    associated = b"block 7"
    sealed = cipher.sealer(bytes(PREFIX_BYTES)).seal(7, b"payload", associated)
    assert len(sealed) == len(b"payload") + OVERHEAD_BYTES
    for bit in range(len(sealed) * 8):
        with pytest.raises(AuthenticationError):
            cipher.open(flip(sealed, bit), associated)
    for bit in range(len(associated) * 8):
        with pytest.raises(AuthenticationError):
            cipher.open(sealed, flip(associated, bit))
    with pytest.raises(AuthenticationError):
        Cipher(bytes(31) + b"\x01").open(sealed, associated)


def test_every_truncation_is_refused() -> None:
    cipher = Cipher(bytes(32))
    sealed = cipher.sealer(bytes(PREFIX_BYTES)).seal(0, b"payload", b"")
    for size in range(len(sealed)):
        with pytest.raises(AuthenticationError):
            cipher.open(sealed[:size], b"")
    with pytest.raises(AuthenticationError):
        cipher.open(sealed + b"\x00", b"")


def test_a_sealer_never_uses_a_nonce_twice() -> None:
    sealer = Cipher(bytes(32)).sealer(bytes(PREFIX_BYTES))
    nonces = {sealer.seal(number, b"x", b"")[:NONCE_BYTES] for number in (0, 1, 255, 256, (1 << 64) - 1)}
    assert len(nonces) == 5
    with pytest.raises(ValueError, match="sealed before"):
        sealer.seal(256, b"other", b"")


def test_a_sealer_does_not_survive_a_fork() -> None:
    program = """
import os
from storage.crypto.cipher import Cipher
cipher = Cipher(bytes(32))
before = cipher.sealer(bytes(16))
before.seal(0, b"parent", b"")
if os.fork() == 0:
    cipher.sealer(b"a new prefix ...").seal(1, b"child", b"")
    try:
        before.seal(1, b"child", b"")
    except RuntimeError:
        os._exit(7)
    os._exit(0)
before.seal(1, b"parent", b"")
print(os.waitstatus_to_exitcode(os.wait()[1]))
"""
    ran = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert ran.stdout.strip() == "7"


def test_prefixes_beyond_the_remembered_ones_open() -> None:
    cipher = Cipher(bytes(32), subkeys_max=3)
    sealed = [cipher.sealer(bytes([i]) * PREFIX_BYTES).seal(i, b"%d" % i, b"") for i in range(8)]
    for i in [0, 1, 2, 3, 7, 6, 0, 5, 4, 1]:
        assert cipher.open(sealed[i], b"") == b"%d" % i


def test_threads_share_a_cipher() -> None:
    cipher = Cipher(bytes(32))
    sealer = cipher.sealer(bytes(PREFIX_BYTES))
    messages = [bytes([i % 256]) * 20000 for i in range(200)]
    with ThreadPoolExecutor(4) as pool:
        sealed = list(pool.map(lambda i: sealer.seal(i, messages[i], b""), range(200)))
        assert list(pool.map(lambda part: cipher.open(part, b""), sealed)) == messages


def test_derive_is_hkdf_with_a_purpose() -> None:
    """Against HKDF written out from RFC 5869, sections 2.2 and 2.3, for one block of output."""
    key, store_id = bytes(range(32)), bytes(range(16))
    extracted = hmac.digest(store_id, key, "sha256")
    expected = hmac.digest(extracted, b"nbdserver 1 frames\x01", "sha256")
    assert bytes(derive(key, "frames", store_id)) == expected


def test_derived_keys_differ() -> None:
    key, store_id = bytes(32), bytes(16)
    keys = [
        derive(key, "frames", store_id),
        derive(key, "wal", store_id),
        derive(key, "frames", bytes(15) + b"\x01"),
        derive(bytes(31) + b"\x01", "frames", store_id),
    ]
    assert len(set(map(bytes, keys))) == 4


def test_self_test_passes() -> None:
    crypto.self_test()


def test_self_test_sees_a_wrong_word_order(monkeypatch: pytest.MonkeyPatch) -> None:
    right = crypto.hchacha20

    def swapped(key: bytes, prefix: bytes) -> bytes:
        subkey = right(key, prefix)
        return subkey[4:8] + subkey[:4] + subkey[8:]

    monkeypatch.setattr(crypto, "hchacha20", swapped)
    cipher = Cipher(bytes(32))
    assert cipher.open(cipher.sealer(bytes(16)).seal(0, b"opens", b""), b"") == b"opens"
    with pytest.raises(RuntimeError, match="self-test failed"):
        crypto.self_test()


@pytest.mark.parametrize("answer", [b"anything", SUNSCREEN], ids=["another plaintext", "any tag"])
def test_self_test_sees_a_broken_open(monkeypatch: pytest.MonkeyPatch, answer: bytes) -> None:
    monkeypatch.setattr(Cipher, "open", lambda cipher, sealed, associated: answer)
    with pytest.raises(RuntimeError, match="self-test failed"):
        crypto.self_test()


def test_self_test_sees_another_key(monkeypatch: pytest.MonkeyPatch) -> None:
    right = Cipher.sealer
    monkeypatch.setattr(Cipher, "sealer", lambda cipher, prefix: right(Cipher(bytes(32)), prefix))
    with pytest.raises(RuntimeError, match="self-test failed"):
        crypto.self_test()


def flip(data: bytes, bit: int) -> bytes:
    changed = bytearray(data)
    changed[bit // 8] ^= 1 << bit % 8
    return bytes(changed)
