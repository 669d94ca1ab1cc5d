"""What jobs of maintenance work with, and the two things that all of them do: upload an SST, and commit."""

import asyncio
from collections.abc import Awaitable, Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

import msgspec

from storage.cache.frame_cache import FrameCache
from storage.env import Env
from storage.format.blocks import SstRef
from storage.format.frame import FrameCodec
from storage.format.manifest import Manifest
from storage.format.names import sst_name
from storage.format.sst_list import SstList, ids_of
from storage.lsm.compaction.sst_table import LEAVING_SSTS_MAX
from storage.lsm.gc.garbage import Garbage
from storage.lsm.index.block_map import BlockMap
from storage.lsm.index.sst_numbers import SstNumbers
from storage.lsm.index.trunk import AnyMap
from storage.lsm.layers import Layers
from storage.lsm.manifest.manifest_store import Manifests
from storage.lsm.options import EngineOptions
from storage.lsm.sst.fetch import FrameSource
from storage.lsm.sst.upload import SstWriter
from storage.objects.base import ObjectStore

SSTS_IN_FLIGHT = 2
"""SSTs of one job that are read, sealed or uploaded at a time: one waits for the store while another is sealed."""


@dataclass(slots=True)
class MaintenanceProgress:
    """What maintenance has done since the store was opened, for people."""

    job: str | None = None
    """What is under way."""
    jobs: dict[str, int] = field(default_factory=dict)
    """How many of each kind were done."""
    uploaded_bytes: int = 0
    """From when it is sent: what became of it may never be known."""

    @property
    def jobs_done(self) -> int:
        """How many of all kinds."""
        return sum(self.jobs.values())


@dataclass(slots=True)
class JobContext:
    """The parts of an engine that jobs use. Owned by the event loop."""

    layers: Layers
    manifests: Manifests
    ssts: SstWriter
    store: ObjectStore
    """It tries each request once."""
    source: FrameSource
    cache: FrameCache
    codec: FrameCodec
    sst_numbers: SstNumbers
    garbage: Garbage
    env: Env
    installing: asyncio.Lock
    """Held from a commit to the end of its install: nobody else commits meanwhile, and no map is frozen."""
    cut: Callable[[], int]
    """The sequence up to which everything written is in the index."""
    tree_durable: Callable[[], Awaitable[None]]
    """Returns when all changes of the tree are durable."""
    to_its_end: Callable[[str, Callable[[], Awaitable[None]]], Awaitable[None]]
    """Does what must not be left half done, under a name."""
    options: EngineOptions
    progress: MaintenanceProgress = field(default_factory=MaintenanceProgress)
    awaiting_deletion: set[str] = field(default_factory=set)
    """SSTs that no manifest lists any more, and that a read under way may still want."""

    def maps(self) -> dict[int, AnyMap]:
        """The map of each layer: all that refers to anything."""
        return self.layers.forest.maps()

    def heads(self) -> dict[int, BlockMap]:
        """The index of each layer that is written to."""
        return self.layers.forest.heads()

    def head(self, layer: int) -> BlockMap | None:
        """The same of one layer; None: it is not written to, or it is gone. However many others there are."""
        return self.layers.forest.head(layer)

    @contextmanager
    def uncommitted(self) -> Iterator[list[str]]:
        """Takes the names of objects before they are sent; if the work in it fails or is cut short, they are garbage.

        So whatever is to name them is committed behind it, never in it: a manifest that was sent may land at any time.
        An upload of which nobody knows what became of it may land after its deletion, and is then an orphan, as after
        a crash: later writers sweep those.
        """
        names: list[str] = []
        try:
            yield names
        except BaseException:
            self.garbage.add(names)
            raise

    async def upload(self, build: Callable[[], tuple[SstRef, bytearray]], names: list[str]) -> SstRef:
        """Build an SST in a thread, and put it into the store, under one of the `names` that are `uncommitted`."""
        ref, content = await self.ssts.encode(build)
        names.append(sst_name(ref.id))
        self.progress.uploaded_bytes += len(content)
        await self.ssts.upload(ref, content, len(content))
        return ref

    async def commit(self, work: Callable[[], Awaitable[None]], uploaded: Iterable[str] = ()) -> None:
        """Commit and install, to the end, whoever gives up waiting: a manifest that was sent may land at any time.

        Before it all changes of the tree that the maps show are made durable: else a crash could bring a device back
        whose frames are gone. Whoever gives up then has sent no manifest, so what was `uploaded` for it is garbage.
        """
        try:
            await self.tree_durable()
        except BaseException:
            self.garbage.add(uploaded)
            raise

        async def locked() -> None:
            async with self.installing:
                await work()
            self.garbage.add(self.manifests.take_old())

        await self.to_its_end("commit of maintenance", locked)

    async def commit_manifest(self, manifest: Manifest, *, table: SstList | None = None) -> None:
        """Make it the next one; see `Manifests.commit`. It says how far the log was acknowledged: the maps lack what a
        change in there took away, so if that is lost it has to be missed, and before anything is written in its place.
        """
        acknowledged = max(manifest.acknowledged, self.ssts.acknowledged())
        await self.manifests.commit(msgspec.structs.replace(manifest, acknowledged=acknowledged), table=table)

    def drop_max(self) -> int:
        """SSTs that may be dropped at once; 0: so many wait to be deleted that names would be forgotten, which nobody
        would find while this writer runs. Where nothing is deleted for long, nobody waits for it.
        """
        if not self.garbage.is_stuck and len(self.awaiting_deletion) > self.garbage.room_at_half:
            return 0
        return max(min(LEAVING_SSTS_MAX, self.garbage.names_max // 4), 1)

    def delete_replaced(self) -> None:
        """Delete what no read wants any more. Who looks for a frame again finds the new place in the index."""
        ids = sorted(self.awaiting_deletion)
        wanted = {location >> 32 for location in self.source.wanted()}
        numbers = self.sst_numbers.numbers(ids_of(ids)).tolist()
        free = [sst for sst, number in zip(ids, numbers, strict=True) if number not in wanted]
        self.awaiting_deletion.difference_update(free)
        names = [sst_name(sst) for sst in free]
        self.source.suspects.forget(names)
        self.garbage.add(names)
