"""Ciphers and nonces: XChaCha20-Poly1305 with fast parts, and the derivation of keys.

It guarantees that what `Cipher.open` returns was sealed with the same key and the same associated data, byte
for byte, and that no nonce is used twice under one sealer. It knows nothing of blocks, objects or passwords.

A nonce is made in `Sealer.seal`: 16 random bytes, which whoever begins an object draws for it (of the log in
`storage.lsm.wal.log_writer` and `fence`, of a manifest in `storage.lsm.manifest.manifest_store`, of an SST in
`storage.lsm.sst.upload`), and the number of the part within the object.

XChaCha20-Poly1305 (draft-irtf-cfrg-xchacha-03, section 2) is HChaCha20 over the first 16 bytes of a 24-byte
nonce, which gives a subkey, then ChaCha20-Poly1305 (RFC 8439, section 2.8) under that subkey with the nonce
`00000000 | last 8 bytes`. The second part is OpenSSL's, some three times as fast as libsodium's whole. All
frames of an object share the first 16 bytes, so the subkey is computed once an object.

What goes wrong elsewhere, and why not here. A hand-made HChaCha20 with its words in a wrong order still opens
what it sealed: `self_test` compares with the draft at every start. A nonce drawn once a session and counted
up repeats after a fork or a resumed machine and gives away plaintext and forgery key: here every object draws
16 new random bytes, a sealer refuses a number it has sealed before, and it refuses to work in a process
forked since it was made.
"""

import os
from collections.abc import Iterable
from functools import lru_cache, partial
from struct import Struct

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers import Cipher as RawCipher
from cryptography.hazmat.primitives.ciphers import algorithms
from cryptography.hazmat.primitives.ciphers.aead import ChaCha20Poly1305
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.kdf.hkdf import HKDF

from storage.buffers import Buffer
from storage.errors import BrokenInvariant
from storage.secret import Secret

KEY_BYTES = 32
PREFIX_BYTES = 16
NONCE_BYTES = 24
TAG_BYTES = 16
OVERHEAD_BYTES = NONCE_BYTES + TAG_BYTES
STORE_ID_BYTES = 16

FIRST_KEY_ID = 1
"""Of the data key that a store begins with; the next one has the next number."""

SUBKEYS_MAX = 1024
"""Prefixes whose subkey `Cipher.open` remembers: 5 us saved a frame for some 2 KiB each; more objects than
that are seldom read from at once."""

_NUMBER = Struct("<Q")
_NONCE_PAD = bytes(4)
_WORDS = Struct("<16I")
_SUBKEY_WORDS = Struct("<8I")
_CONSTANTS = (0x61707865, 0x3320646E, 0x79622D32, 0x6B206574)
"""The first four words of every ChaCha20 state, "expand 32-byte k" (RFC 8439, section 2.3)."""
_WORD_MASK = 0xFFFFFFFF
_BLOCK_OF_ZEROS = bytes(64)

assert PREFIX_BYTES + _NUMBER.size == NONCE_BYTES
assert PREFIX_BYTES == STORE_ID_BYTES == 16

_forks = 0


def _count_fork() -> None:
    global _forks
    _forks += 1


os.register_at_fork(after_in_child=_count_fork)


class AuthenticationError(ValueError):
    """The bytes were not sealed with this key and this associated data, or were changed since."""


class UnknownKey(LookupError):
    """Something is sealed under a data key that this process does not have; `newer`: one that came after all it has."""

    def __init__(self, key_id: int, *, newer: bool) -> None:
        super().__init__(f"data key {key_id}")
        self.key_id = key_id
        self.newer = newer


class Sealer:
    """Seals the parts of one object under one prefix; no number twice. Thread-safe."""

    def __init__(self, aead: ChaCha20Poly1305, prefix: bytes) -> None:
        self._aead = aead
        self._prefix = prefix
        self._sealed: set[int] = set()
        self._forks = _forks

    def seal(self, number: int, plaintext: Buffer, associated: bytes) -> bytes:
        """`nonce 24 | ciphertext | tag 16`, the nonce being prefix | number as u64, little-endian.

        ValueError: the number was sealed before. RuntimeError: the process was forked since this sealer was
        made, so its parent may seal the same number. Either would reuse a nonce, which gives away the
        plaintexts.
        """
        if number in self._sealed:
            raise ValueError(f"number {number} was sealed before under this prefix")
        if self._forks != _forks:
            raise RuntimeError("a sealer does not survive a fork: its parent may use the same nonces")
        low = _NUMBER.pack(number)
        self._sealed.add(number)
        return self._prefix + low + self._aead.encrypt(_NONCE_PAD + low, plaintext, associated)


class Cipher:
    """XChaCha20-Poly1305 under one key: that with the number `key_id`. Beside it stand those of older keys, under which
    some of the same store may be sealed still: nothing is sealed under them any more. Thread-safe.
    """

    def __init__(
        self, key: Buffer, *, key_id: int = FIRST_KEY_ID, older: "Iterable[Cipher]" = (), subkeys_max: int = SUBKEYS_MAX
    ) -> None:
        """`subkeys_max`: of so many prefixes the keys are remembered."""
        _check_lengths(key)
        self.key_id = key_id
        self._older = {cipher.key_id: cipher for cipher in older}
        self._key = Secret(key)
        self._aead_of = lru_cache(maxsize=subkeys_max)(partial(_aead, self._key))

    def under(self, key_id: int) -> "Cipher":
        """The one that opens what is sealed under this key. UnknownKey."""
        if key_id == self.key_id:
            return self
        found = self._older.get(key_id)
        if found is None:
            raise UnknownKey(key_id, newer=key_id > self.key_id)
        return found

    def sealer(self, prefix: bytes) -> Sealer:
        """A sealer for one new object. `prefix` is 16 bytes fresh from the operating system, never used
        before."""
        return Sealer(_aead(self._key, prefix), prefix)

    def open(self, sealed: Buffer, associated: bytes) -> bytes:
        """The plaintext of `nonce 24 | ciphertext | tag 16`; AuthenticationError if a bit of anything is
        different."""
        view = memoryview(sealed)
        if len(view) < OVERHEAD_BYTES:
            raise AuthenticationError(f"{len(view)} bytes are too few to be sealed data")
        aead = self._aead_of(bytes(view[:PREFIX_BYTES]))
        nonce = _NONCE_PAD + view[PREFIX_BYTES:NONCE_BYTES]
        try:
            return aead.decrypt(nonce, view[NONCE_BYTES:], associated)
        except InvalidTag:
            raise AuthenticationError("the authentication tag does not fit") from None


def hchacha20(key: Buffer, prefix: bytes) -> bytes:
    """The 32-byte subkey of draft-irtf-cfrg-xchacha-03, section 2.2, for a key and the first 16 bytes of a
    nonce.

    A ChaCha20 block is the permuted state plus the input state, word by word; HChaCha20 is words 0-3 and
    12-15 of the permuted state alone. So the block over zeros is taken from OpenSSL and the known input words
    are subtracted: the constants stand in words 0-3, the prefix in words 12-15.
    """
    _check_lengths(key, prefix)
    block = RawCipher(algorithms.ChaCha20(key, prefix), mode=None).encryptor().update(_BLOCK_OF_ZEROS)
    words = _WORDS.unpack(block)
    inputs = _CONSTANTS + Struct("<4I").unpack(prefix)
    outputs = words[:4] + words[12:]
    return _SUBKEY_WORDS.pack(*((o - i) & _WORD_MASK for o, i in zip(outputs, inputs, strict=True)))


def derive(key: Buffer, purpose: str, store_id: bytes) -> Secret:
    """32 bytes for one purpose by HKDF-SHA256 (RFC 5869): salt = store id, info = "nbdserver 1 " |
    purpose."""
    _check_lengths(key, store_id)
    info = b"nbdserver 1 " + purpose.encode("ascii")
    return Secret(HKDF(algorithm=SHA256(), length=KEY_BYTES, salt=store_id, info=info).derive(key))


def _check_lengths(key: Buffer, other: bytes = bytes(16)) -> None:
    """A key has 32 bytes, a nonce's prefix and the id of a store have 16 each."""
    if len(key) != KEY_BYTES or len(other) != PREFIX_BYTES:
        raise BrokenInvariant(f"a key of {len(key)} bytes beside {len(other)} is none: it would seal what nobody opens")


def self_test() -> None:
    """Compare with the vectors of draft-irtf-cfrg-xchacha-03 (2.2.1 and A.3.1); under a millisecond.

    RuntimeError: the libraries of this host misbehave, and nothing they seal or open may be trusted.
    """
    prefix = bytes.fromhex("000000090000004a0000000031415927")
    subkey = bytes.fromhex("82413b4227b27bfed30e42508a877d73a0f9e4d58a74a853c12ec41326d3ecdc")
    if hchacha20(bytes(range(32)), prefix) != subkey:
        raise RuntimeError("the cipher self-test failed: HChaCha20 differs from its specification")
    nonce = bytes(range(0x40, 0x58))
    sealed = nonce + bytes.fromhex(_DRAFT_CIPHERTEXT + _DRAFT_TAG)
    cipher = Cipher(bytes(range(0x80, 0xA0)))
    number = _NUMBER.unpack(nonce[PREFIX_BYTES:])[0]
    if cipher.sealer(nonce[:PREFIX_BYTES]).seal(number, _DRAFT_PLAINTEXT, _DRAFT_ASSOCIATED) != sealed:
        raise RuntimeError("the cipher self-test failed: XChaCha20-Poly1305 differs from its specification")
    if cipher.open(sealed, _DRAFT_ASSOCIATED) != _DRAFT_PLAINTEXT:
        raise RuntimeError("the cipher self-test failed: what was sealed does not open")
    try:
        cipher.open(sealed[:-1] + bytes([sealed[-1] ^ 1]), _DRAFT_ASSOCIATED)
    except AuthenticationError:
        return
    raise RuntimeError("the cipher self-test failed: a changed tag was accepted")


_DRAFT_PLAINTEXT = (
    b"Ladies and Gentlemen of the class of '99: If I could offer you "
    b"only one tip for the future, sunscreen would be it."
)
_DRAFT_ASSOCIATED = bytes.fromhex("50515253c0c1c2c3c4c5c6c7")
_DRAFT_CIPHERTEXT = (
    "bd6d179d3e83d43b9576579493c0e939572a1700252bfaccbed2902c21396cbb731c7f1b0b4aa6440bf3a82f4eda7e39"
    "ae64c6708c54c216cb96b72e1213b4522f8c9ba40db5d945b11b69b982c1bb9e3f3fac2bc369488f76b2383565d3fff9"
    "21f9664c97637da9768812f615c68b13b52e"
)
_DRAFT_TAG = "c0875924c1c7987947deafd8780acf49"


def _aead(key: Buffer, prefix: bytes) -> ChaCha20Poly1305:
    return ChaCha20Poly1305(hchacha20(key, prefix))
