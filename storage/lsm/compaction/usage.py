"""What is used: by each layer, and by the SSTs of the store. Counted when somebody asks, in pieces between two turns of
the event loop, and kept until something changes.

    logical     the size of a device: what a client may write
    allocated   bytes that clients have written and not discarded since, in whole sectors
    live        bytes of frames that some device shows something of, compressed and sealed: what a device takes
    dead        bytes of frames that no device shows anything of: maintenance takes them away
    stored      the size of the SSTs that count: live, dead, and their headers and indexes
    waiting     written and not durable yet (unlogged), not in SSTs yet (memtable), or garbage that is to be deleted

SSTs hold frames of several devices, so what is stored or dead belongs to the store and not to one of them.
"""

import asyncio
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass, field
from functools import partial

from storage.cancel import when_ended
from storage.env import Env
from storage.format.blocks import HOLE
from storage.format.envelope import HEADER_BYTES
from storage.format.frame import BLOCK_BYTES, SECTOR_BYTES
from storage.format.manifest import Manifest, merged
from storage.format.sst_list import SstList
from storage.lsm.index.block_map import BlockMap
from storage.lsm.index.map_usage import shown_on
from storage.lsm.index.page import PAGE_BLOCKS, PAGE_SHIFT
from storage.lsm.index.sharing import bytes_once, exclusive_bytes
from storage.lsm.layer import Layer
from storage.lsm.layers import Layers
from storage.lsm.manifest.manifest_store import Manifests
from storage.lsm.read.extents import allocated_bytes, extents

USAGE_PAGES_AT_ONCE = 4
BLOCKS_AT_ONCE = 64
"""Looked at between two turns of the event loop: about half a millisecond."""


@dataclass(frozen=True, slots=True)
class LayerUsage:
    """Bytes that one layer uses."""

    allocated: int
    live: int
    memtable: int
    """Written and not in SSTs yet."""


@dataclass(frozen=True, slots=True)
class SstUsage:
    """What the listed SSTs hold, in bytes."""

    count: int
    size: int
    """Bytes of the objects."""
    frames: int
    """Bytes of the sealed frames in them; the rest are their indexes."""
    older_key: int = 0
    """Bytes of those that an older data key sealed."""


@dataclass(frozen=True, slots=True)
class Usage:
    """What is used of a store, as it was counted once."""

    ssts: SstUsage = SstUsage(0, 0, 0)
    layers: Mapping[int, LayerUsage] = field(default_factory=dict)
    """Of the layers that are written to."""
    live: int = 0
    """Bytes of frames that some layer shows something of, each once; where snapshots or clones are, that some refers
    to.
    """

    @property
    def dead(self) -> int:
        """In SSTs, and nothing that any layer shows."""
        return max(self.ssts.frames - self.live, 0)


class Meter:
    """Counts what is used. Owned by the event loop."""

    def __init__(
        self, layers: Layers, manifests: Manifests, env: Env, key_id: int, state: Callable[[], tuple[object, ...]]
    ) -> None:
        """`state` changes whenever the layers may hold something else; `key_id` is that of the newest data key."""
        self._key_id = key_id
        self._layers = layers
        self._manifests = manifests
        self._env = env
        self._state = state
        self._counted: tuple[object, ...] | None = None
        self._counting = asyncio.Lock()
        self._ssts = SstUsage(0, 0, 0)
        self._ssts_of = -1
        self.usage = Usage()
        """What `count` found last; zeros before."""

    async def count(self) -> Usage:
        """Count anew, unless nothing has changed since."""
        async with self._counting:
            state = self._state()
            if state != self._counted:
                number, manifest, table = self._manifests.number, self._manifests.manifest, self._manifests.merged_ssts
                self._ssts = await self._env.run("codec", partial(sst_usage, manifest, table, self._key_id))
                self._ssts_of = number
                layers = {}
                for number, layer in self._layers.heads().items():
                    if isinstance(layer.index, BlockMap):  # else it is being rolled back
                        layers[number] = await _of_layer(layer, layer.index)
                        await asyncio.sleep(0)  # of a thousand small disks each is too few pages for a turn of its own
                self.usage = Usage(self._ssts, layers, await self._live(layers))
                self._counted = state
        return self.usage

    async def _live(self, layers: Mapping[int, LayerUsage]) -> int:
        """Of all layers, what several of them refer to once."""
        trunks = self._layers.forest.trunks()
        live = sum(layers[trunk.head].live for trunk in trunks if trunk.is_alone and trunk.head in layers)
        maps = [part for trunk in trunks if not trunk.is_alone for part in trunk.maps()]
        if maps:
            frozen = [part.freeze() for part in maps]
            try:
                live += await when_ended(self._env.run("codec", bytes_once, frozen))
            finally:
                for part in frozen:
                    part.thaw()
        return live

    async def exclusive(self) -> dict[int, int]:
        """Bytes that would be free if one snapshot were deleted, by its layer."""
        maps, trunks = self._layers.forest.maps(), self._layers.forest.refs()
        frozen = {layer: part.freeze() for layer, part in maps.items()}
        try:
            return await when_ended(self._env.run("codec", exclusive_bytes, frozen, trunks))
        finally:
            for part in frozen.values():
                part.thaw()

    def ssts(self) -> SstUsage:
        """Of the SSTs that are listed now; of 60,000 a millisecond if they were not counted since the last commit."""
        if self._ssts_of != self._manifests.number:
            self._ssts = sst_usage(self._manifests.manifest, self._manifests.merged_ssts, self._key_id)
            self._ssts_of = self._manifests.number
        return self._ssts


def sst_usage(manifest: Manifest, table: SstList, key_id: int) -> SstUsage:
    """Of all SSTs that `manifest` and `table`, that of its checkpoint, list; `key_id`: the newest data key's."""
    listed = merged(manifest, table).beside(SstList.of(manifest.ssts))
    frames, older = int((listed.index_offset - HEADER_BYTES).sum()), int(listed.size[listed.key_id != key_id].sum())
    return SstUsage(len(listed), int(listed.size.sum()), frames, older)


async def _of_layer(layer: Layer, index: BlockMap) -> LayerUsage:
    """The map tells what most pages show; where memtables lie over it, block status does."""
    zeroed = _zeroed_pages(layer)
    written = {block for table in layer.memtables for block in table.blocks}
    written_pages = {block >> PAGE_SHIFT for block in written}
    sectors, live = 0, 0
    for count, number in enumerate(list(index.pages)):
        shown = shown_on(index, number)
        live += shown.live
        if number not in zeroed and number not in written_pages:
            sectors += shown.sectors
        if count % USAGE_PAGES_AT_ONCE == USAGE_PAGES_AT_ONCE - 1:
            await asyncio.sleep(0)
    allocated = await _below_memtables(layer, zeroed, written_pages)
    memtable = 0
    for count, block in enumerate(written):
        memtable += sum(table.blocks[block].charged for table in layer.memtables if block in table.blocks)
        if count % BLOCKS_AT_ONCE == BLOCKS_AT_ONCE - 1:
            await asyncio.sleep(0)
    return LayerUsage(sectors * SECTOR_BYTES + allocated, live, memtable)


async def _below_memtables(layer: Layer, zeroed: Collection[int], written: Collection[int]) -> int:
    """Bytes allocated on pages of which memtables know ranges of zeros, and on those `written` with blocks of which
    they have entries.
    """
    allocated = 0
    for count, number in enumerate({*zeroed, *written}):
        at, end = number << PAGE_SHIFT, (number + 1) << PAGE_SHIFT
        span = next((span for table in layer.memtables if (span := table.zeros.find(at)) is not None), None)
        if number not in written and span is not None and span.first <= at and end <= span.end:
            allocated += 0 if span.content == HOLE else PAGE_BLOCKS * BLOCK_BYTES
            if count % BLOCKS_AT_ONCE == 0:
                await asyncio.sleep(0)
            continue
        at, end = at * BLOCK_BYTES, end * BLOCK_BYTES
        while at < end:
            found = extents(layer.memtables, layer.index, at, end - at, blocks_few=PAGE_BLOCKS)
            allocated += allocated_bytes(found)
            at += sum(size for size, _ in found)
            await asyncio.sleep(0)
    return allocated


def _zeroed_pages(layer: Layer) -> set[int]:
    """Pages of which memtables know ranges of zeros."""
    return {
        number
        for table in layer.memtables
        for span in table.zeros.spans
        for number in range(span.first >> PAGE_SHIFT, (span.end - 1 >> PAGE_SHIFT) + 1)
    }
