"""`scripts/recover` after small random histories: whatever was done to a store, and in which order, it reads of every
device and snapshot what was written to it, while the store is open, when it is closed, and after its writer died.
"""

import asyncio
import contextlib
import random
import shutil
from pathlib import Path
from typing import Any

import pytest

from storage.crypto.keyslots import Cost
from storage.env import RealEnv
from storage.errors import Closed
from storage.fs.opening import open_store
from storage.fs.store import Store
from storage.fs.store_options import StoreOptions
from storage.lsm.compaction.plan import Consolidate, Drop, PatchedBlock, Repack, WriteCheckpoint
from storage.lsm.options import EngineOptions, MaintenanceOptions
from storage.objects.folders import TEMPORARY
from tests.docs.test_format_maintained import Maintained
from tests.support.examples import first_soon
from tests.support.inside import at_rest
from tests.support.recover_script import recover
from tests.support.seeds import fresh_seed

PASSWORD = b"password"
BLOCK = 262144
SIZES = (3 * BLOCK, 4 * BLOCK + 512 * 3, 512)


class History:
    """A store, what every disk of it holds, and what may happen next."""

    def __init__(self, folder: Path, seed: int) -> None:
        self.folder = folder
        self.draw = random.Random(seed)
        self.disks: dict[str, bytearray] = {}
        self.names = 0
        self.said: list[str] = []
        self.store: Store

    async def open(self) -> None:
        options = StoreOptions(
            engine=EngineOptions(maintenance=MaintenanceOptions(look_seconds=1e9)),
            state_folder=self.folder / "state",
            cost=Cost.for_tests(),
        )
        location = f"file://{self.folder / 'store'}"
        self.store = await open_store(location, PASSWORD, env=RealEnv(), create=True, options=options)
        self.it = Maintained(self.store, bytearray(), seed=1)

    def device(self) -> str | None:
        return self.draw.choice([name for name in self.disks if "@" not in name] or [None])

    def snapshot(self) -> tuple[str, str] | None:
        names = [name for name in self.disks if "@" in name]
        device, _, snapshot = self.draw.choice(names).partition("@") if names else ("", "", "")
        return (device, snapshot) if device else None

    def name(self) -> str:
        self.names += 1
        return f"n{self.names}"

    async def create(self) -> None:
        name, size = self.name(), self.draw.choice(SIZES)
        await self.store.create_device(name, size)
        self.disks[name] = bytearray(size)

    async def write(self) -> None:
        if name := self.device():
            content, device = self.disks[name], self.store.device(name)
            for _ in range(self.draw.randrange(1, 12)):
                at = self.draw.randrange(len(content))
                length = min(self.draw.choice((1, 512, 4096, 5000, 70000, 2 * BLOCK)), len(content) - at)
                if self.draw.random() < 0.3:
                    device.zero(at, length, allocated=self.draw.random() < 0.5)
                    content[at : at + length] = bytes(length)
                else:
                    data = self.draw.randbytes(length) if self.draw.random() < 0.5 else b"x" * length
                    device.write(at, data)
                    content[at : at + length] = data

    async def flush(self) -> None:
        await self.store.flush()

    async def to_ssts(self) -> None:
        await self.it.flush()

    async def snapshots(self) -> None:
        if device := self.device():
            name = self.name()
            await self.store.snapshots.create([device], name)
            self.disks[f"{device}@{name}"] = bytearray(self.disks[device])

    async def clone(self) -> None:
        if found := self.snapshot():
            name = self.name()
            await self.store.snapshots.clone(*found, name)
            self.disks[name] = bytearray(self.disks["@".join(found)])

    async def roll_back(self) -> None:
        if found := self.snapshot():
            kept = await self.store.snapshots.roll_back(*found, keep=self.draw.random() < 0.5)
            if kept:
                self.disks[f"{found[0]}@{kept}"] = self.disks[found[0]]
            self.disks[found[0]] = bytearray(self.disks["@".join(found)])

    async def delete(self) -> None:
        if found := self.snapshot():
            await self.store.snapshots.delete(*found)
            del self.disks["@".join(found)]
        elif device := self.device():
            await self.store.delete_device(device)
            del self.disks[device]

    async def resize(self) -> None:
        if device := self.device():
            for _ in range(self.draw.randrange(1, 3)):  # what was cut off does not come back
                size, content = self.draw.choice(SIZES), self.disks[device]
                await self.store.resize_device(device, size, shrink=True)
                self.disks[device] = content[:size] + bytes(max(size - len(content), 0))

    async def rename(self) -> None:
        if device := self.device():
            new = f"folder/{self.name()}"
            await self.store.rename_device(device, new)
            for name in [name for name in self.disks if name.partition("@")[0] == device]:
                self.disks[new + name.removeprefix(device)] = self.disks.pop(name)

    async def maintain(self) -> None:
        """One job, of any kind. The store itself looks once when it opens, and so may be at one."""
        compactor = self.it.engine.compactor
        async with compactor.working:
            merged = [sst for sst in (await compactor.look()).ssts if sst.merged]
            live = [sst for sst in merged if sst.live]
            some = self.draw.sample(live, self.draw.randrange(len(live) + 1))
            match self.draw.randrange(4):
                case 0:
                    await self.it.do(WriteCheckpoint("the test says so"))
                case 1 if some:
                    await self.it.do(Repack(tuple(some), "the test says so"))
                case 2 if len(merged) > len(live):
                    await self.it.do(Drop(tuple(sst for sst in merged if not sst.live)))
                case 3:
                    await self.consolidate()

    async def consolidate(self) -> None:
        patched = [
            PatchedBlock(number, block, 4, 4)
            for number, layer in self.it.engine.layers.items()
            for block in range(8)
            if layer.index.is_patched(block)
        ]
        if patched:
            await self.it.do(Consolidate(tuple(patched)))

    async def crash(self) -> None:
        await self.end(kill=True)
        self.compare()
        await self.open()

    async def reopen(self) -> None:
        await self.store.close()
        self.compare()
        await self.open()

    async def end(self, *, kill: bool) -> None:
        await self.store.flush()
        if kill:
            self.it.engine.fail(Closed("killed by the test"))
        with contextlib.suppress(Closed):
            await self.store.close()

    async def compare_open(self) -> None:
        """While the store is open, and its maintenance at rest."""
        await self.store.flush()
        async with self.it.engine.compactor.working, asyncio.timeout(30):
            while len(self.it.engine.garbage):  # noqa: ASYNC110
                await asyncio.sleep(0.01)
            self.compare()

    async def step(self, name: str) -> None:
        """What comes next; and what a crash right before its last manifest would have left, with it in the log only."""
        self.said.append(name)
        if name not in ("snapshots", "clone", "roll_back", "delete"):
            await getattr(self, name)()
            return
        manifests, copy = self.it.engine.manifests, self.folder / "copy"
        commit = manifests.commit

        async def copy_and_commit(*arguments: Any, **more: Any) -> None:
            shutil.rmtree(copy, ignore_errors=True)
            await at_rest(self.store)  # nothing goes while it is copied
            # What is being written meanwhile has a name of its own, and may go while it is copied.
            shutil.copytree(self.folder / "store", copy, ignore=shutil.ignore_patterns(f"{TEMPORARY}*"))
            await commit(*arguments, **more)

        await self.store.flush()
        manifests.commit = copy_and_commit  # type: ignore[method-assign]
        await getattr(self, name)()
        await self.it.engine.flush_memtable()
        manifests.commit = commit  # type: ignore[method-assign]
        if copy.exists():
            self.compare("copy")
            shutil.rmtree(copy)

    def compare(self, folder: str = "store") -> None:
        """What the script reads of the folder as it lies there."""
        store = recover.Store(self.folder / folder, PASSWORD)
        assert store.missing == []
        found = store.tree.disks()
        assert {name: disk.size for name, disk in found.items()} == {
            name: len(content) for name, content in self.disks.items()
        }
        for name, disk in found.items():
            image = self.folder / "image"
            assert store.export(disk, image) == []
            if image.read_bytes() != self.disks[name]:
                got = image.read_bytes()
                first = next(at for at in range(len(got)) if got[at] != self.disks[name][at])
                pytest.fail(f"byte {first} of {name} differs after {' '.join(self.said)}", pytrace=False)
            image.unlink()


STEPS = (
    ["write"] * 6
    + [
        "create",
        "flush",
        "to_ssts",
        "to_ssts",
        "snapshots",
        "snapshots",
        "clone",
        "roll_back",
        "delete",
        "resize",
        "resize",
    ]
    + ["rename", "maintain", "maintain", "maintain", "maintain", "crash", "reopen"]
)


async def test_what_was_not_filled_to_its_end_is_no_disk(tmp_path: Path) -> None:
    """An import that was cut short by the end of its server."""
    history = History(tmp_path, 0)
    await history.open()
    await history.create()
    async with history.store.filling.new("half", BLOCK, "an import") as device:
        device.write(0, b"half of it")
        await history.store.flush()
        history.compare()
    history.disks["half"] = bytearray(b"half of it".ljust(BLOCK, b"\0"))
    history.compare()
    await history.end(kill=True)


@pytest.mark.parametrize("seed", first_soon([*range(4), fresh_seed()], soon=1))
@pytest.mark.thorough
async def test_whatever_happened(tmp_path: Path, seed: int) -> None:
    history = History(tmp_path, seed)
    await history.open()
    await history.create()
    for _ in range(60):
        await history.step(history.draw.choice(STEPS))
        if history.draw.random() < 0.2:
            await history.compare_open()
    await history.end(kill=history.draw.random() < 0.5)
    history.compare()
