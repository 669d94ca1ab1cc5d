"""The opening of a store: whose turn it is, what the store holds, and what the log adds to that.

A host takes a store over without being asked only if the last writer closed it, or was this host's own and is gone:
its lock file proves it. The anchor, this host's memory of the store, refuses a bucket that was emptied, exchanged or
rolled back.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import dataclass

import msgspec

from storage.bucket.create_once import pauses
from storage.bucket.missing import insist
from storage.crypto.cipher import Cipher
from storage.crypto.keys import DataKey
from storage.env import Env
from storage.errors import Corrupt, Fenced, NotFound, RolledBack, Unavailable
from storage.format.blocks import SstRef
from storage.format.envelope import ObjectKind, open_object
from storage.format.manifest import Manifest
from storage.format.names import sst_name
from storage.format.sizes import TREE_BYTES_MAX
from storage.lsm.index.block_map import BlockMap
from storage.lsm.index.build import add_rows
from storage.lsm.index.image import PlaceReader
from storage.lsm.index.load import load_checkpoint, moved_frames, read_indexes
from storage.lsm.index.sst_numbers import SstNumbers
from storage.lsm.manifest.manifest_store import Manifests
from storage.lsm.metadata import TreeState
from storage.lsm.recovery.anchor import Anchor, HostState
from storage.lsm.recovery.completeness import check_census, take_census
from storage.lsm.recovery.locks import LockHolder, WriterLock
from storage.lsm.wal.log_object import Replay
from storage.lsm.wal.reader import LogReader
from storage.objects.base import ObjectStore
from storage.trusted_files import user_name

PURPOSES = ("manifest", "wal", "index", "frames", "tree", "checkpoint")


@dataclass(frozen=True, slots=True)
class Ciphers:
    """One key per purpose, all derived from the data key."""

    manifest: Cipher
    wal: Cipher
    index: Cipher
    frames: Cipher
    tree: Cipher
    checkpoint: Cipher

    @staticmethod
    def derive(key: DataKey) -> Ciphers:
        """The ciphers of a store."""
        return Ciphers(*(Cipher(key.purpose(name)) for name in PURPOSES))


@dataclass(frozen=True, slots=True)
class Opened:
    """Everything an engine starts from."""

    manifests: Manifests
    ciphers: Ciphers
    replay: Replay
    maps: dict[int, BlockMap]
    epoch: int
    lock: WriterLock | None


@dataclass(frozen=True, slots=True)
class _View:
    """What manifest `number` and the log behind it say."""

    number: int
    replay: Replay
    maps: dict[int, BlockMap]

    def still_holds(self, manifests: Manifests, replay: Replay) -> bool:
        """Whether our take-over followed that very manifest, and the log has not grown since."""
        numbers = [item.number for item in replay.objects]
        return self.number == manifests.number - 1 and [item.number for item in self.replay.objects] == numbers


@dataclass(frozen=True, slots=True)
class Opener:
    """Opens one store, as its writer or to read it."""

    store: ObjectStore
    key: DataKey
    keys_number: int
    env: Env
    host: HostState | None
    sst_numbers: SstNumbers

    async def open_writer(
        self,
        tree: TreeState,
        *,
        take_over: bool,
        accept_rollback: bool,
        prepare: Callable[[], Awaitable[None]] | None = None,
    ) -> Opened:
        """Become the writer. Fenced: another one holds the store. RolledBack: it is older than this host remembers.
        Corrupt: a part of it is damaged or missing.

        All is read before anything is written, so what is wrong with a store is said with the store untouched.
        `prepare` is awaited in between: the last that may refuse, and the first that may write.
        """
        ciphers, manifests, log = self._parts()
        anchor = await self._recall()
        await manifests.read_newest()
        anchor = await self._compare(anchor, manifests, accept_rollback=accept_rollback)
        if not take_over:
            await self._check_turn(manifests)
        view = await self._view(ciphers, manifests, log, anchor, tree)
        if prepare is not None:
            await prepare()
        lock = await self._take_over(manifests, view, forced=take_over)
        try:
            epoch = manifests.manifest.epoch
            replay = await log.read_to_gap()
            if anchor is not None:
                # Before the fence: in the gap it would make the next attempt believe that nothing is missing.
                await log.check_known(replay, anchor.wal_number)
            # Our manifest may have landed late, under a number that was deleted since: then the writer has gone on
            # above it, and a fence would stop that one for nobody.
            await manifests.look_for_newer()
            replay = await log.put_fence(replay, epoch)
            if view is None or not view.still_holds(manifests, replay):
                view = await self._load(manifests, ciphers, replay, tree)
            await manifests.look_for_newer()
        except BaseException:
            if lock is not None:
                lock.release()
            raise
        return Opened(manifests, ciphers, replay, view.maps, epoch, lock)

    async def open_reader(self, tree: TreeState) -> Opened:
        """A view of the newest state, which takes nothing from anybody. Unavailable: its writer commits faster than it
        can be read.
        """
        ciphers, manifests, log = self._parts()
        anchor = await self._recall()
        await manifests.read_newest()
        anchor = await self._compare(anchor, manifests, accept_rollback=False)
        view = await self._view(ciphers, manifests, log, anchor, tree)
        if view is None:
            raise Unavailable(f"{self.store.url} changes faster than it can be read: ask the server that writes it")
        return Opened(manifests, ciphers, view.replay, view.maps, manifests.manifest.epoch, None)

    async def _view(
        self, ciphers: Ciphers, manifests: Manifests, log: LogReader, anchor: Anchor | None, tree: TreeState
    ) -> _View | None:
        """Everything the newest manifest and the log behind it say, once nothing is missing. A newer manifest at the
        end means: look again. None: there always was one. Then a writer lives and commits, and the store is whole.
        """
        for pause in pauses():
            await asyncio.sleep(pause)
            try:
                # The SSTs before the log, see there.
                census = await take_census(self.store, manifests, self.key.store_id)
                replay = await log.read_to_gap()
                if anchor is not None:
                    await log.check_known(replay, anchor.wal_number)
                await check_census(
                    census,
                    replay.reach,
                    store=self.store,
                    manifests=manifests,
                    store_id=self.key.store_id,
                    index=ciphers.index,
                    tree=ciphers.tree,
                    checkpoint=ciphers.checkpoint,
                )
                view = await self._load(manifests, ciphers, replay, tree)
                await manifests.look_for_newer()
                return view
            except Fenced:
                await manifests.read_newest()
        return None

    def _parts(self) -> tuple[Ciphers, Manifests, LogReader]:
        ciphers = Ciphers.derive(self.key)
        store_id = self.key.store_id
        manifests = Manifests(
            store=self.store,
            cipher=ciphers.manifest,
            checkpoint_cipher=ciphers.checkpoint,
            store_id=store_id,
            env=self.env,
        )
        log = LogReader(store=self.store, cipher=ciphers.wal, store_id=store_id, env=self.env, manifests=manifests)
        return ciphers, manifests, log

    async def _recall(self) -> Anchor | None:
        """What this host remembers. Asked before the store is: a writer beside us may commit in between, and what it
        remembers then is more than what we read.
        """
        return None if self.host is None else await self.env.run("store", self.host.load)

    async def _compare(self, anchor: Anchor | None, manifests: Manifests, *, accept_rollback: bool) -> Anchor | None:
        if self.keys_number < manifests.manifest.keys:
            raise Corrupt("keys/", f"keys object {manifests.manifest.keys} is missing: an older password was put back")
        if self.host is None or anchor is None:
            return None
        reason = _rolled_back(anchor, self.key.store_id, manifests)
        if reason is None:
            return anchor
        if not accept_rollback:
            raise RolledBack(
                f"{self.store.url} {reason}; if that is intended (a backup was restored), "
                "open it with --accept-rollback"
            )
        await self.env.run("store", self.host.forget)
        return None

    async def _take_over(self, manifests: Manifests, view: _View | None, *, forced: bool) -> WriterLock | None:
        for pause in pauses():
            await asyncio.sleep(pause)
            if not forced:
                await self._check_turn(manifests)
            sealed = await manifests.seal(self._takeover(manifests, view))
            lock = None
            if self.host is not None:
                lock = await self.env.run("store", self.host.lock_epoch, sealed.manifest.epoch, sealed.tag)
            try:
                if await manifests.create(sealed):
                    if lock is not None:
                        await self.env.run("store", lock.confirm)
                    return lock
            except BaseException:
                if lock is not None:
                    lock.release()
                raise
            if lock is not None:
                await self.env.run("store", lock.discard)
            await manifests.read_newest()
        raise Fenced(f"other servers take {self.store.url} or commit to it all the time: stop them first")

    def _takeover(self, manifests: Manifests, view: _View | None) -> Manifest:
        """The newest manifest under the next epoch. What the log was seen to hold must be there from now on."""
        old = manifests.manifest
        seen = 0 if view is None or view.number != manifests.number else view.replay.last
        return msgspec.structs.replace(
            old,
            epoch=old.epoch + 1,
            takeover=True,
            closed=False,
            acknowledged=max(old.acknowledged, seen),
            takeovers=[*old.takeovers, manifests.number + 1],
            keys=self.keys_number,
        )

    async def _check_turn(self, manifests: Manifests) -> None:
        """Fenced unless the last writer has closed the store, or was this host's own and is gone."""
        if not manifests.manifest.closed:
            await self._check_holder(manifests)

    async def _check_holder(self, manifests: Manifests) -> None:
        """Fenced unless the last writer was this host's own and is gone. Nobody is told to take a store from a writer
        that lives on this host."""
        holder = LockHolder("elsewhere")
        if self.host is not None:
            holder = await self.env.run("store", self.host.holder, manifests.manifest.epoch, manifests.tag)
        if holder.state != "gone":
            raise Fenced(_refusal(self.store.url, holder))

    async def _load(self, manifests: Manifests, ciphers: Ciphers, replay: Replay, tree: TreeState) -> _View:
        manifest = manifests.manifest
        listed = {sst.id for sst, _ in manifests.listed()}
        # What the manifest holds was listed, and may have gone since.
        logged = [item.sst for item in replay.ssts if item.sequence > manifest.sequence and item.sst.id not in listed]
        indexes = await read_indexes(
            manifest.ssts + logged,
            store=self.store,
            cipher=ciphers.index,
            store_id=self.key.store_id,
            env=self.env,
            on_missing=manifests.look_for_newer,
        )
        if manifest.tree is not None:
            tree.load(await self._read_tree(manifests, ciphers.tree, manifest.tree))
        numbered = [
            (self.sst_numbers.number(sst.id), index) for sst, index in zip(manifest.ssts, indexes, strict=False)
        ]
        maps = {layer: BlockMap() for layer in tree.layers()}
        if manifest.checkpoint is not None and manifests.trailer is not None:
            header, trailer = manifests.trailer
            places = PlaceReader(
                [self.sst_numbers.number(sst.id) for sst in trailer.ssts], moved_frames(numbered, self.sst_numbers)
            )
            await load_checkpoint(
                maps,
                manifest.checkpoint,
                header,
                trailer,
                places,
                store=self.store,
                cipher=ciphers.checkpoint,
                env=self.env,
                on_missing=manifests.look_for_newer,
            )
        written = [(number, index) for number, index in numbered if not index.victims]
        await self.env.run("codec", add_rows, maps, written)
        return _View(manifests.number, replay, maps)

    async def _read_tree(self, manifests: Manifests, cipher: Cipher, ref: SstRef) -> bytes:
        name = sst_name(ref.id)
        try:
            # Its size is sealed in the manifest.
            raw = await insist(
                self.store,
                lambda: self.store.get(name, 0, ref.size, limit=TREE_BYTES_MAX),
                on_missing=manifests.look_for_newer,
            )
        except NotFound:
            raise Corrupt(name, "it is missing, though the manifest names it") from None
        _, body, tag = open_object(cipher, name, raw, store_id=self.key.store_id, kinds=(ObjectKind.METADATA,))
        if tag != ref.tag:
            raise Corrupt(name, "it is not the object that the manifest names")
        return body


def _refusal(url: str, holder: LockHolder) -> str:
    """Why a store cannot be had now, and what to do."""
    whose = "" if holder.uid is None else f" of {user_name(holder.uid)}"
    if holder.state == "held":
        return f"another server of this host (process {holder.pid}{whose}) holds {url}: stop it first"
    if holder.state == "left":
        return (
            f"{url} was not closed, and its last server was a process{whose} on this host that is gone: "
            "start it again as that user, or open the store with --take-over"
        )
    return (
        f"{url} was not closed, and its last server ran elsewhere: "
        "if that one is gone for good, open it with --take-over"
    )


def _rolled_back(anchor: Anchor, store_id: bytes, manifests: Manifests) -> str | None:
    """Why the store cannot be the one this host remembers, or None if it can."""
    if anchor.store_id != store_id:
        return "holds another store than the one this host remembers there"
    if manifests.number < anchor.manifest_number:
        return f"is older than this host remembers (manifest {manifests.number} instead of {anchor.manifest_number})"
    if manifests.number == anchor.manifest_number and manifests.tag != anchor.manifest_tag:
        return f"has another manifest {manifests.number} than this host remembers"
    return None
