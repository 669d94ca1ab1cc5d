"""Files and folders of this host that other users of it can neither have put there nor change.

What a program trusts without a password (a socket, a lock, what this host remembers) is as safe as the folder it lies
in. `trusted_folder` looks at a folder and at all above it and gives its real path: every one belongs to this user or
to root, and nobody else can put something in its place. `open_own` and `create_new` open files so that a name which
somebody else was first to use is refused, a link too.

Root is trusted by everybody, since it can do everything anyway. Everything here blocks on the local disk.
"""

import contextlib
import errno
import os
import pwd
import stat
from pathlib import Path

from storage.errors import AccessDenied

OTHERS_WRITE = stat.S_IWGRP | stat.S_IWOTH

ROOT_UID = 0


def trusted_users() -> frozenset[int]:
    """Those who may do as this process does: its own user, and root."""
    return frozenset((os.geteuid(), ROOT_UID))


def trusted_folder(folder: Path, *, users: frozenset[int] | None = None, shared: bool = False) -> Path:
    """The real path of a folder that only `users` (this user and root, unless given) can change or exchange.

    Use that path from then on: what a link on the way says later does not count. With `shared` the folder itself may
    be one like /tmp, in which everybody makes files and touches only those of his own. AccessDenied: somebody else
    can write there; OSError: it is not there.
    """
    allowed = users or trusted_users()
    entry = folder.lstat()
    if stat.S_ISLNK(entry.st_mode) and entry.st_uid not in trusted_users():
        raise AccessDenied(f"{folder} is a link that user {entry.st_uid} made: remove it, or name another folder")
    real = Path(os.path.realpath(folder, strict=True))
    found = real.lstat()
    if not stat.S_ISDIR(found.st_mode):
        raise NotADirectoryError(errno.ENOTDIR, os.strerror(errno.ENOTDIR), str(folder))
    _check(real, found, allowed, sticky=shared)
    for above in real.parents:
        # Whoever can write to a folder above can put another one in the place of ours, unless it is like /tmp.
        _check(above, above.lstat(), trusted_users() | allowed, sticky=True)
    return real


def _check(folder: Path, found: os.stat_result, users: frozenset[int], *, sticky: bool) -> None:
    if found.st_uid not in users:
        raise AccessDenied(f"{folder} belongs to user {found.st_uid}, who could exchange what is in it")
    if found.st_mode & OTHERS_WRITE and not (sticky and found.st_mode & stat.S_ISVTX):
        raise AccessDenied(f"other users can write to {folder} (mode {stat.S_IMODE(found.st_mode):04o})")


def made_by_root(folder: Path) -> bool:
    """Whether nobody but root can have made this folder and given it to its owner: root alone can write to what is
    above it. False where there is none."""
    try:
        real = Path(os.path.realpath(folder, strict=True))
        above = [each.lstat() for each in real.parents]
    except OSError:
        return False
    return all(each.st_uid == ROOT_UID and not each.st_mode & OTHERS_WRITE for each in above)


def users_trusted_in(folder: Path) -> frozenset[int]:
    """This user and root; to root also the owner of a folder that root gave him, as a service manager does."""
    users = trusted_users()
    if os.geteuid() == ROOT_UID and made_by_root(folder):
        users |= {os.stat(folder).st_uid}
    return users


def owner_to_keep(folder: int) -> tuple[int, int] | None:
    """User and group that a new file in this open folder is to have, where it would have others by itself: what root
    makes in a folder of somebody's must be his, or he could not use it."""
    if os.geteuid() != ROOT_UID:
        return None
    found = os.fstat(folder)
    return None if (found.st_uid, found.st_gid) == (ROOT_UID, ROOT_UID) else (found.st_uid, found.st_gid)


def user_name(uid: int) -> str:
    """How a message names a user."""
    try:
        return f"user {pwd.getpwuid(uid).pw_name}"
    except KeyError:
        return f"user {uid}"


def create_new(path: Path, mode: int) -> int:
    """A descriptor to read and write a file that was not there (FileExistsError, for a link too)."""
    flags = os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
    return os.open(path, flags, mode)


def open_own(path: Path, flags: int) -> int:
    """A descriptor of a regular file that belongs to this user or root and has no other name; with O_CREAT it is made,
    for its owner alone.

    AccessDenied: it is somebody else's, or a link. OSError: as open(2).
    """
    try:
        descriptor = os.open(path, flags | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_NOCTTY | os.O_CLOEXEC, 0o600)
    except OSError as error:
        if error.errno == errno.ELOOP:
            raise AccessDenied(f"{path} is a link: remove it, or choose another name") from error
        raise
    try:
        found = os.fstat(descriptor)
        if not stat.S_ISREG(found.st_mode) or found.st_nlink != 1:
            raise AccessDenied(f"{path} is no plain file of its own: remove it, or choose another name")
        if found.st_uid not in trusted_users():
            raise AccessDenied(f"{path} belongs to user {found.st_uid}: remove it, or choose another name")
    except BaseException:
        os.close(descriptor)
        raise
    return descriptor


def write_all(descriptor: int, data: bytes) -> None:
    """Write all of it: write(2) may take less than it is given, and says so by its count only."""
    while data:
        data = data[os.write(descriptor, data) :]


def replace_file(path: Path, data: bytes, mode: int) -> None:
    """Put a small file at `path`, all of it or nothing, in the place of what was there: a link is replaced, and what
    it points to is left alone. A crash leaves the old file or the new one, and perhaps one called `.NAME.PID`."""
    hidden = path.with_name(f".{path.name}.{os.getpid()}")
    with contextlib.suppress(FileNotFoundError):
        hidden.unlink()
    descriptor = create_new(hidden, mode)
    try:
        try:
            write_all(descriptor, data)
        finally:
            os.close(descriptor)
        hidden.rename(path)
    except BaseException:
        with contextlib.suppress(OSError):
            hidden.unlink()
        raise
