"""Operations on the tree of names, as `operations` has them of devices."""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar

import msgspec

from nbdserver.admin.asked import NO_CLIENTS, Answer, Clients

if TYPE_CHECKING:
    from storage import Store


class ListFiles(msgspec.Struct, frozen=True, tag="list-files"):
    """What lies in a directory, or in all directories `below` it."""

    path: str
    below: bool = False
    writes: ClassVar[bool] = False

    async def perform(self, store: Store, clients: Clients = NO_CLIENTS) -> Answer:
        return {"files": [msgspec.to_builtins(one) for one in store.files.listing(self.path, below=self.below)]}


class ShowFile(msgspec.Struct, frozen=True, tag="show-file"):
    """What lies at a path."""

    path: str
    writes: ClassVar[bool] = False

    async def perform(self, store: Store, clients: Clients = NO_CLIENTS) -> Answer:
        return _shown(store, self.path)


class MakeDirectory(msgspec.Struct, frozen=True, tag="make-directory"):
    """A new directory."""

    path: str
    writes: ClassVar[bool] = True

    async def perform(self, store: Store, clients: Clients = NO_CLIENTS) -> Answer:
        await store.files.make_directory(self.path)
        return _shown(store, self.path)


class MakeLink(msgspec.Struct, frozen=True, tag="make-link"):
    """A new symbolic link at `path`."""

    target: str
    path: str
    writes: ClassVar[bool] = True

    async def perform(self, store: Store, clients: Clients = NO_CLIENTS) -> Answer:
        await store.files.link(self.target, self.path)
        return _shown(store, self.path)


class MoveFile(msgspec.Struct, frozen=True, tag="move-file"):
    """Another path for a file."""

    old: str
    new: str
    writes: ClassVar[bool] = True

    async def perform(self, store: Store, clients: Clients = NO_CLIENTS) -> Answer:
        await store.files.move(self.old, self.new)
        return _shown(store, self.new)


class RemoveFile(msgspec.Struct, frozen=True, tag="remove-file"):
    """A symbolic link or an empty directory goes."""

    path: str
    writes: ClassVar[bool] = True

    async def perform(self, store: Store, clients: Clients = NO_CLIENTS) -> Answer:
        await store.files.remove(self.path)
        return {"path": self.path}


class ChangeFile(msgspec.Struct, frozen=True, tag="change-file"):
    """New permission bits, owner or group."""

    path: str
    mode: int | None = None
    uid: int | None = None
    gid: int | None = None
    writes: ClassVar[bool] = True

    async def perform(self, store: Store, clients: Clients = NO_CLIENTS) -> Answer:
        await store.files.change(self.path, mode=self.mode, uid=self.uid, gid=self.gid)
        return _shown(store, self.path)


def _shown(store: Store, path: str) -> Answer:
    shown: Answer = msgspec.to_builtins(store.files.stat(path))
    return shown
