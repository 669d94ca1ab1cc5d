"""A folder store with links within it, which may lead into another store: none is followed, and each is told."""

import os
import shutil
from collections.abc import Callable, Coroutine
from pathlib import Path

import pytest

from storage.env import RealEnv
from storage.errors import AccessDenied, NotFound
from storage.objects.local import LocalStore

Call = Callable[[LocalStore], Coroutine[None, None, object]]

CALLS: dict[str, Call] = {
    "create": lambda store: store.create("wal/2.sst", b"ours"),
    "create what is taken there": lambda store: store.create("wal/1.sst", b"ours"),
    "put": lambda store: store.put("wal/1.sst", b"ours"),
    "get": lambda store: store.get("wal/1.sst"),
    "head": lambda store: store.head("wal/1.sst"),
    "delete": lambda store: store.delete(["wal/1.sst"]),
    "list": lambda store: store.list("wal/"),
    "list behind a name": lambda store: store.list("wal/1", "wal/0"),
    "list all": lambda store: store.list(""),
    "create deeper": lambda store: store.create("wal/deep/1.sst", b"ours"),
    "delete deeper": lambda store: store.delete(["wal/below/1.sst"]),
    "get deeper": lambda store: store.get("wal/below/1.sst"),
    "list deeper": lambda store: store.list("wal/below/"),
}


@pytest.fixture
def elsewhere(tmp_path: Path) -> Path:
    """The log of another store."""
    folder = tmp_path / "other" / "wal"
    (folder / "below").mkdir(parents=True)
    for name in ("1.sst", "below/1.sst"):
        (folder / name).write_bytes(b"theirs")
    return folder


def what_lies_in(folder: Path) -> dict[str, tuple[bytes, int]]:
    return {
        str(path.relative_to(folder)): (path.read_bytes() if path.is_file() else b"", path.lstat().st_ctime_ns)
        for path in (folder, *folder.rglob("*"))
    }


@pytest.mark.parametrize("opened", ["before", "after"])
@pytest.mark.parametrize("call", CALLS)
async def test_a_folder_of_a_store_that_is_a_link_is_refused_and_nothing_is_done_behind_it(
    local: LocalStore, tmp_path: Path, elsewhere: Path, env: RealEnv, call: str, opened: str
) -> None:
    await local.create("wal/1.sst", b"ours")
    shutil.rmtree(tmp_path / "store" / "wal")
    (tmp_path / "store" / "wal").symlink_to(elsewhere)
    there = what_lies_in(elsewhere)
    store = local if opened == "before" else LocalStore(tmp_path / "store", env)
    with pytest.raises(AccessDenied, match=r"store/wal is a link, .* put what it leads to in its place"):
        await CALLS[call](store)
    assert what_lies_in(elsewhere) == there
    await store.close()


@pytest.mark.parametrize("call", [name for name in CALLS if "deeper" not in name])
async def test_a_link_to_nothing_is_told_too(local: LocalStore, tmp_path: Path, call: str) -> None:
    """It may lead to a disk that is not mounted yet, with all that the store has."""
    await local.create("manifest/1", b"x")
    (tmp_path / "store" / "wal").symlink_to(tmp_path / "not mounted")
    with pytest.raises(AccessDenied, match="is a link"):
        await CALLS[call](local)
    assert not (tmp_path / "not mounted").exists()


async def test_a_link_further_down_is_told(local: LocalStore, tmp_path: Path, elsewhere: Path) -> None:
    await local.create("a/b/1", b"x")
    (tmp_path / "store" / "a" / "c").symlink_to(elsewhere)
    there = what_lies_in(elsewhere)
    with pytest.raises(AccessDenied, match="store/a/c is a link"):
        await local.list("a/")
    with pytest.raises(AccessDenied, match="store/a/c is a link"):
        await local.create("a/c/2.sst", b"x")
    with pytest.raises(AccessDenied, match="store/a/c is a link"):
        await local.create("a/c/d/2.sst", b"x")
    assert what_lies_in(elsewhere) == there
    assert [item.name for item in await local.list("a/b/")] == ["a/b/1"]


async def test_links_beside_the_parts_of_a_store_stop_no_write(local: LocalStore, tmp_path: Path) -> None:
    """Somebody may keep other things in its folder."""
    folder = tmp_path / "store"
    folder.mkdir()
    (folder / "loop").symlink_to(folder)
    (folder / "circle").symlink_to("circle")
    await local.create("wal/1", b"x")
    assert [item.name for item in await local.list("wal/")] == ["wal/1"]
    for name in ("loop", "circle"):
        with pytest.raises(AccessDenied, match="is a link"):
            await local.list("")
        (folder / name).unlink()
    assert [item.name for item in await local.list("")] == ["wal/1"]


async def test_an_object_that_is_a_link_is_not_read_and_is_the_one_that_is_replaced(
    local: LocalStore, tmp_path: Path, elsewhere: Path
) -> None:
    await local.create("wal/first", b"x")
    for name in ("1.sst", "2.sst"):
        (tmp_path / "store" / "wal" / name).symlink_to(elsewhere / "1.sst")
    for call in (local.get("wal/1.sst"), local.head("wal/1.sst")):
        with pytest.raises(AccessDenied, match=r"wal/1\.sst is a link"):
            await call
    await local.put("wal/1.sst", b"ours")
    await local.delete(["wal/2.sst"])
    assert await local.get("wal/1.sst") == b"ours"
    with pytest.raises(NotFound):
        await local.get("wal/2.sst")
    assert (elsewhere / "1.sst").read_bytes() == b"theirs"


async def test_the_whole_store_may_be_behind_a_link(tmp_path: Path, env: RealEnv) -> None:
    (tmp_path / "large disk").mkdir()
    (tmp_path / "store").symlink_to(tmp_path / "large disk")
    store = LocalStore(tmp_path / "store", env)
    await store.create("wal/1.sst", b"x")
    assert [item.name for item in await store.list("wal/")] == ["wal/1.sst"]
    assert (tmp_path / "large disk" / "wal" / "1.sst").read_bytes() == b"x"
    await store.close()


async def test_a_folder_that_was_removed_and_made_again_is_the_new_one(local: LocalStore, tmp_path: Path) -> None:
    await local.create("wal/1", b"old")
    wal = tmp_path / "store" / "wal"
    os.rename(wal, tmp_path / "away")
    wal.mkdir()
    with pytest.raises(NotFound):
        await local.get("wal/1")
    await local.create("wal/1", b"new")
    assert (wal / "1").read_bytes() == b"new"
    await local.delete(["wal/1"])
    assert (tmp_path / "away" / "1").read_bytes() == b"old"
