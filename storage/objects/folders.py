"""Folders as a crash leaves them: making and syncing them, walking them, and temporaries.

All paths are relative to the descriptor of a root folder, "" being the root itself. Everything blocks.
"""

import contextlib
import errno
import fcntl
import itertools
import os
import re
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


def sync(root: int, folder: str) -> None:
    """Make the entries of `folder` durable: what was linked, renamed or removed in it."""
    descriptor = os.open(folder or ".", FOLDER, dir_fd=root)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


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
        path = f"{above}/{part}" if above else part
        with contextlib.suppress(FileExistsError):
            os.mkdir(path, FOLDER_MODE, dir_fd=root)
        _keep_owner(root, path)
        sync(root, above)
        above = path


def _keep_owner(root: int, path: str) -> None:
    """Have a folder that root made, perhaps just before it was killed, belong to whom the store's folder belongs."""
    owner = owner_to_keep(root)
    if owner is not None and os.stat(path, dir_fd=root, follow_symlinks=False).st_uid == 0:
        os.chown(path, *owner, dir_fd=root, follow_symlinks=False)


def walk(root: int, folder: str) -> Iterator[str]:
    """Names of all files in and below `folder` that may be objects, in no order."""
    try:
        descriptor = os.open(folder or ".", FOLDER, dir_fd=root)
    except (FileNotFoundError, NotADirectoryError):
        return
    below = []
    try:
        with os.scandir(descriptor) as entries:
            for entry in entries:
                name = f"{folder}/{entry.name}" if folder else entry.name
                if is_name(entry.name):
                    if entry.is_file(follow_symlinks=False):
                        yield name
                    elif entry.is_dir(follow_symlinks=False):
                        below.append(name)
    finally:
        os.close(descriptor)
    for name in below:
        yield from walk(root, name)


def sync_all(root: int) -> None:
    """Make everything that can be seen durable: a killed process may have left entries that are not yet."""
    for folder in {"", *(parent(name) for name in walk(root, ""))}:
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
