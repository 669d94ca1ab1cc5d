"""The data keys of a simulated store: one for ever; or, in worlds in which it is rotated, what the keys object in the
bucket holds, as in real stores, under a password that costs nothing.
"""

from collections.abc import Mapping
from functools import cache

from storage.crypto import keys
from storage.crypto.data_key import DataKey, with_ring
from storage.crypto.keyslots import Cost, decode, encode, keys_name, open_slot, seal_slot
from storage.crypto.spare_keys import spare_keys_name, spare_keys_number
from storage.secret import Secret

KEY = DataKey(store_id=bytes(range(16)), key=Secret(bytes(range(32))))
PASSWORD = b"the password of a simulated store"
COST = Cost.for_tests()


@cache
def first_keys() -> dict[str, bytes]:
    """The keys object that a store begins with, and its copy."""
    slot = seal_slot(KEY, 1, PASSWORD, COST, label=keys.FIRST_LABEL, salt=bytes(16), nonce=bytes(24), created=0)
    raw = encode(KEY, 1, (slot,), COST.memory_kib_min)
    return {keys_name(1): raw, spare_keys_name(1): raw}


def keys_in(objects: Mapping[str, bytes]) -> tuple[DataKey, int]:
    """The data key in force in a bucket, with its ring, and the number of its keys object: the one there is for ever,
    where it has none.
    """
    found = {number: raw for name, raw in objects.items() if (number := _number(name)) is not None}
    if not found:
        return KEY, 1
    number = max(found)
    return _opened(number, found[number]), number


def _number(name: str) -> int | None:
    return spare_keys_number(name.replace(keys.KEYS_PREFIX, "spare/", 1))


@cache
def _opened(number: int, raw: bytes) -> DataKey:
    content = decode(raw, number, COST.memory_kib_min)
    key = open_slot(content.slots[0], content.store_id, PASSWORD, content.key_id)
    assert key is not None
    return with_ring(key, content.ring)
