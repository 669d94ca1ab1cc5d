"""Who keeps a device attached: a file in /run, locked by that process as long as it lives.

Whether the lock is held is what counts, and the kernel tells by whom; what the file says is for people. A crash leaves
the file, and no lock. Until a device has a keeper, who attaches an export holds a lock of that.
"""

import contextlib
import fcntl
import hashlib
import os
import struct
from collections.abc import Iterator
from pathlib import Path

from nbdserver.kernel_client.export_address import ExportAddress
from storage.errors import Conflict

LOCKS = Path("/run/nbdserver-attach")
"""Root's alone; on tmpfs, so that it is never older than the kernel's devices."""

_LOCK = struct.Struct("hhqqi")
"""`struct flock` of fcntl(2) on Linux with 64 bits: kind, whence, start, length (0: all), process."""

SENTENCE_BYTES_MAX = 4096


class KeeperLock:
    """The lock of one device, held until it is closed. A fork does not inherit it."""

    def __init__(self, index: int, folder: Path = LOCKS) -> None:
        """Conflict: another process keeps the device."""
        folder.mkdir(mode=0o755, exist_ok=True)
        flags = os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC
        self._descriptor = os.open(_path(index, folder), flags, 0o644)
        try:
            fcntl.lockf(self._descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            os.close(self._descriptor)
            raise Conflict(f"/dev/nbd{index} is attached already, and another process keeps it so") from None
        self.say("")

    def say(self, sentence: str) -> None:
        """What the keeper waits for; nothing: the device has all its connections."""
        data = sentence.encode()[:SENTENCE_BYTES_MAX]
        os.pwrite(self._descriptor, data, 0)
        os.ftruncate(self._descriptor, len(data))

    def close(self) -> None:
        """Nobody keeps the device any more."""
        self.say("")
        os.close(self._descriptor)


def keeper(index: int, folder: Path = LOCKS) -> tuple[int | None, str | None]:
    """The process that keeps a device, None: nobody does; and what it waits for, if for anything."""
    with contextlib.suppress(FileNotFoundError), open(_path(index, folder), "rb") as file:
        found = fcntl.fcntl(file, fcntl.F_GETLK, _LOCK.pack(fcntl.F_RDLCK, os.SEEK_SET, 0, 0, 0))
        kind, _, _, _, pid = _LOCK.unpack(found)
        if kind != fcntl.F_UNLCK:
            return pid, file.read(SENTENCE_BYTES_MAX).decode(errors="replace") or None
    return None, None


@contextlib.contextmanager
def attaching_alone(address: ExportAddress, folder: Path = LOCKS) -> Iterator[None]:
    """While the block runs nobody else attaches this export. Conflict: somebody does. A crash leaves the file, and no
    lock."""
    folder.mkdir(mode=0o755, exist_ok=True)
    flags = os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC
    descriptor = os.open(note_path(address, folder, "lock"), flags, 0o600)
    try:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            raise Conflict(f"{address.uri} is being attached already, by another command") from None
        yield
    finally:
        os.close(descriptor)


def note_path(address: ExportAddress, folder: Path, kind: str) -> Path:
    """Where something of an export is noted."""
    return folder / f"{hashlib.sha256(address.uri.encode()).hexdigest()[:24]}.{kind}"


def _path(index: int, folder: Path) -> Path:
    return folder / f"nbd{index}"
