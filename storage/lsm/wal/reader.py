"""The log as an opener finds it: read up to its first gap, and checked. What closes it there is the `fence`.

A missing object is never the end of the log by itself: a gap below a number that anything (a WAL header, the
manifest, this host's anchor) knows to be acknowledged is a loss and an error. First a newer manifest is looked for: a
stale opener sees the same gap after a newer writer truncated the log, and is superseded, not damaged.

Objects are read before the fence as well as behind it: they are immutable, so what was read stays true.
"""

import asyncio

from storage.bucket.listing import list_log
from storage.bucket.missing import get_despite_missing
from storage.bucket.whole import BytesSemaphore, read_whole
from storage.crypto.cipher import Cipher
from storage.env import Env
from storage.errors import Corrupt, NotFound, StorageError, Unavailable
from storage.format.envelope import HEADER_BYTES, NO_LINK, ObjectKind, decode_header
from storage.format.names import MANIFESTS, wal_name
from storage.format.sizes import WAL_BYTES_MAX
from storage.format.wal import WINDOW
from storage.lsm.manifest.manifest_store import Manifests
from storage.lsm.options import EngineOptions
from storage.lsm.wal.log_object import WAL_KINDS, LogObject, Replay
from storage.objects.base import ObjectStore

RESUME = WINDOW
"""Behind a fence at f the log goes on at f + 16."""


class LogReader:
    """Reads the log of one store."""

    def __init__(
        self,
        *,
        store: ObjectStore,
        cipher: Cipher,
        store_id: bytes,
        env: Env,
        manifests: Manifests,
        options: EngineOptions,
    ) -> None:
        self._store = store
        self._reads_in_flight = options.log.reads_in_flight
        self._cipher = cipher
        self._store_id = store_id
        self._env = env
        self._manifests = manifests
        self._read: dict[int, LogObject] = {}
        self._room = BytesSemaphore()

    async def read_to_gap(self) -> Replay:
        """Walk the log from the manifest's replay point to its first free number, checking the chain of tags."""
        manifest = self._manifests.manifest
        start = manifest.replay
        listed = await list_log(self._store, above=start - 1)
        replay = Replay(end=start, tag=manifest.replay_tag)
        failed: dict[int, StorageError] = {}
        while True:  # Each turn goes on to a higher number that is there.
            wanted = [n for n in range(replay.end, replay.end + self._reads_in_flight) if n in listed]
            ahead = [n for n in wanted if n not in self._read]
            outcomes = await asyncio.gather(*(self._load_ahead(n, listed[n].size) for n in ahead))
            while replay.end in self._read:
                self._follow(replay, self._read[replay.end])
            failed |= {n: error for n, error in zip(ahead, outcomes, strict=True) if error is not None}
            if replay.end in failed:
                raise failed[replay.end]
            # The listing may be old, and show what is gone or not show what is there: the number itself tells.
            if replay.end in wanted or not await self._load(replay.end):
                break
        # What lies behind a fence and counts for nothing may be damaged, or withheld; beyond the end nothing may.
        for number in sorted(failed):
            if number > replay.end:
                raise failed[number]
        await self._check_end(replay, [n for n in listed if n > replay.end])
        return replay

    async def _load_ahead(self, number: int, size: int) -> StorageError | None:
        """`_load`, of an object that may turn out not to be wanted; gives why it cannot be read."""
        try:
            await self._load(number, size)
        except StorageError as error:
            return error
        return None

    async def _load(self, number: int, size: int | None = None) -> bool:
        """Read and check an object of `size` bytes, as listed; False if it is not there."""
        name = wal_name(number)
        try:
            if size is None:
                size = (await self._store.head(name)).size
            async with self._room.take(size):
                raw = await read_whole(
                    self._store,
                    name,
                    size,
                    limit=WAL_BYTES_MAX,
                    cipher=self._cipher,
                    store_id=self._store_id,
                    kinds=WAL_KINDS,
                    number=number,
                    env=self._env,
                )
                self._read[number] = await self._env.run(
                    "codec", lambda: LogObject.open(self._cipher, number, raw, store_id=self._store_id)
                )
        except NotFound:
            return False
        return True

    def _follow(self, replay: Replay, item: LogObject) -> None:
        if item.header.epoch < replay.epoch:
            raise Corrupt(wal_name(item.number), "it was written by an earlier writer than the object before it")
        self._check_key(replay, item)
        replay.epoch = item.header.epoch
        replay.last = item.number
        if item.header.kind is ObjectKind.FENCE:
            replay.fences.append(item.number)
            replay.epochs[item.number] = item.header.epoch
            replay.end = item.number + RESUME
            replay.tag = NO_LINK
            return
        if item.header.link != replay.tag:
            raise Corrupt(wal_name(item.number), "it does not follow the object before it: the log was tampered with")
        replay.objects.append(item)
        replay.end = item.number + 1
        replay.tag = item.tag

    def _check_key(self, replay: Replay, item: LogObject) -> None:
        """Corrupt: it is of an older data key than the log before it, or than the manifest says of its number. A writer
        has one key, takes the store only with one that opens what the writer before it sealed, and puts its fence
        before all else; what one with the older key has on its way lands below that, or where nobody reads it.
        """
        manifests = self._manifests
        rekeyed, key_id = manifests.manifest.rekeyed, item.header.key_id
        if rekeyed is not None and item.number >= rekeyed:
            replay.key_id = max(replay.key_id, manifests.key_id)
        if key_id < replay.key_id:
            raise Corrupt(
                wal_name(item.number),
                f"it is sealed under data key {key_id}, and the log before it under key {replay.key_id}: it was made "
                "by somebody who has an older key alone",
            )
        replay.key_id = key_id

    async def _check_end(self, replay: Replay, beyond: list[int]) -> None:
        """Corrupt if the first free number is known to have been acknowledged once, or a manifest to be missing."""
        if replay.epoch > self._manifests.manifest.epoch:
            # A writer's first manifest was there before anything else of it was.
            await self._manifests.look_for_newer()
            raise Corrupt(MANIFESTS, f"the log was written with epoch {replay.epoch}, and no manifest of that is there")
        known = self._manifests.manifest.acknowledged
        for item in replay.objects:
            known = max(known, item.header.acknowledged)
        # A writer has nothing on its way 16 or more above what it knows to have landed.
        known = max(known, max(beyond, default=0) - WINDOW)
        for number in sorted(beyond)[:WINDOW]:
            try:
                raw = await self._store.get(wal_name(number), 0, HEADER_BYTES)
            except NotFound:
                continue
            header = decode_header(wal_name(number), raw, store_id=self._store_id, kinds=WAL_KINDS)
            # A fence was put where its writer found the log to end: all below it were there.
            known = max(known, number if header.kind is ObjectKind.FENCE else header.acknowledged)
        await self.check_known(replay, known)

    async def check_known(self, replay: Replay, acknowledged: int) -> None:
        """Corrupt if the log ends below a number that was acknowledged; Fenced if a newer writer explains it."""
        if acknowledged >= replay.end:
            name = wal_name(replay.end)
            look = self._manifests.look_for_newer
            try:
                await get_despite_missing(self._store, lambda: self._store.head(name), on_missing=look)
            except NotFound:
                raise Corrupt(
                    name,
                    f"it is missing, and it was acknowledged (up to number {acknowledged}): the log lost writes",
                ) from None
            raise Unavailable(f"{self._store.url} said that {name} is not there, and now it is: open it again")
