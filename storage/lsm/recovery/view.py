"""The view of a store at one manifest: its index in memory, and the log behind it, before that is replayed."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass

from storage.bucket.missing import get_despite_missing
from storage.env import Env
from storage.errors import BrokenInvariant, Corrupt, NotFound
from storage.format.blocks import SstRef
from storage.format.envelope import ObjectKind, open_object
from storage.format.names import MANIFESTS, sst_name
from storage.format.sizes import TREE_BYTES_MAX
from storage.format.sst import SstIndex
from storage.lsm.index.build import rebuild
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


@dataclass(frozen=True, slots=True)
class Stored:
    """What a manifest says, as far as it needs no log."""

    indexes: list[tuple[int, SstIndex]]
    """Of the SSTs beside the checkpoint, with the number of each."""
    forest: Forest
    """As the checkpoint has it."""
    tree: bytes | None
    """The image of the tree of names."""


@dataclass(frozen=True, slots=True)
class ViewLoader:
    """Reads views of one store."""

    store: ObjectStore
    store_id: bytes
    env: Env
    sst_numbers: SstNumbers
    manifests: Manifests
    ciphers: Ciphers
    options: IndexOptions

    async def load(self, replay: Replay, tree: TreeState) -> View:
        """The newest manifest that was read, its SSTs, and those that the log names. Corrupt: one is damaged or
        missing. Nothing is written.
        """
        return await self.finish(await self.read(), replay, tree)

    async def read(self) -> Stored:
        """What needs no log: the indexes of the manifest's SSTs, its checkpoint and the image of its tree, all fetched
        at once.
        """
        placed: asyncio.Future[PlaceReader] = asyncio.get_running_loop().create_future()
        async with first_error(), asyncio.TaskGroup() as group:
            forest = group.create_task(self._read_checkpoint(placed))
            tree = group.create_task(self._read_tree())
            indexes = await self._read_indexes(self.manifests.manifest.ssts)
            numbered = [
                (self.sst_numbers.number(sst.id), index)
                for sst, index in zip(self.manifests.manifest.ssts, indexes, strict=True)
            ]
            if self.manifests.trailer is not None:
                table = self.sst_numbers.numbers(self.manifests.trailer[1].ssts.ids)
                placed.set_result(PlaceReader(table, moved_frames(numbered, self.sst_numbers)))
        return Stored(numbered, forest.result(), tree.result())

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
        written = [(number, index) for number, index in stored.indexes if not index.victims]
        operations = [logged.operation for logged in manifest.operations]
        try:
            await self.env.run("codec", rebuild, stored.forest, written, operations)
        except BrokenInvariant as error:
            raise Corrupt(MANIFESTS, str(error)) from error
        return View(self.manifests.number, replay, stored.forest)

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
        _, body, tag = open_object(self.ciphers.tree, name, raw, store_id=self.store_id, kinds=(ObjectKind.METADATA,))
        if tag != ref.tag:
            raise Corrupt(name, "it is not the object that the manifest names")
        return body
