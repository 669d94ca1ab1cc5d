"""Stores of every format there was, written once: they open for ever, with the engine and with `scripts/recover`."""

import hashlib
import json
import shutil
import subprocess
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

from storage.crypto.data_key import KEYS_VERSION
from storage.env import RealEnv
from storage.format.envelope import ObjectKind
from storage.fs.opening import open_reader, open_store
from storage.fs.store import Store
from storage.fs.store_options import StoreOptions
from tests.storage.fs.places import contents
from tests.storage.fs.rotating import KEY_ID_AT, KIND_AT
from tests.support.program import REPOSITORY
from tests.support.recover_script import recover
from tests.support.seeds import head

STORES = sorted(Path(__file__).parent.glob("format-*"))
PIECE = 1 << 20


def of_format(folder: Path) -> Any:
    return json.loads((folder / "expected.json").read_text())


async def content(store: Store) -> dict[str, dict[str, Any]]:
    """What every device and snapshot holds, as `expected.json` has it."""
    names = [info.name for info in store.devices()]
    names += [f"{snapshot.device}@{snapshot.name}" for snapshot in await store.snapshots.list()]
    found = {}
    for name in names:
        device, digest = store.device(name), hashlib.sha256()
        for at in range(0, device.size, PIECE):
            digest.update(await contents(device, at, min(PIECE, device.size - at)))
        found[name] = {"size": device.size, "sha256": digest.hexdigest()}
    return found


@asynccontextmanager
async def closing(store: Store) -> AsyncIterator[Store]:
    yield store
    await store.close()


def test_the_present_format_has_one_and_one_in_the_midst_of_a_rotation() -> None:
    formats = [f"format-{version}" for version in range(1, KEYS_VERSION + 1)]
    assert [folder.name for folder in STORES] == [name + more for name in formats for more in ("", "-rotating")]


def test_in_the_midst_of_a_rotation_each_kind_is_there_under_the_newer_key_and_data_under_both() -> None:
    objects = [path.read_bytes() for folder in STORES for path in folder.glob("store/*/*.[sm]*")]
    kinds = {key: {raw[KIND_AT] for raw in objects if raw[KEY_ID_AT] == key} for key in (1, 2)}
    assert kinds[2] == {*ObjectKind} - {ObjectKind.SIGN, ObjectKind.ATTACHED}
    assert kinds[1] >= {ObjectKind.DATA, ObjectKind.MANIFEST, ObjectKind.FENCE}


@pytest.mark.parametrize("folder", STORES, ids=lambda folder: folder.name)
async def test_the_engine_opens_it(folder: Path, tmp_path: Path) -> None:
    """To read, with each of its passwords, and as the next writer, whose writes are there beside what was."""
    expected = of_format(folder)
    shutil.copytree(folder / "store", tmp_path / "store")
    location, options = f"file://{tmp_path / 'store'}", StoreOptions(state_folder=tmp_path / "state")
    for password in expected["passwords"]:
        async with closing(await open_reader(location, password.encode(), env=RealEnv(), options=options)) as store:
            assert await content(store) == expected["disks"]
    password = expected["passwords"][0].encode()
    async with closing(await open_store(location, password, env=RealEnv(), take_over=True, options=options)) as store:
        assert await content(store) == expected["disks"]
        await store.create_device("new", PIECE)
        store.device("new").write(0, bytes([1]) * PIECE)
    async with closing(await open_reader(location, password, env=RealEnv(), options=options)) as store:
        new = {"size": PIECE, "sha256": hashlib.sha256(bytes([1]) * PIECE).hexdigest()}
        assert await content(store) == {**expected["disks"], "new": new}


@pytest.mark.parametrize("folder", STORES, ids=lambda folder: folder.name)
def test_the_script_opens_it(folder: Path, tmp_path: Path) -> None:
    expected = of_format(folder)
    for number, password in enumerate(expected["passwords"]):
        store = recover.Store(folder / "store", password.encode())
        assert store.missing == []
        found: dict[str, Any] = {}
        for name, disk in store.tree.disks().items():
            image = tmp_path / f"{number}-{len(found)}"
            assert store.export(disk, image) == []
            found[name] = {"size": disk.size, "sha256": hashlib.sha256(image.read_bytes()).hexdigest()}
        assert found == expected["disks"]


def test_git_leaves_them_alone() -> None:
    """No line end of a store is changed where it is checked out."""
    if head(REPOSITORY) is None:
        pytest.skip("this is no checkout of git")
    files = [str(path.relative_to(REPOSITORY)) for folder in STORES for path in folder.glob("store/*/*")]
    assert len(files) > 20
    command = ["git", "-c", "safe.directory=*", "check-attr", "text", "--", *files]
    said = subprocess.run(command, cwd=REPOSITORY, capture_output=True, text=True, check=True).stdout
    assert {line.rpartition(": ")[2] for line in said.splitlines()} == {"unset"}
