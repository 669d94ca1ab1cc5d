"""Makes the golden stores of the present format: `python -m tests.golden.make`.

Only together with a new format version, whose store is one more, beside those of older ones; or, as long as nothing has
shipped, where a change of the format is wanted (CONTRIBUTING.md). What comes out differs from run to run, as salts,
nonces and times do; what its disks hold does not.
"""

import asyncio
import hashlib
import json
import shutil
import sys
import tempfile
from collections.abc import Awaitable, Callable
from pathlib import Path

from storage.crypto.data_key import KEYS_VERSION
from storage.crypto.keyslots import MEMORY_KIB_MIN, Cost
from storage.env import RealEnv
from storage.errors import Closed
from storage.fs.opening import open_store
from storage.fs.store import Store
from storage.fs.store_options import StoreOptions
from storage.lsm.compaction.plan import WriteCheckpoint
from storage.lsm.options import EngineOptions, MaintenanceOptions
from tests.docs.test_format_maintained import Maintained

GOLDEN = Path(__file__).parent / f"format-{KEYS_VERSION}"
ROTATING = Path(__file__).parent / f"format-{KEYS_VERSION}-rotating"
"""In the midst of a rotation of its data key: each kind of object is there under either key."""
PASSWORDS = ("golden", "a second password")
BLOCK = 262144
DISK_BYTES = 40 * BLOCK
SMALL_BYTES = 30 * BLOCK
ODD_BYTES = 2 * BLOCK + 3 * 512


class Maker:
    """A store, and what each of its disks holds."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.disks: dict[str, bytearray] = {}
        self.writes = 0
        self.store: Store
        self.it: Maintained

    async def open(self) -> None:
        options = StoreOptions(
            engine=EngineOptions(maintenance=MaintenanceOptions(look_seconds=1e9)),
            state_folder=self.folder / "state",
            cost=Cost(memory_kib=MEMORY_KIB_MIN, passes=1, lanes=1),
        )
        location, password = f"file://{self.folder / 'store'}", PASSWORDS[0].encode()
        self.store = await open_store(location, password, env=RealEnv(), create=True, options=options)
        self.it = Maintained(self.store, bytearray(), seed=1)

    async def create(self, name: str, size: int) -> None:
        await self.store.create_device(name, size)
        self.disks[name] = bytearray(size)

    def write(self, name: str, offset: int, length: int) -> None:
        """Text that compresses, and is not what was there before."""
        self.writes += 1
        data = (b"write %d to %s. " % (self.writes, name.encode()) * (length // 12 + 1))[:length]
        self.store.device(name).write(offset, data)
        self.disks[name][offset : offset + length] = data

    def zero(self, name: str, offset: int, length: int, *, allocated: bool = False) -> None:
        self.store.device(name).zero(offset, length, allocated=allocated)
        self.disks[name][offset : offset + length] = bytes(length)

    async def snapshot(self, name: str, label: str) -> None:
        await self.store.snapshots.create([name], label)
        self.disks[f"{name}@{label}"] = bytearray(self.disks[name])

    def some(self, name: str) -> None:
        """Whole blocks, sectors, parts of them and zeros."""
        self.write(name, 0, 4 * BLOCK)
        for at in range(5):
            self.write(name, at * BLOCK + 4096 * (3 + self.writes % 7), 8192)
            self.write(name, at * BLOCK + 100_001 + 4096 * at, 700)
        self.zero(name, 3 * BLOCK + 5000, 30_000)
        self.zero(name, 5 * BLOCK, 2 * BLOCK, allocated=True)

    async def maintained(self) -> None:
        """Snapshots and a checkpoint, and rows, operations and moved frames beside it."""
        await self.create("disk", DISK_BYTES)
        await self.create("tenant-a/odd", ODD_BYTES)
        self.some("disk")
        self.write("tenant-a/odd", 1000, ODD_BYTES - 1500)
        await self.snapshot("disk", "monday")
        self.some("disk")
        await self.snapshot("disk", "tuesday")
        self.write("disk", BLOCK, 3 * BLOCK)
        await self.it.flush()
        await self.it.do(WriteCheckpoint("it is golden"))
        self.write("disk", 2 * BLOCK, 4096)
        await self.it.flush()
        await self.it.repack(2)
        await self.store.snapshots.clone("disk", "monday", "clone")
        self.disks["clone"] = bytearray(self.disks["disk@monday"])
        self.write("clone", 77, 5000)
        kept = await self.store.snapshots.roll_back("disk", "tuesday")
        self.disks[f"disk@{kept}"], self.disks["disk"] = self.disks["disk"], bytearray(self.disks["disk@tuesday"])
        await self.it.flush()

    async def in_the_log(self) -> None:
        """After a fence, since the writer died: every type of record, and a tail that nobody flushed to SSTs."""
        await self.kill()
        await self.open()
        await self.store.passwords.add(PASSWORDS[0].encode(), PASSWORDS[1].encode(), "second")
        self.write("disk", 20 * BLOCK, 18 * BLOCK)  # frames and locators
        await self.store.flush()
        self.some("disk")
        await self.store.rename_device("clone", "folder/renamed")
        self.disks["folder/renamed"] = self.disks.pop("clone")
        await self.store.resize_device("tenant-a/odd", BLOCK + 512, shrink=True)
        await self.store.resize_device("tenant-a/odd", ODD_BYTES)
        self.disks["tenant-a/odd"][BLOCK + 512 :] = bytes(ODD_BYTES - BLOCK - 512)
        self.zero("disk", 30 * BLOCK + 512, 3 * BLOCK)
        self.write("folder/renamed", 4000, 200)
        await self.store.flush()
        await self.kill()

    async def rotated(self) -> None:
        """The key is rotated, and a part of the store sealed anew: a frame that was moved, SSTs, checkpoint and tree;
        and what came since lies in the log and, past it, in an SST.
        """
        await self.create("disk", SMALL_BYTES)
        self.some("disk")
        await self.snapshot("disk", "monday")
        await self.it.flush()
        await self.it.do(WriteCheckpoint("it is golden"))
        self.write("disk", 3 * BLOCK, 5000)
        await self.it.flush()
        await self.store.passwords.add(PASSWORDS[0].encode(), PASSWORDS[1].encode(), "second")
        self.write("disk", 4 * BLOCK + 77, 700)
        await self.store.passwords.rotate_key(PASSWORDS[0].encode(), [PASSWORDS[1].encode()], drop_others=False)
        await self.store.flush()
        await self.kill()
        await self.open()
        self.some("disk")
        await self.it.flush()
        await self.it.repack(1)
        await self.store.snapshots.clone("disk", "monday", "clone")
        self.disks["clone"] = bytearray(self.disks["disk@monday"])
        self.write("clone", 77, 5000)
        self.write("disk", 6 * BLOCK, 18 * BLOCK)
        await self.store.flush()
        await self.kill()

    async def kill(self) -> None:
        self.it.engine.fail(Closed("killed by the maker"))
        await self.store.close()


async def make(golden: Path, history: Callable[[Maker], Awaitable[None]]) -> None:
    """A store with that history, and what it holds, in a folder that is made anew."""
    with tempfile.TemporaryDirectory() as folder:
        maker = Maker(Path(folder))
        await maker.open()
        await history(maker)
        shutil.rmtree(golden, ignore_errors=True)
        for part in ("keys", "manifest", "spare", "wal", "compacted"):
            shutil.copytree(maker.folder / "store" / part, golden / "store" / part)
    disks = {
        name: {"size": len(content), "sha256": hashlib.sha256(content).hexdigest()}
        for name, content in sorted(maker.disks.items())
    }
    (golden / "expected.json").write_text(json.dumps({"passwords": PASSWORDS, "disks": disks}, indent=2) + "\n")


async def present(maker: Maker) -> None:
    """All there is in a store whose key was never rotated."""
    await maker.maintained()
    await maker.in_the_log()


if __name__ == "__main__":
    histories = {GOLDEN: present, ROTATING: Maker.rotated}
    for wanted in [path for path in histories if not sys.argv[1:] or path.name in sys.argv[1:]]:
        asyncio.run(make(wanted, histories[wanted]))
