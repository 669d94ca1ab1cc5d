"""The ciphers of a store: one key per purpose, all derived from the data key; each opens what older keys sealed."""

from __future__ import annotations

from dataclasses import dataclass

from storage.crypto.cipher import Cipher
from storage.crypto.data_key import DataKey

PURPOSES = ("manifest", "wal", "index", "frames", "tree", "checkpoint")


@dataclass(frozen=True, slots=True)
class Ciphers:
    """One for each purpose: what seals objects of one kind opens no other."""

    manifest: Cipher
    wal: Cipher
    index: Cipher
    frames: Cipher
    tree: Cipher
    checkpoint: Cipher

    @staticmethod
    def derive(key: DataKey) -> Ciphers:
        """The ciphers of a store."""
        return Ciphers(*(key.cipher(name) for name in PURPOSES))
