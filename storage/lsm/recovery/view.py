"""The view of a store at one manifest: its index in memory, and the log behind it, before that is replayed.

Most of that can be read *ahead*, while another writer has the store still (`ViewAhead`). Nothing rests on when it was
read: every object is immutable, and known by its id, size and tag. It is gone on with if the newest manifest says the
same of everything that it was made of and only adds SSTs whose rows are all newer; else all is read again.
"""

from __future__ import annotations

import asyncio
from dataclasses import dataclass

from storage.bucket.missing import get_despite_missing
from storage.cache.frame_cache import FrameCache
from storage.env import Env
from storage.errors import BrokenInvariant, Corrupt, NotFound
from storage.format.blocks import SstRef
from storage.format.envelope import ObjectKind, open_object
from storage.format.manifest import Manifest
from storage.format.names import MANIFESTS, sst_name
from storage.format.sizes import TREE_BYTES_MAX
from storage.format.sst import SstIndex
from storage.lsm.index.build import put_newer, rebuild
from storage.lsm.index.forest import Forest
from storage.lsm.index.image import PlaceReader
from storage.lsm.index.load import first_error, load_checkpoint, moved_frames, read_indexes
from storage.lsm.index.sst_numbers import SstNumbers
from storage.lsm.manifest.manifest_store import Manifests
from storage.lsm.options import IndexOptions
from storage.lsm.recovery.derived_ciphers import Ciphers
from storage.lsm.tree_state import TreeState
from storage.lsm.wal.log_object import Replay
from storage.objects.base import ObjectStore


@dataclass(frozen=True, slots=True)
class View:
    """What manifest `number` and the log behind it say."""

    number: int
    replay: Replay
    forest: Forest

    def still_holds(self, manifests: Manifests, replay: Replay) -> bool:
        """Whether our take-over followed that very manifest, and the log has not grown since."""
        numbers = [item.number for item in replay.objects]
        return self.number == manifests.number - 1 and [item.number for item in self.replay.objects] == numbers


class ViewAhead:
    """What one manifest says, read while its writer has the store still. It is of use once."""

    def __init__(self, manifest: Manifest, sst_numbers: SstNumbers, forest: Forest) -> None:
        self.sst_numbers = sst_numbers
        """By which its index refers to SSTs."""
        self._manifest = manifest
        self._forest: Forest | None = forest

    def added(self, manifest: Manifest) -> list[SstRef] | None:
        """The SSTs that a manifest has beyond this one. None: it does more than to add some, or this was used."""
        old = self._manifest
        known = (old.epoch, old.checkpoint, old.operations, old.ssts)
        there = len(old.ssts)
        if self._forest is None or known != (
            manifest.epoch,
            manifest.checkpoint,
            manifest.operations,
            manifest.ssts[:there],
        ):
            return None
        return manifest.ssts[there:]

    def take(self, indexes: list[SstIndex]) -> Forest | None:
        """The index in memory, if all that the SSTs beyond it say is newer; else None: they were put together of older
        ones. Whoever takes it writes to it.
        """
        for index in indexes:
            for rows in (index.entries["sequence"], index.ranges["sequence"]):
                if index.victims or (len(rows) and int(rows.min()) <= self._manifest.sequence):
                    return None
        forest, self._forest = self._forest, None
        return forest

    def drop(self) -> None:
        """Nobody will ask for it any more."""
        self._forest = None


@dataclass(frozen=True, slots=True)
class Frames:
    """Decoded frames, and the numbers by which they are known: what several views of one store have in common."""

    sst_numbers: SstNumbers
    cache: FrameCache
    ahead: ViewAhead | None = None
    """What was read of the store before, under these numbers."""


@dataclass(frozen=True, slots=True)
class Stored:
    """What a manifest says, as far as it needs no log."""

    indexes: list[tuple[int, SstIndex]]
    """Of the SSTs beside the checkpoint, with the number of each."""
    forest: Forest
    """As the checkpoint has it; `held`: and as all but these SSTs have it."""
    tree: bytes | None
    """The image of the tree of names."""
    held: bool = False


@dataclass(frozen=True, slots=True)
class ViewLoader:
    """Reads views of one store."""

    store: ObjectStore
    store_id: bytes
    env: Env
    frames: Frames
    manifests: Manifests
    ciphers: Ciphers
    options: IndexOptions

    async def load_ahead(self) -> ViewAhead:
        """What the newest manifest that was read says, for who will open the store when its writer has ended."""
        stored = await self.read()
        await self._rebuild(stored)
        return ViewAhead(self.manifests.manifest, self.frames.sst_numbers, stored.forest)

    async def load(self, replay: Replay, tree: TreeState) -> View:
        """The newest manifest that was read, its SSTs, and those that the log names. Corrupt: one is damaged or
        missing. Nothing is written.
        """
        return await self.finish(await self.read(), replay, tree)

    async def read(self) -> Stored:
        """What needs no log: the indexes of the manifest's SSTs, its checkpoint and the image of its tree, all fetched
        at once.
        """
        if (stored := await self._read_beyond()) is not None:
            return stored
        placed: asyncio.Future[PlaceReader] = asyncio.get_running_loop().create_future()
        async with first_error(), asyncio.TaskGroup() as group:
            forest = group.create_task(self._read_checkpoint(placed))
            tree = group.create_task(self._read_tree())
            indexes = await self._read_indexes(self.manifests.manifest.ssts)
            numbered = [
                (self.frames.sst_numbers.number(sst.id), index)
                for sst, index in zip(self.manifests.manifest.ssts, indexes, strict=True)
            ]
            if self.manifests.trailer is not None:
                table = self.frames.sst_numbers.numbers(self.manifests.trailer[1].ssts.ids)
                placed.set_result(PlaceReader(table, moved_frames(numbered, self.frames.sst_numbers)))
        return Stored(numbered, forest.result(), tree.result())

    async def _read_beyond(self) -> Stored | None:
        """What the manifest says beyond what was read ahead; None: that is of no use."""
        ahead = self.frames.ahead
        added = None if ahead is None else ahead.added(self.manifests.manifest)
        if ahead is None or added is None:
            return None
        indexes = await self._read_indexes(added)
        tree = await self._read_tree()
        forest = ahead.take(indexes)
        if forest is None:
            return None
        numbers = [self.frames.sst_numbers.number(sst.id) for sst in added]
        return Stored(list(zip(numbers, indexes, strict=True)), forest, tree, held=True)

    async def finish(self, stored: Stored, replay: Replay, tree: TreeState) -> View:
        """With the SSTs of the log, and the rows of those beside the checkpoint in the index. `tree` becomes the one
        that is stored.
        """
        manifest = self.manifests.manifest
        logged = [item.sst for item in replay.ssts if item.sequence > manifest.sequence]
        if logged:
            # What the manifest holds was listed, and may have gone since.
            listed = self.manifests.listed().held(sst.id for sst in logged)
            await self._read_indexes([sst for sst in logged if sst.id not in listed])
        if stored.tree is not None:
            tree.load(stored.tree)
        await self._rebuild(stored)
        return View(self.manifests.number, replay, stored.forest)

    async def _rebuild(self, stored: Stored) -> None:
        """Put the rows of the SSTs beside the checkpoint, or beyond what was read ahead, into the index."""
        written = [(number, index) for number, index in stored.indexes if not index.victims]
        operations = [logged.operation for logged in self.manifests.manifest.operations]
        try:
            if stored.held:
                await self.env.run("codec", put_newer, stored.forest, written)
            else:
                await self.env.run("codec", rebuild, stored.forest, written, operations)
        except BrokenInvariant as error:
            raise Corrupt(MANIFESTS, str(error)) from error

    async def _read_indexes(self, ssts: list[SstRef]) -> list[SstIndex]:
        return await read_indexes(
            ssts,
            store=self.store,
            cipher=self.ciphers.index,
            store_id=self.store_id,
            env=self.env,
            on_missing=self.manifests.look_for_newer,
            reads_in_flight=self.options.reads_in_flight,
        )

    async def _read_checkpoint(self, placed: asyncio.Future[PlaceReader]) -> Forest:
        """The index as the checkpoint has it, empty if there is none."""
        ref, found = self.manifests.manifest.checkpoint, self.manifests.trailer
        if ref is None or found is None:
            return Forest(prune_after=self.options.prune_after)
        header, trailer = found
        forest = Forest.empty(trailer.trunks, prune_after=self.options.prune_after)
        await load_checkpoint(
            forest.maps(),
            ref,
            header,
            trailer,
            placed,
            store=self.store,
            cipher=self.ciphers.checkpoint,
            env=self.env,
            on_missing=self.manifests.look_for_newer,
        )
        return forest

    async def _read_tree(self) -> bytes | None:
        ref = self.manifests.manifest.tree
        if ref is None:
            return None
        name = sst_name(ref.id)
        try:
            # Its size is sealed in the manifest.
            raw = await get_despite_missing(
                self.store,
                lambda: self.store.get(name, 0, ref.size, limit=TREE_BYTES_MAX),
                on_missing=self.manifests.look_for_newer,
            )
        except NotFound:
            raise Corrupt(name, "it is missing, though the manifest names it") from None
        kinds = (ObjectKind.METADATA,)
        header, body, tag = open_object(self.ciphers.tree, name, raw, store_id=self.store_id, kinds=kinds)
        if (header.key_id, tag) != (ref.key_id, ref.tag):
            raise Corrupt(name, "it is not the object that the manifest names")
        return body
