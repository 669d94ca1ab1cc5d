"""Snapshots of a real ext4 that is written all the time: frozen meanwhile, and always thawed again."""

import contextlib
import os
import signal
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.support.commands import run
from tests.support.processes import until
from tests.support.program import COMMAND, EXIT_CONFLICT, EXIT_EXISTS, Server
from tests.support.requirements import require
from tests.support.stores import StoreUnderTest

pytestmark = [pytest.mark.slow, pytest.mark.xdist_group("loop devices")]

SECONDS = 60
PROBLEMS = 3


@contextlib.contextmanager
def looped(server: Server, export: str, folder: Path, *, read_only: bool = False) -> Iterator[str]:
    """A loop device on an export."""
    folder.mkdir()
    fuse = subprocess.Popen(["nbdfuse", *(["-r"] if read_only else []), folder, server.unix_uri(export)])
    try:
        until(lambda: (folder / "nbd").exists(), seconds=SECONDS, what="nbdfuse")
        mode = ["--read-only"] if read_only else []
        loop = run("losetup", "--find", "--show", *mode, folder / "nbd").strip()
        try:
            yield loop
        finally:
            run("losetup", "-d", loop)
            until(
                lambda: not Path(f"/sys/block/{Path(loop).name}/loop").exists(), seconds=SECONDS, what="the end of it"
            )
    finally:
        run("fusermount3", "-u", folder)
        fuse.wait(SECONDS)


class Load(threading.Thread):
    """Writes files, in pairs that are renamed together, until it is told to end."""

    def __init__(self, folder: Path) -> None:
        super().__init__()
        self._folder = folder
        self._ended = threading.Event()
        self.written = 0

    def run(self) -> None:
        while not self._ended.is_set():
            number = self.written + 1
            path = self._folder / f"f{number % 50}"
            self.write(path.with_suffix(".tmp"), str(number).encode() * 10000)
            path.with_suffix(".tmp").rename(path)
            self.written = number

    def write(self, path: Path, data: bytes) -> None:
        path.write_bytes(data)

    def end(self) -> None:
        self._ended.set()
        self.join()


@pytest.fixture
def mounted(
    local_store: StoreUnderTest, work: Path, make_server: Callable[..., Server]
) -> Iterator[tuple[Server, Path]]:
    require("root", "/dev/fuse", "/dev/loop-control", "nbdfuse", "fusermount3", "losetup", "mkfs.ext4", "e2fsck")
    server = make_server(local_store, create={"disk": "256MiB"})
    server.start()
    mount = work / "mnt"
    mount.mkdir()
    with looped(server, "disk", work / "fuse") as loop:
        run("mkfs.ext4", "-q", "-F", loop)
        run("mount", loop, mount)
        try:
            yield server, mount
        finally:
            run("umount", mount)


def take(server: Server, name: str, *options: str, status: int = 0) -> str:
    done = server.host.run("snapshot", "create", f"disk@{name}", *options, "--store", server.location, status=status)
    return done.stdout + done.stderr


def is_thawed(mount: Path) -> bool:
    """Whether it can be written."""
    try:
        subprocess.run(["sh", "-c", f"echo x > {mount}/probe"], check=True, timeout=10)
    except subprocess.TimeoutExpired:
        return False
    return True


def test_a_frozen_filesystem_needs_no_recovery(mounted: tuple[Server, Path], work: Path) -> None:
    server, mount = mounted
    load = Load(mount)
    load.start()
    try:
        for number in range(3):
            until(lambda: load.written > number * 20, seconds=SECONDS, what="files")  # noqa: B023
            told = work / f"told{number}"
            before = f"echo before >> {told}; echo ${{NBDSERVER_PASSWORD-none}} >> {told}"
            take(server, f"s{number}", "--freeze", str(mount), "--before", before, "--after", f"echo after >> {told}")
            assert told.read_text() == "before\nnone\nafter\n"
    finally:
        load.end()
    for number in range(3):
        with looped(server, f"disk@s{number}", work / f"look{number}", read_only=True) as loop:
            assert "needs_recovery" not in run("dumpe2fs", "-h", loop), "its journal is empty"
            run("e2fsck", "-f", "-n", loop)


def test_what_fails_leaves_nothing_frozen(mounted: tuple[Server, Path], work: Path) -> None:
    server, mount = mounted
    told = work / "told"
    take(server, "one")
    take(server, "one", "--freeze", str(mount), "--after", f"echo after > {told}", status=EXIT_EXISTS)
    assert is_thawed(mount)
    assert told.read_text() == "after\n"
    assert "--before ended with 7" in take(server, "two", "--freeze", str(mount), "--before", "exit 7", status=1)
    assert "--after ended with 7" in take(server, "three", "--freeze", str(mount), "--after", "exit 7", status=PROBLEMS)
    assert "cannot be frozen" in take(server, "four", "--freeze", str(mount), "--freeze", "/proc", status=2)
    assert is_thawed(mount)
    run("fsfreeze", "-f", mount)
    try:
        assert "frozen already" in take(server, "five", "--freeze", str(mount), status=EXIT_CONFLICT)
    finally:
        run("fsfreeze", "-u", mount)
    listed = server.host.run("snapshot", "list", "--store", server.location).stdout
    assert [line.split("\t")[0] for line in listed.splitlines()] == ["disk@one", "disk@three"]


@pytest.fixture
def beside(work: Path) -> Iterator[Path]:
    """A file system that does not rest on the server."""
    image, mount = work / "image", work / "beside"
    mount.mkdir()
    run("truncate", "-s", "64M", image)
    run("mkfs.ext4", "-q", "-F", image)
    run("mount", "-o", "loop", image, mount)
    try:
        yield mount
    finally:
        run("umount", mount)


@pytest.mark.parametrize("sign", [signal.SIGKILL, signal.SIGTERM, signal.SIGINT, None])
def test_a_server_that_does_not_answer_leaves_nothing_frozen(
    local_store: StoreUnderTest,
    work: Path,
    make_server: Callable[..., Server],
    beside: Path,
    sign: signal.Signals | None,
) -> None:
    """Whether the command that waits for it is killed, or goes on waiting."""
    server = make_server(local_store, create={"disk": "1MiB"})
    server.start()
    load = Load(beside)
    load.start()
    server.send(signal.SIGSTOP)
    try:
        hooks = ["--before", f"echo x > {work}/before", "--after", f"echo x > {work}/after"]
        options = ["--freeze", str(beside), *hooks, "--store", server.location]
        command = subprocess.Popen(
            [*COMMAND, "snapshot", "create", "disk@one", *options],
            env=server.host.environment(),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            text=True,
        )
        # A disk that is busy makes writers stand still too: what it is now is the freeze, which comes right behind.
        until(lambda: (work / "before").exists(), seconds=SECONDS, what="what comes before the freeze")
        until(lambda: stands_still(load), seconds=SECONDS, what="the freeze")
        assert not (work / "after").exists()
        if sign is not None:
            command.send_signal(sign)
        before = load.written
        until(lambda: load.written > before and (work / "after").exists(), seconds=2 * SECONDS, what="the thaw")
    finally:
        server.send(signal.SIGCONT)
        load.end()
    said = command.communicate(timeout=SECONDS)[1]
    if sign is None:
        assert command.returncode == PROBLEMS
        assert "was not frozen any more" in said


def stands_still(load: Load) -> bool:
    before = load.written
    time.sleep(0.5)
    return bool(before) and load.written == before


def test_without_a_server_nothing_is_frozen(local_store: StoreUnderTest, make_server: Callable[..., Server]) -> None:
    server = make_server(local_store, create={"disk": "1MiB"})
    server.start()
    assert server.stop() == 0
    assert "no server" in take(server, "one", "--freeze", os.path.expanduser("~"), status=EXIT_CONFLICT)
