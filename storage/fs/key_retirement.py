"""The end of a rotation of the data key: the older keys leave when nothing of the store is sealed under them any more.

Compaction seals the SSTs and the checkpoint anew (`storage.lsm.compaction.plan`), a flush the tree of names and what
the log holds. All of that lies in the store alone, so a crash at any moment loses nothing: the next writer finds what
is left, by the key ids in its manifest, and goes on.

    1. a flush moves the replay point past all that earlier writers logged       (crash: as after any flush)
    2. wait until no object that the newest manifest names is of an older key    (compaction's own commits)
    3. who was attached is kept anew                                             (crash: two records, the newer counts)
       manifests and the log from before are deleted          (crash: what is left is deleted by the next writer's step)
    4. wait until nothing of an older key lies there, but fences and take-overs, which stay for their names alone
    5. the keys object without the older keys   (crash before it: the ring stays, and the next writer does the same;
                                                 behind it: it counts, the next start deletes the one before it)
    6. a manifest that knows its number                       (crash before it: the next writer's take-over says it)

What the newest manifest does not name may be of an older key only if it was made before this writer took the store;
and whoever takes it from this one reads this one's manifests, for which it needs the newest key. So what was true in 2
stays true, also of a writer that is superseded and does not know it yet.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from dataclasses import dataclass

from storage.bucket.listing import list_log, list_manifests, list_spare_manifests, list_ssts
from storage.crypto import key_rotation
from storage.crypto.keys_change import OldKeysLeft
from storage.crypto.keyslots import Cost
from storage.crypto.spare_keys import spare_keys_name
from storage.env import Env, epoch_of
from storage.errors import Closed, Conflict, Corrupt, Fenced, NotFound, StorageError
from storage.format.envelope import HEADER_BYTES, ObjectKind, decode_header
from storage.format.names import WRITERS, manifest_name, sign_epoch, spare_manifest_name, sst_name, wal_name
from storage.format.wal import WINDOW
from storage.fs.status import RotationStatus
from storage.fs.succession.stored_attachments import StoredAttachments
from storage.lsm.engine import Engine
from storage.lsm.recovery.completeness import named_by
from storage.objects.retry import RetryingStore

ROTATION_LOOK_SECONDS = 2.0
"""Between two looks at what is left in the manifest, at most: it is in memory."""

LIST_SECONDS_MAX = 60.0
"""Between two listings, doubling, where something that is to be deleted is there still."""

_ANY_KIND = tuple(ObjectKind)
_log = logging.getLogger("nbdserver")


@dataclass(frozen=True, slots=True)
class RotationLeft:
    """What of the newest manifest, and of the log, is sealed under older data keys."""

    objects: int
    size: int
    """In bytes."""


def left_of_rotation(engine: Engine) -> RotationLeft:
    """Of an open store, as it is now; of a terabyte a millisecond."""
    newest = engine.key.key_id
    manifest, listed = engine.manifests.manifest, engine.manifests.listed()
    older = listed.key_id != newest
    others = [ref for ref in (manifest.tree, manifest.checkpoint) if ref is not None and ref.key_id != newest]
    size = int(listed.size[older].sum()) + sum(ref.size for ref in others)
    # From `rekeyed` on all of the log is under the key of the manifest.
    log_is_newest = engine.manifests.key_id == newest and manifest.rekeyed is not None
    log = int(bool(engine.key.older) and not (log_is_newest and manifest.replay >= (manifest.rekeyed or 0)))
    return RotationLeft(int(older.sum()) + len(others) + log, size)


class KeyRetirement:
    """Ends the rotation of the data key of one writer; in a process that only reads it tells what is left. Owned by the
    event loop.
    """

    def __init__(
        self, engine: Engine, objects: RetryingStore, env: Env, cost: Cost, on_new_keys: Callable[[], None]
    ) -> None:
        """`on_new_keys` is called when the keys object without the older keys is there."""
        self._engine = engine
        self._objects = objects
        self._env = env
        self._cost = cost
        self._on_new_keys = on_new_keys
        self._waits_for = ""
        """What is left when all that counts is sealed anew, for people."""
        self._look_seconds = min(ROTATION_LOOK_SECONDS, engine.options.maintenance.look_seconds)
        self._list_seconds = self._look_seconds
        self._is_done = False

    def status(self) -> RotationStatus | None:
        """How far it is; None: no key is rotated."""
        key = self._engine.key
        if not key.older or self._is_done:
            return None
        left = left_of_rotation(self._engine)
        waits_for = "" if left.objects else self._waits_for
        return RotationStatus(key.key_id, [each.key_id for each in key.older], left.objects, left.size, waits_for)

    def start(self) -> None:
        """Begin, if a rotation is under way; the engine ends it with itself."""
        if self._engine.key.older:
            self._engine.background.start("rotation of the data key", self.run, on_failure=self._engine.fail)

    async def run(self) -> None:
        """Go on until the older keys are gone."""
        while True:
            try:
                pause = await self.step()
            except (Fenced, Closed):
                raise
            except StorageError as error:
                self._waits_for, pause = str(error), self._longer()
            if pause is None:
                return
            await asyncio.sleep(pause)

    async def step(self) -> float | None:
        """The next step, if it can be taken now; for so many seconds there is none. None: all is done."""
        engine = self._engine
        if engine.manifests.manifest.replay <= engine.log_end:
            await engine.flush_memtable(always=True)
        if left_of_rotation(engine).objects:
            return self._look_seconds
        await StoredAttachments(self._objects, engine.key, self._env, engine.failed).reseal()
        await self._delete_manifests()
        await self._delete_log()
        await self._delete_signs()
        await engine.garbage.delete_now()
        found = await self._lying()
        if not found:
            return await self._retire()
        # Deletions that the store refuses, and what is newer than the log: somebody copies into this store.
        refused = engine.garbage.failing
        why = "" if refused is None else f", which the store refuses: {refused.reason}"
        self._waits_for = f"{len(found)} objects that are to be deleted, such as {found[0]}{why}"
        return self._longer()

    def _longer(self) -> float:
        """How long to wait for what somebody else is to mend."""
        pause, self._list_seconds = self._list_seconds, min(2 * self._list_seconds, LIST_SECONDS_MAX)
        return pause

    async def _retire(self) -> float | None:
        engine = self._engine
        try:
            number = await key_rotation.retire(self._objects, engine.key, self._cost)
        except Conflict:
            return self._look_seconds  # a change of passwords came first
        except OldKeysLeft as error:
            engine.garbage.add([error.name, spare_keys_name(error.number - 1)])
            number = error.number
        if number is None:
            # What is written under this one the next writer seals anew too.
            self._waits_for = "nbdserver restart, since the data key was rotated once more"
            return None
        engine.keys_are(number)
        self._is_done = True
        self._on_new_keys()  # the store may have taken no copy of them
        await engine.flush_memtable(always=True)
        _log.info("key_rotated", extra={"key": engine.key.key_id, "keys_object": number})
        return None

    async def _delete_manifests(self) -> None:
        """Those from before this writer but for take-overs, also such as landed late: nobody asks for them any more."""
        kept = self._engine.manifests.manifest.takeovers
        old = [number for number in await list_manifests(self._objects) if number < kept[-1] and number not in kept]
        self._engine.garbage.add(map(manifest_name, old))

    async def _delete_log(self) -> None:
        """What a crash kept an earlier writer from deleting: the newest manifest holds what that said."""
        manifest = self._engine.manifests.manifest
        old = [number for number in await list_log(self._objects) if number < manifest.replay]
        self._engine.garbage.add(wal_name(number) for number in old if number not in manifest.fences)

    async def _delete_signs(self) -> None:
        """Those of earlier writers, which nobody asks for."""
        names = [info.name for info in await self._objects.list(WRITERS)]
        old = [name for name in names if (epoch := sign_epoch(name)) is not None and epoch < self._engine.epoch]
        if old:
            await self._objects.once().delete(old)

    async def _lying(self) -> list[str]:
        """The objects that an older key sealed and that are there still, but fences and take-overs."""
        engine, store = self._engine, self._objects
        manifest, named = engine.manifests.manifest, named_by(engine.manifests)
        below = manifest.takeovers[-1]
        found = [
            manifest_name(number)
            for number in await list_manifests(store)
            if number < below and number not in manifest.takeovers
        ]
        found += [spare_manifest_name(number) for number in await list_spare_manifests(store) if number < below]
        log = await list_log(store)
        # Behind the fence lies what earlier writers had on its way.
        ended = engine.log_end + WINDOW
        found += [wal_name(number) for number in log if number < ended and number not in manifest.fences]
        for sst in await list_ssts(store):
            if sst not in named and epoch_of(sst) < engine.epoch and await self._is_older(sst):
                found.append(sst_name(sst))
        return found

    async def _is_older(self, sst: str) -> bool:
        """Whether an older key sealed what nothing names. What this writer has let go is deleted once more if it landed
        late, and so is what a crash left, if the log it was made beside is in the newest manifest: two of the three
        rules of the sweep (`storage.lsm.gc.sweep`). Its day, in which somebody may notice that the store is not all
        there, is not needed: all that the manifest named has been read to be sealed anew. What a read may still ask for
        is left to maintenance, which deletes it behind that.
        """
        engine, name = self._engine, sst_name(sst)
        try:
            raw = await self._objects.get(name, 0, HEADER_BYTES)
            header = decode_header(name, raw, store_id=engine.key.store_id, kinds=_ANY_KIND)
        except (NotFound, Corrupt):
            return False  # gone, or nothing that this store's writers made
        if header.key_id == engine.key.key_id:
            return False
        let_go = name in engine.source.older or header.acknowledged <= engine.log_end
        if let_go and not engine.compactor.may_be_read(sst):
            engine.garbage.add([name])
        return True
