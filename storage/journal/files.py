"""The files of a journal: a folder in memory (tmpfs) that outlives its process, and ends with the boot of the machine.

In the runtime folder every journal of a store has a folder of its own, `<hash of the store's URL>-<id>.journal`:

    head                 what it is: version, boot of the machine, store, epoch of the writer that began it. Locked
                         (flock) by the process that has it
    <number>.segment     batches of operations (see `storage.format.journal_batch`), ascending
    <number>.spare       the memory of a segment that was dropped, for another one; what is in it says nothing

Promises: nobody but this user can read or have put there what is in them; a journal has one process at a time, and who
has it is gone when another one gets it; without `head` it is no journal, so that `end` ends it in one step. A crash
leaves a folder without head, which the next writer removes, or a whole journal. All functions block, on memory.

A segment is mapped, with all its memory there from the beginning: to write to it cannot fail, and a full tmpfs is told
when a segment begins. It is written over by a later one when it was dropped: memory that is there already, and in the
processor's cache, takes a third of the time of memory that tmpfs has to find first.
"""

import contextlib
import fcntl
import hashlib
import mmap
import os
import re
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Literal, Protocol

import msgspec

from storage.errors import AccessDenied, Invalid
from storage.format.journal_batch import Memory, clear
from storage.trusted_files import create_new, open_own, trusted_folder, write_all
from storage.units import MIB

VERSION = 1

_HEAD_NAME = "head"
_SEGMENT = re.compile(r"(\d{20})\.segment")
_IN_MEMORY = ("tmpfs", "ramfs")

SPARES_MAX = 64
"""Segments whose memory is kept for others: with what is in use no more than ever was."""

SPARE_BYTES_MAX = 4 * MIB
"""Of one: larger segments hold one large operation each, of any size, and would hardly be taken again."""

SPARES_KEPT = 4
"""And when nobody writes: with the usual size 16 MiB."""

TRIMMED_MAX = 8
"""Spares that are given back at once: of each that takes about a millisecond."""


Taken = Literal["taken", "held", "gone"]
"""What came of it to take a journal: this process has it, another one that lives has it, or there is none to be had."""


class JournalFiles(Protocol):
    """Where the journals of one store lie on this host. At most one of them is had at a time."""

    def take(self, journal_id: bytes) -> Taken:
        """Have the journal of that id, if it is there, of this boot, and no living process has it."""

    def begin(self, journal_id: bytes, epoch: int) -> None:
        """Have a new one, which is empty, of the writer of that epoch. OSError."""

    def segments(self) -> list[int]:
        """The numbers of its segments, ascending."""

    def read(self, segment: int) -> bytes:
        """The bytes of a whole segment, whatever part of it is used."""

    def map(self, segment: int, size: int) -> Memory:
        """A new segment without a batch, which is written to by writing to this; it has room for `size` bytes in all.
        OSError: there is no such memory, and no such segment."""

    def remove(self, segment: int) -> None:
        """Drop a segment, to which nobody writes any more. OSError."""

    def trim(self) -> bool:
        """Give back some of the memory that is kept for other segments and that none took since this was called last.
        False: the rest stays. OSError."""

    def end(self) -> None:
        """Drop the journal: nobody will take it any more. OSError."""

    def leave(self) -> None:
        """Give it up and leave it, for the next process to take."""

    def set_aside(self, *, epoch: int | None) -> str | None:
        """Put the journals that no process has where nobody will take them, but for those that writers of epochs above
        `epoch` have begun (None: these too); gives where. None: there are none. OSError."""


class _Head(msgspec.Struct, frozen=True):
    version: int
    boot: str
    """Which life of the machine it is of."""
    store: str
    epoch: int
    """Of the writer that began it."""


class FolderFiles:
    """The journals of one store in a folder of this host."""

    def __init__(self, folder: Path, store_url: str) -> None:
        """Invalid: the folder does not lie in memory. AccessDenied: others could write there. OSError."""
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        self._folder = trusted_folder(folder)
        if not lies_in_memory(self._folder):
            raise Invalid(
                f"the journal would lie on a disk in {folder}, and it has to be memory, which ends with this boot: "
                "name a folder on tmpfs with --journal, or turn it off with --journal off"
            )
        self._store_url = store_url
        self._prefix = hashlib.sha256(store_url.encode()).hexdigest()[:24]
        self._path = Path()
        self._lock = -1
        self._mapped: dict[int, mmap.mmap] = {}
        """The segments that this process has begun."""
        self._spare: list[tuple[int, mmap.mmap]] = []
        """What became of those that were dropped, the last one last, each under the number that it had."""
        self._untaken = 0
        """The fewest that there were of these since `trim` was called last: so many, the first ones, nobody took."""

    def take(self, journal_id: bytes) -> Taken:
        path = self._path_of(journal_id)
        if self._lock >= 0 and path == self._path:
            return "taken"
        self.leave()
        try:
            descriptor = open_own(path / _HEAD_NAME, os.O_RDONLY)
        except (OSError, AccessDenied):
            return "gone"
        head = _head_in(descriptor)
        ours = head is not None and (head.version, head.boot, head.store) == (VERSION, boot(), self._store_url)
        if not ours or (found := _lock(descriptor, path / _HEAD_NAME)) != "taken":
            os.close(descriptor)
            return found if ours else "gone"
        self._path, self._lock = path, descriptor
        _remove_spares(path)
        return "taken"

    def begin(self, journal_id: bytes, epoch: int) -> None:
        self.leave()
        path = self._path_of(journal_id)
        shutil.rmtree(path, ignore_errors=True)
        path.mkdir(mode=0o700)
        # Locked under a name that nobody looks for, so that nobody meets it unlocked.
        hidden = path / f".{_HEAD_NAME}"
        descriptor = create_new(hidden, 0o600)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            write_all(descriptor, msgspec.json.encode(_Head(VERSION, boot(), self._store_url, epoch)))
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

    def map(self, segment: int, size: int) -> Memory:
        number, memory = self._take_spare(size) or (segment, self._find(segment, size))
        clear(memory)
        # Only now: it never bears a segment's name with anything else in it. A crash before leaves a spare, one in
        # between a segment with two names.
        os.link(self._spare_of(number), self._of(segment))
        self._spare_of(number).unlink()
        self._mapped[segment] = memory
        return memory

    def _take_spare(self, size: int) -> tuple[int, mmap.mmap] | None:
        for index in reversed(range(len(self._spare))):
            if len(self._spare[index][1]) == size:
                self._untaken = min(self._untaken, index)
                return self._spare.pop(index)
        return None

    def _find(self, number: int, size: int) -> mmap.mmap:
        """Memory that nothing had before; where there is no room, that of all spares makes it."""
        try:
            return self._make_spare(number, size)
        except OSError:
            if not self._spare:
                raise
            self._drop_spares(0)
            return self._make_spare(number, size)

    def _make_spare(self, number: int, size: int) -> mmap.mmap:
        path = self._spare_of(number)
        descriptor = create_new(path, 0o600)
        try:
            os.posix_fallocate(descriptor, 0, size)
            # With all its pages: half the time of one fault for each.
            return mmap.mmap(descriptor, size, flags=mmap.MAP_SHARED | mmap.MAP_POPULATE)
        except OSError:
            path.unlink()
            raise
        finally:
            os.close(descriptor)

    def remove(self, segment: int) -> None:
        memory = self._mapped.pop(segment, None)
        if memory is not None and len(memory) <= SPARE_BYTES_MAX and len(self._spare) < SPARES_MAX:
            self._of(segment).rename(self._spare_of(segment))
            self._spare.append((segment, memory))
            return
        self._of(segment).unlink()
        if memory is not None:
            # Without a name it has its pages until nobody maps it, and the one who wrote to it may hold it for long.
            memory.close()

    def trim(self) -> bool:
        count = len(self._spare)
        self._drop_spares(max(count - min(self._untaken, TRIMMED_MAX), min(count, SPARES_KEPT)))
        self._untaken = len(self._spare)
        return self._untaken > SPARES_KEPT

    def _drop_spares(self, count: int) -> None:
        while len(self._spare) > count:
            number, memory = self._spare[0]
            self._spare_of(number).unlink()
            del self._spare[0]
            memory.close()
        self._untaken = min(self._untaken, count)

    def end(self) -> None:
        if self._lock < 0:
            return
        try:
            (self._path / _HEAD_NAME).unlink(missing_ok=True)
            shutil.rmtree(self._path, ignore_errors=True)
        finally:
            self.leave()

    def leave(self) -> None:
        self._mapped.clear()
        self._spare.clear()
        self._untaken = 0
        if self._lock >= 0:
            os.close(self._lock)
            self._lock = -1

    def set_aside(self, *, epoch: int | None) -> str | None:
        aside = self._folder / f"{self._prefix}.aside"
        found = None
        for path in self._others():
            descriptor = -1
            try:
                descriptor = open_own(path / _HEAD_NAME, os.O_RDONLY)
                head = _head_in(descriptor)
                later = epoch is not None and head is not None and head.epoch > epoch
                # Not even locked for a moment if it is: its next writer may be about to take it.
                if later or _lock(descriptor, path / _HEAD_NAME) != "taken":
                    continue
                _remove_spares(path)
                shutil.rmtree(aside, ignore_errors=True)
                path.rename(aside)
                found = str(aside)
            except FileNotFoundError:
                _remove_headless(path)
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

    def _spare_of(self, number: int) -> Path:
        return self._path / f"{number:020}.spare"


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


def _remove_spares(path: Path) -> None:
    """Of a journal whose process is gone: they are of no use to another one, and may be most of its memory."""
    for spare in path.glob("*.spare"):
        spare.unlink(missing_ok=True)


def _remove_headless(path: Path) -> None:
    """What is no journal any more. Its process may begin one in that folder at any moment: none of that goes, since the
    number of a segment is never used again."""
    with contextlib.suppress(OSError):
        names = os.listdir(path)
        if _HEAD_NAME in names:
            return
        for name in names:
            (path / name).unlink(missing_ok=True)
        path.rmdir()


def _head_in(descriptor: int) -> _Head | None:
    try:
        return msgspec.json.decode(os.pread(descriptor, 4096, 0), type=_Head)
    except msgspec.MsgspecError:
        return None


def _lock(descriptor: int, path: Path) -> Taken:
    """Lock a file that no living process has locked. Gone: it is not the one at `path` any more."""
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return "held"
    try:
        return "taken" if os.path.samestat(os.fstat(descriptor), os.stat(path)) else "gone"
    except FileNotFoundError:
        return "gone"
