"""The record of who is attached to a writer, in the store: for a successor on another host.

Each change is an object of its own, created once and never written over, since a PUT that was given up may land late:
the highest epoch and number count. A record is there before anybody is answered who stands in it, and the one before it
goes after that, so that a crash anywhere leaves one that names all of them, or one more that the next writer deletes.
"""

import asyncio
from typing import Any

from storage.bucket.create_once import Taken, create_once, pauses
from storage.bucket.outage import REFUSALS
from storage.crypto.cipher import PREFIX_BYTES
from storage.crypto.data_key import DataKey
from storage.env import Env
from storage.errors import Corrupt, NotFound, StorageError, Unavailable
from storage.format.envelope import ObjectKind, decode_header
from storage.format.names import ATTACHED_ROOM_MAX, WRITERS, attached_name, attached_numbers
from storage.format.sign import WRITER_PURPOSE, open_attached, seal_attached
from storage.objects.retry import RetryingStore

OLDER_SECONDS_MAX = 2.0
"""How long a client that attaches may wait for the deletion of a record that counts no more."""


class StoredAttachments:
    """That of one store. Owned by the event loop."""

    def __init__(
        self, store: RetryingStore, key: DataKey, env: Env, failed: asyncio.Future[StorageError] | None = None
    ) -> None:
        """`failed` resolves when the writer can go on no more: then nobody waits for the store any longer."""
        self._store, self._once = store, store.once()
        self._failed = failed
        self._cipher = key.cipher(WRITER_PURPOSE)
        self._store_id = key.store_id
        self._env = env
        self._number = 0
        self._older: list[str] = []
        """What the next record takes the place of."""

    async def load(self) -> tuple[int, bytes] | None:
        """The newest record, and the epoch of the writer that kept it; None: there is none. Corrupt. Unavailable: one
        is listed that is not there, again and again.
        """
        for pause in pauses():
            await asyncio.sleep(pause)
            infos = await self._store.list(WRITERS)
            found = {numbers: info.name for info in infos if (numbers := attached_numbers(info.name)) is not None}
            self._older = list(found.values())
            self._number = max((number for _, number in found), default=0)  # a store that is set back repeats epochs
            if not found:
                return None
            for (_, number), name in found.items():
                if number > ATTACHED_ROOM_MAX:
                    raise Corrupt(name, "no writer gives such a number: somebody else made it; delete it")
            epoch, number = max(found)
            try:
                raw = await self._store.get(found[epoch, number])
            except NotFound:
                continue  # its writer has just put a newer one in its place
            return epoch, self._open(raw, epoch, number)
        raise Unavailable(f"{self._store.url} lists a record of clients that is not there")

    def _open(self, raw: bytes, epoch: int, number: int) -> bytes:
        try:
            return open_attached(self._cipher, raw, epoch, number, self._store_id)
        except Corrupt as error:
            raise Corrupt(
                error.object_name,
                f"{error.detail}; it says which clients the last server had, and nothing of the store rests on it. "
                "Detach those, delete it, and start again: else they may go on over writes that are lost",
            ) from None

    async def reseal(self) -> None:
        """Put the record that counts in place of itself if an older data key sealed it, and delete the others that one
        sealed. A crash behind the create leaves both, and the higher number counts. Unavailable: an earlier writer
        has just kept another one, which does not know yet that it is none any more.
        """
        infos = await self._store.list(WRITERS)
        found = {numbers: info.name for info in infos if (numbers := attached_numbers(info.name)) is not None}
        newest = max(found, default=None)
        old: list[str] = []
        for (epoch, number), name in sorted(found.items()):
            try:
                raw = await self._store.get(name)
            except NotFound:
                continue  # a newer one was put in its place
            header = decode_header(name, raw, store_id=self._store_id, kinds=(ObjectKind.ATTACHED,))
            if header.key_id == self._cipher.key_id:
                continue
            if (epoch, number) == newest:
                record, nonce = self._open(raw, epoch, number), self._env.random_bytes(PREFIX_BYTES)
                sealed = seal_attached(self._cipher, record, epoch, number + 1, self._store_id, nonce)
                try:
                    await create_once(self._store, attached_name(epoch, number + 1), sealed, on_gone=_nothing)
                except Taken:
                    raise Unavailable(f"who comes behind {name} was written at this very moment") from None
            old.append(name)
        if old:
            await self._once.delete(old)  # where deletions are denied, who waits for this is to say so

    async def keep(self, epoch: int, record: bytes) -> None:
        """Durable on return. What the writer has failed with, if it does meanwhile."""
        keeping = asyncio.ensure_future(self._keep(epoch, record))
        try:
            waited: set[asyncio.Future[Any]] = {keeping, *filter(None, (self._failed,))}
            await asyncio.wait(waited, return_when=asyncio.FIRST_COMPLETED)
            if self._failed is not None and not keeping.done():
                raise self._failed.result()
            keeping.result()
        finally:
            keeping.cancel()
            await asyncio.gather(keeping, return_exceptions=True)

    async def _keep(self, epoch: int, record: bytes) -> None:
        self._number += 1
        name, nonce = attached_name(epoch, self._number), self._env.random_bytes(PREFIX_BYTES)

        sealed = seal_attached(self._cipher, record, epoch, self._number, self._store_id, nonce)
        await create_once(self._store, name, sealed, on_gone=_nothing)
        self._older = [*await self._left(), name]

    async def _left(self) -> list[str]:
        """Delete what a record has taken the place of; gives what the store does not let go, which is tried again with
        the next one: no client waits for a deletion. A crash leaves it to the next writer.
        """
        try:
            async with asyncio.timeout(OLDER_SECONDS_MAX):
                await self._once.delete(self._older)
        except (TimeoutError, *REFUSALS):
            return self._older
        return []


async def _nothing() -> None:
    """Somebody deleted what was created: it is created again."""
