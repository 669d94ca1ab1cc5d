"""A store whose data key is rotated, and what it holds, for tests."""

import asyncio
from collections.abc import Callable
from pathlib import Path

from storage.check.read_run import CheckProgress
from storage.crypto.keyslots import KIND_KEYS, MEMORY_KIB_MIN, Cost
from storage.format.envelope import ObjectKind
from storage.format.names import manifest_name
from storage.fs.check import CheckOptions
from storage.fs.opening import check_store
from storage.fs.store import Store
from storage.fs.store_options import StoreOptions
from storage.lsm.options import EngineOptions, MaintenanceOptions
from tests.storage.fs.places import PASSWORD, Place, contents
from tests.support.inside import engine_of

BLOCK = 262144
DISK_BYTES = 8 * BLOCK
VERSION_AT, KIND_AT, KEY_ID_AT, SIZE_AT, PARTS_AT = 8, 10, 11, 80, 88
ROTATION_SECONDS_MAX = 120.0
COST = Cost(memory_kib=MEMORY_KIB_MIN, passes=1, lanes=1)
"""The least that `scripts/recover` and commands take."""


class RotatedPlace(Place):
    """A folder store that is maintained at once, and what each of its disks holds."""

    def __init__(self, folder: Path, *, look_seconds: float = 0.01) -> None:
        super().__init__(folder)
        self.disks: dict[str, bytearray] = {}
        self.look_seconds = look_seconds
        self.leftover_seconds = 0.0
        self.writes = 0
        self.takeovers: set[str] = set()
        self.journal: Path | None = None

    @property
    def options(self) -> StoreOptions:
        maintenance = MaintenanceOptions(look_seconds=self.look_seconds, rest_seconds=0.0)
        engine = EngineOptions(
            cache_bytes=1 << 20,
            maintenance=maintenance,
            leftover_seconds=self.leftover_seconds,
            sweep_seconds=0.1,
        )
        return StoreOptions(engine=engine, state_folder=self.state, cost=COST, journal_folder=self.journal)

    async def make(self) -> Store:
        """With a snapshot and a clone, in a checkpoint and beside it."""
        store = await self.open(create=True)
        await store.create_device("disk", DISK_BYTES)
        self.disks["disk"] = bytearray(DISK_BYTES)
        self.some(store)
        await store.snapshots.create(["disk"], "monday")
        self.disks["disk@monday"] = bytearray(self.disks["disk"])
        self.some(store)
        await store.snapshots.clone("disk", "monday", "clone")
        self.disks["clone"] = bytearray(self.disks["disk@monday"])
        await store.flush()
        return store

    def some(self, store: Store, name: str = "disk") -> None:
        """Whole blocks, sectors, and parts of them."""
        self.writes += 1
        for offset, length in ((0, 3 * BLOCK), (4 * BLOCK + 8192 * self.writes, 4096), (5 * BLOCK + 777, 1000)):
            data = (b"write %d. " % self.writes * (length // 8 + 1))[:length]
            store.device(name).write(offset, data)
            self.disks[name][offset : offset + length] = data

    async def holds(self, store: Store) -> None:
        """Each disk is as it was written."""
        for name, content in self.disks.items():
            assert await contents(store.device(name)) == content, name

    def of_key(self, key_id: int) -> list[str]:
        """The objects whose header names this data key, but fences and take-overs, which stay for their names. Keys
        objects and their copies name none: there the id of the store begins.
        """
        found = []
        for name, raw in self.files().items():
            kept = raw[KIND_AT] in (ObjectKind.FENCE, KIND_KEYS) or name in self.takeovers
            if raw[KEY_ID_AT] == key_id and not kept:
                found.append(name)
        return sorted(found)

    def is_rotated(self, store: Store) -> bool:
        """Whether the rotation has ended; from then on it is known which manifests are take-overs."""
        self.takeovers = {manifest_name(number) for number in engine_of(store).manifests.manifest.takeovers}
        return store.status().rotation is None

    async def is_whole(self) -> None:
        """A check of the store at rest, all data read, finds nothing, but that a crash kept the newest manifest or the
        keys from being copied.
        """
        check, progress = CheckOptions(read_data=True, rate=0), CheckProgress()
        report = await check_store(
            str(self.folder), PASSWORD, env=self.env, check=check, progress=progress, options=self.options
        )
        no_copy = ("has no copy", "it is missing: without it damage to keys/")
        assert [each for each in report.findings if not any(words in each.sentence for words in no_copy)] == []

    async def until(self, condition: Callable[[], bool]) -> None:
        """Wait for it, with a limit."""
        async with asyncio.timeout(ROTATION_SECONDS_MAX):
            while not condition():  # noqa: ASYNC110 - what is waited for tells nobody
                await asyncio.sleep(0.01)


async def rotate(store: Store) -> None:
    """Draw another data key, under its one password."""
    await store.passwords.rotate_key(PASSWORD, [], drop_others=False)
