"""Key slots: a password becomes a key (Argon2id, HKDF) that wraps the data key; and the bytes of a keys object. No I/O.

Each slot has a password of its own, and a label by which people tell slots apart. The label is sealed under the data
key: whoever opens the store sees all of them, and the bucket none. No clock and no randomness is asked. What the parts
protect, and what the whole is for, stands at the head of `storage.crypto.keys`.
"""

import hmac
from collections.abc import Iterable
from dataclasses import dataclass, field, replace
from hashlib import sha256
from struct import Struct
from typing import Self

from argon2.low_level import ARGON2_VERSION, Type, core, error_to_str, ffi
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.kdf.hkdf import HKDF
from nacl.bindings import (
    crypto_aead_xchacha20poly1305_ietf_decrypt,
    crypto_aead_xchacha20poly1305_ietf_encrypt,
)
from nacl.exceptions import CryptoError

from storage.crypto.cipher import FIRST_KEY_ID, KEY_BYTES, NONCE_BYTES, OVERHEAD_BYTES, AuthenticationError
from storage.crypto.data_key import KEYS_VERSION, RING_BYTES_MAX, DataKey, OlderKey, pack_ring, unpack_ring
from storage.errors import BrokenInvariant, Corrupt, Invalid, Unsupported
from storage.secret import Secret

MAGIC = b"NBDSTORE"
KIND_KEYS = 1

MEMORY_KIB_MIN = 19 * 1024
"""The least OWASP recommends, and that for log-in forms; a slot that lies in a bucket should have far
more."""
MEMORY_KIB_MAX = 1024 * 1024
"""Whoever can write to the bucket chooses it: a start must not take more memory than a host that serves disks has."""
PASSES_MAX = 64
LANES_MAX = 16
WORK_KIB_MAX = 16 * 1024 * 1024
"""Memory x passes, over all slots of an object: who can write to the bucket can cost us a quarter of a minute
on a password that opens nothing, not a day."""
SLOTS_MAX = 16
"""At the default cost as many slots as `WORK_KIB_MAX` allows."""

SALT_BYTES = 16
CHECK_BYTES = 32
SEAL_BYTES = 32
CHECKSUM_BYTES = 32
LABEL_BYTES_MAX = 32
"""Of a label in UTF-8; shorter ones are padded, so that the bucket does not learn how long they are."""
WRAPPED_BYTES = OVERHEAD_BYTES + KEY_BYTES

_ARGON2ID = 1
_SLOTS_HEADER = Struct("<8sHB16sQB")
_SLOT = Struct("<HBIIB16sQ32s72s72s")
_SLOT_ASSOCIATED = Struct("<18sH16sHBIIB16sQ")
_DOMAIN = b"nbdserver key slot"
KEYS_BYTES_MAX = _SLOTS_HEADER.size + SLOTS_MAX * _SLOT.size + RING_BYTES_MAX + SEAL_BYTES + CHECKSUM_BYTES

assert WRAPPED_BYTES == 72
assert OVERHEAD_BYTES + LABEL_BYTES_MAX == 72
assert len(_DOMAIN) == 18

Password = bytes | bytearray


@dataclass(frozen=True, slots=True)
class Cost:
    """What one guess of a password costs: Argon2id memory in KiB, passes over it, lanes.

    The default takes about half a second on two cores. `memory_kib_min` is the least accepted at writing and
    reading a slot; only tests lower it.
    """

    memory_kib: int = 256 * 1024
    passes: int = 4
    lanes: int = 4
    memory_kib_min: int = field(default=MEMORY_KIB_MIN, repr=False)

    @classmethod
    def for_tests(cls) -> Self:
        """A tenth of a millisecond, and no protection at all."""
        return cls(memory_kib=64, passes=1, lanes=1, memory_kib_min=64)

    @property
    def work_kib(self) -> int:
        """Memory that is filled, in KiB, all passes together: what trying one password costs."""
        return self.memory_kib * self.passes


DEFAULT_COST = Cost()
assert SLOTS_MAX * DEFAULT_COST.work_kib <= WORK_KIB_MAX


@dataclass(frozen=True, slots=True)
class Slot:
    """The data key under one password. `created` is seconds since 1970, for people to tell slots apart."""

    number: int
    cost: Cost
    salt: bytes
    created: int
    check: bytes
    wrapped: bytes
    sealed_label: bytes

    def associated(self, store_id: bytes, key_id: int) -> bytes:
        """What the sealed data key is bound to: every clear field but the check value, compared by itself; and the id
        of that key where there were others, so that whoever has an older key cannot give it a newer one's name.
        """
        cost = self.cost
        clear = _SLOT_ASSOCIATED.pack(
            _DOMAIN,
            KEYS_VERSION,
            store_id,
            self.number,
            _ARGON2ID,
            cost.memory_kib,
            cost.passes,
            cost.lanes,
            self.salt,
            self.created,
        )
        return clear if key_id == FIRST_KEY_ID else clear + bytes([key_id])


@dataclass(frozen=True, slots=True)
class KeysObject:
    """The content of one keys object; `sealed` and `seal` are its bytes under the seal, and the seal."""

    store_id: bytes
    number: int
    slots: tuple[Slot, ...]
    sealed: bytes
    seal: bytes
    key_id: int = FIRST_KEY_ID
    """Of the newest data key, which the slots hold."""
    ring: tuple[OlderKey, ...] = ()
    """Older ones that something may be sealed under still."""


def keys_name(number: int) -> str:
    """The name of keys object `number`: 20 digits, so that order of name is order of number."""
    return f"keys/{number:020d}.keys"


def seal_slot(
    data_key: DataKey,
    number: int,
    password: Password,
    cost: Cost,
    *,
    label: str,
    salt: bytes,
    nonce: bytes,
    created: int,
) -> Slot:
    """The data key under one password. Invalid: the cost is out of bounds. Takes as long as the cost says."""
    refusal = _refusal([cost], cost.memory_kib_min)
    if refusal:
        raise Invalid(refusal)
    check, wrap = _stretch(password, salt, cost)
    slot = Slot(number, cost, salt, created, check, wrapped=b"", sealed_label=b"")
    associated = slot.associated(data_key.store_id, data_key.key_id)
    sealed = crypto_aead_xchacha20poly1305_ietf_encrypt(bytes(data_key.key), associated, nonce, bytes(wrap))
    # The nonce serves twice, under two keys.
    padded = label.encode().ljust(LABEL_BYTES_MAX, b"\0")
    named = crypto_aead_xchacha20poly1305_ietf_encrypt(padded, associated, nonce, _label_key(data_key))
    return replace(slot, wrapped=nonce + sealed, sealed_label=nonce + named)


def label_of(slot: Slot, data_key: DataKey) -> str:
    """What people call a slot. AuthenticationError: somebody changed it."""
    nonce, sealed = slot.sealed_label[:NONCE_BYTES], slot.sealed_label[NONCE_BYTES:]
    associated = slot.associated(data_key.store_id, data_key.key_id)
    try:
        padded = crypto_aead_xchacha20poly1305_ietf_decrypt(sealed, associated, nonce, _label_key(data_key))
    except CryptoError:
        raise AuthenticationError("the label does not open") from None
    return padded.rstrip(b"\0").decode()


def _label_key(data_key: DataKey) -> bytes:
    return bytes(data_key.purpose("labels"))


def open_slot(slot: Slot, store_id: bytes, password: Password, key_id: int) -> DataKey | None:
    """The data key, or None if this is not the slot's password. Takes as long as the slot's cost says.

    AuthenticationError: it is the password, and yet the sealed key does not open: damage.
    """
    check, wrap = _stretch(password, slot.salt, slot.cost)
    if not hmac.compare_digest(check, slot.check):
        return None
    nonce, sealed = slot.wrapped[:NONCE_BYTES], slot.wrapped[NONCE_BYTES:]
    try:
        associated = slot.associated(store_id, key_id)
        key = crypto_aead_xchacha20poly1305_ietf_decrypt(sealed, associated, nonce, bytes(wrap))
    except CryptoError:
        raise AuthenticationError("the sealed data key does not open") from None
    return DataKey(store_id=store_id, key=Secret(key), key_id=key_id)


def seal_fits(content: KeysObject, data_key: DataKey) -> bool:
    """Whether the object is as somebody wrote it who had the data key."""
    return hmac.compare_digest(_seal(data_key, content.sealed), content.seal)


def encode(
    data_key: DataKey, number: int, slots: tuple[Slot, ...], memory_kib_min: int, ring: tuple[OlderKey, ...] = ()
) -> bytes:
    """The bytes of a keys object, all numbers little-endian:

        magic "NBDSTORE" 8 | format version u16 | kind u8 = 1 | store id 16 | own number u64 | slots u8
        each slot: number u16 | function u8 = 1 (Argon2id, version 0x13) | memory in KiB u32 | passes u32
                   lanes u8 | salt 16 | created u64 (s) | check value 32
                   sealed data key: nonce 24, ciphertext 32, tag 16 | sealed label: the same
        if the data key was rotated: key id u8 | older keys u8
        each older key: key id u8 | nonce 24, ciphertext 32, tag 16
        seal 32 | checksum 32

    A slot keeps its number when its password changes. Invalid: the slots together cost more than anybody
    would read.
    """
    if not 1 <= len(slots) <= SLOTS_MAX:
        raise BrokenInvariant(f"a keys object of {len(slots)} slots would open with no password, or not be read")
    refusal = _refusal([slot.cost for slot in slots], memory_kib_min)
    if refusal:
        raise Invalid(refusal)
    sealed = _SLOTS_HEADER.pack(MAGIC, KEYS_VERSION, KIND_KEYS, data_key.store_id, number, len(slots))
    for slot in slots:
        cost = slot.cost
        sealed += _SLOT.pack(
            slot.number,
            _ARGON2ID,
            cost.memory_kib,
            cost.passes,
            cost.lanes,
            slot.salt,
            slot.created,
            slot.check,
            slot.wrapped,
            slot.sealed_label,
        )
    sealed += pack_ring(data_key.key_id, ring)
    body = sealed + _seal(data_key, sealed)
    return body + sha256(body).digest()


def decode(data: bytes, number: int, memory_kib_min: int) -> KeysObject:
    """The content of keys object `number`. Corrupt or Unsupported for whatever this program did not write."""
    name = keys_name(number)
    if len(data) < _SLOTS_HEADER.size + SEAL_BYTES + CHECKSUM_BYTES:
        raise Corrupt(name, f"its {len(data)} bytes are too few")
    magic, version, kind, store_id, own_number, count = _SLOTS_HEADER.unpack_from(data)
    if magic != MAGIC:
        raise Corrupt(name, "it does not begin like an object of a store")
    if version != KEYS_VERSION:
        raise Unsupported(f"{name} has format {version}; this program knows {KEYS_VERSION}: use a newer one")
    body = data[:-CHECKSUM_BYTES]
    if sha256(body).digest() != data[-CHECKSUM_BYTES:]:
        raise Corrupt(name, "its checksum does not fit")
    if kind != KIND_KEYS or own_number != number:
        raise Corrupt(name, f"it was written as object {own_number} of kind {kind}")
    sealed, seal = body[:-SEAL_BYTES], body[-SEAL_BYTES:]
    end = _SLOTS_HEADER.size + count * _SLOT.size
    if not 1 <= count <= SLOTS_MAX or len(sealed) < end:
        raise Corrupt(name, f"{count} slots in {len(data)} bytes make no sense")
    slots = tuple(_decode_slot(name, fields) for fields in _SLOT.iter_unpack(sealed[_SLOTS_HEADER.size : end]))
    key_id, ring = unpack_ring(name, sealed[end:])
    if len({slot.number for slot in slots}) != count:
        raise Corrupt(name, "two slots have the same number")
    refusal = _refusal([slot.cost for slot in slots], memory_kib_min)
    if refusal:
        raise Unsupported(f"{name}: {refusal}")
    return KeysObject(store_id, number, slots, sealed, seal, key_id, ring)


def _decode_slot(name: str, fields: tuple[int, int, int, int, int, bytes, int, bytes, bytes, bytes]) -> Slot:
    number, function, memory_kib, passes, lanes, salt, created, check, wrapped, label = fields
    if function != _ARGON2ID:
        raise Unsupported(f"{name}: slot {number} needs a password function this program does not know")
    cost = Cost(memory_kib=memory_kib, passes=passes, lanes=lanes)
    return Slot(number, cost, salt, created, check, wrapped, label)


def _refusal(costs: Iterable[Cost], memory_kib_min: int) -> str | None:
    """Why these costs, of all slots of one object, are out of bounds; None if they are not."""
    work_kib = 0
    for cost in costs:
        if not memory_kib_min <= cost.memory_kib <= MEMORY_KIB_MAX:
            return f"Argon2id memory must be {memory_kib_min} to {MEMORY_KIB_MAX} KiB, not {cost.memory_kib}"
        if not 1 <= cost.passes <= PASSES_MAX or not 1 <= cost.lanes <= LANES_MAX:
            return (
                f"Argon2id takes 1 to {PASSES_MAX} passes and 1 to {LANES_MAX} lanes, "
                f"not {cost.passes} and {cost.lanes}"
            )
        work_kib += cost.work_kib
    if work_kib > WORK_KIB_MAX:
        return f"Argon2id memory times passes is {work_kib} KiB over all slots; at most {WORK_KIB_MAX}"
    return None


def _seal(data_key: DataKey, sealed: bytes) -> bytes:
    return hmac.digest(data_key.purpose("keys object"), sealed, "sha256")


def _stretch(password: Password, salt: bytes, cost: Cost) -> tuple[bytes, Secret]:
    """(check value, wrap key) of a password. Takes as long as the cost says; releases the interpreter lock.

    Through the raw context, because the ordinary call copies the password into memory nobody clears.
    """
    kek = Secret(KEY_BYTES)
    secret, out = ffi.from_buffer("uint8_t[]", password), ffi.from_buffer("uint8_t[]", kek)
    salted = ffi.from_buffer("uint8_t[]", salt)
    fields = {
        "out": out,
        "outlen": len(kek),
        "pwd": secret,
        "pwdlen": len(password),
        "salt": salted,
        "saltlen": len(salt),
        "t_cost": cost.passes,
        "m_cost": cost.memory_kib,
        "lanes": cost.lanes,
        "threads": cost.lanes,
        "version": ARGON2_VERSION,
    }
    status = core(ffi.new("argon2_context *", fields), Type.ID.value)
    if status != 0:
        raise Unsupported(
            f"this host cannot do Argon2id with {cost.memory_kib // 1024} MiB of memory "
            f"and {cost.lanes} threads: {error_to_str(status)}"
        )
    hkdf = HKDF(SHA256(), length=CHECK_BYTES + KEY_BYTES, salt=None, info=b"nbdserver 1 key slot")
    both = hkdf.derive(kek)
    kek.wipe()
    return both[:CHECK_BYTES], Secret(both[CHECK_BYTES:])
