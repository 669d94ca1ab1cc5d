"""The folder store: the order of its system calls, and what crashes, full disks and meddling do to it."""

import asyncio
import contextlib
import errno
import os
import shutil
import subprocess
import threading
from collections.abc import Callable
from pathlib import Path

import pytest

from storage.env import RealEnv
from storage.errors import (
    AlreadyExists,
    Closed,
    Invalid,
    NotFound,
    OutOfSpace,
    StorageError,
    Unavailable,
    Unsupported,
)
from storage.objects import folders
from storage.objects.local import LocalStore
from tests.storage.objects.children import child, finish, temporaries
from tests.support.inside import end_threads
from tests.support.requirements import require

FILL = """
import subprocess
subprocess.run(["mount", "-t", "tmpfs", "-o", "size=2m", "none", folder], check=True)

async def main():
    written = []
    try:
        while True:
            name = f"wal/{len(written)}"
            await store.create(name, bytes(300_000))
            written.append(name)
    except OutOfSpace as error:
        assert "make room" in str(error), error
    assert 3 <= len(written) <= 7, written
    try:
        await store.put("wal/0", bytes(900_000))
        raise AssertionError("a full disk was written to")
    except OutOfSpace:
        pass
    assert [(item.name, item.size) for item in await store.list("")] == [(name, 300_000) for name in written]
    for folder_ in folder.glob("~*"):
        assert os.listdir(folder_) == [], "a temporary was left"
    await store.delete(written[:1])
    await store.create("wal/again", bytes(300_000))
    subprocess.run(["mount", "-o", "remount,ro", folder], check=True)
    try:
        await store.create("wal/more", b"")
        raise AssertionError("a read-only disk was written to")
    except AccessDenied:
        pass
    assert await store.get("wal/again") == bytes(300_000)

asyncio.run(main())
print("done")
"""


def test_a_full_disk_shows_nothing_half_and_is_usable_again(tmp_path: Path) -> None:
    require("unshare", "mount")
    under = ("unshare", "--mount", "--map-root-user")
    if subprocess.run([*under, "mount", "-t", "tmpfs", "none", tmp_path], capture_output=True).returncode:
        require("the right to mount in a namespace")
    assert finish(child(FILL, tmp_path, under=under)) == "done\n"


DENIED = """
import storage.objects.folders, encodings.idna
if os.getuid() == 0:
    os.chown(folder, 1, 1)
    os.setgroups([])
    os.setresgid(65534, 65534, 65534)
    os.setresuid(65534, 65534, 65534)

async def main():
    for call in (store.create("a", b""), store.put("a", b""), store.delete(["there"])):
        try:
            await call
            raise AssertionError("allowed")
        except AccessDenied as error:
            assert "must belong to this user" in str(error), error
    assert await store.get("there") == b"read"
    print("done")

asyncio.run(main())
"""


def test_a_folder_of_someone_else_is_told(work: Path) -> None:
    work.chmod(0o755)
    folder = work / "store"
    folder.mkdir()
    (folder / "there").write_bytes(b"read")
    folder.chmod(0o555)
    assert finish(child(DENIED, folder)) == "done\n"


@pytest.mark.parametrize("meddle", ["remove", "move", "replace"])
async def test_a_folder_that_vanished_is_unavailable_and_not_empty(
    local: LocalStore, tmp_path: Path, meddle: str
) -> None:
    """An empty listing would say that no newer manifest exists."""
    await local.create("manifest/1", b"x")
    folder = tmp_path / "store"
    if meddle == "remove":
        shutil.rmtree(folder)
    else:
        folder.rename(tmp_path / "elsewhere")
    if meddle == "replace":
        folder.mkdir()
    for call in (local.list("manifest/2"), local.get("manifest/2"), local.head("manifest/2")):
        with pytest.raises(Unavailable, match="removed, moved or unmounted"):
            await call
    if meddle == "remove":
        with pytest.raises(Unavailable, match="removed, moved or unmounted"):
            await local.create("manifest/2", b"x")
    assert not list(folder.glob("*"))


@pytest.mark.parametrize("pattern", ["wal", "~*"])
async def test_a_folder_removed_inside_is_made_again(local: LocalStore, tmp_path: Path, pattern: str) -> None:
    await local.create("wal/1", b"x")
    for victim in (tmp_path / "store").glob(pattern):
        shutil.rmtree(victim)
    with pytest.raises(Unavailable):
        await local.create("wal/2", b"x")
    await local.create("wal/2", b"x")
    assert await local.get("wal/2") == b"x"


async def test_what_is_no_object_is_not_shown(local: LocalStore, tmp_path: Path) -> None:
    await local.create("wal/1", b"x")
    folder = tmp_path / "store"
    (folder / "lost+found").mkdir()
    (folder / "lost+found" / "1").write_bytes(b"")
    (folder / "a name").write_bytes(b"")
    (folder / "link").symlink_to(folder / "wal" / "1")
    os.mkfifo(folder / "pipe")
    assert [item.name for item in await local.list("")] == ["wal/1"]
    with pytest.raises(NotFound):
        await local.head("wal")
    with pytest.raises(StorageError):
        await local.get("link")


async def test_an_object_in_place_of_a_folder_is_told(local: LocalStore) -> None:
    await local.create("wal", b"x")
    with pytest.raises(Invalid):
        await local.create("wal/1", b"x")


def fail_with(number: int) -> Callable[..., None]:
    def fail(*_: object, **__: object) -> None:
        raise OSError(number, os.strerror(number))

    return fail


async def test_a_filesystem_without_links_is_refused(
    local: LocalStore, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    await local.create("first", b"")
    monkeypatch.setattr(os, "link", fail_with(errno.EPERM))  # what FAT says
    with pytest.raises(Unsupported, match="cannot link"):
        await local.create("second", b"")
    assert os.listdir(tmp_path / "store" / temporaries(tmp_path / "store")[0]) == []


async def test_an_object_that_could_not_be_synced_is_not_there(
    local: LocalStore, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    await local.create("first", b"")
    with monkeypatch.context() as broken:
        broken.setattr(os, "fsync", fail_with(errno.EIO))
        with pytest.raises(Unavailable, match="Input/output error"):
            await local.create("second", b"x")
    assert [item.name for item in await local.list("")] == ["first"]
    assert os.listdir(tmp_path / "store" / temporaries(tmp_path / "store")[0]) == []
    await local.create("second", b"y")
    assert await local.get("second") == b"y"


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EDQUOT, errno.EFBIG])
async def test_whatever_says_that_there_is_no_room_is_told_as_that(
    local: LocalStore, monkeypatch: pytest.MonkeyPatch, number: int
) -> None:
    """A quota too, which is for somebody to raise: a start ends with that, and a writer waits for it."""
    monkeypatch.setattr(os, "write", fail_with(number))
    for call in (local.create("a", b"x"), local.put("a", b"x")):
        with pytest.raises(OutOfSpace):
            await call


async def test_what_cannot_replace_anything_leaves_nothing(local: LocalStore, tmp_path: Path) -> None:
    await local.create("wal/1", b"x")
    with pytest.raises(Invalid):
        await local.put("wal", b"x")
    assert os.listdir(tmp_path / "store" / temporaries(tmp_path / "store")[0]) == []


async def test_what_is_deleted_while_it_is_listed_is_left_out(
    local: LocalStore, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("wal/1", "wal/2"):
        await local.create(name, b"x")
    walk = folders.walk

    def slow_walk(root: int, folder: str) -> list[str]:
        found = list(walk(root, folder))
        (tmp_path / "store" / "wal" / "1").unlink(missing_ok=True)
        return found

    monkeypatch.setattr(folders, "walk", slow_walk)
    assert [item.name for item in await local.list("wal/")] == ["wal/2"]


async def test_a_read_that_gives_less_goes_on_and_one_that_ends_too_early_is_told(
    local: LocalStore, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As Linux does beyond 2 GiB, and a network's filesystem wherever it likes."""
    data = os.urandom(5000)
    await local.create("a", data)
    read, cut = os.pread, False

    def read_less(descriptor: int, length: int, offset: int) -> bytes:
        some = read(descriptor, min(length, 1000), offset)
        if cut:
            os.truncate(tmp_path / "store" / "a", 1000)
        return some

    monkeypatch.setattr(os, "pread", read_less)
    assert await local.get("a") == data
    assert await local.get("a", 1500, 2500) == data[1500:4000]
    cut = True
    with pytest.raises(Unavailable, match="became shorter"):
        await local.get("a")


async def test_closing_gives_back_all_descriptors(tmp_path: Path, env: RealEnv) -> None:
    def descriptors() -> list[str]:
        """What is open in the folder; other tests of this process may have left something elsewhere."""
        found = []
        for descriptor in Path("/proc/self/fd").iterdir():
            with contextlib.suppress(FileNotFoundError):  # that of this very look
                found.append(os.readlink(descriptor))
        return [path for path in found if path.startswith(str(tmp_path))]

    store = LocalStore(tmp_path / "store", env)
    await store.create("a/b", b"x")
    await store.put("a/c", b"y")
    with pytest.raises(AlreadyExists):
        await store.create("a/b", b"z")
    await store.get("a/b")
    with pytest.raises(NotFound):
        await store.get("a")
    await store.list("")
    await store.delete(["a/b"])
    assert descriptors()
    await store.close()
    assert descriptors() == []
    with pytest.raises(Closed):
        await store.get("a/c")


async def test_what_was_cancelled_keeps_its_descriptors(
    tmp_path: Path, env: RealEnv, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its thread goes on after the store is closed; the numbers it uses must not be another file's by then."""
    store = LocalStore(tmp_path / "store", env)
    await store.create("wal/first", b"")
    syncing, go_on, sync = threading.Event(), threading.Event(), os.fsync

    def slow_sync(descriptor: int) -> None:
        syncing.set()
        go_on.wait(60)
        sync(descriptor)

    monkeypatch.setattr(os, "fsync", slow_sync)
    call = asyncio.create_task(store.create("wal/second", b"whole"))
    await asyncio.to_thread(syncing.wait, 60)
    call.cancel()
    await store.close()
    (decoy := tmp_path / "decoy" / "wal").mkdir(parents=True)
    others = [os.open(decoy.parent, os.O_RDONLY) for _ in range(10)]
    go_on.set()
    await asyncio.gather(call, return_exceptions=True)
    env.close()
    end_threads(env)
    for descriptor in others:
        os.close(descriptor)
    assert os.listdir(decoy) == []
    assert (tmp_path / "store" / "wal" / "second").read_bytes() == b"whole"
    assert temporaries(tmp_path / "store") == [], "the store was not closed in the end"


@pytest.mark.skipif(os.geteuid() != 0, reason="needs root, to give a folder away")
async def test_what_root_writes_belongs_to_whom_the_folder_belongs(tmp_path: Path, env: RealEnv) -> None:
    folder = tmp_path / "store"
    folder.mkdir(mode=0o700)
    os.chown(folder, 33, 34)
    (folder / "a").mkdir()  # what root left when it was killed before it could give it away
    store = LocalStore(folder, env)
    await store.create("a/b/c", b"x")
    await store.put("d/e", b"x")
    made = list(folder.rglob("*"))
    assert len(made) == 6
    assert {(path.lstat().st_uid, path.lstat().st_gid) for path in made} == {(33, 34)}
    assert {path.stat().st_mode & 0o777 for path in made if path.is_file()} == {0o600}
    await store.close()


async def test_a_copy_that_keeps_the_dates_of_files_is_young_all_the_same(tmp_path: Path, env: RealEnv) -> None:
    """`cp -a`, rsync and backups do; and what is old is swept."""
    store = LocalStore(tmp_path, env)
    await store.create("compacted/1.sst", b"x")
    await store.create("manifest/1", b"x")
    os.utime(tmp_path / "compacted" / "1.sst", (0, 0))
    copied, reference = await store.list("")
    assert copied.modified is not None
    assert reference.modified is not None
    assert copied.modified >= reference.modified - 60
    await store.close()
