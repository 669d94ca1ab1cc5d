"""Ownership: what ties a running writer to its host, its lock, its anchor, and the mark of what it acknowledged.

A writer without a host (a store in memory) has none of these, and everything here does nothing.
"""

from functools import partial

from storage.env import Env
from storage.lsm.manifest.manifest_store import Manifests
from storage.lsm.recovery.anchor import Anchor, HostState
from storage.lsm.recovery.locks import WriterLock
from storage.lsm.recovery.mark import Mark
from storage.lsm.wal.position import LogPosition


class Ownership:
    """One writer on its host, from the take-over to the end. Owned by the event loop."""

    def __init__(
        self,
        host: HostState | None,
        lock: WriterLock | None,
        env: Env,
        *,
        store_id: bytes,
        epoch: int,
        manifests: Manifests,
        position: LogPosition,
    ) -> None:
        self._host = host
        self._lock = lock
        self._env = env
        self._store_id = store_id
        self._epoch = epoch
        self._manifests = manifests
        self._position = position
        self._mark: Mark | None = None

    async def begin(self) -> None:
        """Remember the store as it was opened; from here on `note` is known to the host at once."""
        if self._host is not None:
            await self._env.run("store", self._host.save, self._anchor())
            self._mark = await self._env.run("store", self._host.mark, self._epoch)

    def note(self, number: int) -> None:
        """WAL object `number` is about to be acknowledged."""
        if self._mark is not None:
            self._mark.set(number)

    async def remember(self) -> None:
        """The log was truncated: save the anchor. A host that cannot knows less than it could, which is no reason to
        stop: the store is well.
        """
        if self._host is None:
            return
        await self._host.unsaved.attempt(self._env, "anchor", partial(self._host.save, self._anchor()))

    def _anchor(self) -> Anchor:
        """What this host is to remember of the store now."""
        return Anchor(
            store_id=self._store_id,
            manifest_number=self._manifests.number,
            manifest_tag=self._manifests.tag,
            epoch=self._epoch,
            wal_number=self._position.acknowledged,
            identity=self._manifests.manifest.identity,
            key_id=self._manifests.key_id,
        )

    async def leave(self) -> None:
        """The store was closed: nobody holds it any more."""
        if self._lock is not None:
            await self._env.run("store", self._lock.discard)

    def end(self) -> None:
        """Give everything back. Without `leave` before it, this host may take the store over again."""
        if self._mark is not None:
            self._mark.close()
        if self._lock is not None:
            self._lock.release()
