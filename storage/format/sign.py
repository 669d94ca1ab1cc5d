"""What a writer leaves beside its store for the server that stands by: its sign of life, and who is attached. Pure.

Neither is a part of what the store holds: a store without any of them is whole. Both are objects like the others
(see `envelope`), sealed under a key of their own, so that nobody else can say that a writer lives.
"""

from enum import IntEnum

import msgspec

from storage.crypto.cipher import Cipher
from storage.errors import Corrupt
from storage.format.envelope import Header, ObjectKind, open_object, seal_object
from storage.format.names import attached_name, sign_name

WRITER_PURPOSE = "writer"
"""Of the key that they are sealed under."""

SIGN_BYTES_MAX = 1024
"""A longer one is none of ours."""


class Word(IntEnum):
    """What a writer says of itself; part of the format."""

    SERVES = 0
    HANDS_OVER = 1
    """It is stopped, and whoever stands by may have the store as soon as it is closed."""
    COMES_BACK = 2
    """It is stopped by a successor on its own host, which comes first."""


class Sign(msgspec.Struct, frozen=True, array_like=True):
    """One sign of life: its `count` in this term of its writer, the number of its newest manifest, and for how many
    milliseconds the next one may keep others waiting before that writer is taken for ended.
    """

    count: int
    manifest: int
    lease_milliseconds: int
    word: Word = Word.SERVES

    @property
    def lease_seconds(self) -> float:
        """The same in seconds."""
        return self.lease_milliseconds / 1000


def seal_sign(cipher: Cipher, sign: Sign, epoch: int, store_id: bytes, nonce: bytes) -> bytes:
    """A sign as it lies in the store, under `sign_name(epoch)`. `nonce` is 16 bytes never used before."""
    header = Header(ObjectKind.SIGN, epoch, store_id, nonce, number=epoch)
    return seal_object(cipher, header, msgspec.msgpack.encode(sign))[0]


def open_sign(cipher: Cipher, raw: bytes, epoch: int, store_id: bytes) -> Sign:
    """The sign of the writer of `epoch`. Corrupt: it is none."""
    name = sign_name(epoch)
    _, body, _ = open_object(cipher, name, raw, store_id=store_id, kinds=(ObjectKind.SIGN,), number=epoch)
    try:
        return msgspec.msgpack.decode(body, type=Sign)
    except msgspec.MsgspecError as error:
        raise Corrupt(name, str(error)) from error


def seal_attached(cipher: Cipher, record: bytes, epoch: int, number: int, store_id: bytes, nonce: bytes) -> bytes:
    """A record of clients, the one of that number by the writer of `epoch`."""
    header = Header(ObjectKind.ATTACHED, epoch, store_id, nonce, number=number)
    return seal_object(cipher, header, record)[0]


def open_attached(cipher: Cipher, raw: bytes, epoch: int, number: int, store_id: bytes) -> bytes:
    """The record. Corrupt: it is none, or another one's."""
    name, kinds = attached_name(epoch, number), (ObjectKind.ATTACHED,)
    header, body, _ = open_object(cipher, name, raw, store_id=store_id, kinds=kinds, number=number)
    if header.epoch != epoch:
        raise Corrupt(name, f"it is of epoch {header.epoch}")
    return body
