"""The tree of names of an open store, as a filesystem of directories, symbolic links and device files.

Each change is one record of the log; it is durable when the call returns. Paths are absolute, and devices lie below
`/.nbd`. Modes and owners are kept for whoever lists them: no access is decided by them.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from storage.env import Env
from storage.errors import Conflict
from storage.fs.metadata.device_plans import plan_rename_device
from storage.fs.metadata.file_plans import plan_attributes, plan_mkdir, plan_move, plan_remove, plan_symlink
from storage.fs.metadata.inodes import DEVICES, Inode, InodeKind
from storage.fs.metadata.path_walk import walk
from storage.fs.name_tree import NameTree
from storage.lsm.engine import Engine

BELOW = f"/{DEVICES}/"


@dataclass(frozen=True, slots=True)
class FileInfo:
    """One file as listed; size in bytes, times in seconds since 1970."""

    path: str
    kind: str
    """directory, device or symlink."""
    mode: int
    uid: int
    gid: int
    size: int
    """Of a device its own, of a symbolic link that of its text, of a directory 0."""
    target: str
    """What a symbolic link holds; nothing for anything else."""
    inode: int
    modified: float
    changed: float


class FileTree:
    """What people and programs see of the tree, by path, and what they change of it. Owned by the event loop."""

    def __init__(self, engine: Engine, tree: NameTree, env: Env, refuse_in_use: Callable[[str, str], None]) -> None:
        """`refuse_in_use` raises Conflict if clients are attached to the device of a name, and says what was to be
        done.
        """
        self._engine = engine
        self._tree = tree
        self._env = env
        self._refuse_in_use = refuse_in_use

    def stat(self, path: str) -> FileInfo:
        """What lies at a path; a symbolic link at its end is not followed. NotFound; Invalid: too many links."""
        table = self._tree.namespace.table
        trail = walk(table, path, follow=False)
        return self._info("/" + "/".join(name for name, _ in trail[1:]), table.inodes[trail[-1][1]])

    def listing(self, path: str, *, below: bool = False) -> list[FileInfo]:
        """What lies in a directory, in order of name, or what is no directory itself; with `below` also what lies in
        the directories in it, each after its own. A symbolic link to a directory is followed. NotFound, Invalid.
        """
        names = self._tree.namespace
        inode = names.resolve(path)
        if inode.kind is not InodeKind.DIRECTORY:
            return [self.stat(path)]
        found: list[FileInfo] = []
        pending = self._in(path.rstrip("/"), inode)[::-1]
        while pending:
            info = pending.pop()
            found.append(info)
            if below and info.kind == "directory":
                pending += self._in(info.path, names.table.inodes[info.inode])[::-1]
        return found

    async def make_directory(self, path: str) -> None:
        """A new, empty directory. NotFound, AlreadyExists, Conflict; Invalid: no such name may be."""
        await self._engine.change_tree(plan_mkdir(self._tree.namespace, path, self._env.wall_clock()))

    async def link(self, target: str, path: str) -> None:
        """A new symbolic link, to what need not be there; one below `/.nbd` to a device is another name of its export.
        NotFound, AlreadyExists, Conflict; Invalid: no such name or target may be.
        """
        await self._engine.change_tree(plan_symlink(self._tree.namespace, path, target, self._env.wall_clock()))

    async def remove(self, path: str) -> None:
        """A symbolic link or an empty directory goes. NotFound; Conflict: it is a device, or not empty."""
        await self._engine.change_tree(plan_remove(self._tree.namespace, path, self._env.wall_clock()))

    async def move(self, old: str, new: str) -> None:
        """Another path for a device that no client is attached to, for a symbolic link, or for a directory in which no
        devices are. NotFound, AlreadyExists, Conflict; Invalid: no such name may be.
        """
        names, now = self._tree.namespace, self._env.wall_clock()
        found = self.stat(old)
        if found.kind != "device":
            await self._engine.change_tree(plan_move(names, old, new, now))
            return
        if not found.path.startswith(BELOW) or not new.startswith(BELOW):
            raise Conflict(f"{old!r} is a device, and devices lie below /{DEVICES}")
        name = found.path.removeprefix(BELOW)
        self._refuse_in_use(name, "move it")
        await self._engine.change_tree(plan_rename_device(names, name, new.removeprefix(BELOW), now))

    async def change(
        self, path: str, *, mode: int | None = None, uid: int | None = None, gid: int | None = None
    ) -> None:
        """Permission bits, owner and group; None leaves one as it is. A symbolic link at the end is followed. NotFound;
        Invalid: out of range.
        """
        now = self._env.wall_clock()
        await self._engine.change_tree(plan_attributes(self._tree.namespace, path, now, mode=mode, uid=uid, gid=gid))

    def _in(self, path: str, directory: Inode) -> list[FileInfo]:
        table = self._tree.namespace.table
        entries = table.entries.get(directory.number, {})
        return [self._info(f"{path}/{name}", table.inodes[number]) for name, number in sorted(entries.items())]

    def _info(self, path: str, inode: Inode) -> FileInfo:
        return FileInfo(
            path=path,
            kind=inode.kind.name.lower(),
            mode=inode.mode,
            uid=inode.uid,
            gid=inode.gid,
            size=self._tree.namespace.size(inode),
            target=inode.target,
            inode=inode.number,
            modified=inode.mtime / 1e9,
            changed=inode.ctime / 1e9,
        )
