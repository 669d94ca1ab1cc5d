"""Take-over: whose turn it is, what the store holds, and what the log adds to that.

A host takes a store over without being asked only if the last writer closed it, or was this host's own and is gone:
its lock file proves it. The anchor, this host's memory of the store, refuses a bucket that was emptied, exchanged or
rolled back.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass

import msgspec

from storage.bucket.create_once import pauses
from storage.crypto.data_key import DataKey
from storage.env import Env
from storage.errors import Conflict, Fenced, RolledBack, Unavailable
from storage.format.manifest import INCARNATION_BYTES, LINEAGE_MAX, STORE_IDENTITY_BYTES, Manifest
from storage.journal.files import JournalFiles
from storage.lsm.index.forest import Forest
from storage.lsm.manifest.manifest_store import Manifests
from storage.lsm.options import EngineOptions
from storage.lsm.recovery.anchor import Anchor, HostState
from storage.lsm.recovery.carried import Carried, carry
from storage.lsm.recovery.completeness import check_census, take_census
from storage.lsm.recovery.derived_ciphers import Ciphers
from storage.lsm.recovery.locks import LockHolder, WriterLock
from storage.lsm.recovery.turn import Force, Terms, check_keys, check_older_keys, held_by, rolled_back
from storage.lsm.recovery.view import Frames, View, ViewAhead, ViewLoader
from storage.lsm.tree_state import TreeState
from storage.lsm.wal.fence import Fence
from storage.lsm.wal.log_object import Replay
from storage.lsm.wal.reader import LogReader
from storage.objects.base import ObjectStore

OnTaken = Callable[[Manifests], None]


@dataclass(frozen=True, slots=True)
class Claim:
    """What a take-over leaves on the host."""

    lock: WriterLock | None
    journal: Carried | None


@dataclass(frozen=True, slots=True)
class Opened:
    """Everything an engine starts from."""

    manifests: Manifests
    ciphers: Ciphers
    replay: Replay
    forest: Forest
    epoch: int
    lock: WriterLock | None
    journal: Carried | None = None


@dataclass(frozen=True, slots=True)
class Opener:
    """Opens one store, as its writer or to read it."""

    store: ObjectStore
    key: DataKey
    keys_number: int
    env: Env
    host: HostState | None
    frames: Frames
    options: EngineOptions
    journal: JournalFiles | None = None
    taken: OnTaken | None = None
    """Told when the store is this writer's, before its opening goes on."""

    async def open_writer(
        self,
        tree: TreeState,
        *,
        take_over: Force,
        accept_rollback: bool,
        adopt: bool = False,
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
        in_force = max(self.keys_number, manifests.manifest.keys)
        terms = Terms(take_over, in_force, accept_rollback and anchor is None, adopt)
        if adopt:
            await self._check_copy(manifests, anchor)
        if not terms.forces(manifests.tag):
            await self._check_turn(manifests, adopted=adopt)
        view = await self._view(ciphers, manifests, log, anchor, tree)
        if prepare is not None:
            await prepare()
        fence = Fence(self.store, ciphers.wal, self.key.store_id, self.env, manifests)
        claim = await self._take_over(manifests, view, terms)
        try:
            epoch = manifests.manifest.epoch
            replay = await log.read_to_gap()
            if anchor is not None:
                # Before the fence: in the gap it would make the next attempt believe that nothing is missing.
                await log.check_known(replay, anchor.wal_number)
            # Our manifest may have landed late, under a number that was deleted since: then the writer has gone on
            # above it, and a fence would stop that one for nobody.
            await manifests.look_for_newer()
            replay = await fence.put(log, replay, epoch)
            if view is None or not view.still_holds(manifests, replay):
                view = await self._loader(manifests, ciphers).load(replay, tree)
            await manifests.look_for_newer()
        except BaseException:
            if claim.lock is not None:
                claim.lock.release()
            raise
        return Opened(manifests, ciphers, replay, view.forest, epoch, claim.lock, claim.journal)

    async def view_ahead(self) -> ViewAhead:
        """What is needed of the store when its writer has ended. It takes nothing from anybody, and writes nothing."""
        ciphers, manifests, _ = self._parts()
        await manifests.read_newest()
        return await self._loader(manifests, ciphers).load_ahead()

    async def open_reader(self, tree: TreeState) -> Opened:
        """A view of the newest state, which takes nothing from anybody. Unavailable: its writer deletes what is to be
        read, again and again.
        """
        ciphers, manifests, log = self._parts()
        anchor = await self._recall()
        await manifests.read_newest()
        anchor = await self._compare(anchor, manifests, accept_rollback=False)
        view = await self._view(ciphers, manifests, log, anchor, tree, reader=True)
        if view is None:
            raise Unavailable(f"{self.store.url} changes faster than it can be read: ask the server that writes it")
        return Opened(manifests, ciphers, view.replay, view.forest, manifests.manifest.epoch, None)

    async def _view(
        self,
        ciphers: Ciphers,
        manifests: Manifests,
        log: LogReader,
        anchor: Anchor | None,
        tree: TreeState,
        *,
        reader: bool = False,
    ) -> View | None:
        """Everything the newest manifest and the log behind it say, once nothing is missing. A newer manifest at the
        end means: look again. None: there always was one. Then a writer lives and commits, and the store is whole.

        To a `reader` a newer manifest matters only until the log was read: what that holds was not truncated before,
        and all that was found says what the store held then.
        """
        for pause in pauses():
            await asyncio.sleep(pause)
            loader = self._loader(manifests, ciphers)
            stored = asyncio.ensure_future(loader.read())
            try:
                # The SSTs before the log, see there.
                own = anchor is not None and anchor.exact and anchor.epoch == manifests.manifest.epoch
                census = await take_census(self.store, manifests, self.key.store_id, seen_whole=own)
                replay = await log.read_to_gap()
                if anchor is not None:
                    await log.check_known(replay, anchor.wal_number)
                if reader:
                    await manifests.look_for_newer()
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
                view = await loader.finish(await stored, replay, tree)
                if not reader:
                    await manifests.look_for_newer()
                return view
            except Fenced:
                await manifests.read_newest()
            finally:
                # What is not all there is told by who asks whether it is; what it reads meanwhile changes nothing.
                stored.cancel()
                await asyncio.gather(stored, return_exceptions=True)
        return None

    def _parts(self) -> tuple[Ciphers, Manifests, LogReader]:
        ciphers = Ciphers.derive(self.key)
        store, store_id, env, options = self.store, self.key.store_id, self.env, self.options
        manifests = Manifests(
            store=store,
            cipher=ciphers.manifest,
            checkpoint_cipher=ciphers.checkpoint,
            store_id=store_id,
            env=env,
            options=options,
        )
        log = LogReader(
            store=store, cipher=ciphers.wal, store_id=store_id, env=env, manifests=manifests, options=options
        )
        return ciphers, manifests, log

    async def _recall(self) -> Anchor | None:
        """What this host remembers. Asked before the store is: a writer beside us may commit in between."""
        return None if self.host is None else await self.env.run("store", self.host.load)

    async def _compare(self, anchor: Anchor | None, manifests: Manifests, *, accept_rollback: bool) -> Anchor | None:
        await check_keys(self.store, self.keys_number, manifests.manifest.keys)
        check_older_keys(manifests, self.key)
        if self.host is None or anchor is None:
            return None
        reason = rolled_back(anchor, self.key.store_id, manifests)
        if reason is None:
            return anchor
        if not accept_rollback:
            raise RolledBack(
                f"{self.store.url} {reason}; if that is intended (a backup was restored), "
                "open it with --accept-rollback"
            )
        await self.env.run("store", self.host.forget)
        return None

    async def _take_over(self, manifests: Manifests, view: View | None, terms: Terms) -> Claim:
        withheld = False
        for pause in pauses():
            await asyncio.sleep(pause)
            if terms.keys < manifests.manifest.keys:
                raise Fenced(f"the passwords or the data key of {self.store.url} were changed meanwhile: try again")
            if not terms.forces(manifests.tag):
                await self._check_turn(manifests, adopted=terms.adopted)
            lock = carried = None
            if self.host is not None and self.journal is not None:
                carried = await self.env.run("store", carry, self.journal, self.host, manifests, self.env, terms)
                withheld = carried is None
                if withheld:
                    await manifests.read_newest()
                    continue
            whole = not terms.breaks and (manifests.manifest.closed or (carried is not None and carried.found))
            await manifests.put_back()
            sealed = await manifests.seal(self._takeover(manifests, view, nothing_lost=whole, adopted=terms.adopted))
            if self.host is not None:
                named = None if carried is None else carried.id
                lock = await self.env.run("store", self.host.lock_epoch, sealed.manifest.epoch, sealed.tag, named)
            try:
                if await manifests.create(sealed):
                    if lock is not None:
                        await self.env.run("store", lock.confirm)
                    manifests.won(sealed)
                    if self.taken is not None:
                        self.taken(manifests)
                    return Claim(lock, carried)
            except BaseException:
                if lock is not None:
                    lock.release()
                raise
            if lock is not None:
                await self.env.run("store", lock.discard)
            await manifests.read_newest()
        if withheld:
            raise Conflict(
                f"another process of this host is about to open {self.store.url}, and has the journal of its last "
                "server: wait for that one, or stop it"
            )
        raise Fenced(f"other servers take {self.store.url} or commit to it all the time: stop them first")

    def _takeover(self, manifests: Manifests, view: View | None, *, nothing_lost: bool, adopted: bool) -> Manifest:
        """The newest manifest under the next epoch. What the log was seen to hold must be there from now on.

        `nothing_lost`: all that the last writer answered is in the store, or in a journal that this host has; else the
        lineage begins anew, with the manifest itself, so that no crash can keep it from being known.
        """
        old = manifests.manifest
        incarnation = self.env.random_bytes(INCARNATION_BYTES)
        seen = 0 if view is None or view.number != manifests.number else view.replay.last
        return msgspec.structs.replace(
            old,
            epoch=old.epoch + 1,
            takeover=True,
            closed=False,
            acknowledged=max(old.acknowledged, seen),
            takeovers=[*old.takeovers, manifests.number + 1],
            keys=max(self.keys_number, old.keys),
            lineage=next_lineage(old.lineage if nothing_lost else [], incarnation),
            identity=self.env.random_bytes(STORE_IDENTITY_BYTES) if adopted else old.identity,
        )

    async def _check_copy(self, manifests: Manifests, anchor: Anchor | None) -> None:
        """Conflict: this host has opened that store there, so it is no copy. Fenced: a server of this host has it."""
        if anchor is not None:
            raise Conflict(
                f"this host has opened {self.store.url} before: it is no copy to this host; if it is one all the same, "
                "adopt it with an empty --state-folder"
            )
        if self.host is not None:
            holder = await self.env.run("store", self.host.holder, manifests.manifest.epoch, manifests.tag)
            if holder.state == "held":
                raise Fenced(held_by(self.store.url, holder))

    async def _check_turn(self, manifests: Manifests, *, adopted: bool) -> None:
        """Fenced unless the last writer has closed the store, or was this host's own and is gone. The original, taken
        for its copy (`adopted`), looks the same as the copy of a running store does."""
        if not manifests.manifest.closed:
            await self._check_holder(manifests, adopted=adopted)

    async def _check_holder(self, manifests: Manifests, *, adopted: bool) -> None:
        """Fenced unless the last writer was this host's own and is gone. Nobody is told to take it from one alive."""
        holder, epoch = await self._holder(manifests), manifests.manifest.epoch
        if holder.state == "gone":
            return
        if holder.state != "held":
            # Who has taken the store since it was looked at has cleared away the lock of the writer before.
            await manifests.read_newest()
            if manifests.manifest.epoch != epoch:
                holder = await self._holder(manifests)
                if holder.state == "gone":
                    raise Fenced(f"another server of this host has just had {self.store.url}: try again")
        raise Fenced(held_by(self.store.url, holder, adopted=adopted))

    async def _holder(self, manifests: Manifests) -> LockHolder:
        if self.host is None:
            return LockHolder("elsewhere")
        return await self.env.run("store", self.host.holder, manifests.manifest.epoch, manifests.tag)

    def _loader(self, manifests: Manifests, ciphers: Ciphers) -> ViewLoader:
        store_id, index = self.key.store_id, self.options.index
        return ViewLoader(self.store, store_id, self.env, self.frames, manifests, ciphers, index)


def next_lineage(old: Sequence[bytes], incarnation: bytes) -> list[bytes]:
    """The terms of writers since the last that may have lost something, and one more; the newest LINEAGE_MAX."""
    return [*old, incarnation][-LINEAGE_MAX:]
