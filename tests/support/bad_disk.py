"""A filesystem on a disk whose sectors go bad and heal: nbdkit, nbdfuse, a loop device, ext4 and this machine's kernel.

Nothing of it is ours, so that an I/O error reaches a program as it does from a real disk: from the block layer, through
the filesystem and its page cache.
"""

import re
import subprocess
from pathlib import Path
from types import TracebackType
from typing import Self

from tests.support.commands import run
from tests.support.processes import end, kill_quietly, listens, until
from tests.support.requirements import SYSTEM_PATH, require

BLOCK_BYTES = 4096
DISK_BYTES = 192 << 20

_BASE = "{folder}/disk"
_CALLBACKS = {
    "get_size": f"echo {DISK_BYTES}",
    # $3 bytes at $4; `bad` has a line for each range that cannot be read: where it begins and where it ends.
    "pread": (
        "while read -r begin end; do"
        ' if [ "$begin" -lt $(($3 + $4)) ] && [ "$4" -lt "$end" ]; then echo EIO a bad sector >&2; exit 1; fi;'
        " done < {folder}/bad;"
        f" dd if={_BASE} iflag=skip_bytes,count_bytes,fullblock bs=1M skip=$4 count=$3 status=none"
    ),
    "pwrite": f"dd of={_BASE} oflag=seek_bytes conv=notrunc bs=1M seek=$4 status=none",
    "can_flush": "echo native",
    "flush": ":",
    "thread_model": "echo parallel",
}


class BadDisk:
    """The disk, mounted under `mount` from entering to leaving. `folder`: where all of it may lie."""

    def __init__(self, folder: Path) -> None:
        require("root", "/dev/fuse", "/dev/loop-control", "nbdkit", "nbdfuse", "fusermount3", "losetup", "mkfs.ext4")
        self._folder = folder
        self._bad = folder / "bad"
        self._fuse = folder / "fuse"
        self.mount = folder / "mount"
        self._programs: list[subprocess.Popen[bytes]] = []
        self._loop = ""
        self._mounted = False

    def __enter__(self) -> Self:
        self._bad.touch()
        for made in (self._fuse, self.mount):
            made.mkdir()
        with (self._folder / "disk").open("wb") as disk:
            disk.truncate(DISK_BYTES)
        try:
            self._attach()
            run("mkfs.ext4", "-q", "-F", "-m", "0", "-b", str(BLOCK_BYTES), self._loop)
            self.mount_again()
        except BaseException:
            self._detach()
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._detach()

    def mount_again(self) -> None:
        """What is read from now on comes from the disk, and not from the page cache."""
        if self._mounted:
            run("umount", self.mount)
        self._mounted = False
        run("mount", "-t", "ext4", self._loop, self.mount)
        self._mounted = True

    def spoil(self, file: Path, offset: int) -> None:
        """The sector under this place of a file can no longer be read."""
        for line in run("filefrag", "-v", "-e", f"-b{BLOCK_BYTES}", file).splitlines():
            extent = re.match(r"\s*\d+:\s*(\d+)\.\.\s*(\d+):\s*(\d+)\.\.", line)
            if extent is None:
                continue
            first, last, physical = map(int, extent.groups())
            if first <= offset // BLOCK_BYTES <= last:
                begin = (physical + offset // BLOCK_BYTES - first) * BLOCK_BYTES
                self._bad.write_text(f"{begin} {begin + BLOCK_BYTES}\n")
                return
        raise AssertionError(f"{file} has no extent at {offset}")

    def heal(self) -> None:
        self._bad.write_text("")

    def _attach(self) -> None:
        socket, exported = self._folder / "kit", self._fuse / "disk"
        exports = [f"{name}={body.format(folder=self._folder)}" for name, body in _CALLBACKS.items()]
        self._start("nbdkit", "--foreground", "--unix", str(socket), "eval", *exports)
        until(lambda: listens(socket), seconds=30, what="nbdkit")
        self._start("nbdfuse", str(exported), f"nbd+unix:///?socket={socket}")
        until(exported.exists, seconds=30, what="nbdfuse")
        self._loop = run("losetup", "--find", "--show", "--direct-io=on", exported).strip()

    def _start(self, *command: str) -> None:
        with (self._folder / "said").open("ab") as log:  # every error that is injected
            self._programs.append(
                subprocess.Popen(command, env={"PATH": SYSTEM_PATH}, stdin=subprocess.DEVNULL, stderr=log)
            )

    def _detach(self) -> None:
        """In the order in which each lets go of the next."""
        self.heal()
        try:
            if self._mounted:
                run("umount", self.mount)
            if self._loop:
                run("losetup", "--detach", self._loop)
                gone = Path(f"/sys/block/{Path(self._loop).name}/loop")
                until(lambda: not gone.exists(), seconds=30, what="the end of the loop device")
            if len(self._programs) > 1:
                run("fusermount3", "-u", self._fuse)
                self._programs[1].wait(60)
            for program in self._programs[:1]:
                end(program)
        finally:
            for program in self._programs:
                kill_quietly(program)
