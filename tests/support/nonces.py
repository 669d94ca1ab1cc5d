"""Every nonce that a store was ever sent, so that none is used twice: a repeat gives away plaintexts and the key that
authenticates them.

What counts is what was *sent*: a request that failed, or that nobody waited for, was seen by whoever runs the store. An
object is cut into what is sealed in it after docs/format.md; only the rows of an SST's index are taken from the engine,
and frames must lie side by side from the header to the index, so none can escape. (Of SSTs under another key than those
given, only the prefix is known.)
"""

import hashlib
import struct
from collections.abc import Iterator

from storage.crypto.cipher import NONCE_BYTES, Cipher
from storage.crypto.data_key import DataKey
from storage.format.blocks import EntryKind, SstRef
from storage.format.checkpoint import open_trailer
from storage.format.sst import open_index

HEADER_BYTES = 96
MAGIC = b"NBDSTORE"
KEY_ID_AT = 11
KEYS, DATA, CHECKPOINT = 1, 5, 7
"""Kinds of objects that are cut in another way."""

_LENGTH = struct.Struct("<I")


class NonceRepeated(AssertionError):
    """A nonce was used for two different things."""


class Nonces:
    """Of one store, or of all stores that one key was used for."""

    def __init__(self, key: DataKey) -> None:
        self._store_id = key.store_id
        self._ciphers: dict[int, tuple[Cipher, Cipher]] = {}
        """By the id of a data key, that of its indexes and that of its checkpoints."""
        self.knows(key)
        self._used: dict[bytes, tuple[bytes, str]] = {}
        """Prefix of an object, or nonce of something sealed, to a digest of what it was used for, and where."""

    def knows(self, key: DataKey) -> None:
        """The data key was rotated, and this is the newest."""
        self._ciphers[key.key_id] = key.cipher("index"), key.cipher("checkpoint")

    def __len__(self) -> int:
        return len(self._used)

    def sent(self, name: str, content: bytes) -> None:
        """An object is on its way to the store. NonceRepeated; an object that was sent before may be sent again."""
        if content[:8] != MAGIC or len(content) < HEADER_BYTES or content[10] == KEYS:
            return
        name = name.replace("spare/", "manifest/", 1)  # a copy is the same object once more
        self._use(content[32:48], name, content)
        for start, end in self._sealed(name, content):
            nonce = content[start : start + NONCE_BYTES]
            # A frame may be copied to another SST, as it is.
            self._use(nonce, "frames" if content[10] == DATA else f"{name} at {start}", content[start:end])

    def _use(self, nonce: bytes, where: str, content: bytes) -> None:
        digest = hashlib.blake2b(content, digest_size=16).digest()
        known, place = self._used.setdefault(nonce, (digest, where))
        if known != digest or place != where:
            raise NonceRepeated(f"the nonce {nonce.hex()} of {where} was used before, for {place}")

    def _sealed(self, name: str, content: bytes) -> Iterator[tuple[int, int]]:
        """Where everything sealed in an object begins and ends."""
        if content[10] in (DATA, CHECKPOINT) and content[KEY_ID_AT] not in self._ciphers:
            return
        if content[10] == DATA:
            if content[16:32] == self._store_id:
                yield from self._frames(name, content)
            return
        if content[10] == CHECKPOINT:
            yield from self._parts(name, content)
            return
        at = HEADER_BYTES
        while at < len(content):
            start = at + _LENGTH.size
            at = start + _LENGTH.unpack_from(content, at)[0]
            yield start, at

    def _parts(self, name: str, content: bytes) -> Iterator[tuple[int, int]]:
        offset = int.from_bytes(content[92:96], "little")
        ref = SstRef(
            name.rpartition("/")[2].removesuffix(".sst"), len(content), offset, content[-16:], 0, content[KEY_ID_AT]
        )
        _, cipher = self._ciphers[content[KEY_ID_AT]]
        _, trailer = open_trailer(cipher, ref, content[offset:], store_id=self._store_id)
        at = HEADER_BYTES
        for part in trailer.parts:
            assert part.offset == at, f"{name}: between {at} and {part.offset} lies what the trailer does not name"
            at += part.length
            yield part.offset, at
        assert at == offset, f"{name}: between {at} and {offset} lies what the trailer does not name"
        yield offset + HEADER_BYTES, len(content)

    def _frames(self, name: str, content: bytes) -> Iterator[tuple[int, int]]:
        index_offset = int.from_bytes(content[92:96], "little")
        sst, key_id = name.rpartition("/")[2].removesuffix(".sst"), content[KEY_ID_AT]
        table = SstRef(sst, len(content), index_offset, content[-16:], 0, key_id)
        index = open_index(self._ciphers[key_id][0], table, content[index_offset:], store_id=self._store_id)
        columns = (index.entries[column].tolist() for column in ("kind", "offset", "length"))
        frames = sorted(
            (offset, offset + length)
            for kind, offset, length in zip(*columns, strict=True)
            if kind in (EntryKind.FULL, EntryKind.PATCH)
        )
        at = HEADER_BYTES
        for start, end in frames:
            assert start == at, f"{name}: between {at} and {start} lies what no entry names"
            yield start, end
            at = end
        assert at == index_offset, f"{name}: between {at} and {index_offset} lies what no entry names"
        yield index_offset + HEADER_BYTES, len(content)
