"""The files of a journal: a folder in memory (tmpfs) that outlives its process, and ends with the boot of the machine.

In the runtime folder every journal of a store has a folder of its own, `<hash of the store's URL>-<id>.journal`:

    head                 what it is: version, boot of the machine, store. Locked (flock) by the process that has it
    <number>.segment     batches of operations (see `storage.format.journal_batch`), ascending

Promises: nobody but this user can read or have put there what is in them; a journal has one process at a time, and who
has it is gone when another one gets it; without `head` it is no journal, so that `end` ends it in one step. A crash
leaves a folder without head, which the next writer removes, or a whole journal. All functions block, on memory.
"""

import fcntl
import hashlib
import os
import re
import shutil
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Protocol

import msgspec

from storage.buffers import Buffer
from storage.errors import AccessDenied, Invalid
from storage.trusted_files import create_new, open_own, trusted_folder

VERSION = 1

_HEAD_NAME = "head"
_SEGMENT = re.compile(r"(\d{20})\.segment")
_IN_MEMORY = ("tmpfs", "ramfs")
_IOV_MAX = 1024


class JournalFiles(Protocol):
    """Where the journals of one store lie on this host. At most one of them is had at a time."""

    def take(self, journal_id: bytes) -> bool:
        """Have the journal of that id. False: it is not there, or of another boot, or a living process has it."""

    def begin(self, journal_id: bytes) -> None:
        """Have a new one, which is empty. OSError."""

    def segments(self) -> list[int]:
        """The numbers of its segments, ascending."""

    def read(self, segment: int) -> bytes:
        """All of a segment."""

    def cut(self, segment: int, length: int) -> None:
        """Drop what is behind `length` bytes of a segment."""

    def append(self, segment: int, parts: Sequence[Buffer]) -> None:
        """Write behind what is there, in as few calls as possible; a segment begins with its first bytes. OSError: only
        the beginning may have been written."""

    def remove(self, segment: int) -> None:
        """Drop a segment. OSError."""

    def end(self) -> None:
        """Drop the journal: nobody will take it any more. OSError."""

    def leave(self) -> None:
        """Give it up and leave it, for the next process to take."""

    def set_aside(self) -> str | None:
        """Put the journals that no process has where nobody will take them; gives where. OSError.

        None: there are none."""


class _Head(msgspec.Struct, frozen=True):
    version: int
    boot: str
    """Which life of the machine it is of."""
    store: str


class FolderFiles:
    """The journals of one store in a folder of this host."""

    def __init__(self, folder: Path, store_url: str) -> None:
        """Invalid: the folder does not lie in memory. AccessDenied: others could write there. OSError."""
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        self._folder = trusted_folder(folder)
        if not lies_in_memory(self._folder):
            raise Invalid(
                f"the journal would lie on a disk in {folder}, and it holds what clients write, in clear: "
                "name a folder on tmpfs with --journal, or turn it off with --journal off"
            )
        self._store_url = store_url
        self._prefix = hashlib.sha256(store_url.encode()).hexdigest()[:24]
        self._path = Path()
        self._lock = -1
        self._segment: tuple[int, int] | None = None
        """Number and descriptor of the segment that is open."""

    def take(self, journal_id: bytes) -> bool:
        path = self._path_of(journal_id)
        if self._lock >= 0 and path == self._path:
            return True
        self.leave()
        try:
            descriptor = open_own(path / _HEAD_NAME, os.O_RDONLY)
        except (OSError, AccessDenied):
            return False
        if not (_lock(descriptor) and self._is_ours(os.pread(descriptor, 4096, 0)) and (path / _HEAD_NAME).exists()):
            os.close(descriptor)
            return False
        self._path, self._lock = path, descriptor
        return True

    def _is_ours(self, raw: bytes) -> bool:
        try:
            return msgspec.json.decode(raw, type=_Head) == _Head(VERSION, boot(), self._store_url)
        except msgspec.MsgspecError:
            return False

    def begin(self, journal_id: bytes) -> None:
        self.leave()
        path = self._path_of(journal_id)
        shutil.rmtree(path, ignore_errors=True)
        path.mkdir(mode=0o700)
        # Locked under a name that nobody looks for, so that nobody meets it unlocked.
        hidden = path / f".{_HEAD_NAME}"
        descriptor = create_new(hidden, 0o600)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            _write(descriptor, [msgspec.json.encode(_Head(VERSION, boot(), self._store_url))])
            hidden.rename(path / _HEAD_NAME)
        except BaseException:
            os.close(descriptor)
            raise
        self._path, self._lock = path, descriptor

    def segments(self) -> list[int]:
        found = (_SEGMENT.fullmatch(name) for name in os.listdir(self._path))
        return sorted(int(match[1]) for match in found if match)

    def read(self, segment: int) -> bytes:
        return self._of(segment).read_bytes()

    def cut(self, segment: int, length: int) -> None:
        os.truncate(self._of(segment), length)

    def append(self, segment: int, parts: Sequence[Buffer]) -> None:
        if self._segment is None or self._segment[0] != segment:
            self._close_segment()
            self._segment = segment, create_new(self._of(segment), 0o600)
        _write(self._segment[1], parts)

    def remove(self, segment: int) -> None:
        if self._segment is not None and self._segment[0] == segment:
            self._close_segment()
        self._of(segment).unlink()

    def end(self) -> None:
        if self._lock < 0:
            return
        try:
            (self._path / _HEAD_NAME).unlink(missing_ok=True)
            shutil.rmtree(self._path, ignore_errors=True)
        finally:
            self.leave()

    def leave(self) -> None:
        self._close_segment()
        if self._lock >= 0:
            os.close(self._lock)
            self._lock = -1

    def set_aside(self) -> str | None:
        aside = self._folder / f"{self._prefix}.aside"
        found = None
        for path in self._others():
            descriptor = -1
            try:
                descriptor = open_own(path / _HEAD_NAME, os.O_RDONLY)
                if not _lock(descriptor):
                    continue
                shutil.rmtree(aside, ignore_errors=True)
                path.rename(aside)
                found = str(aside)
            except FileNotFoundError:
                shutil.rmtree(path, ignore_errors=True)
            finally:
                if descriptor >= 0:
                    os.close(descriptor)
        return found

    def _others(self) -> Iterator[Path]:
        for name in sorted(os.listdir(self._folder)):
            path = self._folder / name
            had = self._lock >= 0 and path == self._path
            if name.startswith(f"{self._prefix}-") and name.endswith(".journal") and not had:
                yield path

    def _path_of(self, journal_id: bytes) -> Path:
        return self._folder / f"{self._prefix}-{journal_id.hex()}.journal"

    def _of(self, segment: int) -> Path:
        return self._path / f"{segment:020}.segment"

    def _close_segment(self) -> None:
        if self._segment is not None:
            os.close(self._segment[1])
            self._segment = None


def lies_in_memory(folder: Path) -> bool:
    """Whether a folder is in a filesystem that keeps everything in memory, or in swap."""
    device = os.stat(folder).st_dev
    wanted = f"{os.major(device)}:{os.minor(device)}"
    for line in Path("/proc/self/mountinfo").read_text().splitlines():
        fields, _, kind = line.partition(" - ")
        if fields.split()[2] == wanted:
            return kind.split()[0] in _IN_MEMORY
    return False


def boot() -> str:
    """What tells one life of this machine from another."""
    return Path("/proc/sys/kernel/random/boot_id").read_text().strip()


def _lock(descriptor: int) -> bool:
    """Lock a file that no living process has locked."""
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def _write(descriptor: int, parts: Sequence[Buffer]) -> None:
    """Write all of it. The kernel takes a thousand buffers at once, and may write less than it was given."""
    written = os.writev(descriptor, parts[:_IOV_MAX])
    if written == sum(map(len, parts)):
        return
    rest = [memoryview(part) for part in parts if len(part)]
    while True:
        while rest and written >= len(rest[0]):
            written -= len(rest.pop(0))
        if not rest:
            return
        rest[0] = rest[0][written:]
        written = os.writev(descriptor, rest[:_IOV_MAX])
