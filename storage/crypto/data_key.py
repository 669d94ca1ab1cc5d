"""The data keys of a store: the newest, which all is sealed under, and a ring of older ones, under which some of it is
sealed still while compaction seals it anew. Pure.

The newest key opens the older ones of its ring, and an older one never the newest: whoever has an old keys object and
its password learns nothing of what is written from then on.
"""

from collections.abc import Iterable
from dataclasses import dataclass, replace
from struct import Struct

from nacl.bindings import (
    crypto_aead_xchacha20poly1305_ietf_decrypt,
    crypto_aead_xchacha20poly1305_ietf_encrypt,
)
from nacl.exceptions import CryptoError

from storage.crypto.cipher import FIRST_KEY_ID, NONCE_BYTES, AuthenticationError, Cipher, derive
from storage.errors import Corrupt
from storage.secret import Secret

KEYS_VERSION = 1
"""Of the format of a keys object."""

OLDER_KEYS_MAX = 8
"""In one ring. A rotation begins when the one before it has ended, so there is one."""

KEY_ID_MAX = 255

_RING_HEADER = Struct("<BB")
_RING_ENTRY = Struct("<B72s")
_RING_ASSOCIATED = Struct("<19sH16sBB")
_RING_DOMAIN = b"nbdserver older key"
_RING_PURPOSE = "older keys"
RING_BYTES_MAX = _RING_HEADER.size + OLDER_KEYS_MAX * _RING_ENTRY.size

assert len(_RING_DOMAIN) == 19


@dataclass(frozen=True, slots=True)
class DataKey:
    """The data key of a store, from which every other key is derived; and the older ones, under which some of it is
    sealed still while it is rotated.
    """

    store_id: bytes
    key: Secret
    key_id: int = FIRST_KEY_ID
    older: "tuple[DataKey, ...]" = ()

    def purpose(self, name: str) -> Secret:
        """32 bytes for one purpose, ready for a `Cipher`; different names give independent keys."""
        return derive(self.key, name, self.store_id)

    def cipher(self, purpose: str) -> Cipher:
        """Seals for one purpose, under this key; opens also what older keys sealed."""
        older = [key.cipher(purpose) for key in self.older]
        return Cipher(self.purpose(purpose), key_id=self.key_id, older=older)


@dataclass(frozen=True, slots=True)
class OlderKey:
    """An older data key, sealed under the newest one."""

    key_id: int
    wrapped: bytes


def seal_older(newest: DataKey, older: DataKey, nonce: bytes) -> OlderKey:
    """An older key for the ring of `newest`: the newest opens it, and never the other way round."""
    associated = _ring_associated(newest.store_id, newest.key_id, older.key_id)
    sealed = crypto_aead_xchacha20poly1305_ietf_encrypt(bytes(older.key), associated, nonce, _ring_key(newest))
    return OlderKey(older.key_id, nonce + sealed)


def with_ring(newest: DataKey, ring: Iterable[OlderKey]) -> DataKey:
    """The newest key, and those of its ring. AuthenticationError: one does not open."""
    older = []
    for each in ring:
        nonce, sealed = each.wrapped[:NONCE_BYTES], each.wrapped[NONCE_BYTES:]
        associated = _ring_associated(newest.store_id, newest.key_id, each.key_id)
        try:
            key = crypto_aead_xchacha20poly1305_ietf_decrypt(sealed, associated, nonce, _ring_key(newest))
        except CryptoError:
            raise AuthenticationError(f"the older data key {each.key_id} does not open") from None
        older.append(DataKey(newest.store_id, Secret(key), each.key_id))
    return replace(newest, older=tuple(older))


def _ring_key(newest: DataKey) -> bytes:
    return bytes(newest.purpose(_RING_PURPOSE))


def _ring_associated(store_id: bytes, newest: int, older: int) -> bytes:
    return _RING_ASSOCIATED.pack(_RING_DOMAIN, KEYS_VERSION, store_id, newest, older)


def pack_ring(newest: int, ring: Iterable[OlderKey]) -> bytes:
    """What a keys object says of its data keys: `key id u8 | count u8`, and of each older one `key id u8 | nonce 24 |
    ciphertext 32 | tag 16`. Nothing, of one whose key was never rotated.
    """
    if newest == FIRST_KEY_ID:
        return b""
    entries = [_RING_ENTRY.pack(older.key_id, older.wrapped) for older in ring]
    return _RING_HEADER.pack(newest, len(entries)) + b"".join(entries)


def unpack_ring(name: str, raw: bytes) -> tuple[int, tuple[OlderKey, ...]]:
    """The id of the newest data key, and the older ones; Corrupt: nobody who has the key wrote that."""
    if not raw:
        return FIRST_KEY_ID, ()
    if len(raw) < _RING_HEADER.size:
        raise Corrupt(name, f"its {len(raw)} bytes behind the slots are too few")
    key_id, count = _RING_HEADER.unpack_from(raw)
    if count > OLDER_KEYS_MAX or len(raw) != _RING_HEADER.size + count * _RING_ENTRY.size:
        raise Corrupt(name, f"{count} older keys in {len(raw)} bytes make no sense")
    ring = tuple(OlderKey(*fields) for fields in _RING_ENTRY.iter_unpack(raw[_RING_HEADER.size :]))
    ids = [older.key_id for older in ring]
    if not key_id or 0 in ids or len({key_id, *ids}) != count + 1 or max(ids, default=0) > key_id:
        raise Corrupt(name, "its data keys have numbers that make no sense")
    return key_id, ring
