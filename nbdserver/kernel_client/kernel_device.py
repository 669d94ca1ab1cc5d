"""An NBD device of this machine as the kernel shows it: /dev/nbdN and /sys/block/nbdN."""

import contextlib
import errno
import os
import re
from dataclasses import dataclass
from pathlib import Path

from nbdserver.protocol import wire
from storage.errors import Invalid

SYS = Path("/sys/block")

SYSFS_SECTOR_BYTES = 512

MAX_SECTORS_KB = 1024
"""Longest request, in KiB. The kernel's own for NBD is 128, less than a block of the store (256 KiB)."""
READ_AHEAD_KB = 4096
"""What is asked for ahead of a reader, in KiB; the kernel's own is 128."""


@dataclass(frozen=True, slots=True)
class KernelDevice:
    """/dev/nbd<index>, there or not."""

    index: int
    sys: Path = SYS

    @property
    def path(self) -> Path:
        return Path(f"/dev/nbd{self.index}")

    @property
    def size(self) -> int:
        """Bytes; 0 where nothing is attached."""
        return int(self._read("size") or 0) * SYSFS_SECTOR_BYTES

    @property
    def flags(self) -> int:
        """What it was attached with (transmission flags), as far as the kernel shows it."""
        found = wire.FLAG_READ_ONLY if self._read("ro") == "1" else 0
        if self._read("queue/write_cache") == "write back":
            found |= wire.FLAG_SEND_FLUSH
        for name, flag in (
            ("queue/fua", wire.FLAG_SEND_FUA),
            ("queue/discard_max_bytes", wire.FLAG_SEND_TRIM),
            ("queue/write_zeroes_max_bytes", wire.FLAG_SEND_WRITE_ZEROES),
        ):
            if self._read(name) not in (None, "0"):
                found |= flag
        return found

    @property
    def backend(self) -> str | None:
        """What it was attached with, if it was by netlink and the kernel remembers (Linux 5.14 and later)."""
        return self._read("backend") or None

    @property
    def attached(self) -> bool:
        """Whether a client is at work: then the kernel shows who attached it."""
        return self._read("pid") not in (None, "0", "-1")

    @property
    def claimed(self) -> bool:
        """Whether somebody has it for themselves: it is mounted, or swap, or a part of a pool or another device."""
        try:
            os.close(os.open(self.path, os.O_RDONLY | os.O_EXCL | os.O_CLOEXEC))
        except OSError as error:
            return error.errno == errno.EBUSY
        return False

    def tune(self) -> None:
        """Set the lengths of requests. They are for speed, so a kernel that takes them not is left as it is."""
        for name, value in (("max_sectors_kb", MAX_SECTORS_KB), ("read_ahead_kb", READ_AHEAD_KB)):
            with contextlib.suppress(OSError):
                (self.sys / f"nbd{self.index}" / "queue" / name).write_text(f"{value}\n")

    def _read(self, name: str) -> str | None:
        try:
            return (self.sys / f"nbd{self.index}" / name).read_text(errors="surrogateescape").rstrip("\n")
        except OSError:
            return None


def parse_device(text: str) -> KernelDevice:
    """The device that `/dev/nbd0` or `nbd0` names. Invalid: it is no NBD device, or a partition of one."""
    found = re.fullmatch(r"(?:/dev/)?nbd(\d{1,6})", text)
    if found is None:
        raise Invalid(f"{text!r} is not an NBD device: write /dev/nbd0")
    return KernelDevice(int(found[1]))
