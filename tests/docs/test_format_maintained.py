"""docs/format.md and stores that were maintained: snapshots, checkpoints, repacked and consolidated frames."""

import asyncio
import random
import shutil
from pathlib import Path
from typing import Any

import pytest

from storage.crypto.keys import Cost
from storage.env import RealEnv
from storage.errors import Closed
from storage.fs.opening import open_store
from storage.fs.store import Store
from storage.fs.store_options import StoreOptions
from storage.lsm.compaction.plan import Consolidate, Drop, Job, PatchedBlock, Repack, WriteCheckpoint
from storage.lsm.engine import Engine
from storage.lsm.options import EngineOptions, MaintenanceOptions
from tests.docs.test_format import compare
from tests.support.format_reader import FormatReader
from tests.support.inside import at_rest, engine_of

pytestmark = pytest.mark.integration

BLOCK = 262144
MAINTAINED_BLOCKS = 14


async def test_a_store_with_snapshots(tmp_path: Path) -> None:
    """Snapshots, clones and rollbacks: in the log, in the manifest, and in the checkpoint."""
    options = StoreOptions(
        engine=EngineOptions(maintenance=MaintenanceOptions(look_seconds=1e9)),
        state_folder=tmp_path / "state",
        cost=Cost.for_tests(),
    )
    folder = tmp_path / "store"
    store = await open_store(f"file://{folder}", b"password", env=RealEnv(), create=True, options=options)
    await store.create_device("disk", MAINTAINED_BLOCKS * BLOCK)
    it = Maintained(store, bytearray(MAINTAINED_BLOCKS * BLOCK), seed=1)
    kept: dict[str, bytearray] = {}

    def reads_the_same(where: Path = folder) -> FormatReader:
        reader = FormatReader(where, b"password")
        assert set(reader.devices()) == {"disk", *kept}
        for name, content in {"disk": it.content, **kept}.items():
            compare(reader, name, content)
        return reader

    async def snapshot(name: str) -> None:
        await store.snapshots.create(["disk"], name)
        kept[f"disk@{name}"] = bytearray(it.content)

    it.write_whole(range(8))
    it.write(range(2, 10))
    await snapshot("one")
    it.write(range(1, 12))
    it.zero(range(4, 6), allocated=True)
    await snapshot("two")
    it.write_whole(range(3, 5))
    await it.flush()
    reads_the_same()
    await it.do(WriteCheckpoint("the test says so"))
    assert reads_the_same().manifest[14] == []

    await store.snapshots.clone("disk", "one", "clone")
    kept["clone"] = bytearray(kept["disk@one"])
    await store.snapshots.roll_back("disk", "two")
    kept["disk@before-rollback"], it.content = it.content, bytearray(kept["disk@two"])
    it.write(range(6, 9))
    await store.snapshots.delete("disk", "one")
    del kept["disk@one"]
    it.write(range(1, 3))
    await it.flush()
    assert len(reads_the_same().manifest[14]) == 4
    await it.do(WriteCheckpoint("the test says so"))
    await it.repack(100)
    it.write(range(2))
    await it.flush()
    assert reads_the_same().followed

    # As a crash leaves it right after a snapshot was logged: the manifest does not know of it yet.
    it.write(range(3, 6))
    await store.flush()
    manifests, copy = engine_of(store).manifests, tmp_path / "copy"
    commit = manifests.commit

    async def copy_and_commit(*arguments: Any, **more: Any) -> None:
        await at_rest(store)  # nothing goes while it is copied
        shutil.copytree(folder, copy)
        await commit(*arguments, **more)

    manifests.commit = copy_and_commit  # type: ignore[method-assign]
    await snapshot("three")
    await store.maintenance.flush()
    manifests.commit = commit  # type: ignore[method-assign]
    assert reads_the_same(copy).origins
    await store.close()
    reads_the_same()


class Maintained:
    """A store in this process whose maintenance does what the test says, when it says so."""

    def __init__(self, store: Store, content: bytearray, seed: int) -> None:
        self.store = store
        self.engine: Engine = engine_of(store)
        self.content = content
        self.draw = random.Random(seed)

    def write(self, blocks: range) -> None:
        """Sectors, parts of sectors, whole blocks and zeros, in some blocks of the device `disk`."""
        device = self.store.device("disk")
        draw = self.draw
        for block in blocks:
            base = block * BLOCK
            for _ in range(draw.randrange(1, 6)):
                length = draw.choice([4096, 8192, 5000, 700])
                at = base + draw.randrange(BLOCK - length)
                data = draw.randbytes(length)
                device.write(at, data)
                self.content[at : at + length] = data
            if draw.random() < 0.3:
                at, length = base + 4096 * draw.randrange(40), 4096 * draw.randrange(1, 20)
                device.zero(at, length, allocated=draw.random() < 0.5)
                self.content[at : at + length] = bytes(length)

    def write_whole(self, blocks: range) -> None:
        data = self.draw.randbytes(len(blocks) * BLOCK)
        self.store.device("disk").write(blocks.start * BLOCK, data)
        self.content[blocks.start * BLOCK : blocks.stop * BLOCK] = data

    def zero(self, blocks: range, *, allocated: bool) -> None:
        self.store.device("disk").zero(blocks.start * BLOCK, len(blocks) * BLOCK, allocated=allocated)
        self.content[blocks.start * BLOCK : blocks.stop * BLOCK] = bytes(len(blocks) * BLOCK)

    async def flush(self) -> None:
        await self.engine.flush_memtable(always=True)

    async def do(self, job: Job) -> None:
        """One job; what it takes off the list is deleted before this returns."""
        await self.engine.compactor.do(job)
        self.engine.compactor.delete_replaced()
        async with asyncio.timeout(30):
            while len(self.engine.garbage):  # noqa: ASYNC110
                await asyncio.sleep(0.01)

    async def repack(self, ssts: int) -> None:
        merged = [sst for sst in (await self.engine.compactor.look()).ssts if sst.merged and sst.live]
        merged.sort(key=lambda sst: sst.live / sst.frames)
        await self.do(Repack(tuple(merged[:ssts]), "the test says so"))

    async def drop(self) -> None:
        dead = tuple(sst for sst in (await self.engine.compactor.look()).ssts if sst.merged and not sst.live)
        assert dead, "nothing is dead: the test does not test dropping"
        await self.do(Drop(dead))

    async def consolidate(self, blocks: range) -> None:
        (layer,) = self.engine.layers
        patched = [block for block in blocks if self.engine.layers[layer].index.is_patched(block)]
        assert patched
        await self.do(Consolidate(tuple(PatchedBlock(layer, block, 4, 4) for block in patched)))


async def test_a_store_that_was_maintained(tmp_path: Path) -> None:
    """Checkpoints, repacked and dropped SSTs, consolidated blocks: at rest, and with rows and a log over all that."""
    options = StoreOptions(
        # Maintenance looks once, when there is nothing, and then never again by itself.
        engine=EngineOptions(maintenance=MaintenanceOptions(look_seconds=1e9)),
        state_folder=tmp_path / "state",
        cost=Cost.for_tests(),
    )
    folder = tmp_path / "store"
    content = bytearray(MAINTAINED_BLOCKS * BLOCK)
    password = b"password"

    def reads_the_same() -> FormatReader:
        reader = FormatReader(folder, password)
        compare(reader, "disk", content)
        return reader

    store = await open_store(f"file://{folder}", password, env=RealEnv(), create=True, options=options)
    await store.create_device("disk", len(content))
    it = Maintained(store, content, seed=1)
    it.write_whole(range(6))
    await it.flush()
    it.write(range(2, 10))
    it.zero(range(12, 14), allocated=True)
    await it.flush()
    it.write(range(4, 12))
    it.write(range(13, 14))
    await it.flush()
    await it.do(WriteCheckpoint("the test says so"))
    assert reads_the_same().manifest[7] == []

    it.write_whole(range(3, 5))
    await it.flush()
    it.write(range(0, 14, 3))
    await store.flush()
    reads_the_same()  # rows beside the checkpoint, and the log
    await it.repack(2)
    reader = reads_the_same()
    assert reader.followed
    assert reader.manifest[13]

    await it.consolidate(range(6, 9))
    it.write(range(7, 8))
    await it.flush()
    await it.do(WriteCheckpoint("again"))
    assert not reads_the_same().followed, "a new checkpoint has the new places"
    it.write(range(1, 9))
    await it.flush()
    await it.repack(2)  # some of it for the second time
    it.zero(range(3), allocated=False)
    it.write_whole(range(9, 12))
    await it.flush()
    assert reads_the_same().followed
    await it.do(WriteCheckpoint("with what is about to die"))
    it.write_whole(range(9, 12))
    await it.flush()
    await it.drop()  # its places stand in the checkpoint, covered by rows beside it
    it.write(range(2, 12, 2))
    await store.flush()
    assert reads_the_same().manifest[13]

    it.engine.fail(Closed("killed by the test"))
    await store.close()  # gives back the lock; nothing is written any more
    assert not reads_the_same().closed
    store = await open_store(f"file://{folder}", password, env=RealEnv(), options=options)
    it = Maintained(store, content, seed=2)
    it.write(range(14))
    await store.flush()
    reads_the_same()
    await store.close()
    reader = reads_the_same()
    assert reader.closed
    assert reader.manifest[12] is not None
