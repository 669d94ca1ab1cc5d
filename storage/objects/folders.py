"""Folders as a crash leaves them: making and syncing them, walking them, and temporaries.

All paths are relative to the descriptor of a root folder, "" being the root itself. Everything blocks.

No link is followed below the root, in no part of a path: it may lead into another store, whose objects have the same
names. `FoundLink` says that there is one.
"""

import contextlib
import errno
import fcntl
import itertools
import os
import re
import stat
from collections.abc import Callable, Iterator
from pathlib import Path

from storage.buffers import Buffer
from storage.objects.base import is_name
from storage.trusted_files import owner_to_keep

FOLDER = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW
FOLDER_MODE = 0o700
FILE_MODE = 0o600

TEMPORARY = "~"
"""First character of a folder of temporaries; no object's name may hold it."""

_TEMPORARIES = re.compile(r"~[0-9a-f]{16}")
_FILE = re.compile(r"[0-9]+")
"""What a folder of temporaries and a file in it are called: whatever else there is, is not ours to remove."""

FOLDER_TRIES_MAX = 100
"""Other processes that start at the same moment may take a new folder for one that was left."""


def parent(name: str) -> str:
    """The folder a file is in, as a path relative to the root."""
    return name.rpartition("/")[0]


def base(name: str) -> str:
    """A file's name within its folder."""
    return name.rpartition("/")[2]


class FoundLink(OSError):
    """There is a symbolic link below the root, where nothing but folders and files of ours may be."""

    def __init__(self, path: str) -> None:
        super().__init__(errno.ELOOP, os.strerror(errno.ELOOP), path)
        self.path = path


@contextlib.contextmanager
def opened(root: int, folder: str) -> Iterator[int]:
    """A descriptor of `folder`, for work by the names within it. FoundLink: it, or one above it, is a link.

    It is opened anew each time, so that one which was removed and made again is the new one.
    """
    descriptor = root if folder else os.open(".", FOLDER, dir_fd=root)
    above = ""
    try:
        for part in folder.split("/") if folder else ():
            below = _open_within(descriptor, part, above)
            if descriptor != root:
                os.close(descriptor)
            descriptor, above = below, f"{above}{part}/"
        yield descriptor
    finally:
        if descriptor != root:
            os.close(descriptor)


def _open_within(descriptor: int, part: str, above: str) -> int:
    try:
        return os.open(part, FOLDER, dir_fd=descriptor)
    except OSError as error:
        # Linux says of a link what it says of a file: that it is no folder.
        if error.errno in (errno.ENOTDIR, errno.ELOOP) and is_link(descriptor, part):
            raise FoundLink(above + part) from error
        raise


def is_link(descriptor: int, name: str) -> bool:
    """Whether what has that name within a folder is a symbolic link."""
    return stat.S_ISLNK(os.stat(name, dir_fd=descriptor, follow_symlinks=False).st_mode)


def sync(root: int, folder: str) -> None:
    """Make the entries of `folder` durable: what was linked, renamed or removed in it."""
    with opened(root, folder) as descriptor:
        os.fsync(descriptor)


def make_root(path: Path) -> None:
    """Make the folder at `path` and those above it where they are missing, and their entries durable."""
    missing = []
    while not path.is_dir():
        missing.append(path)
        path = path.parent
    for folder in reversed(missing):
        with contextlib.suppress(FileExistsError):
            folder.mkdir(mode=FOLDER_MODE)
        _sync_path(folder.parent)
    if not missing:
        with contextlib.suppress(OSError):  # its maker may have been killed before this; we may not be allowed to
            _sync_path(path.parent)


def make(root: int, folder: str) -> None:
    """Make `folder` and those above it where they are missing; their entries are durable in any case."""
    above = ""
    for part in folder.split("/"):
        with opened(root, above) as descriptor:
            with contextlib.suppress(FileExistsError):
                os.mkdir(part, FOLDER_MODE, dir_fd=descriptor)
            above = f"{above}/{part}" if above else part
            with opened(root, above) as made:
                _keep_owner(root, made)
            os.fsync(descriptor)


def _keep_owner(root: int, made: int) -> None:
    """Have a folder that root made, perhaps just before it was killed, belong to whom the store's folder belongs."""
    owner = owner_to_keep(root)
    if owner is not None and os.fstat(made).st_uid == 0:
        os.fchown(made, *owner)


def walk(root: int, folder: str, *, past_links: bool = False) -> Iterator[str]:
    """Names of all files in and below `folder` that may be objects, in no order.

    FoundLink: a link that does not lead to a file is in the way. What lies behind it might be objects, and a listing
    without them would say that there are none. With `past_links` those in the folder are passed over.
    """
    try:
        with opened(root, folder) as descriptor:
            files, below = _entries(descriptor, f"{folder}/" if folder else "", past_links)
    except (FileNotFoundError, NotADirectoryError):
        return
    yield from files
    for name in below:
        yield from walk(root, name, past_links=past_links)


def _entries(descriptor: int, above: str, past_links: bool) -> tuple[list[str], list[str]]:
    """Files and folders in a folder whose path, with a slash, is `above`: their paths."""
    files, below = [], []
    with os.scandir(descriptor) as entries:
        for entry in entries:
            if not is_name(entry.name):
                continue
            if entry.is_file(follow_symlinks=False):
                files.append(above + entry.name)
            elif entry.is_dir(follow_symlinks=False):
                below.append(above + entry.name)
            elif entry.is_symlink() and not past_links and not _leads_to_file(entry):
                raise FoundLink(above + entry.name)
    return files, below


def _leads_to_file(link: os.DirEntry[str]) -> bool:
    try:
        return link.is_file()
    except OSError:  # it leads round in a circle, or where we may not look
        return False


def sync_all(root: int) -> None:
    """Make everything that can be seen durable: a killed process may have left entries that are not yet.

    Links are passed over: nothing of a store is ever behind one.
    """
    for folder in {"", *(parent(name) for name in walk(root, "", past_links=True))}:
        while folder:
            sync(root, folder)
            folder = parent(folder)
    sync(root, "")


class Temporaries:
    """A folder of this process alone for files that are not objects yet, locked while the process lives."""

    def __init__(self, root: int, unique: Callable[[], str]) -> None:
        """Sweep what ended processes left, and make a folder; `unique` gives 16 other hexadecimal digits each time."""
        self._root = root
        self._owner = owner_to_keep(root)
        self._numbers = itertools.count()
        _sweep(root)
        for _ in range(FOLDER_TRIES_MAX):
            self._name = TEMPORARY + unique()
            os.mkdir(self._name, FOLDER_MODE, dir_fd=root)
            try:
                self.descriptor = os.open(self._name, FOLDER, dir_fd=root)
            except FileNotFoundError:
                continue  # another process's sweep was quicker
            if self._owner is not None:
                os.fchown(self.descriptor, *self._owner)
            if self._lock():
                return
            os.close(self.descriptor)
        raise OSError(errno.EAGAIN, "each new folder for unfinished files is taken away by other processes")

    def _lock(self) -> bool:
        """Lock the folder; False where another process's sweep has it, or has removed it."""
        try:
            fcntl.flock(self.descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return False
        except OSError:
            return True  # a filesystem without locks: others cannot lock it either, so none sweeps it
        try:
            os.stat(self._name, dir_fd=self._root)
        except FileNotFoundError:
            return False
        return True

    def write(self, data: Buffer) -> str:
        """Write a file, make its contents durable and return its name; leaves nothing where that fails."""
        name = str(next(self._numbers))
        descriptor = os.open(name, os.O_WRONLY | os.O_CREAT | os.O_EXCL, FILE_MODE, dir_fd=self.descriptor)
        try:
            try:
                if self._owner is not None:
                    os.fchown(descriptor, *self._owner)
                rest = memoryview(data).cast("B")
                while rest:
                    rest = rest[os.write(descriptor, rest) :]
                os.fsync(descriptor)
            finally:
                os.close(descriptor)
        except BaseException:
            self.remove(name)
            raise
        return name

    def remove(self, name: str) -> None:
        """Remove a temporary; one that cannot be removed stays for the sweep and is no error."""
        with contextlib.suppress(OSError):
            os.unlink(name, dir_fd=self.descriptor)

    def close(self) -> None:
        """Remove the folder, which holds nothing but what an unfinished call left."""
        _remove(self._root, self._name, self.descriptor)


def _sweep(root: int) -> None:
    for name in os.listdir(root):
        if _TEMPORARIES.fullmatch(name):
            with contextlib.suppress(OSError):  # gone, in use, or not ours: the sweep is no one's duty
                descriptor = os.open(name, FOLDER, dir_fd=root)
                try:
                    fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
                except OSError:
                    os.close(descriptor)
                    continue
                _remove(root, name, descriptor)


def _remove(root: int, name: str, descriptor: int) -> None:
    """Empty and remove a folder of temporaries, and close its descriptor, which ends the lock."""
    try:
        with contextlib.suppress(OSError):
            for file in filter(_FILE.fullmatch, os.listdir(descriptor)):
                os.unlink(file, dir_fd=descriptor)
            os.rmdir(name, dir_fd=root)
    finally:
        os.close(descriptor)


def _sync_path(folder: Path) -> None:
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
