"""The view of a store at one manifest: its index in memory, and the log behind it, before that is replayed."""

from __future__ import annotations

from dataclasses import dataclass

from storage.bucket.missing import get_despite_missing
from storage.env import Env
from storage.errors import BrokenInvariant, Corrupt, NotFound
from storage.format.blocks import SstRef
from storage.format.envelope import ObjectKind, open_object
from storage.format.names import MANIFESTS, sst_name
from storage.format.sizes import TREE_BYTES_MAX
from storage.lsm.index.build import rebuild
from storage.lsm.index.forest import Forest
from storage.lsm.index.image import PlaceReader
from storage.lsm.index.load import load_checkpoint, moved_frames, read_indexes
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
        manifests, ciphers = self.manifests, self.ciphers
        manifest = manifests.manifest
        listed = {sst.id for sst, _ in manifests.listed()}
        # What the manifest holds was listed, and may have gone since.
        logged = [item.sst for item in replay.ssts if item.sequence > manifest.sequence and item.sst.id not in listed]
        indexes = await read_indexes(
            manifest.ssts + logged,
            store=self.store,
            cipher=ciphers.index,
            store_id=self.store_id,
            env=self.env,
            on_missing=manifests.look_for_newer,
            reads_in_flight=self.options.reads_in_flight,
        )
        if manifest.tree is not None:
            tree.load(await self._read_tree(manifest.tree))
        numbered = [
            (self.sst_numbers.number(sst.id), index) for sst, index in zip(manifest.ssts, indexes, strict=False)
        ]
        prune_after = self.options.prune_after
        forest = Forest(prune_after=prune_after)
        if manifest.checkpoint is not None and manifests.trailer is not None:
            header, trailer = manifests.trailer
            places = PlaceReader(
                [self.sst_numbers.number(sst.id) for sst in trailer.ssts], moved_frames(numbered, self.sst_numbers)
            )
            forest = Forest.empty(trailer.trunks, prune_after=prune_after)
            await load_checkpoint(
                forest.maps(),
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
        operations = [logged.operation for logged in manifest.operations]
        try:
            await self.env.run("codec", rebuild, forest, written, operations)
        except BrokenInvariant as error:
            raise Corrupt(MANIFESTS, str(error)) from error
        return View(manifests.number, replay, forest)

    async def _read_tree(self, ref: SstRef) -> bytes:
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
