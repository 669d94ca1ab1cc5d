"""Manifests of a store: read, committed, watched for a newer writer, and which of them are garbage.

A commit creates the next number and nothing else; whoever finds that number taken by other bytes is superseded and
stops. After each commit, before anything is deleted on its strength, the list above it is looked at: anything there,
stop. Take-over manifests are never deleted, since a stalled writer must collide with one for ever; of the others the
newest 16 stay.
"""

import asyncio
from contextlib import suppress
from dataclasses import dataclass

from storage.bucket.create_once import Taken, create_once, pauses
from storage.bucket.listing import list_manifests
from storage.bucket.missing import get_despite_missing
from storage.bucket.whole import read_whole
from storage.crypto.cipher import PREFIX_BYTES, Cipher
from storage.env import Env
from storage.errors import BrokenInvariant, Corrupt, Fenced, NotFound, Unavailable
from storage.format.blocks import SstRef
from storage.format.checkpoint import Trailer, open_trailer
from storage.format.envelope import NO_LINK, Header, ObjectKind, open_object, seal_object
from storage.format.manifest import EMPTY, Manifest, check_successor, check_table, decode, encode, merged
from storage.format.names import manifest_name, sst_name
from storage.format.sizes import MANIFEST_BYTES_MAX
from storage.format.sst_list import NO_SSTS, SstList
from storage.lsm.options import EngineOptions
from storage.objects.base import ObjectStore

_KINDS = (ObjectKind.MANIFEST,)


@dataclass(frozen=True, slots=True)
class SealedManifest:
    """A manifest as it would lie in the store; `tag` identifies it."""

    number: int
    manifest: Manifest
    content: bytes
    tag: bytes


class _Newer(Exception):
    """There is a newer manifest than the one that is being read."""


class Manifests:
    """The newest manifest of one store, and the way to the next one."""

    def __init__(
        self,
        *,
        store: ObjectStore,
        cipher: Cipher,
        checkpoint_cipher: Cipher,
        store_id: bytes,
        env: Env,
        options: EngineOptions,
    ) -> None:
        self._store = store
        self._manifests_kept = options.manifests_kept
        self._part_bytes = options.part_bytes
        self._cipher = cipher
        self._checkpoint_cipher = checkpoint_cipher
        self._store_id = store_id
        self._env = env
        self._committing = asyncio.Lock()
        self._listed: list[int] = []
        """Numbers that exist, as far as this process knows, ascending."""
        self.number = 0
        self.manifest = EMPTY
        self.tag = NO_LINK
        self.trailer: tuple[Header, Trailer] | None = None
        """Header and trailer of the manifest's checkpoint, as it was read when the store was opened."""
        self.merged_ssts = NO_SSTS
        """The SSTs whose rows the checkpoint of the newest manifest holds."""
        self.sole_at: float | None = None
        """When this was the newest manifest of all, by the monotonic clock: the last look that would have found the
        manifest of another writer, and found none, began then. None: nobody has looked."""

    def use(self, store: ObjectStore) -> None:
        """From now on speak to the same store through `store` (opening has a deadline, running has none)."""
        self._store = store

    async def read_newest(self) -> None:
        """Load the newest manifest; number 0 and EMPTY if there is none.

        Unavailable: each one that is listed is gone when it is read, again and again.
        """
        for pause in pauses():
            await asyncio.sleep(pause)
            listed = await list_manifests(self._store)
            number = max(listed, default=0)
            size = listed[number].size if number else 0
            try:
                number, (manifest, tag) = await self._read_from(number, size)
            except NotFound:
                continue
            try:
                trailer = None if manifest.checkpoint is None else await self._read_trailer(manifest.checkpoint, number)
            except _Newer:
                continue
            self._listed = list(listed)
            self.number, self.manifest, self.tag = number, manifest, tag
            self.trailer = trailer
            self.merged_ssts = NO_SSTS if trailer is None else trailer[1].ssts
            return
        raise Unavailable(f"{self._store.url} lists manifests that are gone when they are read")

    async def _read_from(self, number: int, size: int) -> tuple[int, tuple[Manifest, bytes]]:
        """The newest manifest and its number, which is `number` or above: a listing may be old, and the next number
        tells. That is asked for while this one is read.
        """
        while True:
            reading = asyncio.ensure_future(self._read(number, size))
            try:
                found = await self._size(number + 1)
                if found is None:
                    return number, await reading
            finally:
                reading.cancel()
                await asyncio.gather(reading, return_exceptions=True)
            number, size = number + 1, found

    async def _size(self, number: int) -> int | None:
        """Bytes of a manifest; None if it is not there."""
        try:
            return (await self._store.head(manifest_name(number))).size
        except NotFound:
            return None

    async def _read_trailer(self, ref: SstRef, number: int) -> tuple[Header, Trailer]:
        """What a checkpoint says of itself. Corrupt: it is missing or damaged. _Newer: manifest `number`, which names
        it, is not the newest any more.
        """
        name = sst_name(ref.id)

        async def look() -> None:
            if await list_manifests(self._store, above=number):
                raise _Newer

        try:
            end = await get_despite_missing(
                self._store,
                lambda: self._store.get(name, ref.index_offset, ref.size - ref.index_offset),
                on_missing=look,
            )
        except NotFound:
            raise Corrupt(name, "it is missing, though the manifest names it") from None
        return await self._env.run(
            "codec", lambda: open_trailer(self._checkpoint_cipher, ref, end, store_id=self._store_id)
        )

    def listed(self) -> SstList:
        """All data SSTs that count: what any layer shows of the store lies in them or in the log. Those whose rows the
        checkpoint holds come first, in the order of its table; the manifest's own are the others.
        """
        return merged(self.manifest, self.merged_ssts).beside(SstList.of(self.manifest.ssts))

    def gone(self) -> list[SstRef]:
        """The data SSTs of the checkpoint's table that do not count any more: nothing refers to them, and they may have
        been deleted.
        """
        return [self.merged_ssts[position - 1] for position in self.manifest.gone]

    async def _read(self, number: int, size: int) -> tuple[Manifest, bytes]:
        if not number:
            return EMPTY, NO_LINK
        name = manifest_name(number)
        raw = await read_whole(
            self._store,
            name,
            size,
            limit=MANIFEST_BYTES_MAX,
            cipher=self._cipher,
            store_id=self._store_id,
            kinds=_KINDS,
            number=number,
            env=self._env,
        )

        def open_it() -> tuple[Manifest, bytes]:
            _, body, tag = open_object(self._cipher, name, raw, store_id=self._store_id, kinds=_KINDS, number=number)
            return decode(name, body), tag

        return await self._env.run("codec", open_it)

    @property
    def incarnation(self) -> bytes:
        """What this term of a writer is known by (see `Manifest.lineage`); nothing: there was none yet."""
        lineage = self.manifest.lineage
        return lineage[-1] if lineage else b""

    def is_unbroken_since(self, incarnation: bytes) -> bool:
        """Whether everything that was answered since that term began, flushed or not, is there."""
        return incarnation in self.manifest.lineage

    @property
    def is_broken(self) -> bool:
        """Whether something may be lost that was answered before this term."""
        return self.manifest.epoch > 1 and len(self.manifest.lineage) == 1

    async def commit(self, manifest: Manifest, *, table: SstList | None = None) -> None:
        """Make `manifest` the next one; `table` is that of its checkpoint, if that is a new one. Fenced if another
        writer has that number.
        """
        async with self._committing:
            if table is not None:
                check_table(self.manifest, self.merged_ssts, table)
            if not await self.create(await self.seal(manifest)):
                raise Fenced
            if table is not None:
                self.merged_ssts = table
            await self._look()

    async def seal(self, manifest: Manifest) -> SealedManifest:
        """The bytes of the next manifest, bound to its number: made in a thread, since it may list 100,000 SSTs."""
        old, number = self.manifest, self.number + 1
        header = Header(
            kind=ObjectKind.MANIFEST,
            epoch=manifest.epoch,
            store_id=self._store_id,
            nonce=self._env.random_bytes(PREFIX_BYTES),
            number=number,
            link=self.tag,
            acknowledged=manifest.acknowledged,
        )

        def seal() -> SealedManifest:
            check_successor(old, manifest)
            content, tag = seal_object(self._cipher, header, encode(manifest), self._part_bytes)
            return SealedManifest(number, manifest, content, tag)

        return await self._env.run("codec", seal)

    async def create(self, sealed: SealedManifest) -> bool:
        """Create the next manifest; False if other bytes have that number."""
        if sealed.number != self.number + 1:
            raise BrokenInvariant(
                f"manifest {sealed.number} was sealed to follow {sealed.number - 1} and not {self.number}: "
                "it would drop what came between them"
            )
        try:
            await create_once(self._store, manifest_name(sealed.number), sealed.content, on_gone=self._look)
        except Taken:
            return False
        self.number, self.manifest, self.tag = sealed.number, sealed.manifest, sealed.tag
        self._listed.append(sealed.number)
        return True

    async def look_for_newer(self) -> None:
        """Fenced if any manifest has a number above ours. A commit of our own under way may have landed, and is not
        somebody else's: its end is waited for.
        """
        async with self._committing:
            await self._look()

    async def _look(self) -> None:
        began = self._env.monotonic()
        if await list_manifests(self._store, above=self.number):
            raise Fenced
        self.sole_at = began

    async def probe_newer(self) -> None:
        """The same by one HEAD of the next number; a commit of our own under way is not somebody else's."""
        number, began = self.number, self._env.monotonic()
        if self._committing.locked():
            return
        if await self._size(number + 1) is None:
            self.sole_at = began
        elif self.number == number and not self._committing.locked():
            raise Fenced

    async def watch(self, seconds: float) -> None:
        """Look for a newer manifest every `seconds`, until there is one: Fenced."""
        while True:
            await asyncio.sleep(seconds)
            with suppress(Unavailable):
                await self.probe_newer()

    def take_old(self) -> list[str]:
        """The names of the manifests that are neither among the newest ones that stay nor a take-over: garbage, told
        once.
        """
        kept = set(self.manifest.takeovers)
        old = {n for n in self._listed if n <= self.number - self._manifests_kept and n not in kept}
        self._listed = [number for number in self._listed if number not in old]
        return [manifest_name(number) for number in sorted(old)]
