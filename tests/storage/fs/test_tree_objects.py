"""The tree of names is an object that each flush after a change writes anew: the one before it goes, while a server
lives, for it may live for months and take a snapshot every hour.
"""

import contextlib
from pathlib import Path

from storage.crypto.keyslots import Cost
from storage.env import RealEnv
from storage.format.envelope import ObjectKind
from storage.fs.opening import open_store
from storage.fs.store import Store
from storage.fs.store_options import StoreOptions
from tests.support.waiting import until

KIND = 10
"""Where an object says what it is."""


def trees(folder: Path) -> list[str]:
    """The objects under `compacted/` that hold a tree of names."""
    found = []
    for path in (folder / "compacted").iterdir():
        with contextlib.suppress(FileNotFoundError):  # deleted meanwhile
            if path.read_bytes()[KIND] == ObjectKind.METADATA:
                found.append(path.stem)
    return found


async def test_the_tree_before_goes_when_a_manifest_names_a_newer_one(tmp_path: Path) -> None:
    env, folder = RealEnv(), tmp_path / "store"

    async def opened(*, create: bool = False) -> Store:
        options = StoreOptions(state_folder=tmp_path / "state", cost=Cost.for_tests())
        return await open_store(folder.as_uri(), b"p", env=env, create=create, options=options)

    store = await opened(create=True)
    await store.create_device("disk", 1 << 20)
    for number in range(10):
        await store.snapshots.create(["disk"], f"s{number}")
        await store.maintenance.flush()
    await until(lambda: len(trees(folder)) == 1)
    (named,) = trees(folder)
    await store.maintenance.flush()
    await store.close()
    assert trees(folder) == [named], "it did not change"
    store = await opened()
    assert [each.name for each in await store.snapshots.list("disk")] == [f"s{number}" for number in range(10)]
    await store.create_device("other", 1 << 20)
    await store.close()
    (newer,) = trees(folder)
    assert newer != named
    store = await opened()
    assert store.names() == ("disk", "other")
    await store.close()
    env.close()
