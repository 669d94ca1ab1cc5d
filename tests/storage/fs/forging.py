"""What somebody makes who has the older data key of a store alone, and can write to the bucket."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import msgspec

from storage.crypto.cipher import PREFIX_BYTES
from storage.crypto.data_key import DataKey
from storage.crypto.keyslots import decode as decode_keys
from storage.crypto.keyslots import encode as encode_keys
from storage.crypto.keyslots import keys_name
from storage.crypto.spare_keys import spare_keys_name
from storage.format.envelope import NO_LINK, Header, ObjectKind, seal_object
from storage.format.manifest import encode
from storage.format.names import manifest_name, wal_name
from storage.fs.store import Store
from storage.lsm.engine import Engine
from storage.lsm.recovery.derived_ciphers import Ciphers
from storage.lsm.wal.reader import RESUME
from tests.storage.fs.rotating import KIND_AT, RotatedPlace, rotate


@dataclass(frozen=True)
class Forger:
    """Has seen all of a store, and has the older key."""

    place: RotatedPlace
    engine: Engine

    @property
    def key(self) -> DataKey:
        """The older key, which is that of an engine from before the rotation."""
        key = self.engine.key
        return DataKey(key.store_id, key.older[0].key) if key.older else key

    def make(self, kind: ObjectKind, number: int, body: bytes, link: bytes, epoch: int) -> bytes:
        header = Header(
            kind=kind,
            epoch=epoch,
            store_id=self.engine.key.store_id,
            nonce=bytes(PREFIX_BYTES),
            number=number,
            link=link,
        )
        ciphers = Ciphers.derive(self.key)
        cipher = ciphers.manifest if kind is ObjectKind.MANIFEST else ciphers.wal
        return seal_object(cipher, header, body, 1 << 16)[0]

    def manifest(self) -> Path:
        """The next one, which says what the newest does."""
        manifests = self.engine.manifests
        raw = self.make(
            ObjectKind.MANIFEST,
            manifests.number + 1,
            encode(manifests.manifest),
            manifests.tag,
            manifests.manifest.epoch,
        )
        path = self.place.folder / manifest_name(manifests.number + 1)
        path.write_bytes(raw)
        return path

    def end_of_log(self, epoch: int) -> Path:
        """An object of the log that follows on what is there, and says nothing."""
        manifest = self.engine.manifests.manifest
        last = max(path for path in (self.place.folder / "wal").iterdir() if path.suffix == ".sst")
        raw = last.read_bytes()
        is_fence = raw[KIND_AT] == ObjectKind.FENCE
        number = max(manifest.replay, int(last.stem) + (RESUME if is_fence else 1))
        link = manifest.replay_tag if number == manifest.replay else NO_LINK if is_fence else raw[-16:]
        path = self.place.folder / wal_name(number)
        path.write_bytes(self.make(ObjectKind.WAL, number, b"", link, epoch))
        return path

    def set_back(self, copied: Mapping[str, bytes], keys: int) -> None:
        """What he copied before the rotation in the place of all that is there, and above it: his own newest manifest,
        and the keys object of then, with the passwords of then, as number `keys`.
        """
        newest = max(
            int(path.stem) for path in (self.place.folder / "manifest").iterdir() if path.suffix == ".manifest"
        )
        for name in self.place.files():
            (self.place.folder / name).unlink()
        for name, raw in copied.items():
            if not name.startswith(("keys/", "spare/")):
                (self.place.folder / name).write_bytes(raw)
        (name,) = (name for name in copied if name.startswith("keys/"))
        then = decode_keys(copied[name], int(Path(name).stem), 0)
        for name in (keys_name(keys), spare_keys_name(keys)):
            (self.place.folder / name).write_bytes(encode_keys(self.key, keys, then.slots, 0))
        manifests = self.engine.manifests
        manifest = msgspec.structs.replace(manifests.manifest, keys=keys)
        body = encode(manifest)
        raw = self.make(ObjectKind.MANIFEST, newest + 1, body, manifests.tag, manifest.epoch)
        (self.place.folder / manifest_name(newest + 1)).write_bytes(raw)


async def in_the_midst(place: RotatedPlace) -> Store:
    """Sealed under both keys, and served under the newer one."""
    store = await place.make()
    await rotate(store)
    await store.close()
    place.look_seconds = 1e9
    store = await place.open()
    place.some(store)
    await store.flush()
    return store
