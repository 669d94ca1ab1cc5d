"""This file knows how manifests are read and committed.

A commit creates the next number and nothing else; whoever finds that number taken by other bytes is superseded and
stops. After each commit, before anything is deleted on its strength, the list above it is looked at: anything there,
stop. Take-over manifests are never deleted, since a stalled writer must collide with one for ever; of the others the
newest 16 stay.
"""

import asyncio
from dataclasses import dataclass

from storage.crypto import PREFIX_BYTES, Cipher
from storage.env import Env
from storage.errors import Fenced, NotFound, Unavailable
from storage.lsm.envelope import NO_LINK, Header, ObjectKind, open_object, seal_object
from storage.lsm.listing import list_manifests
from storage.lsm.manifest import EMPTY, Manifest, check_successor, decode, encode
from storage.lsm.names import manifest_name
from storage.lsm.settle import Taken, create_or_settle, pauses
from storage.lsm.sizes import MANIFEST_BYTES_MAX
from storage.objects.base import ObjectStore

MANIFESTS_KEPT = 16

SUPERSEDED = "another server has taken over this store: this one acknowledges nothing more and stops"


@dataclass(frozen=True, slots=True)
class SealedManifest:
    """A manifest as it would lie in the store; `tag` identifies it."""

    number: int
    manifest: Manifest
    content: bytes
    tag: bytes


class Manifests:
    """The newest manifest of one store, and the way to the next one."""

    def __init__(self, *, store: ObjectStore, cipher: Cipher, store_id: bytes, env: Env) -> None:
        self._store = store
        self._cipher = cipher
        self._store_id = store_id
        self._env = env
        self._committing = asyncio.Lock()
        self._listed: list[int] = []
        """Numbers that exist, as far as this process knows, ascending."""
        self.number = 0
        self.manifest = EMPTY
        self.tag = NO_LINK

    def use(self, store: ObjectStore) -> None:
        """From now on speak to the same store through `store` (opening has a deadline, running has none)."""
        self._store = store

    async def read_newest(self) -> None:
        """Load the newest manifest; number 0 and EMPTY if there is none.

        Unavailable: each one that is listed is gone when it is read, again and again.
        """
        for pause in pauses():
            await asyncio.sleep(pause)
            listed = list(await list_manifests(self._store))
            number = max(listed, default=0)
            # A listing may be old; the next number tells.
            while await self._exists(number + 1):
                number += 1
            try:
                raw = await self._store.get(manifest_name(number), limit=MANIFEST_BYTES_MAX) if number else b""
            except NotFound:
                continue
            self._listed = listed
            self.number, self.manifest, self.tag = number, EMPTY, NO_LINK
            if number:
                self.manifest, self.tag = self._open(number, raw)
            return
        raise Unavailable(f"{self._store.url} lists manifests that are gone when they are read")

    async def _exists(self, number: int) -> bool:
        try:
            await self._store.head(manifest_name(number))
        except NotFound:
            return False
        return True

    def _open(self, number: int, raw: bytes) -> tuple[Manifest, bytes]:
        name = manifest_name(number)
        _, body, tag = open_object(
            self._cipher, name, raw, store_id=self._store_id, kinds=(ObjectKind.MANIFEST,), number=number
        )
        return decode(name, body), tag

    async def commit(self, manifest: Manifest) -> None:
        """Make `manifest` the next one. Fenced if another writer has that number."""
        async with self._committing:
            if not await self.create(self.seal(manifest)):
                raise Fenced(SUPERSEDED)
            await self.look_for_newer()

    def seal(self, manifest: Manifest) -> SealedManifest:
        """The bytes of the next manifest, bound to its number."""
        check_successor(self.manifest, manifest)
        number = self.number + 1
        header = Header(
            kind=ObjectKind.MANIFEST,
            epoch=manifest.epoch,
            store_id=self._store_id,
            nonce=self._env.random_bytes(PREFIX_BYTES),
            number=number,
            link=self.tag,
            acknowledged=manifest.acknowledged,
        )
        content, tag = seal_object(self._cipher, header, encode(manifest))
        return SealedManifest(number, manifest, content, tag)

    async def create(self, sealed: SealedManifest) -> bool:
        """Create the next manifest; False if other bytes have that number."""
        assert sealed.number == self.number + 1
        try:
            await create_or_settle(
                self._store, manifest_name(sealed.number), sealed.content, on_gone=self.look_for_newer
            )
        except Taken:
            return False
        self.number, self.manifest, self.tag = sealed.number, sealed.manifest, sealed.tag
        self._listed.append(sealed.number)
        return True

    async def look_for_newer(self) -> None:
        """Fenced if any manifest has a number above ours."""
        if await list_manifests(self._store, above=self.number):
            raise Fenced(SUPERSEDED)

    async def probe_newer(self) -> None:
        """The same by one HEAD of the next number; a commit of our own under way is not somebody else's."""
        number = self.number
        if self._committing.locked():
            return
        if await self._exists(number + 1) and self.number == number and not self._committing.locked():
            raise Fenced(SUPERSEDED)

    async def delete_old(self) -> None:
        """Delete the manifests that are neither among the newest 16 nor a take-over."""
        kept = set(self.manifest.takeovers)
        doomed = [n for n in self._listed if n <= self.number - MANIFESTS_KEPT and n not in kept]
        if doomed:
            await self._store.delete([manifest_name(number) for number in doomed])
            self._listed = [number for number in self._listed if number not in set(doomed)]
