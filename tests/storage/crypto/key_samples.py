"""Passwords and the keys objects under them, for tests."""

from hashlib import sha256

from storage.buffers import Buffer
from storage.crypto.data_key import DataKey
from storage.crypto.keys import Cost
from storage.crypto.keyslots import Slot, seal_slot
from storage.objects.memory import MemoryStore

CHEAP = Cost.for_tests()
OLD, NEW, OTHER = b"correct horse", b"battery staple", b"a third one"
FIRST = "keys/00000000000000000001.keys"


async def names(store: MemoryStore) -> list[str]:
    """The names of all keys objects. No copy is there of another one."""
    found = [info.name for info in await store.list("")]
    own = [name for name in found if not name.startswith("spare/")]
    assert {name.replace("spare/", "keys/") for name in found if name not in own} <= set(own)
    return own


async def alone(store: MemoryStore) -> None:
    """The keys have no copy any more."""
    await store.delete([info.name for info in await store.list("spare/")])


# What follows was made by somebody who also repairs the checksum: where it can be known, it is damage.

HEADER_BYTES, SLOT_BYTES = 36, 212


def slot(data_key: DataKey, number: int, password: bytes) -> Slot:
    nonce = bytes([number]) * 24
    salt, label = bytes([number]) * 16, f"slot {number}"
    return seal_slot(data_key, number, password, CHEAP, label=label, salt=salt, nonce=nonce, created=1_700_000_000)


def with_checksum(body: Buffer) -> bytes:
    return bytes(body) + sha256(body).digest()
