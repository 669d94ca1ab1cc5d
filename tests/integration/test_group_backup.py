"""A backup of a mounted ext4 whose journal lies on another device: both snapshots of a group, taken under load, are of
one moment, so what is restored from them needs no more than its journal. BACKUP_ROUNDS says how often (3).
"""

import os
import subprocess
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

from tests.integration.test_quiescing import Load, looped
from tests.support.commands import run
from tests.support.processes import until
from tests.support.program import Server
from tests.support.requirements import require
from tests.support.stores import StoreUnderTest

pytestmark = [pytest.mark.slow, pytest.mark.xdist_group("loop devices")]

ROUNDS = int(os.environ.get("BACKUP_ROUNDS", "3"))
SECONDS = 60


class SyncedLoad(Load):
    """Each file is whole on the disk before it gets its name."""

    def write(self, path: Path, data: bytes) -> None:
        with path.open("wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())


@pytest.fixture
def busy(store: StoreUnderTest, work: Path, make_server: Callable[..., Server]) -> Iterator[tuple[Server, SyncedLoad]]:
    require("root", "/dev/fuse", "/dev/loop-control", "nbdfuse", "fusermount3", "losetup", "mkfs.ext4", "e2fsck")
    server = make_server(store, create={"disk": "128MiB", "log": "32MiB"})
    server.start()
    mount = work / "mnt"
    mount.mkdir()
    with looped(server, "log", work / "fuse-log") as journal, looped(server, "disk", work / "fuse-disk") as disk:
        run("mkfs.ext4", "-q", "-F", "-b", "4096", "-O", "journal_dev", journal)
        run("mkfs.ext4", "-q", "-F", "-b", "4096", "-J", f"device={journal}", disk)
        run("mount", disk, mount)
        load = SyncedLoad(mount)
        load.start()
        try:
            yield server, load
        finally:
            load.end()
            run("umount", mount)


def restored(server: Server, name: str, work: Path, stack: ExitStack) -> str:
    """A loop device with what was backed up of a disk."""
    image = work / f"{name.replace('@', '-')}.raw"
    server.host.run("device", "export", name, str(image), "--store", server.location)
    stack.callback(image.unlink)
    loop = run("losetup", "--find", "--show", image).strip()
    stack.callback(run, "losetup", "-d", loop)
    return loop


@pytest.mark.parametrize("store", ["minio"], indirect=True)
def test_a_backup_of_a_mounted_filesystem(busy: tuple[Server, SyncedLoad], work: Path) -> None:
    server, load = busy
    look = work / "look"
    look.mkdir()
    for number in range(ROUNDS):
        before = load.written
        until(lambda: load.written > before + 20, seconds=SECONDS, what="files")  # noqa: B023
        done = load.written
        server.host.run("snapshot", "create", f"@r{number}", "--devices", "disk,log", "--store", server.location)
        with ExitStack() as stack:
            disk, log = (restored(server, f"{name}@r{number}", work, stack) for name in ("disk", "log"))
            # Status 1: it was mounted, so its counts of what is free come from the journal.
            assert subprocess.run(["e2fsck", "-f", "-y", "-j", log, disk], capture_output=True).returncode in (0, 1)
            run("e2fsck", "-f", "-n", "-j", log, disk)
            run("mount", "-o", f"ro,noload,journal_path={log}", disk, look)
            stack.callback(run, "umount", look)
            numbers = [whole(path) for path in look.glob("f*") if path.suffix != ".tmp"]
            assert max(numbers) >= done, "what was synced before the snapshot is in it"
        for name in ("disk", "log"):
            server.host.run("snapshot", "delete", f"{name}@r{number}", "--store", server.location)


def whole(path: Path) -> int:
    """The number of a file, which is in it 10,000 times."""
    content = path.read_bytes()
    number = content[: len(content) // 10000]
    assert content == number * 10000
    return int(number)
