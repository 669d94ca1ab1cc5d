"""What is used, compared with a count of another kind: the test's own book of sectors, extents, and the objects in the
store as a program reads them that was written from docs/format.md alone.
"""

import random
from pathlib import Path

import pytest

from storage.crypto.keyslots import Cost
from storage.env import RealEnv
from storage.errors import NotFound
from storage.fs.opening import open_reader, open_store
from storage.fs.store import Store
from storage.fs.store_options import StoreOptions
from storage.lsm.compaction.plan import Consolidate, Drop, PatchedBlock, Repack, WriteCheckpoint
from storage.lsm.engine import Engine
from storage.lsm.options import EngineOptions, MaintenanceOptions
from storage.lsm.read.extents import ExtentState
from tests.support.examples import first_soon
from tests.support.format_blocks import DATA, Frame
from tests.support.format_reader import FormatReader
from tests.support.inside import engine_of

KIB = 1024
SECTOR = 4 * KIB
BLOCK = 256 * KIB
BLOCKS = 40
SIZE = BLOCKS * BLOCK - 3 * SECTOR
"""The last block is not all there."""
PASSWORD = b"password"
HEADER = 96
KIND_AT = 10


class Disk:
    """A device, and for each of its sectors whether it was written and not discarded since."""

    def __init__(self, store: Store, name: str, seed: int) -> None:
        self.store = store
        self.name = name
        self.draw = random.Random(seed)
        self.book = bytearray(SIZE // SECTOR)
        self.written = 0

    def write(self, count: int) -> None:
        device, draw = self.store.device(self.name), self.draw
        for _ in range(count):
            length = SECTOR * draw.choice([1, 1, 2, 7, 64])
            offset = SECTOR * draw.randrange((SIZE - length) // SECTOR + 1)
            first, end = offset // SECTOR, (offset + length) // SECTOR
            kind = draw.random()
            if kind < 0.7:
                device.write(offset, draw.randbytes(length))
                self.book[first:end] = b"\1" * (end - first)
                self.written += length
            elif kind < 0.9:
                device.zero(offset, length, allocated=False)
                self.book[first:end] = bytes(end - first)
            else:
                device.zero(offset, length, allocated=True)
                self.book[first:end] = b"\1" * (end - first)

    def write_whole(self, first: int, blocks: int) -> None:
        self.store.device(self.name).write(first * BLOCK, self.draw.randbytes(blocks * BLOCK))
        self.book[first * 64 : (first + blocks) * 64] = b"\1" * (blocks * 64)
        self.written += blocks * BLOCK

    def discard_all(self) -> None:
        self.store.device(self.name).zero(0, SIZE, allocated=False)
        self.book = bytearray(SIZE // SECTOR)

    @property
    def allocated(self) -> int:
        return sum(self.book) * SECTOR


def by_extents(store: Store, name: str) -> int:
    """Bytes of a device that are no hole, as clients are told."""
    device, offset, found = store.device(name), 0, 0
    while offset < SIZE:
        for size, state in device.extents(offset, SIZE - offset):
            found += size * (state is not ExtentState.HOLE)
            offset += size
    return found


class Place:
    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.options = StoreOptions(
            # Maintenance does what the test says, when it says so.
            engine=EngineOptions(maintenance=MaintenanceOptions(look_seconds=1e9)),
            state_folder=folder / "state",
            cost=Cost.for_tests(),
        )

    async def open(self, *, create: bool = False) -> Store:
        where = f"file://{self.folder}/store"
        return await open_store(where, PASSWORD, env=RealEnv(), create=create, options=self.options)

    async def recounted(self, store: Store) -> tuple[dict[str, int], int, int, int]:
        """Close a store and count what its objects say: live bytes by device, stored bytes, dead ones, SSTs."""
        await store.close()
        reader = FormatReader(self.folder / "store", PASSWORD)
        frames: dict[int, set[Frame]] = {}
        for (layer, _), sectors in reader.blocks.items():
            frames.setdefault(layer, set()).update(frame for frame in sectors if frame is not None)
        live = {name: sum(frame.length for frame in frames.get(layer, ())) for name, layer in reader.devices().items()}
        objects = [path.read_bytes() for path in (self.folder / "store" / "compacted").iterdir()]
        ssts = [raw for raw in objects if raw[KIND_AT] == DATA]
        within = sum(_index_offset(raw) - HEADER for raw in ssts)
        return live, sum(map(len, ssts)), within - sum(live.values()), len(ssts)

    async def agrees(self, store: Store, *disks: Disk) -> Store:
        """Compare what a store says of itself with all of that, also as a reader sees it; gives it opened again."""
        # Maintenance that would write a block whole before the store is closed makes more of it allocated.
        await engine_of(store).background.stop()
        await engine_of(store).flush_memtable(always=True)
        await store.count_usage()
        told, of = store.status(), {disk.name: store.device_usage(disk.name) for disk in disks}
        live, stored, dead, ssts = await self.recounted(store)
        reader = await open_reader(f"file://{self.folder}/store", PASSWORD, env=RealEnv(), options=self.options)
        await reader.count_usage()
        try:
            for status, usage in ((told, of), (reader.status(), {d.name: reader.device_usage(d.name) for d in disks})):
                assert {name: used.live_bytes for name, used in usage.items()} == live
                assert (status.stored_bytes, status.ssts) == (stored, ssts)
                assert (status.live_bytes, status.dead_bytes) == (sum(live.values()), dead)
                assert status.logical_bytes == SIZE * len(disks)
                assert status.allocated_bytes == sum(by_extents(reader, disk.name) for disk in disks)
                for disk in disks:
                    assert usage[disk.name].memtable_bytes == 0
                    assert usage[disk.name].allocated_bytes == by_extents(reader, disk.name)
        finally:
            await reader.close()
        again = await self.open()
        for disk in disks:
            disk.store, disk.written = again, 0
        return again


def _index_offset(raw: bytes) -> int:
    """Where the second header stands: the same 96 bytes once more."""
    return raw.index(raw[:HEADER], HEADER)


async def do(engine: Engine, job: Repack | Drop | Consolidate | WriteCheckpoint) -> None:
    await engine.compactor.do(job)
    engine.compactor.delete_replaced()


async def maintain(store: Store) -> None:
    """Every job, on as much as there is."""
    engine = engine_of(store)
    await engine.flush_memtable()
    async with engine.compactor.working:  # maintenance looks once when a store is opened
        patched = tuple(
            PatchedBlock(number, block, 4, 4)
            for number, layer in engine.layers.items()
            for block in range(0, BLOCKS, 3)
            if layer.index.is_patched(block)
        )
        await do(engine, Consolidate(patched))
        await do(engine, WriteCheckpoint("the test says so"))
        ssts = (await engine.compactor.look()).ssts
        dead = tuple(sst for sst in ssts if sst.merged and not sst.live)
        if dead:
            await do(engine, Drop(dead))
        some = tuple(sst for sst in ssts if sst.merged and 0 < sst.live < sst.frames)[:2]
        if some:
            await do(engine, Repack(some, "the test says so"))


@pytest.mark.parametrize("seed", first_soon(range(3)))
@pytest.mark.thorough
async def test_what_is_used_agrees_with_the_objects_in_the_store(tmp_path: Path, seed: int) -> None:
    """After overwrites, discards, each job of maintenance, restarts, and the deletion of a device."""
    place = Place(tmp_path)
    store = await place.open(create=True)
    for name in ("a", "b"):
        await store.create_device(name, SIZE)
    a, b = Disk(store, "a", seed), Disk(store, "b", seed + 100)
    a.write_whole(0, 30)
    a.write(60)
    b.write(60)
    store = await place.agrees(store, a, b)
    for _ in range(2):
        a.write(80)
        a.write_whole(a.draw.randrange(20), 10)
        await engine_of(store).flush_memtable()
        b.write(40)
        await maintain(store)
        store = await place.agrees(store, a, b)
    b.discard_all()
    store = await place.agrees(store, a, b)
    await store.delete_device("a")
    await maintain(store)
    store = await place.agrees(store, b)
    await maintain(store)
    store = await place.agrees(store, b)
    status = store.status()
    assert (status.live_bytes, status.dead_bytes) == (0, 0)
    await store.close()


@pytest.mark.parametrize("seed", first_soon(range(4)))
async def test_allocated_is_what_was_written_and_not_discarded(tmp_path: Path, seed: int) -> None:
    """Wherever it is: in the index, in a memtable, in both; and what waits is what no SST holds yet."""
    store = await Place(tmp_path).open(create=True)
    await store.create_device("a", SIZE)
    disk = Disk(store, "a", seed)
    for generation in range(6):
        for _ in range(disk.draw.randrange(1, 4)):
            disk.write(disk.draw.randrange(1, 50))
            if disk.draw.random() < 0.2:
                disk.discard_all()
            await store.count_usage()
            used = store.device_usage("a")
            assert used.allocated_bytes == by_extents(store, "a")
            if not generation:  # a flush writes blocks whole, with the zeros that are left in them
                assert used.allocated_bytes == disk.allocated
            assert used.written_bytes == disk.written == store.status().written_bytes
            assert used.memtable_bytes <= store.status().memtable_bytes
        await store.flush()
        assert store.device_usage("a").unlogged_bytes == 0
        await engine_of(store).flush_memtable()
        await store.count_usage()
        used = store.device_usage("a")
        assert (used.allocated_bytes, used.memtable_bytes) == (by_extents(store, "a"), 0)
    await store.delete_device("a")
    assert store.status().written_bytes == disk.written, "what was written stays written"
    with pytest.raises(NotFound):
        store.device_usage("a")
    await store.count_usage()
    assert store.status().allocated_bytes == 0
    await store.close()


@pytest.mark.fast
async def test_nothing_is_counted_twice(tmp_path: Path) -> None:
    """Who asks again while nothing changed gets the same; a write, a flush, a job and a deletion change something."""
    store = await Place(tmp_path).open(create=True)
    await store.create_device("a", SIZE)
    meter = engine_of(store).meter
    disk = Disk(store, "a", 1)
    before = await meter.count()
    assert await meter.count() is before
    for change in (
        lambda: disk.write_whole(1, 2),
        engine_of(store).flush_memtable,
        lambda: do(engine_of(store), WriteCheckpoint("the test says so")),
        lambda: store.delete_device("a"),
    ):
        done = change()
        if done is not None:
            await done
        after = await meter.count()
        assert after is not before
        before = after
        assert await meter.count() is before
    await store.close()


async def test_whole_blocks_that_are_zeroed_in_memory_are_not_counted_as_the_index_has_them(tmp_path: Path) -> None:
    """Memory has no entry of a block then, only the range."""
    store = await Place(tmp_path).open(create=True)
    await store.create_device("a", SIZE)
    disk = Disk(store, "a", 1)
    disk.write_whole(0, 20)
    await engine_of(store).flush_memtable()
    store.device("a").zero(0, 15 * BLOCK, allocated=False)
    await store.count_usage()
    assert store.device_usage("a").allocated_bytes == 5 * BLOCK == by_extents(store, "a")
    await store.close()
