"""Files of the state folder that are there wholly or not at all, after any crash, and belong to the folder's owner."""

import os
from pathlib import Path

from storage.lsm.recovery.locks import give_to_owner
from storage.trusted_files import create_new, write_all


def replace(path: Path, data: bytes) -> None:
    """Give a file this content, durably: a crash leaves this or what was there before."""
    hidden = path.with_suffix(".tmp")
    descriptor = create_hidden(hidden)
    try:
        write(descriptor, data)
    finally:
        os.close(descriptor)
    hidden.rename(path)
    sync_folder(path.parent)


def create_hidden(path: Path) -> int:
    """An empty file under a temporary name; what a crash may have left there goes."""
    path.unlink(missing_ok=True)
    descriptor = create_new(path, 0o600)
    give_to_owner(descriptor, path.parent)
    return descriptor


def give_folder(folder: Path) -> None:
    """Have a folder that root made belong to the owner of the one it is in."""
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC)
    try:
        give_to_owner(descriptor, folder.parent)
    finally:
        os.close(descriptor)


def write(descriptor: int, data: bytes) -> None:
    """Write all of it, durably."""
    write_all(descriptor, data)
    os.fsync(descriptor)


def sync_folder(folder: Path) -> None:
    """Make the names in it durable."""
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
