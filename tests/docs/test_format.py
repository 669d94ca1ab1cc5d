"""docs/format.md says enough to read a store: a program written from it reads what the real program wrote."""

import ast
import asyncio
import random
import shutil
import sys
from collections.abc import Callable
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
from tests.support import format_blocks, format_reader, format_sealed
from tests.support.format_reader import FormatReader
from tests.support.inside import engine_of
from tests.support.messages import FUA, NO_HOLE
from tests.support.nbd import Client
from tests.support.program import Host, Server
from tests.support.stores import StoreUnderTest

pytestmark = pytest.mark.integration

MIB = 1024 * 1024
DISK_BYTES = 48 * MIB
ODD_BYTES = 5859 * 512
"""Not a whole number of sectors."""
BLOCK = 262144
MAINTAINED_BLOCKS = 14
NEW_PASSWORD = "another password"

EVERY_RECORD = {"1/0", "2/0", "2/1", "3/0", "4/0", "5/0"}
"""Type and flags of all records of the log that the page describes."""

LIBRARIES = {"argon2", "cryptography", "lz4", "msgspec", "nacl"}


class Disk:
    """A device and what it should hold."""

    def __init__(self, client: Client, content: bytearray, seed: int) -> None:
        self.client = client
        self.content = content
        self.random = random.Random(seed)

    def write(self, offset: int, data: bytes, *, flags: int = 0) -> None:
        self.client.write(offset, data, flags=flags)
        self.content[offset : offset + len(data)] = data

    def trim(self, offset: int, length: int) -> None:
        self.client.trim(offset, length)
        self.content[offset : offset + length] = bytes(length)

    def zero(self, offset: int, length: int, *, flags: int = 0) -> None:
        self.client.zero(offset, length, flags=flags)
        self.content[offset : offset + length] = bytes(length)

    def exercise(self) -> None:
        """Some of everything that leaves a mark of its own in the store, and a flush."""
        draw = self.random
        at = draw.randrange(8) * MIB
        self.write(at + MIB // 2, draw.randbytes(9 * MIB))  # whole blocks in the middle: frames and locators
        self.write(draw.randrange(24, 40) * MIB, b"compressible " * 30000)
        for _ in range(60):
            self.write(draw.randrange(DISK_BYTES // 4096) * 4096, draw.randbytes(4096))
        for _ in range(30):  # parts of sectors, also over the end of one
            self.write(draw.randrange(DISK_BYTES - 9000), draw.randbytes(draw.randrange(1, 9000)))
        self.trim(draw.randrange(20) * MIB + 5000, 5 * MIB)
        self.zero(draw.randrange(40) * MIB + 100, 700_000, flags=NO_HOLE)
        self.zero(draw.randrange(40) * MIB, 262144)
        self.write(draw.randrange(40) * MIB, bytes(3 * 262144))  # zeros that are written
        self.write(at + MIB, draw.randbytes(8192), flags=FUA)  # over a frame that is uploaded already
        self.client.flush()


def folder_of(store: StoreUnderTest) -> Path:
    return Path(store.location.removeprefix("file://"))


def compare(reader: FormatReader, device: str, expected: bytearray) -> None:
    """Equal, or the first byte that is not: pytest would print megabytes."""
    found = reader.content(device)
    assert len(found) == len(expected)
    if found != expected:
        first = next(at for at in range(len(found)) if found[at] != expected[at])
        pytest.fail(f"byte {first} of {device} is {found[first]}, not {expected[first]}", pytrace=False)


@pytest.fixture
def running(local_store: StoreUnderTest, host: Host, make_server: Callable[..., Server]) -> Server:
    server = make_server(local_store, on=host, create={"disk": str(DISK_BYTES), "tenant-a/other": str(ODD_BYTES)})
    server.start()
    return server


def exercise(server: Server, content: bytearray, seed: int) -> None:
    with server.connect("disk") as client:
        Disk(client, content, seed).exercise()


def test_a_closed_store(running: Server, local_store: StoreUnderTest, host: Host) -> None:
    content = bytearray(DISK_BYTES)
    for seed in (1, 2):
        exercise(running, content, seed)
        assert running.stop() == 0
        running.start()
    assert running.stop() == 0

    reader = FormatReader(folder_of(local_store), host.password.encode())
    assert reader.closed
    assert not reader.records, "a closed store has nothing in its log"
    assert set(reader.devices()) == {"disk", "tenant-a/other"}
    compare(reader, "disk", content)
    assert len(reader.content("tenant-a/other")) == ODD_BYTES


def test_a_store_whose_server_was_killed(running: Server, local_store: StoreUnderTest, host: Host) -> None:
    """What is in the log only: writes, zeros, locators, changes of the tree; over SSTs, and behind a fence."""
    content = bytearray(DISK_BYTES)
    exercise(running, content, seed=3)
    assert running.stop() == 0
    running.start()

    def command(*words: str) -> None:
        host.run(*words, "--store", local_store.location)

    command("device", "delete", "tenant-a/other")
    command("device", "create", "b/c", "1MiB")
    command("device", "rename", "b/c", "new")
    command("device", "resize", "disk", str(DISK_BYTES - 5 * MIB - 512), "--shrink")
    command("device", "resize", "disk", str(DISK_BYTES))
    content[DISK_BYTES - 5 * MIB - 512 :] = bytes(5 * MIB + 512)
    exercise(running, content, seed=4)
    running.kill()

    reader = FormatReader(folder_of(local_store), host.password.encode())
    assert not reader.closed
    assert set(reader.records) == EVERY_RECORD
    assert set(reader.devices()) == {"disk", "new"}
    compare(reader, "disk", content)

    running.start()  # takes over, fences, replays
    exercise(running, content, seed=5)
    running.kill()
    reader = FormatReader(folder_of(local_store), host.password.encode())
    assert reader.takeover
    compare(reader, "disk", content)

    running.start()
    host.run("password", "change", "--store", local_store.location, NBDSERVER_NEW_PASSWORD=NEW_PASSWORD)
    exercise(running, content, seed=6)
    running.kill()
    with pytest.raises(ValueError, match="no slot opens"):
        FormatReader(folder_of(local_store), host.password.encode())
    reader = FormatReader(folder_of(local_store), NEW_PASSWORD.encode())
    assert reader.manifest[11] == reader.keys_number == 2
    compare(reader, "disk", content)


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
        shutil.copytree(folder, copy)
        await commit(*arguments, **more)

    manifests.commit = copy_and_commit  # type: ignore[method-assign]
    await snapshot("three")
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
        self.engine.compactor.delete_condemned()
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


def test_the_reader_notices_a_flipped_bit(running: Server, local_store: StoreUnderTest, host: Host) -> None:
    """It checks what the page says is checked: without this it would prove less than it seems to."""
    content = bytearray(DISK_BYTES)
    exercise(running, content, seed=7)
    assert running.stop() == 0
    running.start()
    exercise(running, content, seed=8)
    running.kill()
    folder = folder_of(local_store)
    noticed: dict[str, int] = {}
    draw = random.Random(9)
    for path in sorted(path for path in folder.glob("*/*") if path.is_file()):
        whole = path.read_bytes()
        at = draw.randrange(len(whole))
        path.write_bytes(whole[:at] + bytes([whole[at] ^ 1 << draw.randrange(8)]) + whole[at + 1 :])
        kind = path.parent.name
        try:
            reader = FormatReader(folder, host.password.encode())
            assert reader.content("disk") == content, f"a flipped bit in {path.name} gave wrong data"
        except ValueError:
            noticed[kind] = noticed.get(kind, 0) + 1
        path.write_bytes(whole)
    assert set(noticed) == {"keys", "manifest", "wal", "compacted"}
    compare(FormatReader(folder, host.password.encode()), "disk", content)


def test_the_reader_has_nothing_of_this_project() -> None:
    modules = {module.__name__: module for module in (format_reader, format_blocks, format_sealed)}
    imported = {
        name if name in modules else name.split(".")[0]
        for module in modules.values()
        for node in ast.walk(ast.parse(Path(str(module.__file__)).read_text()))
        for name in (
            [alias.name for alias in node.names]
            if isinstance(node, ast.Import)
            else [node.module or "."]
            if isinstance(node, ast.ImportFrom)
            else []
        )
    }
    assert imported <= LIBRARIES | set(sys.stdlib_module_names) | modules.keys()
