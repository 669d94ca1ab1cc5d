"""Manifests of a store: read, committed, watched for a newer writer, and which of them are garbage.

A commit creates the next number and nothing else; whoever finds that number taken by other bytes is superseded and
stops. After each commit, before anything is deleted on its strength, the list above it is looked at: anything there,
stop. Take-over manifests are never deleted, since a stalled writer must collide with one for ever; of the others the
newest 16 stay.

The newest manifest has a copy (`spare_copies`), which is read where its object is damaged or gone (`read_manifest`).
Whoever takes the store over puts one that is gone back first.
"""

import asyncio
import logging
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass

import msgspec
import numpy as np

from storage.bucket.create_once import Taken, create_once, pauses
from storage.bucket.listing import list_manifests, list_manifests_and_copies
from storage.bucket.missing import get_despite_missing
from storage.crypto.cipher import PREFIX_BYTES, Cipher
from storage.env import Env
from storage.errors import BrokenInvariant, Corrupt, Fenced, KeyChanged, NotFound, Unavailable, Unsupported
from storage.format.blocks import SstRef
from storage.format.checkpoint import Trailer, open_trailer
from storage.format.envelope import NO_LINK, Header, ObjectKind, seal_object
from storage.format.manifest import EMPTY, Manifest, check_successor, check_table, encode, merged
from storage.format.names import manifest_name, spare_manifest_name, sst_name
from storage.format.sizes import TRAILER_BYTES_MAX
from storage.format.sst_list import NO_SSTS, SstList
from storage.lsm.manifest.read_manifest import FoundManifest, FromCopy, ManifestReader, NewerManifest
from storage.lsm.options import EngineOptions
from storage.objects.base import ObjectStore

_log = logging.getLogger("nbdserver")


@dataclass(frozen=True, slots=True)
class SealedManifest:
    """A manifest as it would lie in the store; `tag` identifies it."""

    number: int
    manifest: Manifest
    content: bytes
    tag: bytes


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
        self.key_id = 0
        """Of the data key that the newest manifest is sealed under; 0: there is none."""
        self.trailer: tuple[Header, Trailer] | None = None
        """Header and trailer of the manifest's checkpoint, as it was read when the store was opened."""
        self.merged_ssts = NO_SSTS
        """The SSTs whose rows the checkpoint of the newest manifest holds."""
        self.sole_at: float | None = None
        """When this was the newest manifest of all, by the monotonic clock: the last look that would have found the
        manifest of another writer, and found none, began then. None: nobody has looked."""
        self.from_copy: FromCopy | None = None
        """Not None: the newest manifest was read from its copy."""
        self.copies: list[int] = []
        """Numbers of the copies that lay there when the newest manifest was read."""
        self.uncopied: SealedManifest | None = None
        """The newest manifest that this writer won, until it has a copy. A lost race leaves nothing here."""
        self.on_won: Callable[[], None] = lambda: None
        """Told when that is another one."""

    def use(self, store: ObjectStore) -> None:
        """From now on speak to the same store through `store` (opening has a deadline, running has none)."""
        self._store = store

    async def read_newest(self) -> None:
        """Load the newest manifest; number 0 and EMPTY if there is none.

        Unavailable: each one that is listed is gone when it is read, again and again. Corrupt: it cannot be opened, or
        only who has an older data key alone can have made it.
        """
        for pause in pauses():
            await asyncio.sleep(pause)
            listed, copies = await list_manifests_and_copies(self._store)
            number = max([*listed, *copies], default=0)
            try:
                number, found = await self._read_from(number, listed[number].size if number in listed else None)
                checkpoint = found.manifest.checkpoint
                trailer = None if checkpoint is None else await self._read_trailer(checkpoint, number)
                await self.reader().check_follows(number, found.key_id, [n for n in listed if n < number])
            except (NotFound, NewerManifest):
                continue
            self._listed, self.copies = list(listed), list(copies)
            self.number, self.manifest, self.tag, self.from_copy = number, found.manifest, found.tag, found.from_copy
            self.key_id = found.key_id
            self.trailer = trailer
            self.merged_ssts = NO_SSTS if trailer is None else trailer[1].ssts
            return
        raise Unavailable(f"{self._store.url} lists manifests that are gone when they are read")

    async def _read_from(self, number: int, size: int | None) -> tuple[int, FoundManifest]:
        """The newest manifest and its number, which is `number` or above: a listing may be old, and the next number
        tells. That is asked for while this one is read.
        """
        reader = self.reader()
        while True:
            reading = asyncio.ensure_future(reader.read(number, size))
            try:
                found = await reader.size(number + 1)
                if found is None:
                    return number, await reading
            finally:
                reading.cancel()
                await asyncio.gather(reading, return_exceptions=True)
            number, size = number + 1, found

    def reader(self) -> ManifestReader:
        """What reads single manifests of this store."""
        return ManifestReader(self._store, self._cipher, self._store_id, self._env)

    async def _size(self, number: int) -> int | None:
        return await self.reader().size(number)

    async def _read_trailer(self, ref: SstRef, number: int) -> tuple[Header, Trailer]:
        """What a checkpoint says of itself. Corrupt: it is missing or damaged. NewerManifest: manifest `number`, which
        names it, is not the newest any more.
        """
        name, length = sst_name(ref.id), ref.size - ref.index_offset
        try:
            end = await get_despite_missing(
                self._store,
                lambda: self._store.get(name, ref.index_offset, length, limit=TRAILER_BYTES_MAX),
                on_missing=lambda: self.reader().check_newest(number),
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

    def gone(self) -> SstList:
        """The data SSTs of the checkpoint's table that do not count any more: nothing refers to them, and they may have
        been deleted.
        """
        return self.merged_ssts.where(np.array(self.manifest.gone, np.int64) - 1)

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
            sealed = await self.seal(manifest)
            if not await self.create(sealed):
                raise Fenced
            if table is not None:
                self.merged_ssts = table
            await self._look()
            self.won(sealed)

    def won(self, sealed: SealedManifest) -> None:
        """This manifest is the newest, and its copy may be written."""
        self.uncopied = sealed
        self.on_won()

    async def check_copy(self, sealed: SealedManifest) -> None:
        """Fenced: what lies under the name of its copy is another manifest of that number. So another writer won the
        number before, and somebody deleted that manifest: the copy is all that is left of it.
        """
        try:
            found, _ = await self.reader().open(spare_manifest_name(sealed.number), sealed.number, None)
        except KeyChanged:
            raise Fenced from None  # only a writer that has a newer data key than this one made it
        except (Corrupt, Unsupported, NotFound):
            return
        if found.tag != sealed.tag:
            raise Fenced

    async def put_back(self) -> None:
        """If the newest manifest was gone, and read from its copy, it is there again under its own name: whoever had a
        PUT of that number on its way meets it, as if it had never been gone. Fenced: another one was quicker.

        A crash in here leaves it gone or there, and the copy as it was.
        """
        if self.from_copy is None or self.from_copy.missing is None:
            return
        name = manifest_name(self.number)
        try:
            await create_once(self._store, name, self.from_copy.missing, on_gone=self._look)
        except Taken:
            raise Fenced(f"another server wrote {name}, which was missing, at this very moment: try again") from None
        self.from_copy = None
        self._listed.append(self.number)
        _log.warning("manifest_put_back", extra={"object": name})

    async def seal(self, manifest: Manifest) -> SealedManifest:
        """The bytes of the next manifest, bound to its number: made in a thread, since it may list 100,000 SSTs."""
        old, number = self.manifest, self.number + 1
        if self.key_id not in (0, self._cipher.key_id):
            manifest = msgspec.structs.replace(manifest, rekeyed=None)
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
        self.number, self.manifest, self.tag, self.from_copy = sealed.number, sealed.manifest, sealed.tag, None
        self.key_id = self._cipher.key_id
        self._listed.append(sealed.number)
        return True

    def fenced_at(self, number: int) -> None:
        """This writer's fence has this number. From there on all of the log is under its key, which the next manifest
        says; until then what is sealed under the older one is refused behind what is not (`LogReader`).
        """
        if self.manifest.rekeyed is None:
            self.manifest = msgspec.structs.replace(self.manifest, rekeyed=number)

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
        """The same by one HEAD of the next number; a commit of our own under way is not somebody else's. What is there
        has to be listed too: a page that answers for any name must end no writer.
        """
        number, began = self.number, self._env.monotonic()
        if self._committing.locked():
            return
        if await self._size(number + 1) is None:
            self.sole_at = began
        elif self.number == number and not self._committing.locked():
            async with self._committing:
                if await list_manifests(self._store, above=self.number):
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
