"""One manifest of a store, read from under its own name, or from its copy where that object is damaged, withheld or
gone.

A copy counts exactly as if the object of that number lay in its place, and for nothing else: it must have that number,
and be sealed by a writer of this store. Where both are there and sound, the copy is not looked at.
"""

import asyncio
import logging
from collections.abc import Iterable
from dataclasses import dataclass, replace

from storage.bucket.listing import list_manifests, list_spare_manifests
from storage.bucket.missing import get_despite_missing
from storage.bucket.outage import REFUSALS
from storage.bucket.whole import read_whole
from storage.crypto.cipher import Cipher
from storage.env import Env
from storage.errors import Corrupt, KeyChanged, NotFound, StorageError, Unsupported
from storage.format.envelope import HEADER_BYTES, NO_LINK, ObjectKind, decode_header, open_object
from storage.format.manifest import EMPTY, Manifest, decode
from storage.format.names import manifest_name, spare_manifest_name
from storage.format.sizes import MANIFEST_BYTES_MAX
from storage.objects.base import ObjectStore

HEADERS_AT_ONCE = 32
"""Read of manifests from before the newest, where those are to be asked: a store has one for each start."""

_KINDS = (ObjectKind.MANIFEST,)

_log = logging.getLogger("nbdserver")


class NewerManifest(Exception):
    """There is a newer manifest than the one that is being read."""


@dataclass(frozen=True, slots=True)
class FromCopy:
    """Why a manifest was read from its copy, and the bytes of that if nothing lies under its own name."""

    reason: str
    missing: bytes | None


@dataclass(frozen=True, slots=True)
class FoundManifest:
    """A manifest as it was read."""

    manifest: Manifest
    tag: bytes
    from_copy: FromCopy | None = None
    key_id: int = 0
    """Of the data key that it is sealed under; 0: there is none."""


@dataclass(frozen=True, slots=True)
class NewestLook:
    """What was seen of the manifest that a reader shows."""

    is_newest: bool
    """None above it is there, nor a copy of one: that may be all that is left of it."""
    deleted: bool
    """It is not there."""
    copy_deleted: bool


@dataclass(frozen=True, slots=True)
class ManifestReader:
    """Reads the manifests of one store."""

    store: ObjectStore
    cipher: Cipher
    store_id: bytes
    env: Env

    async def size(self, number: int) -> int | None:
        """Bytes of a manifest; None if it is not there."""
        try:
            return (await self.store.head(manifest_name(number))).size
        except NotFound:
            return None

    async def copy_size(self, number: int) -> int | None:
        """Bytes of the copy of a manifest; None if there is none."""
        try:
            return (await self.store.head(spare_manifest_name(number))).size
        except NotFound:
            return None

    async def look(self, number: int) -> NewestLook:
        """Whether this is still the newest manifest."""
        listed, copy, copy_of_next = await asyncio.gather(
            list_manifests(self.store, above=max(number - 1, 0)), self.copy_size(number), self.copy_size(number + 1)
        )
        newest = max(listed, default=0) <= number and copy_of_next is None
        if newest and copy is None:
            # The copy goes when that of a newer one is there.
            newest = max(await list_spare_manifests(self.store), default=0) <= number
        return NewestLook(newest, number > 0 and number not in listed, number > 0 and copy is None)

    async def misfit(self, name: str, number: int, tag: bytes) -> tuple[bytes, str]:
        """What lies under this name, and what keeps it from being the manifest of that number and tag; else nothing."""
        try:
            found, raw = await self.open(name, number, None)
        except NotFound:
            return b"", "it is missing"
        except Corrupt as error:
            return b"", error.detail
        except Unsupported as error:
            return b"", str(error)
        return raw, "" if found.tag == tag else "it is another manifest"

    async def check_newest(self, number: int) -> None:
        """NewerManifest: there is one above this number, which explains what is missing of it."""
        if await list_manifests(self.store, above=number):
            raise NewerManifest

    async def check_follows(self, number: int, key_id: int, earlier: Iterable[int]) -> None:
        """Corrupt: manifest `number`, which is sealed under data key `key_id`, has one before it under a newer key.
        Whoever took the store from that one had to open it, and seals under no older key.

        One that lost proves nothing: the number of a deleted manifest is free, so the take-over of somebody who was
        slow may land there, below the newest, which he finds then, and goes.

        It costs something before the first take-over under a newer key alone: each header is read. One could be
        anybody's, so what it says is proved.
        """
        if key_id in (0, self.cipher.key_id):
            return
        room = asyncio.Semaphore(HEADERS_AT_ONCE)

        async def is_newer(other: int) -> bool:
            name = manifest_name(other)
            try:
                async with room:
                    raw = await self.store.get(name, 0, HEADER_BYTES)
                    header = decode_header(name, raw, store_id=self.store_id, kinds=_KINDS)
                    return header.key_id > key_id and await self._has_won(other)
            except (Corrupt, Unsupported, NotFound, *REFUSALS):
                return False  # one that cannot be read keeps no store from opening: it proves nothing

        others = sorted(earlier)
        newer = await asyncio.gather(*map(is_newer, others))
        if True in newer:
            raise Corrupt(
                manifest_name(number),
                f"it is sealed under data key {key_id}, and {manifest_name(others[newer.index(True)])} before it is "
                "under a newer key: it was made by somebody who has an older key alone; delete it and its copy",
            )

    async def _has_won(self, number: int) -> bool:
        """Whether a manifest that opens counted once: its writer made others before it, or copied it. Who takes a store
        copies the take-over once it has won, and not before.
        """
        manifest = (await self.open(manifest_name(number), number, None))[0].manifest
        return manifest.takeovers[-1:] != [number] or await self.copy_size(number) is not None

    async def read(self, number: int, size: int | None) -> FoundManifest:
        """A manifest of so many bytes, None: that is not known. NotFound: neither it nor its copy is there.
        NewerManifest: nor has it to be.

        What is withheld (`REFUSALS`) is there, if it has a size, so its number is taken as that of a damaged one is.
        Else nobody knows whether it has to be put back before anything rests on its copy.
        """
        if not number:
            return FoundManifest(EMPTY, NO_LINK)
        name = manifest_name(number)
        try:
            return (await self.open(name, number, size))[0]
        except (Corrupt, Unsupported) as error:
            return await self._read_copy(number, error)
        except REFUSALS as error:
            if size is None:
                raise
            return await self._read_copy(number, error)
        except NotFound:
            # Writers delete old ones, and their copies: only where there is no newer one it has to be here.
            await self.check_newest(number)
            await self.store.head(spare_manifest_name(number))
        try:
            again = await get_despite_missing(
                self.store, lambda: self.open(name, number, None), on_missing=lambda: self.check_newest(number)
            )
            return again[0]
        except (Corrupt, Unsupported, NotFound) as error:
            return await self._read_copy(number, error)

    async def _read_copy(self, number: int, error: StorageError) -> FoundManifest:
        """The copy of a manifest that does not open, for `error`. Corrupt, or that error: its copy does not either.
        NewerManifest: nor has it to.
        """
        name, copy = manifest_name(number), spare_manifest_name(number)
        missing = isinstance(error, NotFound)
        reason = "it is missing" if missing else error.detail if isinstance(error, Corrupt) else str(error)
        try:
            found, raw = await self.open(copy, number, None)
        except (Corrupt, Unsupported, NotFound, *REFUSALS) as second:
            if isinstance(error, Unsupported | KeyChanged):
                raise error from None
            if isinstance(second, REFUSALS) and not isinstance(second, Unsupported):
                raise error if isinstance(error, REFUSALS) else second from None
            await self.check_newest(number)  # its writer deletes a copy when the next one is there
            if isinstance(second, KeyChanged):
                raise
            if isinstance(error, REFUSALS):
                raise error from None
            is_gone = isinstance(second, NotFound)
            raise Corrupt(name, f"{reason}, and its copy {copy} is {'missing' if is_gone else 'damaged too'}") from None
        advice = "the next server that takes the store needs it no more; check the store"
        what = {"object": name, "copy": copy, "reason": reason, "advice": advice}
        _log.error("manifest_read_from_copy", extra=what)
        return replace(found, from_copy=FromCopy(reason, raw if missing else None))

    async def open(self, name: str, number: int, size: int | None) -> tuple[FoundManifest, bytes]:
        """What lies under this name, which has to be manifest `number`; and its bytes."""
        raw = await read_whole(
            self.store,
            name,
            (await self.store.head(name)).size if size is None else size,
            limit=MANIFEST_BYTES_MAX,
            cipher=self.cipher,
            store_id=self.store_id,
            kinds=_KINDS,
            number=number,
            env=self.env,
        )

        def open_it() -> FoundManifest:
            header, body, tag = open_object(self.cipher, name, raw, store_id=self.store_id, kinds=_KINDS, number=number)
            return FoundManifest(decode(name, body), tag, key_id=header.key_id)

        return await self.env.run("codec", open_it), raw
