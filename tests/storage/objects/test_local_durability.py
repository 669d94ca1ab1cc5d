"""What a folder store syncs and in which order, and what a process that is killed leaves."""

import asyncio
import errno
import fcntl
import os
import random
import re
import shutil
import threading
from pathlib import Path

import pytest

from storage.env import RealEnv
from storage.errors import Unavailable
from storage.objects.folders import Temporaries
from storage.objects.local import LocalStore
from tests.storage.objects.children import child, finish, temporaries
from tests.support.requirements import require


def trace(tmp_path: Path, *calls: str, before: str = "wal/first") -> list[str]:
    """What `calls` do to the filesystem, as "call path" with temporaries as `~/N`; `before` is created before."""
    require("strace")
    body = "\n    ".join(calls)
    script = f"""
async def main():
    if {before!r}:
        await store.create({before!r}, b"x")
    os.mkdir(folder.parent / "begin")
    {body}
asyncio.run(main())
"""
    log, store = tmp_path / "trace", tmp_path / "store"
    wanted = "trace=mkdir,openat,write,fsync,linkat,renameat,unlinkat,mkdirat"
    finish(child(script, store, under=("strace", "-f", "-y", "-o", str(log), "-e", wanted)))
    seen = []
    for line in log.read_text().partition('/begin"')[2].splitlines():
        call = re.search(r"(\w+)\((.*)\) += ", line)
        if call is not None and str(tmp_path) in line:
            folders_named = re.findall("<([^>]*)>", call[2])[-1:]
            names = [name for name in re.findall('"([^"]*)"', call[2])[-1:] if call[1] != "write"]
            path = os.path.relpath(os.path.join(*folders_named, *names), store)
            seen.append(f"{call[1]} {re.sub('~[0-9a-f]+', '~', path)}")
    return seen


OBJECT_IS_MADE = ["openat ~/1", "write ~/1", "fsync ~/1"]


def test_an_object_is_synced_before_it_has_its_name_and_its_folder_after(tmp_path: Path) -> None:
    assert trace(tmp_path, 'await store.create("wal/second", bytes(9999))') == [
        *OBJECT_IS_MADE,
        "openat wal",
        "linkat wal/second",
        "unlinkat ~/1",
        "fsync wal",
    ]


def test_a_replaced_object_is_synced_before_it_has_its_name_and_its_folder_after(tmp_path: Path) -> None:
    calls = [*OBJECT_IS_MADE, "openat wal", "renameat wal/first", "fsync wal"]
    assert trace(tmp_path, 'await store.put("wal/first", bytes(9999))') == calls


def test_what_a_create_finds_taken_is_made_durable(tmp_path: Path) -> None:
    """It may be its own, of an attempt that was killed before it synced the folder."""
    calls = ["try: await store.create('wal/first', b'y')", "except AlreadyExists: print('taken')"]
    assert trace(tmp_path, *calls)[-3:] == ["linkat wal/first", "unlinkat ~/1", "fsync wal"]


def test_a_deletion_is_durable(tmp_path: Path) -> None:
    calls = ["openat wal", "unlinkat wal/first", "fsync wal"]
    assert trace(tmp_path, 'await store.delete(["wal/first"])') == calls


def test_the_first_write_makes_the_folders_and_their_entries_durable(tmp_path: Path) -> None:
    calls = trace(tmp_path, 'await store.create("a/b/object", b"x")', before="")
    synced = [call for call in calls if call.split()[0] in ("mkdir", "mkdirat", "fsync", "linkat")]
    assert synced == [
        "mkdir .",
        "fsync ..",
        "fsync .",  # of what an earlier process may have left
        "mkdirat ~",
        "mkdirat a",
        "fsync .",
        "mkdirat a/b",
        "fsync a",
        "fsync ~/0",
        "linkat a/b/object",
        "fsync a/b",
    ]


def test_the_first_write_makes_durable_what_a_killed_process_left(tmp_path: Path) -> None:
    for folder in ("keys", "wal/deep"):
        (tmp_path / "store" / folder).mkdir(parents=True)
        (tmp_path / "store" / folder / "1").write_bytes(b"linked, and then killed")
    calls = trace(tmp_path, 'await store.create("wal/2", b"x")', before="")
    before_writing = calls[: calls.index("openat ~/0")]
    assert {"fsync .", "fsync keys", "fsync wal", "fsync wal/deep"} <= set(before_writing)


async def test_a_folder_whose_name_could_not_be_synced_is_synced_before_anything_is_in_it(
    local: LocalStore, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Else what is acknowledged in it goes with it, by a power cut."""
    await local.create("first", b"")
    synced, sync, broken = list[str](), os.fsync, True

    def fsync(descriptor: int) -> None:
        if broken:
            raise OSError(errno.EIO, os.strerror(errno.EIO))
        sync(descriptor)
        synced.append(os.path.relpath(os.readlink(f"/proc/self/fd/{descriptor}"), tmp_path / "store"))

    monkeypatch.setattr(os, "fsync", fsync)
    with pytest.raises(Unavailable, match="Input/output error"):
        await local.create("a/b/1", b"x")
    broken = False
    await local.create("a/b/1", b"x")
    assert [folder for folder in synced if not folder.startswith("~")] == [".", "a", "a/b"]


async def test_a_call_that_finds_a_folder_removed_takes_nothing_from_one_under_way(
    local: LocalStore, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    await local.create("a/1", b"x")
    await local.create("b/1", b"x")
    syncing, go_on, sync = threading.Event(), threading.Event(), os.fsync

    def slow_sync(descriptor: int) -> None:
        syncing.set()
        go_on.wait(60)
        sync(descriptor)

    with monkeypatch.context() as slow:
        slow.setattr(os, "fsync", slow_sync)
        call = asyncio.create_task(local.create("a/2", b"whole"))
        await asyncio.to_thread(syncing.wait, 60)
    shutil.rmtree(tmp_path / "store" / "b")
    with pytest.raises(Unavailable, match="removed while in use"):
        await local.create("b/2", b"x")
    await local.create("b/2", b"x")
    go_on.set()
    await call
    assert await local.get("a/2") == b"whole"


CREATE_FOR_EVER = """
async def create(worker):
    number = 0
    while True:
        name = f"wal/{os.getpid()}-{worker}-{number}"
        await store.create(name, (name.encode() + b" ") * 8000)
        os.write(1, name.encode() + b"\\n")
        number += 1

async def main():
    await asyncio.gather(*map(create, range(4)))

asyncio.run(main())
"""


@pytest.mark.slow
async def test_kill_at_any_moment_leaves_whole_objects_and_all_that_were_acknowledged(
    tmp_path: Path, env: RealEnv
) -> None:
    folder = tmp_path / "store"
    acknowledged = []
    for round_ in range(12):
        process = child(CREATE_FOR_EVER, folder)
        assert process.stdout is not None
        for _ in range(random.randint(1, 25)):
            acknowledged.append(process.stdout.readline().decode().strip())
        process.kill()
        acknowledged += process.stdout.read().decode().split()
        process.wait()
        process.stdout.close()
        store = LocalStore(folder, env)
        listed = {item.name: item.size for item in await store.list("")}
        assert set(acknowledged) <= set(listed), f"round {round_}"
        for name, size in listed.items():
            whole = (name.encode() + b" ") * 8000
            assert size == len(whole)
            assert await store.get(name) == whole
        await store.close()

    assert temporaries(folder)
    store = LocalStore(folder, env)
    await store.create("after", b"")
    assert len(temporaries(folder)) == 1, "what the killed left was not swept"
    await store.close()
    assert temporaries(folder) == []


async def test_temporaries_of_a_process_that_lives_are_left_alone(tmp_path: Path, env: RealEnv) -> None:
    folder = tmp_path / "store"
    first, second = LocalStore(folder, env), LocalStore(folder, env)
    await first.create("a", b"1")
    (dead := folder / "~00000000deadbeef").mkdir()
    (dead / "0").write_bytes(b"rest")
    for name in ("~old", "~00000000deadbeef0"):
        (folder / name).mkdir()
        (folder / name / "0").write_bytes(b"somebody else's")
    (used := folder / "~00000000deadbee1").mkdir()
    (used / "0").write_bytes(b"rest")
    (used / "notes").write_bytes(b"somebody else's")
    await second.create("b", b"2")
    assert not dead.exists()
    for name in ("~old", "~00000000deadbeef0"):
        assert (folder / name / "0").exists(), "a name that this program does not give"
    assert os.listdir(used) == ["notes"]
    assert len(temporaries(folder)) == 2 + 3
    await first.create("c", b"3")
    await first.close()
    await second.close()


def test_a_new_folder_that_the_sweep_of_another_process_removes_is_not_used(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    lock, swept = fcntl.flock, list[Path]()

    def late_lock(descriptor: int, operation: int) -> None:
        if not swept:
            swept.append(Path(os.readlink(f"/proc/self/fd/{descriptor}")))
            swept[0].rmdir()
        lock(descriptor, operation)

    monkeypatch.setattr(fcntl, "flock", late_lock)
    root = os.open(tmp_path, os.O_RDONLY)
    try:
        made = Temporaries(root, lambda: os.urandom(8).hex())
        assert made.write(b"x") == "0"
        assert temporaries(tmp_path) != [swept[0].name]
        made.close()
    finally:
        os.close(root)
    assert temporaries(tmp_path) == []


async def test_writers_that_open_at_once_do_not_sweep_each_other(tmp_path: Path, env: RealEnv) -> None:
    for number in range(20):
        stores = [LocalStore(tmp_path / str(number), env) for _ in range(8)]
        await asyncio.gather(*(store.create(f"w/{i}", b"x") for i, store in enumerate(stores)))
        assert len(await stores[0].list("")) == 8
        for store in stores:
            await store.close()
