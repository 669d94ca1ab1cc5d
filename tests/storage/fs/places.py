"""Places where stores may be: a folder, and the memory that this host has of it.

`contents` reads a device whole, and `kill` ends a store as a crash would.
"""

import asyncio
import contextlib
import threading
from pathlib import Path

from storage.crypto.keyslots import Cost
from storage.env import STORE_THREADS, RealEnv
from storage.errors import Closed
from storage.fs.devices.device import Device
from storage.fs.opening import open_reader, open_store
from storage.fs.store import Store
from storage.fs.store_options import StoreOptions
from storage.lsm.options import EngineOptions
from storage.objects.folders import TEMPORARY
from tests.support.inside import engine_of, env_of

MIB = 1024 * 1024
PASSWORD = b"a password"
LANDING_SECONDS_MAX = 2.0
DATA = b"some data that is not zero. " * 1000


class Place:
    """A folder store and a host that remembers it."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder / "store"
        self.state = folder / "state"
        self.env = RealEnv()

    @property
    def options(self) -> StoreOptions:
        return StoreOptions(engine=EngineOptions(cache_bytes=16 * MIB), state_folder=self.state, cost=Cost.for_tests())

    async def open(self, password: bytes = PASSWORD, *, create: bool = False, **how: bool) -> Store:
        return await open_store(str(self.folder), password, env=self.env, create=create, options=self.options, **how)

    async def reader(self, password: bytes = PASSWORD) -> Store:
        return await open_reader(str(self.folder), password, env=self.env, options=self.options)

    def files(self) -> dict[str, bytes]:
        """The objects. A store that is open may delete some meanwhile; what it is still writing is none."""
        found = {}
        for path in self.folder.rglob("*"):
            name = str(path.relative_to(self.folder))
            with contextlib.suppress(FileNotFoundError):
                if path.is_file() and not path.name.startswith(".") and not name.startswith(TEMPORARY):
                    found[name] = path.read_bytes()
        return found


async def contents(device: Device, offset: int = 0, length: int | None = None) -> bytes:
    pieces = await device.read(offset, device.size if length is None else length)
    return b"".join(bytes(piece) for piece in pieces)


async def nothing(_: Device) -> None:
    """Is wrong with a device whose content is to be replaced."""


async def kill(store: Store) -> None:
    """As kill -9 does, except that this process lives on, and that what was on its way to the store has landed."""
    engine_of(store).fail(Closed("killed by the test"))
    await store.close()
    env = env_of(store)
    if isinstance(env, RealEnv):  # any other has no threads
        # Each of them waits for all, so what one was at has ended; a while, since another store may be at something.
        everybody = threading.Barrier(STORE_THREADS, timeout=LANDING_SECONDS_MAX)
        waiting = [env.run("store", everybody.wait) for _ in range(STORE_THREADS)]
        await asyncio.gather(*waiting, return_exceptions=True)
