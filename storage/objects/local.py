"""A store of objects in a local folder, safe against kill -9, power loss and a full disk.

An object is a file. It is written and synced under a temporary name first; `link()` then gives it its own
name, which fails where that name is taken, and the folder is synced. So a name is either not there or holds
the whole object, and what a create reports, success or "taken", is durable. What a crash leaves after each
step:

    write, fsync       a temporary, which no listing shows and the next writer sweeps
    link               the object, whole, perhaps not durable yet; the next writer syncs every folder before
                       anything else, so nothing is built on what a power cut could undo
    fsync of folder    the object, durable

The folder an object is in is opened without following a link, and all of that is done within what was opened: a part
of the store that was replaced by a link is refused, and what it leads to stays as it is. So the folder that is synced
is the one that was linked into, whatever has its path by then.
"""

import contextlib
import errno
import itertools
import os
import stat
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TypeVar

from storage.buffers import Buffer
from storage.env import Env
from storage.errors import (
    AccessDenied,
    AlreadyExists,
    Invalid,
    NotFound,
    OutOfSpace,
    StorageError,
    Unavailable,
    Unsupported,
)
from storage.objects import folders
from storage.objects.base import (
    ANSWER_BYTES_MAX,
    Capabilities,
    Listing,
    ObjectInfo,
    answer_length,
    check_name,
    check_prefix,
    check_range,
)
from storage.objects.store_folder import StoreFolder

T = TypeVar("T")

_FULL = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG}
_STALE = {errno.ESTALE, errno.ENOTCONN, errno.ENODEV}
"""What is said of a folder whose filesystem went, and may have come back as another one."""

_DENIED = {errno.EACCES, errno.EPERM, errno.EROFS}
_NO_LINKS = {errno.EPERM, errno.EOPNOTSUPP, errno.ENOSYS, errno.EXDEV}
_BAD_NAME = {errno.ENAMETOOLONG, errno.ENOTDIR, errno.EISDIR}


class LocalStore:
    """Objects as files below `folder`, which the first write makes if it is not there."""

    def __init__(self, folder: Path, env: Env) -> None:
        self._folder = StoreFolder(folder, env)
        self._env = env

    @property
    def url(self) -> str:
        return self._folder.path.as_uri()

    @property
    def capabilities(self) -> Capabilities:
        return Capabilities(conditional_create=True)

    async def create(self, name: str, data: Buffer) -> None:
        check_name(name)
        await self._run(f"write {name}", self._create, name, data)

    async def put(self, name: str, data: Buffer) -> None:
        check_name(name)
        await self._run(f"write {name}", self._put, name, data)

    async def get(self, name: str, offset: int = 0, length: int | None = None, limit: int = ANSWER_BYTES_MAX) -> bytes:
        check_name(name)
        check_range(offset, length)
        return await self._run(f"read {name}", self._get, name, offset, length, limit)

    async def head(self, name: str) -> ObjectInfo:
        check_name(name)
        return await self._run(f"read {name}", self._head, name)

    async def delete(self, names: Sequence[str]) -> None:
        for name in names:
            check_name(name)
        await self._run("delete objects", self._delete, names)

    async def list(self, prefix: str, start_after: str = "", limit: int | None = None) -> list[ObjectInfo]:
        check_prefix(prefix)
        return await self._run(f"list {prefix}", self._list, prefix, start_after, limit)

    async def close(self) -> None:
        self._folder.close()
        await self._env.run("store", self._folder.release)

    async def _run(self, action: str, function: Callable[..., T], *arguments: object) -> T:
        return await self._env.run("store", self._call, action, function, *arguments)

    def _call(self, action: str, function: Callable[..., T], *arguments: object) -> T:
        """`function(*arguments)`, with what the system says turned into errors of this package."""
        with self._folder.in_use():
            try:
                return function(*arguments)
            except FileNotFoundError as error:
                self._folder.make_anew()
                raise Unavailable(f"cannot {action} in {self.url}: a folder of it was removed while in use") from error
            except OSError as error:
                if error.errno in _STALE:
                    self._folder.make_anew()
                raise self._error(action, error) from error

    def _create(self, name: str, data: Buffer) -> None:
        root, temporaries = self._folder.writable()
        self._folder.make(root, folders.parent(name))
        temporary, taken = temporaries.write(data), False
        with contextlib.ExitStack() as opened:
            try:
                # Now, and not before the data was written: a folder that was replaced meanwhile is another one.
                folder = opened.enter_context(folders.opened(root, folders.parent(name)))
                source, base = temporaries.descriptor, folders.base(name)
                os.link(temporary, base, src_dir_fd=source, dst_dir_fd=folder, follow_symlinks=False)
            except FileExistsError:
                taken = True
            except OSError as error:
                if error.errno in _NO_LINKS:
                    raise Unsupported(
                        f"the filesystem of {self._folder.path} cannot link files: {error.strerror}"
                    ) from error
                raise
            finally:
                temporaries.remove(temporary)
            # Where the name is taken too: the caller may find its own object there, and will count on it.
            os.fsync(folder)
        if taken:
            raise AlreadyExists(f"{name} is in {self.url} already")

    def _put(self, name: str, data: Buffer) -> None:
        root, temporaries = self._folder.writable()
        self._folder.make(root, folders.parent(name))
        temporary = temporaries.write(data)
        with contextlib.ExitStack() as opened:
            try:
                folder = opened.enter_context(folders.opened(root, folders.parent(name)))
                os.rename(temporary, folders.base(name), src_dir_fd=temporaries.descriptor, dst_dir_fd=folder)
            except OSError:
                temporaries.remove(temporary)
                raise
            os.fsync(folder)

    def _get(self, name: str, offset: int, length: int | None, limit: int) -> bytes:
        descriptor, size = self._open(name)
        try:
            wanted = answer_length(name, size, offset, length, limit)
            data = os.pread(descriptor, wanted, offset)
            while len(data) < wanted:  # Linux reads less than 2 GiB at a time
                more = os.pread(descriptor, wanted - len(data), offset + len(data))
                if not more:
                    raise Unavailable(f"{name} in {self.url} became shorter while it was read")
                data += more
            return data
        finally:
            os.close(descriptor)

    def _head(self, name: str) -> ObjectInfo:
        descriptor, _ = self._open(name)
        try:
            return _info(name, os.fstat(descriptor))
        finally:
            os.close(descriptor)

    def _list(self, prefix: str, start_after: str, limit: int | None) -> Listing:
        root = self._folder.readable()
        if root is None:
            return []
        there = folders.walk(root, folders.parent(prefix))
        names = [name for name in there if name.startswith(prefix) and name > start_after]
        found: Listing = []
        for parent, within in itertools.groupby(sorted(names)[:limit], folders.parent):
            with contextlib.suppress(FileNotFoundError), folders.opened(root, parent) as folder:
                for name in within:
                    with contextlib.suppress(FileNotFoundError):  # deleted meanwhile
                        status = os.stat(folders.base(name), dir_fd=folder, follow_symlinks=False)
                        found.append(_info(name, status))
        if not found:
            self._folder.check_presence(root)
        return found

    def _delete(self, names: Sequence[str]) -> None:
        root = self._folder.readable()
        if root is None:
            return
        by_folder: dict[str, list[str]] = {}
        for name in names:
            by_folder.setdefault(folders.parent(name), []).append(folders.base(name))
        for parent, within in by_folder.items():
            with contextlib.suppress(FileNotFoundError, NotADirectoryError), folders.opened(root, parent) as folder:
                _unlink(folder, within)

    def _open(self, name: str) -> tuple[int, int]:
        """A descriptor of an object's file, and its size in bytes."""
        root = self._folder.readable()
        if root is None:
            raise NotFound(f"there is no {name} in {self.url}")
        try:
            with folders.opened(root, folders.parent(name)) as folder:
                descriptor = _open_file(folder, name)
        except (FileNotFoundError, NotADirectoryError):
            self._folder.check_presence(root)
            raise NotFound(f"there is no {name} in {self.url}") from None
        status = os.fstat(descriptor)
        if not stat.S_ISREG(status.st_mode):
            os.close(descriptor)
            raise NotFound(f"there is no {name} in {self.url}")
        return descriptor, status.st_size

    def _error(self, action: str, error: OSError) -> StorageError:
        if isinstance(error, folders.FoundLink):
            return AccessDenied(
                f"cannot {action} in {self.url}: {self._folder.path / error.path} is a link, and links within a store "
                "are not followed: put what it leads to in its place (the folder of the whole store may be a link)"
            )
        reason = f"cannot {action} in {self.url}: {error.strerror}"
        if error.errno in _FULL:
            return OutOfSpace(f"{reason}; make room on its filesystem")
        if error.errno in _DENIED:
            return AccessDenied(f"{reason}; the folder and all in it must belong to this user")
        if error.errno in _BAD_NAME:
            return Invalid(reason)
        return Unavailable(reason)


def _open_file(folder: int, name: str) -> int:
    """A descriptor of an object's file, which is in that folder. FoundLink: it is a link."""
    try:
        return os.open(folders.base(name), os.O_RDONLY | os.O_NOFOLLOW, dir_fd=folder)
    except OSError as error:
        if error.errno == errno.ELOOP:
            raise folders.FoundLink(name) from error
        raise


def _unlink(folder: int, names: Sequence[str]) -> None:
    """Remove files of a folder, durably; those that are not there are none to remove."""
    changed = False
    for name in names:
        with contextlib.suppress(FileNotFoundError):
            os.unlink(name, dir_fd=folder)
            changed = True
    if changed:
        os.fsync(folder)


def _info(name: str, status: os.stat_result) -> ObjectInfo:
    """An object's file. Its age is that of the inode: a copy that keeps the times of files (`cp -a`, rsync, a backup)
    gives new objects old times, but not this one.
    """
    return ObjectInfo(name, status.st_size, status.st_ctime)
